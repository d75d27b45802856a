"""Someone at the terminal, for the tests of the app: types and reads."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from textual import _wait, events
from textual.keys import _character_to_key
from textual.pilot import Pilot

from ondevice.chats import Chat, Chats
from ondevice.config import Settings
from ondevice.engine import EngineLike
from tui.app import OndeviceApp
from tui.screens.chat import ChatScreen
from tui.widgets.prompt import PromptInput
from tui.widgets.status_bar import StatusBar

PATIENCE = float(os.environ.get("ONDEVICE_TESTPATIENCE", "120"))  # seconds, on a busy machine


# After each key the pilot waits until the app is idle, twice. It looks every 20 ms: half of that
# shows as well whether it computes, and keys are most of what these tests wait for.
_wait.SLEEP_GRANULARITY, _wait.SLEEP_IDLE = 1 / 100, 1 / 200

_NAMES = {"\r": "enter", "\x1b": "escape"}  # of keys


class User:
    """Types and reads, through the app's own screen."""

    def __init__(self, pilot: Pilot[None]) -> None:
        self.pilot = pilot

    @property
    def screen(self) -> str:
        """What can be read on the screen."""
        lines = self.pilot.app.screen._compositor.render_strips()
        return "\n".join(strip.text.rstrip() for strip in lines)

    @property
    def status(self) -> str:
        return self.pilot.app.screen.query_one(StatusBar).render().plain

    @property
    def chat(self) -> ChatScreen:
        screen = self.pilot.app.screen
        assert isinstance(screen, ChatScreen)
        return screen

    @property
    def prompt(self) -> PromptInput:
        return self.pilot.app.screen.query_one(PromptInput)

    async def sees(self, text: str) -> None:
        """Wait until it is on the screen, wherever its lines are broken: a path may be long."""
        words = " ".join(text.split())
        await self.until(lambda: words in " ".join(self.screen.split()), text)

    async def until(self, condition: Callable[[], object], what: str) -> None:
        deadline = asyncio.get_running_loop().time() + PATIENCE
        while not condition():
            assert asyncio.get_running_loop().time() < deadline, f"{what!r} not in:\n{self.screen}"
            await self.pilot.pause(0.03)

    async def says(self, text: str) -> None:
        await self.types(text)
        await self.pilot.press("enter")

    async def types(self, text: str) -> None:
        """Key after key as a terminal gives them, without waiting for what each of them does.

        ``\r`` is Enter and ``\x1b`` is Escape.
        """
        driver = self.pilot.app._driver
        assert driver is not None
        for character in text:
            name = _NAMES.get(character) or (
                character if character.isalnum() else _character_to_key(character)
            )
            event = events.Key(name, character)
            event.set_sender(self.pilot.app)
            driver.send_message(event)
        await self.pilot.pause()

    async def is_idle(self) -> None:
        screen = self.chat
        await self.until(lambda: not screen.conversation.replying, "idle")
        await self.pilot.pause()


OpenApp = Callable[..., AbstractAsyncContextManager[User]]


@asynccontextmanager
async def at_the_terminal(
    engine: EngineLike,
    chats: Chats,
    model: Path | str,
    earlier: Chat | None = None,
    *,
    size: tuple[int, int] = (80, 24),
    first: bool = False,
    **settings: Any,
) -> AsyncIterator[User]:
    """The app with a model's file or name in its settings, in a terminal of columns and rows."""
    app = OndeviceApp(engine, chats, Settings(model=str(model), **settings), earlier, first=first)
    async with app.run_test(size=size, notifications=True) as pilot:
        yield User(pilot)
