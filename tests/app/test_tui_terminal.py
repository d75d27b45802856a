"""What the app does to a real terminal, and what it does when the terminal vanishes."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from ondevice.chats import Attachment, Chats
from ondevice.store import Database

pytest.importorskip("termios", reason="needs pseudo-terminals")
import tiny_model
from pty_terminal import PtyTerminal
from source_tree import FAKE_CHAT, ROOT


def open_chat(
    home: Path, *replies: list[str | None], shell: bool = False, **options: Any
) -> PtyTerminal:
    """The app in a terminal; or a ``shell``, which runs it with ``eval "$CHAT"``."""
    home.mkdir(exist_ok=True, parents=True)
    command = [sys.executable, str(FAKE_CHAT), str(home / "store.db"), *map(json.dumps, replies)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    if shell:
        env |= {"PS1": "$ ", "HISTFILE": "", "CHAT": shlex.join(command)}
        command = ["bash", "--norc", "--noprofile", "-i"]
    return PtyTerminal(command, env=env, cwd=home, **options)


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


@pytest.mark.parametrize("signal_", [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
def test_told_to_end_at_its_start_it_leaves_the_title_as_it_was(home: Path, signal_: int) -> None:
    with open_chat(home, ["Fine."]) as terminal:
        terminal.sees("\x1b[22;2t")  # keep the title
        terminal.process.send_signal(signal_)
        assert terminal.until_the_end() == 128 + signal_
    assert terminal.written.rfind(b"\x1b]2;") < terminal.written.rindex(b"\x1b[23;2t")


_INTERRUPTED_BEFORE_IT_DRAWS = """
import os, signal
from ondevice.__main__ import main
from tui.driver import TerminalDriver

start = TerminalDriver.start_application_mode

def interrupted(self):
    os.kill(os.getpid(), signal.SIGINT)
    start(self)

