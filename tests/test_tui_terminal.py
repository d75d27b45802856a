"""What the app does to a real terminal, and what it does when the terminal vanishes."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import pytest

from ondevice.chats import Chats
from ondevice.store import Database

pytest.importorskip("termios", reason="needs pseudo-terminals")
from pty_terminal import PtyTerminal


def open_chat(home: Path, *replies: list[str | None], controlling: bool = True) -> PtyTerminal:
    home.mkdir(exist_ok=True)
    script = Path(__file__).with_name("fake_chat.py")
    command = [sys.executable, str(script), str(home / "store.db"), *map(json.dumps, replies)]
    root = str(Path(__file__).parent.parent)
    return PtyTerminal(command, env={**os.environ, "PYTHONPATH": root}, controlling=controlling)


@pytest.mark.parametrize("controlling", [True, False], ids=["told", "not told"])
def test_when_the_terminal_vanishes_the_reply_is_kept_and_the_app_ends(
    home: Path, controlling: bool
) -> None:
    with open_chat(home, ["One, two, ", None], controlling=controlling) as terminal:
        terminal.sees("anything")
        terminal.types("Count\r")
        terminal.sees("two,")
        terminal.vanish()
        assert terminal.process.wait(30) == 128 + signal.SIGHUP
    assert said(home) == ["Count", "One, two, "]


def test_when_it_is_told_to_end_it_leaves_the_terminal_as_it_was(home: Path) -> None:
    with open_chat(home, ["One, two, ", None]) as terminal:
        terminal.sees("anything")
        terminal.types("Count\r")
        terminal.sees("two,")
        terminal.process.terminate()
        assert terminal.until_the_end() == 128 + signal.SIGTERM
        assert terminal.written.rindex(b"\x1b[?1049l") > terminal.written.rindex(b"two,")
    assert said(home) == ["Count", "One, two, "]


def said(home: Path) -> list[str]:
    database = Database(home / "store.db")
    chats = Chats(database)
    messages = chats.load(chats.headings()[0].id).messages
    database.close()
    return [message.content for message in messages]
