"""Makes the README's pictures: the app with real models, drawn by Textual as SVG.

Usage: ``python bench/pictures/screenshot.py [BIG]``. The pictures go to ``docs/``. The chat is with
the smallest model of the catalogue, which must be on disk. ``BIG`` is a GGUF file for the picture
of the RAM and the recording: it begins with half of the RAM that it would like to have, which is
moved while it replies.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from recording import Recording
from textual.pilot import Pilot

from ondevice.chats import Chats
from ondevice.config import FIRST, Settings
from ondevice.engine import Engine
from ondevice.messages import Sampling
from ondevice.store import Database
from tui.app import OndeviceApp
from tui.screens.chat import ChatScreen

FOLDER = Path(__file__).parents[2] / "docs"
SIZE, WIDE = (100, 30), (130, 34)  # columns and rows
QUESTIONS = (
    "What is the capital of France?",
    "Write a Python function that reverses a string.",
)
SAID = (
    "I moved to Lisbon in March, so the old address is no longer right.",
    "My sister Ana is allergic to peanuts.",
    "The garden tools are in the left half of the shed.",
    "I work four days a week, Fridays are for the children.",
)
EARLIER = (
    "Where do the bins go on Mondays?",
    "A trip to Lisbon in March",
    "What is the difference between sorted and sort?",
    "Recipe for a lentil soup",
)
_FIXED = 250_000_000  # bytes beside the weights, about
_FRAMES, _EVERY = 40, 0.4  # of the recording, and seconds between them


@asynccontextmanager
async def app_with(
    model: str, size: tuple[int, int], **settings: Any
) -> AsyncIterator[Pilot[None]]:
    """The app in an empty store, with the model loaded."""
    with tempfile.TemporaryDirectory() as folder:
        database = Database(Path(folder) / "store.db")
        engine = Engine(Path(folder) / "engine.log")
        greedy = Sampling(temperature=0)
        app = OndeviceApp(
            engine, Chats(database), Settings(model=model, sampling=greedy, **settings)
        )
        async with app.run_test(size=size) as pilot:
            while engine.loaded is None or chat(pilot).status.ram is None:
                await pilot.pause(0.1)
            yield pilot
        database.close()


def chat(pilot: Pilot[None]) -> ChatScreen:
    screen = pilot.app.screen_stack[0]
    assert isinstance(screen, ChatScreen)
    return screen


async def ask(pilot: Pilot[None], question: str) -> None:
    chat(pilot).prompt.text = question
    await pilot.press("enter")
    await pilot.pause()


async def shoot_chat(pilot: Pilot[None]) -> None:
    store = chat(pilot).store
    for said in EARLIER:
        store.say(store.create(), said)
    store.pin(store.headings()[-1].id, True)
    await pilot.press("ctrl+r", "escape")
    for question in QUESTIONS:
        await ask(pilot, question)
        while chat(pilot).conversation.replying:
            await pilot.pause(0.1)
    save(pilot, "screenshot")


async def shoot_models(pilot: Pilot[None]) -> None:
    await pilot.press("ctrl+l")
    await pilot.pause(5)  # until all of them are planned
    await pilot.press("down")
    await pilot.pause()
    save(pilot, "screenshot-models")
    await pilot.press("escape")


async def shoot_memory(pilot: Pilot[None]) -> None:
    store = chat(pilot).store
    for said in SAID:
        store.say(store.create(), said)
    await pilot.press("ctrl+o")
    await pilot.pause(1)
    save(pilot, "screenshot-memory")
    await pilot.press("escape")


async def shoot_ram(pilot: Pilot[None]) -> None:
    """The panel, and a recording: the model is made smaller, and then larger again."""
    await ask(pilot, "Write a long story about the sea.")
    await pilot.press("ctrl+g")
    while (chat(pilot).status.estimate or 0) == 0:
        await pilot.pause(0.1)
    recording = Recording(pilot.app)
    for frame in range(_FRAMES):
        if frame in range(6, 18):
            await pilot.press("left")
        elif frame in range(26, 38):
            await pilot.press("right")
        await pilot.pause(_EVERY)
        recording.look()
        if frame == 4:
            save(pilot, "screenshot-ram")
    recording.write(FOLDER / "recording.svg")
    await pilot.press("escape", "escape")


def save(pilot: Pilot[None], name: str) -> None:
    pilot.app.save_screenshot(str(FOLDER / f"{name}.svg"))


async def main(big: Path | None) -> None:
    async with app_with(FIRST, WIDE) as pilot:
        await shoot_chat(pilot)
    async with app_with(FIRST, SIZE) as pilot:
        await shoot_memory(pilot)
        await shoot_models(pilot)
    if big:
        limit = str(big.stat().st_size // 2 + _FIXED)
        async with app_with(str(big), WIDE, ram=limit, draft="none") as pilot:
            await shoot_ram(pilot)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]) if sys.argv[1:] else None))
