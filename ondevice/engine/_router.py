"""The engine for any model: in a process of our own, or on a server."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from ondevice.engine._client import Engine
from ondevice.engine._protocol import EngineLike
from ondevice.messages import Event, Generate, Load, Loaded, Measure, Measured, Sizing


class AnyEngine:
    """An :class:`ondevice.engine.EngineLike` that is what the model of the last load takes."""

    def __init__(self) -> None:
        self._engine: EngineLike = Engine()

    @property
    def loaded(self) -> Loaded | None:
        return self._engine.loaded

    @property
    def sizing(self) -> Sizing | None:
        return self._engine.sizing

    @property
    def pid(self) -> int | None:
        return self._engine.pid

    def load(self, request: Load, on_progress: Callable[[float], None] | None = None) -> Loaded:
        if request.is_remote == isinstance(self._engine, Engine):
            self._engine.close()
            self._engine = _remote() if request.is_remote else Engine()
        return self._engine.load(request, on_progress)

    def generate(self, request: Generate) -> Iterator[Event]:
        return self._engine.generate(request)

    def measure(self, request: Measure) -> Measured:
        return self._engine.measure(request)

    def resize(self, budget: int | None) -> None:
        self._engine.resize(budget)

    def cancel(self) -> None:
        self._engine.cancel()

    def answer_now(self) -> None:
        self._engine.answer_now()

    def close(self) -> None:
        self._engine.close()


def _remote() -> EngineLike:
    from ondevice.engine._remote import RemoteEngine  # noqa: PLC0415 - HTTP takes a while to load

    return RemoteEngine(os.environ.get("ONDEVICE_API_KEY"))
