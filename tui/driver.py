"""The terminal on Linux and macOS. It may vanish: its window is closed, its connection breaks."""

from __future__ import annotations

import asyncio
import codecs
import os
import signal
from contextlib import suppress
from functools import partial
from typing import IO, Any

from textual.app import App
from textual.drivers import linux_driver
from textual.drivers.linux_driver import LinuxDriver

from tui import textual_gaps

# Textual takes what no UTF-8 is, such as a byte of Latin-1 that was pasted, for the end of the app.
setattr(  # noqa: B010 - it is imported there, not made there
    linux_driver,
    "getincrementaldecoder",
    lambda encoding: partial(codecs.getincrementaldecoder(encoding), errors="replace"),
)

_LOOK_EVERY = 0.5  # seconds
_SIGNALS = (signal.SIGHUP, signal.SIGTERM)


class TerminalDriver(LinuxDriver):
    """Textual's own, but the app ends in good order when its terminal is gone or it is told to.

    Textual's reads a vanished terminal for ever at full speed, and waits for ever to write to it.
    """

    def __init__(self, app: App[Any], **options: Any) -> None:
        super().__init__(app, **options)
        self._file: Any = _Output(self._file)

    def start_application_mode(self) -> None:
        super().start_application_mode()  # type: ignore[no-untyped-call]
        self.write(textual_gaps.TELL_KEYS_APART)
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._leave, number)
        self._app.set_interval(_LOOK_EVERY, self._look)

    def stop_application_mode(self) -> None:
        self.write(textual_gaps.NO_LONGER)
        super().stop_application_mode()

    def run_input_thread(self) -> None:
        with suppress(OSError):  # it is gone, which will be seen
            super().run_input_thread()

    def _look(self) -> None:
        if self.input_tty and not os.isatty(self.fileno):
            self._leave(signal.SIGHUP)

    def _leave(self, number: int) -> None:
        self._app.exit(return_code=128 + number)


class _Output:
    """Drops what can no longer be written, so that nothing waits for it."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._file.flush()

    def fileno(self) -> int:
        return self._file.fileno()
