"""The terminal app with the real engine and the default model, in a real terminal too."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from terminal_user import PATIENCE, at_the_terminal

from ondevice import paths
from ondevice.chats import Chats, Message
from ondevice.engine import Engine
from ondevice.messages import Sampling
from ondevice.store import Database

GREEDY = Sampling(temperature=0)


@pytest.fixture
def database() -> Iterator[Database]:
    """The store that the program itself opens."""
    database = Database(paths.store_file())
    yield database
    database.close()


def saved(chats: Chats) -> tuple[Message, ...]:
    """The messages of the latest conversation."""
    headings = chats.headings()
    return chats.load(headings[0].id).messages if headings else ()


async def test_a_question_is_answered(chats: Chats, default_model: Path) -> None:
    engine = Engine()
    async with at_the_terminal(engine, chats, default_model, sampling=GREEDY) as user:
        await user.says("Name the capital of France.")
        await user.sees("Paris")
        await user.is_idle()
        await user.sees("· RAM ")  # of the engine
        assert "tok/s" in user.status
        process = psutil.Process(engine.pid)
    assert not process.is_running()
    assert saved(chats)[-1].finish_reason == "stop"


@pytest.mark.timeout(900)  # on a busy machine: it starts again and again
async def test_the_engine_may_be_killed_in_mid_reply_again_and_again(
    chats: Chats, short: Path
) -> None:
    engine = Engine()
    settings: dict[str, Any] = {"ctx": 1024, "system": "", "sampling": GREEDY, "threads": 1}
    async with at_the_terminal(engine, chats, short, **settings) as user:
        kept: dict[int, tuple[Message, ...]] = {}
        interrupted = 0
        while interrupted < 5:
            await user.pilot.press("ctrl+n")
            user.prompt.text = "Write a long story."
            await user.pilot.press("enter")
            await user.until(lambda: len(chats.headings()) > len(kept), "another conversation")
            await user.until(lambda: len(saved(chats)) == 2, "a reply")
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGKILL)
            await user.is_idle()
            _, story = saved(chats)
            assert story.content
            # On a very busy machine the kill may come too late; then it does not count.
            interrupted += story.finish_reason is None
            kept[chats.headings()[0].id] = saved(chats)
        assert {chat: chats.load(chat).messages for chat in kept} == kept
        await user.says("Hi")
        await user.until(lambda: len(saved(chats)) == 4, "a reply after all")


_UNDER_WAY = "waiting", "reading", "answering"


class Terminal:
    """A real terminal in tmux, with ``ondevice chat`` in it."""

    def __init__(self, socket: str) -> None:
        self._tmux = ["tmux", "-u", "-L", socket, "-f", "/dev/null"]
        self._session = 0

    def _run(self, command: str, *arguments: str) -> str:
        return subprocess.run(
            [*self._tmux, command, *arguments], check=True, capture_output=True, text=True
        ).stdout

    def chat(self, model: Path, *flags: str, size: tuple[int, int] = (80, 24)) -> None:
        """Open the app and wait until the model is loaded."""
        command = [sys.executable, "-m", "ondevice", "chat", "--model", str(model), *flags]
        # Some shells export the size that the terminal had once.
        shell = f"COLUMNS=80 LINES=24 {shlex.join(command)}; echo It ended with $?.; cat"
        self._session += 1
        name, (width, height) = f"{self._session}", size
        self._run("new-session", "-s", name, "-d", "-x", f"{width}", "-y", f"{height}", shell)
        self.sees("ctx " if "--resume" in flags else "ctx 0/")

    def types(self, text: str, *keys: str) -> None:
        if text:
            self._run("send-keys", "-t", f"{self._session}", "-l", text)
        if keys:
            self._run("send-keys", "-t", f"{self._session}", *keys)

    def screen(self) -> str:
        return self._run("capture-pane", "-t", f"{self._session}", "-p")

    def sees(self, text: str) -> None:
        """Wait until it is on the screen."""
        self._until(lambda screen: text in screen, text)

    def misses(self, text: str) -> None:
        """Wait until it is not on the screen any more."""
        self._until(lambda screen: text not in screen, f"no {text}")

    def rests(self) -> None:
        """Wait until the line at the bottom tells of no reply under way."""

        def is_over(screen: str) -> bool:
            return not any(word in screen.splitlines()[-2] for word in _UNDER_WAY)

        self._until(is_over, "the end of the reply")

    def _until(self, condition: Callable[[str], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition(screen := self.screen()):
            assert time.monotonic() < deadline, f"{what!r}:\n{screen}"
            time.sleep(0.1)

    def close(self) -> None:
        self._run("kill-server")


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    if not shutil.which("tmux"):
        pytest.skip("needs tmux")
    terminal = Terminal(f"ondevice-{os.getpid()}")
    yield terminal
    terminal.close()


@pytest.mark.timeout(900)  # on a busy machine
def test_a_whole_session_by_keys_in_a_real_terminal(
    terminal: Terminal, default_model: Path
) -> None:
    """Type, stream, stop, edit, branch, search, quit and resume."""
    terminal.chat(default_model, "--temperature", "0")
    terminal.types("Name the capital of France.", "Enter")
    terminal.sees("Paris")
    terminal.rests()
    terminal.types("Write a very long story about a fox.", "Enter")
    terminal.sees("answering")
    terminal.types("", "Escape")
    terminal.sees("Stopped.")
    terminal.rests()

    terminal.types("/edit", "Enter")
    terminal.sees("Editing")
    terminal.types("", "C-a", "C-k")
    terminal.sees("Ask anything")  # the prompt is empty
    terminal.types("What is the capital of Spain?", "Enter")
    terminal.sees("‹ 2/2 ›")
    terminal.rests()
    terminal.types("", "C-Up", "Up", "Left")
    terminal.sees("‹ 1/2 ›")
    terminal.sees("Stopped.")
    terminal.misses("Spain")
    terminal.types("", "Right")
    terminal.sees("Spain")
    terminal.misses("Stopped.")
    terminal.types("", "Escape")

    terminal.types("", "C-r")
    terminal.sees("F8 delete")
    terminal.types("fox", "Enter")
    terminal.sees("‹ 1/2 ›")  # it is in the branch that was left
    terminal.misses("F8 delete")
    terminal.types("", "C-f")
    terminal.sees("This chat")
    terminal.types("Paris", "Enter")
    terminal.misses("This chat")
    terminal.sees("Paris")
    terminal.types("", "C-q")
    terminal.sees("It ended with 0.")
    assert "Paris" not in terminal.screen()

    terminal.chat(default_model, "--temperature", "0", "--resume", size=(100, 50))
    terminal.sees("Paris")
    terminal.sees("‹ 1/2 ›")
    terminal.sees("Stopped.")
    lines = terminal.screen().rstrip().splitlines()
    assert (len(lines), max(map(len, lines))) == (50, 100)
    terminal.types("What is the capital of Italy?", "Enter")
    terminal.sees("Rome")
    terminal.rests()
    terminal.types("", "C-c")
    terminal.sees("Press Ctrl+C again")
    terminal.types("", "C-c")
    terminal.sees("It ended with 0.")
