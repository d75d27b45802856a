"""The model in a process of its own, and the typed messages to it."""

from ondevice.engine._any import AnyEngine
from ondevice.engine._client import Engine
from ondevice.engine._protocol import EngineLike
from ondevice.engine._running import Running, running

__all__ = ["AnyEngine", "Engine", "EngineLike", "Running", "running"]
