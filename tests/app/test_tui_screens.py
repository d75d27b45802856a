"""What the screens of the terminal app look like, at three sizes and in two themes.

The pictures are text files in ``screens``: what is to be read, then for each theme how it is
coloured. ``ONDEVICE_TEST_ACCEPT=1`` writes them anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import pytest
import shapes
import tiny_model
from msgspec.structs import replace
from rich.cells import cell_len
from sizings import sizing_of
from terminal_user import User, at_the_terminal
from textual.widgets import Input, TextArea

from ondevice import gguf, models, paths
from ondevice.chats import Chats
from ondevice.config import FIRST, App
from ondevice.errors import EngineDied
from ondevice.holding.window.placement import least_bytes, most_bytes
from ondevice.messages import Chunk, Notice
from ondevice.models import _library
from ondevice.ram import available
from ondevice.ram.available import AvailableRam
from ondevice.testing import FakeEngine
from tui.screens import ram as ram_screen

Test = TypeVar("Test", bound=Callable[..., Awaitable[None]])

SIZES = [(80, 24), (40, 12), (160, 50)]
THEMES = ["textual-dark", "ansi-light"]
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
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a model on disk, whose path is the same wherever the tests run."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ONDEVICE_HOME", "home")
    tiny_model.write(paths.ensure_private(paths.models_dir() / "tiny-1b") / "tiny-1b.gguf")
    return "tiny-1b"


async def looks_like(name: str, user: User) -> None:
    """Wait until the screen is the picture of this name, of the terminal's size and the theme."""
    app = user.pilot.app
    picture = PICTURES / f"{name}-{app.size.width}x{app.size.height}.txt"
    if os.environ.get("ONDEVICE_TEST_ACCEPT"):
        for _ in range(30):
            _hold_cursors(user)
            await user.pilot.pause(0.05)
        kept = _parts(picture.read_text(encoding="utf-8")) if picture.exists() else {}
        kept.setdefault("", _text(user))
        if app.theme == THEMES[0]:
            kept[""] = _text(user)
        own = "" if _text(user) == kept[""] else f"{_text(user)}---\n"
        kept[app.theme] = f"{own}{_styles(user)}"
        pieces = [kept.pop(""), *(f"=== {theme}\n{kept[theme]}" for theme in sorted(kept))]
        picture.write_text("".join(pieces), encoding="utf-8")
    parts = _parts(picture.read_text(encoding="utf-8"))
    own, _, styles = parts[app.theme].rpartition("---\n")
    await user.until(lambda: _text(user) == (own or parts[""]), f"the screen of {picture}")
    await user.until(
        lambda: _styles(user) == styles,
        f"the styles of {picture} in {app.theme}, which are\n{_styles(user)}\n",
    )


def _parts(picture: str) -> dict[str, str]:
    """The text of a picture by "", and its styles by the name of the theme.

    Before them stands the text once more where it is another one in this theme.
    """
    text, *others = picture.split("=== ")
    return {"": text, **{theme: rest for theme, _, rest in (o.partition("\n") for o in others)}}


def _hold_cursors(user: User) -> None:
    """Show the cursor of the field in focus, and none below a dialog, as they blink otherwise."""
    for screen in user.pilot.app.screen_stack:
        for field in (*screen.query(Input), *screen.query(TextArea)):
            field._pause_blink(visible=field.has_focus and screen is user.pilot.app.screen)


def _text(user: User) -> str:
    _hold_cursors(user)
    seen = user.screen.replace("ansi-light  ", "textual-dark")  # the name, in the settings
    seen = re.sub(r"\d\d \w{3} \d{4} \d\d:\d\d", "02 May 2025 12:00", seen)
    return re.sub(r"Thought for \d+ s", "Thought for 1 s", seen) + "\n"


def _styles(user: User) -> str:
    """A letter for each style, then line by line how many cells have it; like lines only once."""
    _hold_cursors(user)
    letters: dict[str, str] = {}
    lines: list[tuple[int, int, str]] = []
    for number, strip in enumerate(user.pilot.app.screen._compositor.render_strips(), 1):
        runs: list[tuple[str, int]] = []
        for segment in strip:
            style = str(segment.style.clear_meta_and_links()) if segment.style else "none"
            letter = letters.setdefault(style, _letter(len(letters)))
            count = cell_len(segment.text)
            if runs and runs[-1][0] == letter:
                runs[-1] = (letter, runs[-1][1] + count)
            elif count:
                runs.append((letter, count))
        drawn = " ".join(f"{count}{letter}" for letter, count in runs)
        if lines and lines[-1][2] == drawn:
            lines[-1] = (lines[-1][0], number, drawn)
        else:
            lines.append((number, number, drawn))
    legend = [f"{letter}: {style}" for style, letter in letters.items()]
    drawn_lines = [f"{a}–{b} {drawn}" if a < b else f"{a} {drawn}" for a, b, drawn in lines]
    return "\n".join([*legend, *drawn_lines]) + "\n"


