"""A pseudo-terminal with a program in it, for tests of what the app does to a real one."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

_PATIENCE = 60  # seconds, on a busy machine


class PtyTerminal:
    """Runs ``command`` in a terminal of columns and rows; ``written`` is what it has written.

    ``term``: what the terminal is, as programs are told.
    ``controlling``: as in a window, where the program is told that the terminal vanishes.
    ``errors``: where standard error goes, if not to the terminal.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        cwd: Path | None = None,
        size: tuple[int, int] = (80, 24),
        term: str = "xterm-256color",
        controlling: bool = True,
        errors: Path | None = None,
    ) -> None:
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", size[1], size[0], 0, 0))

        def control() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        with errors.open("wb") if errors else nullcontext(theirs) as stderr:
            self.process = subprocess.Popen(
                command,
                stdin=theirs,
                stdout=theirs,
                stderr=stderr,
                env={**env, "TERM": term},
                cwd=cwd,
                start_new_session=True,
                preexec_fn=control if controlling else None,  # noqa: PLW1509 - only one thread
            )
        os.close(theirs)
        self.written = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.vanish()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def types(self, text: str) -> None:
        os.write(self._ours, text.encode(errors="surrogateescape"))

    def sees(self, text: str) -> None:
        """Read until it has been written."""
        self._read(lambda: text.encode() in self.written, text)

    def reads(self) -> None:
        """Take what is written, for a tenth of a second at most."""
        if select.select([self._ours], [], [], 0.1)[0]:
            with suppress(OSError):  # it has ended
                self.written += os.read(self._ours, 65536)

    def until_the_end(self) -> int:
        """Read until the program has ended; its exit code."""
        self._read(lambda: self.process.poll() is not None, "the end")
        return self.process.returncode

    def vanish(self) -> None:
        """Be gone, as when the window is closed."""
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1

    def _read(self, done: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not done():
            assert time.monotonic() < deadline, f"{what!r} not in {self.written[-1500:]!r}"
            self.reads()
