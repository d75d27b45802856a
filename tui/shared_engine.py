"""The one engine of the app: requests wait for each other, and what is not urgent for them all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

from ondevice.chats import recalling
from ondevice.engine import EngineLike
from ondevice.messages import Event, Load, Loaded, Sizing
from tui.background import end_of, in_thread

_Result = TypeVar("_Result")

_CLOSING = 2.0  # seconds in which a cancelled request should end


async def _ready() -> bool:
    """Nobody loads a model here, so the engine itself may say what is missing."""
    return True


class SharedEngine:
    """An engine to be asked from the UI's loop, within ``turn``."""

    def __init__(self, engine: EngineLike) -> None:
        self._engine = engine
        self._free = asyncio.Lock()
        self._aside: asyncio.Task[object] | None = None
        self.title = ""
        """What the user knows the model as; empty: none was loaded yet."""
        self.make_ready: Callable[[], Awaitable[bool]] = _ready
        """Has a model loaded before a reply, if there is none; whether there is one then."""
        self.cancel = engine.cancel
        self.answer_now = engine.answer_now
        self.resize = engine.resize

    @property
    def loaded(self) -> Loaded | None:
        """The model that is ready, or None."""
        return self._engine.loaded

    @property
    def n_ctx(self) -> int | None:
        """Tokens that the context holds, which may grow; None: no model, or it is not known."""
        loaded = self._engine.loaded
        return (loaded.n_ctx or None) if loaded else None

    @property
    def sizing(self) -> Sizing | None:
        """How its RAM is used now; None for a model that is not here."""
        return self._engine.sizing

    @property
    def pid(self) -> int | None:
        """The engine's process, or None while there is none."""
        return self._engine.pid

    @property
    def is_busy(self) -> bool:
        """Whether somebody has the turn, or what is done aside has it."""
        return self._free.locked()

    @asynccontextmanager
    async def counting(self) -> AsyncIterator[Callable[[str], int]]:
        """What counts tokens: as the model does if nobody else has the engine now, or else about.

        Nobody waits long for it, and it waits for nobody.
        """
        if self._free.locked() or self._engine.loaded is None:
            yield recalling.about
            return
        async with self._free:
            yield recalling.counter(self._engine)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Have the engine for oneself, once those who came before are done."""
        if self._aside:
            self._aside.cancel()
        async with self._free:
            yield

    async def aside(self, work: Callable[[EngineLike], _Result]) -> _Result | None:
        """Do something if the engine is free; given up, with None, when anybody else wants it.

        Raises what ``work`` raises.
        """
        if self._free.locked():
            return None

        async def show(_: list[object]) -> None:
            """There is nothing to show on the way."""

        async with self._free:
            task = asyncio.ensure_future(
                in_thread(lambda _: work(self._engine), show, self._engine.cancel)
            )
            self._aside = task
            try:
                await asyncio.wait([task])
            finally:
                self._aside = None
                if not task.done():
                    task.cancel()
                    await end_of(task)
            return None if task.cancelled() else task.result()

    async def ask(self, work: Callable[[EngineLike], _Result]) -> _Result:
        """Do something that is soon done, in its turn. Raises what ``work`` raises."""

        async def show(_: list[object]) -> None:
            """There is nothing to show on the way."""

        async with self.turn():
            return await in_thread(lambda _: work(self._engine), show, self._engine.cancel)

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
            await asyncio.wait_for(self._free.acquire(), _CLOSING)
        await asyncio.to_thread(self._engine.close)