def _letter(number: int) -> str:
    return chr(ord("a") + number) if number < 26 else f"a{_letter(number - 26)}"


def all_sizes_and_themes(test: Test) -> Test:
    for name, values in (("theme", THEMES), ("size", SIZES)):
        test = pytest.mark.parametrize(name, values)(test)
    return test


@all_sizes_and_themes
async def test_the_conversation(
    chats: Chats, model: str, size: tuple[int, int], theme: str
) -> None:
    engine = FakeEngine(
        [Chunk(text="They want to sort.", part="thinking"), REPLY],
        [
            Notice(text="Two messages were left out: the context is full."),
            "It is",
            EngineDied("The engine stopped unexpectedly: it crashed in native code."),
        ],
        ["It is `reversed`."],
    )
    async with at_the_terminal(engine, chats, model, size=size, app=App(theme=theme)) as user:
        await user.until(lambda: "ctx" in user.status, "loaded")
        await looks_like("welcome", user)
        await user.says("How do I sort?")
        await user.is_idle()
        await looks_like("reply", user)
        await user.says("And backwards?")
        await user.is_idle()
        await looks_like("died", user)
        await user.says("/again")
        await user.is_idle()
        await user.pilot.press("ctrl+up", "up")
        await looks_like("marked", user)
        await user.pilot.press("escape", "ctrl+n", "/", "e")
        await looks_like("commands", user)


@all_sizes_and_themes
async def test_the_chats(chats: Chats, model: str, size: tuple[int, int], theme: str) -> None:
    for said in ("שלום 世界", "Where do the bins go on Mondays?", "How do I sort?"):
        chats.say(chats.create(), said)
    found = chats.headings()
    chats.pin(found[1].id, True)
    earlier = chats.load(found[1].id)
    async with at_the_terminal(
        FakeEngine(), chats, model, earlier, size=size, app=App(theme=theme)
    ) as user:
        await user.until(lambda: "ctx" in user.status, "loaded")
        for name, keys in (
            ("chats", ("ctrl+r",)),
            ("rename", ("f2",)),
            ("delete", ("escape", "f8")),
            ("find", ("escape", "escape", "ctrl+f", "b", "i", "n", "s")),
        ):
            await user.pilot.press(*keys)
            await looks_like(name, user)


@all_sizes_and_themes
async def test_the_ram(
    chats: Chats, tmp_path: Path, size: tuple[int, int], theme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ram_screen, "_LOOK", 3600)  # so that the lines have one value each
    path = shapes.write(tmp_path, next(iter(shapes.SHAPES)))
    file = gguf.read(path)
    engine = FakeEngine()
    budget = (least_bytes(file) + most_bytes(file)) // 2
    engine.sizing = replace(sizing_of(file, budget), limit_bytes=4_000_000_000)
    async with at_the_terminal(engine, chats, path, size=size, app=App(theme=theme)) as user:
        await user.until(lambda: engine.loaded is not None, "loaded")
        await user.pilot.press("ctrl+g")
        await looks_like("ram", user)


@all_sizes_and_themes
async def test_the_models(
    chats: Chats, model: str, size: tuple[int, int], theme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [recipe for recipe in models.catalogue() if recipe.name == FIRST]
    monkeypatch.setattr(_library, "catalogue", lambda: known)
    ram = AvailableRam(4_000_000_000, 3_000_000_000, "all RAM of this machine")
    monkeypatch.setattr(available, "look", lambda: ram)
    async with at_the_terminal(FakeEngine(), chats, model, size=size, app=App(theme=theme)) as user:
        await user.until(lambda: "ctx" in user.status, "loaded")
        await user.pilot.press("ctrl+l")
        await user.sees("ecommended")
        await looks_like("models", user)


@all_sizes_and_themes
async def test_the_dialogs(chats: Chats, model: str, size: tuple[int, int], theme: str) -> None:
    at = datetime(2025, 5, 2, 12, tzinfo=UTC)
    for said in ("The bins go out on Monday.", "世界 means world, שלום means peace."):
        chats.memory.add(said, at=at)
    async with at_the_terminal(
        FakeEngine(), chats, model, size=size, first=True, app=App(theme=theme)
    ) as user:
        await looks_like("guide", user)
        await user.pilot.press("escape")
        await user.until(  # the help names Esc while a model is loaded
            lambda: "ctx 0/" in user.screen and not user.chat.check_action("stop", ()), "loaded"
        )
        for name, keys in (
            ("help", ("f1",)),
            ("settings", ("escape", "f2")),
            ("prompts", ("enter",)),
            ("keys", ("escape", *"key: fi", "enter")),
            ("memory", ("escape", "escape", "ctrl+o")),
            ("filter", ("f4",)),
        ):
            await user.pilot.press(*("space" if key == " " else key for key in keys))
            await looks_like(name, user)
