"""The one engine of the app, whose requests wait for each other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress

from ondevice.engine import EngineLike
from ondevice.engine.messages import Event, Load, Loaded, Sizing
from tui.background import in_thread

_CLOSING = 2.0  # seconds in which a cancelled request should end


class SharedEngine:
    """An engine to be asked from the UI's loop. Hold ``free`` while asking."""

    def __init__(self, engine: EngineLike) -> None:
        self._engine = engine
        self.free = asyncio.Lock()
        self.cancel = engine.cancel
        self.resize = engine.resize

    @property
    def loaded(self) -> Loaded | None:
        """The model that is ready, or None."""
        return self._engine.loaded

    @property
    def sizing(self) -> Sizing | None:
        """How its RAM is used now; None for a model that is not here."""
        return self._engine.sizing

    @property
    def pid(self) -> int | None:
        """The engine's process, or None while there is none."""
        return self._engine.pid

    async def load(self, request: Load, on_progress: Callable[[float], None]) -> Loaded:
        """Load a model; ``on_progress`` gets fractions 0 … 1. Raises what the engine raises."""

        async def show(fractions: list[float]) -> None:
            on_progress(fractions[-1])

        return await in_thread(
            lambda put: self._engine.load(request, put), show, self._engine.cancel
        )

    async def stream(
        self,
        reply: Callable[[EngineLike], Iterator[Event]],
        show: Callable[[list[Event]], Awaitable[None]],
    ) -> None:
        """Show the events of a reply as they come. Raises what ``reply`` raises."""

        def play(put: Callable[[Event], None]) -> None:
            for event in reply(self._engine):
                put(event)

        await in_thread(play, show, self._engine.cancel)

    async def close(self) -> None:
        """End what is under way, then the engine."""
        self._engine.cancel()
        with suppress(TimeoutError):
            await asyncio.wait_for(self.free.acquire(), _CLOSING)
        await asyncio.to_thread(self._engine.close)
