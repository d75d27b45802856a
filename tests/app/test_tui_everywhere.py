"""The terminal app in terminals of all kinds: sizes, colours, keys."""

from __future__ import annotations

import os
import re
import sys
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from terminal_user import User, at_the_terminal
from textual import events
from textual._xterm_parser import XTermParser
from textual.widgets import OptionList

from ondevice.chats import Chats
from ondevice.testing import FakeEngine
from tui.screens.dialogs import ChoiceScreen
from tui.textual_gaps import NO_LONGER, TELL_KEYS_APART
from tui.widgets.queue import Queue
from tui.widgets.status_bar import StatusBar

SIZES = [(20, 5), (40, 12), (60, 15), (80, 24), (200, 50), (33, 7), (120, 9)]


def app(chats: Chats, tmp_path: Path, **options: Any) -> AbstractAsyncContextManager[User]:
    model = tmp_path / "Tiny-1B.gguf"
    model.touch()
    return at_the_terminal(FakeEngine(), chats, model, **options)


def reversed_text(user: User) -> str:
    """What is drawn in reverse video, line by line."""
    return "\n".join(
        "".join(s.text for s in strip if s.style and s.style.reverse).rstrip()
        for strip in user.pilot.app.screen._compositor.render_strips()
    )


async def test_without_colours_what_is_chosen_is_reversed(
    chats: Chats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    for said in ("the first chat", "the second chat"):
        chats.say(chats.create(), said)
        chats.memory.add(f"noted: {said}")
    async with app(chats, tmp_path) as user:

        async def sees_chosen(chosen: str, *keys: str) -> None:
            await user.pilot.press(*keys)
            await user.until(lambda: chosen in reversed_text(user), f"{chosen} reversed")
            strips = user.pilot.app.screen._compositor.render_strips()
            styles = [s.style for strip in strips for s in strip if s.style]
            assert {str(c.name) for s in styles for c in (s.color, s.bgcolor) if c} == {"default"}

        await sees_chosen("/close", "/", "down")
        await sees_chosen("the first chat", "escape", "backspace", "ctrl+r", "down")
        await sees_chosen("Delete it\n", "f8", "down")
        await sees_chosen("Thinking", *["escape"] * 2, "f2", *["down"] * 3)
        await sees_chosen("Theme", "escape", "ctrl+p", *"theme")
        await user.pilot.press("escape")
        await user.says("Hi")
        await user.sees("Hello.")
        await user.is_idle()
        await user.pilot.press("ctrl+up", "up")
        await user.sees("█")  # thicker than the line beside other messages


async def test_the_prompt_is_in_view_at_any_size(chats: Chats, tmp_path: Path) -> None:
    async with app(chats, tmp_path) as user:
        screen = user.pilot.app.screen
        screen.query_one(Queue).show(["one", "two", "three", "four", "five"])
        for keys in (["/"], ["backspace", *["a", "ctrl+j"] * 12, "z"]):
            await user.pilot.press(*keys)
            for size in SIZES:
                await user.pilot.resize_terminal(*size)
                await user.pilot.pause()
                for widget in (user.prompt, screen.query_one(StatusBar)):
                    assert widget.region.height > 0
                    assert screen.region.contains_region(widget.region)
                assert not screen.show_vertical_scrollbar
                lines = re.compile(rf"[ │]{keys[-1]}( |$)", re.MULTILINE)
                await user.until(partial(lambda lines: lines.search(user.screen), lines), keys[-1])
        user.prompt.clear()
        await user.pilot.resize_terminal(20, 5)
        for key in ("ctrl+r", "ctrl+o", "f2"):
            await user.pilot.press(key, "x")
            await user.sees("x")
            await user.pilot.press("escape")


@pytest.mark.parametrize("open_list", ["chats", "settings", "commands", "palette", "themes"])
async def test_lists_have_pages_and_ends(chats: Chats, tmp_path: Path, open_list: str) -> None:
    for number in range(30):
        chats.say(chats.create(), f"chat {number}")
    keys = {"chats": "ctrl+r", "settings": "f2", "commands": "/", "palette": "ctrl+p"}
    async with app(chats, tmp_path) as user:
        if open_list == "themes":
            user.pilot.app.action_change_theme()
            await user.sees("Search for themes…")
        else:
            await user.pilot.press(keys[open_list])
        options = user.pilot.app.screen.query_one(OptionList)
        await user.until(lambda: options.highlighted == 0, "a list")
        last = options.option_count - 1
        for key, places in (
            ("end", range(last, last + 1)),
            ("home", range(1)),
            ("pagedown", range(2, last)),
            ("pageup", range(1)),
        ):
            await user.pilot.press(key)
            at = options.highlighted
            assert at in places, (key, at)


@pytest.mark.parametrize("size", [(40, 12), (80, 24)])
async def test_answers_are_in_view_below_any_question(
    chats: Chats, tmp_path: Path, size: tuple[int, int]
) -> None:
    question = "\n".join(["Forget?", *(f"{number}: {'words ' * 20}" for number in range(20))])
    async with app(chats, tmp_path, size=size) as user:
        user.pilot.app.push_screen(ChoiceScreen(question, "Keep", "Forget it"))
        await user.sees("Forget it ")
        await user.sees("PgDn reads on")
        for _ in range(20):
            await user.pilot.press("pagedown")
        await user.sees("19: words")
        await user.sees("Forget it ")


async def test_the_exact_word_of_a_command_wins(chats: Chats, tmp_path: Path) -> None:
    async with app(chats, tmp_path) as user:
        await user.says("/set")
        await user.sees("sampling.temperature = 0.6")


@pytest.mark.parametrize(
    ("sent", "key"),
    [
        ("\x1b\r", "alt+enter"),
        ("\x1b[13;3u", "alt+enter"),  # kitty
        ("\x1b[27;3;13~", "alt+enter"),  # xterm
        ("\x1b[13;2u", "shift+enter"),
        ("\x1b[27;2;13~", "shift+enter"),
        ("\n", "ctrl+j"),
    ],
)
async def test_enter_with_a_modifier_is_a_new_line(
    chats: Chats, tmp_path: Path, sent: str, key: str
) -> None:
    (event,) = XTermParser().feed(sent)
    assert isinstance(event, events.Key)
    assert event.key == key
    async with app(chats, tmp_path) as user:
        await user.pilot.press("a", key, "b")
        assert user.prompt.text == "a\nb"


async def test_joiners_are_typed(chats: Chats, tmp_path: Path) -> None:
    typed = "👩\u200d👧 ខ្ញុំ\u200bចង់ می\u200cخواهم א\u200f"
    async with app(chats, tmp_path) as user:
        for event in XTermParser().feed(f"{typed}\u202e"):
            user.pilot.app.post_message(event)
        await user.until(lambda: user.prompt.text == typed, typed)


@pytest.mark.skipif(sys.platform == "win32", reason="a pseudo-terminal")
def test_a_terminal_without_colours_is_sent_none(tmp_path: Path) -> None:
    from pty_terminal import PtyTerminal

    command = [sys.executable, "-m", "ondevice", "chat"]
    with PtyTerminal(command, env={**os.environ, "NO_COLOR": "1"}, cwd=tmp_path) as terminal:
        terminal.sees("Welcome")
        terminal.types("\x11")
        assert terminal.until_the_end() == 0
        written = terminal.written.decode()
    styles = re.findall(r"\x1b\[([\d;]*)m", written)
    codes = {int(code) for style in styles for code in style.split(";") if code}
    assert codes <= {*range(10), *range(21, 30), 39, 49}
    assert written.index(TELL_KEYS_APART) < written.index(NO_LONGER)
    assert "\x1b[?2004h" in written  # pastes are told from what is typed
