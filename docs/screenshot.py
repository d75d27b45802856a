"""Makes the README's screenshot: a real conversation in the app, drawn by Textual as SVG.

Usage: ``python docs/screenshot.py [MODEL]``.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from ondevice.chats import Chats
from ondevice.config import Settings
from ondevice.engine import Engine
from ondevice.engine.messages import Sampling
from ondevice.store import Database
from tui.app import OndeviceApp
from tui.screens.chat import ChatScreen

FILE = Path(__file__).with_suffix(".svg")
QUESTIONS = (
    "What is the capital of France?",
    "Write a Python function that reverses a string.",
)


async def shoot(model: str, folder: Path) -> None:
    database = Database(folder / "store.db")
    settings = Settings(model=model, sampling=Sampling(temperature=0))
    app = OndeviceApp(Engine(folder / "engine.log"), Chats(database), settings)
    async with app.run_test(size=(100, 30)) as pilot:
        screen = app.screen
        assert isinstance(screen, ChatScreen)
        for question in QUESTIONS:
            screen.prompt.text = question
            await pilot.press("enter")
            await pilot.pause()
            while screen.conversation.replying or screen.status.ram is None:
                await pilot.pause(0.1)
        await pilot.pause()
        app.save_screenshot(str(FILE))
    database.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(shoot(sys.argv[1] if sys.argv[1:] else Settings().model, Path(folder)))
