"""The app as a process in a terminal of its own: how fast it starts, what it takes while nothing
happens, and whether it ends when the terminal goes."""

from __future__ import annotations

import fcntl
import os
import pty
import random
import select
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

SIZE = (100, 40)  # columns and rows
_STARTS = 5
_QUIET_S = 20.0  # after which nothing goes on that the start or a reply has begun
_ENDS_S = 30.0  # from when the terminal is gone until its processes must be


class Terminal:
    """``ondevice chat`` with this model and a home of its own; it is told when the window goes."""

    def __init__(self, model: Path) -> None:
        self.home = tempfile.mkdtemp(prefix="ondevice-bench-")
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", SIZE[1], SIZE[0], 0, 0))
        installed = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ondevice", "chat", "--model", str(model)],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env={**installed, "ONDEVICE_HOME": self.home, "TERM": "xterm-256color"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # noqa: PLW1509
        )
        os.close(theirs)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.process.terminate()
        while self.process.poll() is None:  # it says goodbye to a terminal that listens
            self.read(0.1)
        os.close(self._ours)

    def types(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def read(self, seconds: float) -> bytes:
        """What comes within so many seconds, at most one piece of it."""
        if select.select([self._ours], [], [], seconds)[0]:
            with suppress(OSError):
                return os.read(self._ours, 65536)
        return b""

    def waits_for(self, text: bytes) -> None:
        seen = b""
        end = time.monotonic() + 60
        while text not in seen:
            if time.monotonic() > end:
                raise TimeoutError(f"{text!r} did not come.")
            seen += self.read(1.0)

    def passes(self, seconds: float) -> None:
        """Time goes by, and what is written is read."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.read(left)

    def vanishes(self) -> None:
        os.close(self._ours)

    def processes(self) -> list[psutil.Process]:
        """The app and its engine, as far as they live."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("ONDEVICE_HOME") == self.home:
                    found.append(process)
        return found


def start_s(model: Path) -> float:
    """Until a letter is on the screen that was typed as soon as the prompt was: the median of some
    starts, without the first one, in which Python may compile what has changed."""
    took = []
    for _ in range(1 + _STARTS):
        with Terminal(model) as terminal:
            terminal.waits_for(b"sk anything")  # the cursor is on the first letter
            terminal.types("Z")
            terminal.waits_for(b"Z")
            took.append(time.perf_counter() - terminal.started)
    return statistics.median(took[1:])


def idle_pct(model: Path, seconds: float) -> float:
    """Of a core, app and engine together, with a model that has replied and nothing going on."""
    with Terminal(model) as terminal:
        terminal.waits_for(b"ctx")  # the model is loaded
        terminal.types("Say a word.\r")
        terminal.passes(_QUIET_S)
        before, started = _spent_s(terminal), time.monotonic()
        terminal.passes(seconds)
        return 100 * (_spent_s(terminal) - before) / (time.monotonic() - started)


def _spent_s(terminal: Terminal) -> float:
    """Seconds that all threads of its processes have run."""
    total = 0
    for process in terminal.processes():
        for file in Path(f"/proc/{process.pid}/task").glob("*/schedstat"):
            with suppress(OSError):  # it has ended
                total += int(file.read_bytes().split()[0])
    return total / 1e9


def left_processes(model: Path, tries: int, seed: int = 1) -> int:
    """How many stay behind when the window is closed at random moments of start, reply and end."""
    moments = random.Random(seed)
    closed = []
    for _ in range(tries):
        terminal = Terminal(model)
        terminal.passes(moments.choice((0.05, 0.6, 2.5)) * (0.5 + moments.random()))
        with suppress(OSError):
            if moments.random() < 0.6:
                terminal.types("Tell me a long story.\r")
                terminal.passes(moments.random() * 2)
            if moments.random() < 0.5:
                terminal.types("\x11")  # Ctrl+Q, and the window is closed meanwhile
                terminal.passes(moments.random() / 2)
        terminal.vanishes()
        closed.append((terminal, time.monotonic()))
        threading.Thread(target=terminal.process.wait, daemon=True).start()
    left = 0
    for terminal, at in closed:
        while (living := terminal.processes()) and time.monotonic() < at + _ENDS_S:
            time.sleep(0.1)
        left += len(living)
        for process in living:
            with suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
    return left