TerminalDriver.start_application_mode = interrupted
main()
"""


def test_ctrl_c_before_the_app_reads_keys_ends_with_130() -> None:
    command = [sys.executable, "-c", _INTERRUPTED_BEFORE_IT_DRAWS, "chat"]
    with PtyTerminal(command, env={**os.environ, "PYTHONPATH": str(ROOT)}) as terminal:
        assert terminal.until_the_end() == 128 + signal.SIGINT
    assert b"Traceback" not in terminal.written


def test_errors_that_go_to_a_file_leave_the_screen_where_it_is(home: Path) -> None:
    with open_chat(home, ["Fine."], errors=home / "errors.txt") as terminal:
        terminal.sees("anything")
        terminal.types("\x11")
        assert terminal.until_the_end() == 0
    assert (home / "errors.txt").read_bytes() == b""


def test_no_process_stays_behind_whenever_the_terminal_vanishes(home: Path) -> None:
    """The kernel then sends SIGHUP and SIGCONT, in whatever the app does, such as to quit."""
    with ExitStack() as stack:
        terminals = [
            stack.enter_context(open_chat(home / str(place), ["One, two, ", None]))
            for place in range(4)
        ]
        for place, terminal in enumerate(terminals):
            terminal.sees("anything")
            if place % 2:
                terminal.types("Count\r")
                terminal.sees("two,")
        for place, terminal in enumerate(terminals):
            terminal.types("\x11")
            time.sleep(0.05 * place)  # the moment is what is tried out
            terminal.vanish()
        for terminal in terminals:
            assert terminal.process.wait(30) in (0, 128 + signal.SIGHUP, -signal.SIGHUP)


def test_the_app_ends_if_the_terminal_vanished_untold_before_it_ran(home: Path) -> None:
    """As under nohup, where SIGHUP is ignored."""
    with open_chat(home, [], controlling=False) as terminal:
        terminal.vanish()
        assert terminal.process.wait(60) == 128 + signal.SIGHUP


def test_what_is_typed_comes_back_after_a_kill(home: Path) -> None:
    with open_chat(home, ["Fine."]) as terminal:
        terminal.sees("anything")
        terminal.types("half a tho")
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and drafts(home) != ["half a tho"]:
            terminal.reads()
        terminal.process.kill()
        terminal.until_the_end()
    with open_chat(home, ["Fine."]) as terminal:
        terminal.sees("half a tho")
        terminal.types("ught\r")
        terminal.sees("Fine.")
        terminal.types("\x11")
        assert terminal.until_the_end() == 0
    assert said(home) == ["half a thought", "Fine."]


def test_it_is_suspended_and_comes_back_in_mid_reply(home: Path) -> None:
    with open_chat(home, ["One, ", "two. ", None, "three."], shell=True) as terminal:
        terminal.sees("$ ")
        terminal.types('eval "$CHAT"\r')
        terminal.sees("anything")
        terminal.types("Count\r")
        terminal.sees("two.")
        terminal.types("half\x1a")
        terminal.sees("Stopped")
        assert terminal.written.rindex(b"\x1b[?1049l") < terminal.written.rindex(b"Stopped")
        terminal.written = b""
        terminal.types("fg\r")
        terminal.sees("two.")
        terminal.sees("half")
        terminal.types("\x1b[27u")
        terminal.sees("Stopped.")
        terminal.written = b""
        terminal.types("\x11")
        terminal.sees("$ ")
        terminal.types("exit\r")
        terminal.until_the_end()
    assert said(home) == ["Count", "One, two. "]


def drafts(home: Path) -> list[str]:
    database = Database(home / "store.db")
    with database.read() as connection:
        rows = connection.execute("SELECT draft FROM open_tab").fetchall()
    database.close()
    return [row["draft"] for row in rows]


def test_a_byte_that_is_no_text_ends_nothing(home: Path) -> None:
    with open_chat(home, ["Fine."]) as terminal:
        terminal.sees("anything")
        terminal.types("A caf\udce9, \udcff, and more\r")
        terminal.sees("Fine.")
        terminal.types("\x11")
        assert terminal.until_the_end() == 0
    assert said(home) == ["A caf\ufffd, \ufffd, and more", "Fine."]


@pytest.mark.parametrize("piece", [1, 7, 4096])
def test_nothing_in_a_paste_is_a_press_of_a_key(home: Path, piece: int) -> None:
    """What follows an ESC in it was taken for keys: this sent the first line, and went on."""
    pasted = "one \x1b[31mtwo\x1b]0;title\x07\r\x1b\rthree \x1b[200~é\x1b"
    typed = f"\x1b[200~{pasted}\x1b[201~ four".encode()
    with open_chat(home, ["Fine."]) as terminal:
        terminal.sees("anything")
        for at in range(0, len(typed), piece):
            terminal.types(typed[at : at + piece].decode(errors="surrogateescape"))
            time.sleep(0.001)  # so that it arrives in pieces
        terminal.sees("four")
        terminal.types("\r")
        terminal.sees("Fine.")
        terminal.types("\x11")
        assert terminal.until_the_end() == 0
    assert said(home) == ["one [31mtwo]0;title\n\nthree [200~é four", "Fine."]


@pytest.mark.parametrize("mouse", [True, False])
def test_the_mouse_may_stay_the_terminals_own(home: Path, mouse: bool) -> None:
    home.mkdir()
    model = tiny_model.write(home / "tiny.gguf")
    command = [sys.executable, "-m", "ondevice", "chat", "--model", str(model)]
    env = {**os.environ, "ONDEVICE_APP_MOUSE": str(mouse).lower()}
    with PtyTerminal(command, env=env, cwd=ROOT) as terminal:
        terminal.sees("anything")
        terminal.types("\x11")
        assert terminal.until_the_end() == 0
    assert (b"\x1b[?1000h" in terminal.written) == mouse


@pytest.mark.parametrize("term", ["dumb", "unknown"])
def test_a_terminal_without_a_screen_gets_a_sentence(home: Path, term: str) -> None:
    """As in a shell within an editor."""
    with PtyTerminal([sys.executable, "-m", "ondevice", "chat"], env=os.environ, term=term) as it:
        assert it.until_the_end() == 2
    assert b"Use \xe2\x80\x9condevice ask\xe2\x80\x9d here" in it.written
    assert b"\x1b" not in it.written


def said(home: Path) -> list[str]:
    database = Database(home / "store.db")
    chats = Chats(database)
    messages = chats.load(chats.headings()[0].id).messages
    database.close()
    return [message.content for message in messages]


#: Each of them does something to a terminal: sets its title or clipboard, has it answer, clears or
#: resets it, changes colours, moves the cursor, rings; some in the 8-bit spelling.
HOSTILE = (
    "\x1b]0;owned\x07\x1b]52;c;b3duZWQ=\x1b\\\x1b[6n\x1b[2J\x1bc\x1bP1$r\x1b\\\x1b_G\x1b\\"
    "\x1b[31;5;7m\x9b31;5;7m\x9d0;owned\x9c\x90\x07\x08\r\x0b\x7f"
)
#: What the app itself may send: colours, places, modes, questions, the shape of the pointer.
_ALLOWED = re.compile(
    rb"\x1b\]2;[^\x00-\x1f\x7f]*\x07|\x1b\[2[23];2t|"  # the title of the terminal
    rb"\x1b\[>?[0-9;]*[mH]|\x1b\[\?[0-9;]+[hl]|\x1b\[\?[0-9]+\$p|"
    rb"\x1b\[[<>]?[0-9;]*u|\x1b\]22;[a-z-]+\x07"
)


def hostile(marker: str) -> str:
    return f"{marker}{HOSTILE}"


def test_no_escape_sequence_of_others_reaches_the_terminal(home: Path) -> None:
    """From replies, titles, memories and names of files and models."""
    home.mkdir()
    database = Database(home / "store.db")
    chats = Chats(database)
    earlier = chats.create()
    chats.say(earlier, hostile("EARLIER"), [Attachment(hostile("ATTACHED"), hostile("text"))])
    chats.rename(earlier, hostile("TITLED"))
    chats.memory.add(hostile("REMEMBERED"))
    database.close()
    name = HOSTILE.replace("/", "")
    (home / f"A{name}.gguf").touch()  # the model
    folder = Path.home() / ".lmstudio" / "models" / "them" / "it"
    folder.mkdir(parents=True)
    tiny_model.write(folder / "LISTED.gguf")
    tiny_model.write(folder / f"ALSO{name}.gguf")
    (home / "FILED.txt").write_text(hostile("text"))
    (home / f"F{name}.txt").touch()
    reply = (
        hostile("ANSWERED") + f"\n```py\n{hostile('CODED')}\n```\n| {hostile('TABLED')} |\n|-|\n"
    )
    with open_chat(home, [reply]) as terminal:
        terminal.sees("anything")
        terminal.types("Look at @F")
        terminal.sees("FILED.txt")
        terminal.types("\t and say\r")
        terminal.sees("ANSWERED")
        terminal.sees("CODED")
        terminal.sees("TABLED")
        terminal.types("\x0f")  # the memory
        terminal.sees("REMEMBERED")
        terminal.types("\x1b[27u\x12")  # the chats
        terminal.sees("TITLED")
        terminal.types("EARLIER")  # what is found is shown with what stands around it
        terminal.types("\x1b[27u\x0c")  # the models
        terminal.sees("LISTED")
        terminal.types("\x1b[27u")
        terminal.types("\x11")
        assert terminal.until_the_end() == 0
    text = _ALLOWED.sub(b"", terminal.written).decode()
    assert not set(re.findall(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f].{0,20}", text))
    assert not re.search(rb"(\x1b\[|\xc2\x9b)31;5;7m|\x1b\[6n|\x1b\[2J", terminal.written)
