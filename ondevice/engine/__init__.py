"""The model in a process of its own, and the typed messages to it."""

from ondevice.engine._client import Engine
from ondevice.engine._protocol import EngineLike
from ondevice.engine._registry import Running, running
from ondevice.engine._router import AnyEngine

__all__ = ["AnyEngine", "Engine", "EngineLike", "Running", "running"]
