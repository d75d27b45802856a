"""What the screens of the terminal app look like, in a usual and in a small terminal.

The pictures are text files in ``tests/screens``; ``ONDEVICE_TEST_ACCEPT=1`` writes them anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import tiny_model
from terminal_user import User, at_the_terminal

from ondevice import fit, models, paths
from ondevice.chats import Chats
from ondevice.config import FIRST, App
from ondevice.engine._fake import FakeEngine
from ondevice.engine.messages import Chunk, Notice
from ondevice.errors import EngineDied
from ondevice.ram.available import AvailableRam
from ondevice.store import Database

SIZES = [(80, 24), (40, 12)]
PICTURES = Path(__file__).with_name("screens")
REPLY = """\
Two ways, `sorted` and **sort**:

```python
names = sorted(names)  # a new list
```

| way | returns |
| --- | --- |
| sorted | a list |
| sort | None |
"""


@pytest.fixture
def chats(tmp_path: Path) -> Iterator[Chats]:
    database = Database(tmp_path / "store.db")
    yield Chats(database)
    database.close()


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a model on disk, whose path is the same wherever the tests run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONDEVICE_HOME", "home")
    tiny_model.write(paths.ensure_private(paths.models_dir() / "tiny-1b") / "tiny-1b.gguf")
    return "tiny-1b"


async def looks_like(name: str, user: User) -> None:
    """Wait until the screen is the picture of this name and of the terminal's size."""
    size = user.pilot.app.size
    picture = PICTURES / f"{name}-{size.width}x{size.height}.txt"

    def screen() -> str:
        seen = user.screen.replace("ansi-light  ", "textual-dark")  # one picture for all themes
        return re.sub(r"Thought for \d+ s", "Thought for 1 s", seen) + "\n"

    if os.environ.get("ONDEVICE_TEST_ACCEPT"):
        await user.pilot.pause(0.5)
        picture.write_text(screen(), encoding="utf-8")
    expected = picture.read_text(encoding="utf-8")
    await user.until(lambda: screen() == expected, f"the screen of {picture}")


@pytest.mark.parametrize("size", SIZES)
async def test_the_conversation(chats: Chats, model: str, size: tuple[int, int]) -> None:
    engine = FakeEngine(
        [Chunk(text="They want to sort.", part="thinking"), REPLY],
        [
            Notice(text="Two messages were left out: the context is full."),
            "It is",
            EngineDied("The engine stopped unexpectedly: it crashed in native code."),
        ],
    )
    async with at_the_terminal(engine, chats, model, size=size) as user:
        await user.until(lambda: "ctx" in user.status, "loaded")
        await looks_like("welcome", user)
        await user.says("How do I sort?")
        await user.is_idle()
        await looks_like("reply", user)
        await user.says("And backwards?")
        await user.is_idle()
        await looks_like("died", user)


@pytest.mark.parametrize("size", SIZES)
async def test_the_models(
    chats: Chats, model: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [recipe for recipe in models.catalogue() if recipe.name == FIRST]
    monkeypatch.setattr(models, "catalogue", lambda: known)
    ram = AvailableRam(4_000_000_000, 3_000_000_000, "all RAM of this machine")
    monkeypatch.setattr(fit, "usable_ram", lambda _: ram)
    async with at_the_terminal(FakeEngine(), chats, model, size=size) as user:
        await user.until(lambda: "ctx" in user.status, "loaded")
        await user.pilot.press("ctrl+l")
        await user.sees("best that fits")
        await looks_like("models", user)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("theme", ["textual-dark", "ansi-light"])
async def test_the_dialogs(chats: Chats, model: str, size: tuple[int, int], theme: str) -> None:
    """They look alike in all themes but for the colours."""
    at = datetime(2025, 5, 2, 12, tzinfo=UTC)
    for said in ("The bins go out on Monday.", "世界 means world, שלום means peace."):
        chats.memory.add(said, at=at)
    async with at_the_terminal(
        FakeEngine(), chats, model, size=size, first=True, app=App(theme=theme)
    ) as user:
        for name, keys in (
            ("guide", ()),
            ("help", ("escape", "f1")),
            ("settings", ("escape", "f2")),
            ("memory", ("escape", "ctrl+o")),
            ("filter", ("f4",)),
        ):
            await user.pilot.press(*keys)
            await looks_like(name, user)
