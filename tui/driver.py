"""The terminal on Linux and macOS. It may vanish: its window is closed, its connection breaks."""

from __future__ import annotations

import codecs
import os
import select
import signal
import threading
from contextlib import suppress
from typing import IO, Any

from textual._xterm_parser import XTermParser
from textual.app import App
from textual.drivers.linux_driver import LinuxDriver

from tui import textual_gaps

_HALF_S = 0.1  # between two looks whether half an escape sequence is a press of Escape
_SIGNALS = (signal.SIGHUP, signal.SIGTERM)


class TerminalDriver(LinuxDriver):
    """Textual's own, but the app ends in good order when its terminal is gone or it is told to.

    Textual's reads a vanished terminal for ever at full speed, and waits for ever to write to it.
    """

    def __init__(self, app: App[Any], **options: Any) -> None:
        super().__init__(app, **options)
        self._file: Any = _Output(self._file)
        self.exit_event: _End = _End()

    def start_application_mode(self) -> None:
        super().start_application_mode()  # type: ignore[no-untyped-call]
        self.write(textual_gaps.TELL_KEYS_APART)
        for number in _SIGNALS:
            self._loop.add_signal_handler(number, self._leave, number)

    def stop_application_mode(self) -> None:
        self.write(textual_gaps.NO_LONGER)
        super().stop_application_mode()

    def run_input_thread(self) -> None:
        """Textual's looks ten times a second whether it is to end, and takes what is no UTF-8, such
        as a byte of Latin-1 that was pasted, for the end of the app."""
        parser = XTermParser(self._debug)
        decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        end = self.exit_event.fileno()
        while not self.exit_event.is_set():
            half = getattr(parser, "_timeout_time", 0) is not None
            ready = select.select([self.fileno, end], [], [], _HALF_S if half else None)[0]
            if self.fileno in ready:
                if not (read := self._read()):
                    if self.input_tty:  # it is gone
                        self._loop.call_soon_threadsafe(self._leave, signal.SIGHUP)
                    return
                for event in parser.feed(decode(read)):
                    self.process_message(event)
            for event in parser.tick():
                self.process_message(event)

    def _read(self) -> bytes:
        """Nothing: there will be no more."""
        with suppress(OSError):
            return os.read(self.fileno, 4096)
        return b""

    def _leave(self, number: int) -> None:
        self._app.exit(return_code=128 + number)


class _End(threading.Event):
    """Can be waited for together with what is read."""

    def __init__(self) -> None:
        super().__init__()
        self._ours, self._theirs = os.pipe()

    def fileno(self) -> int:
        return self._ours

    def set(self) -> None:
        super().set()
        os.write(self._theirs, b".")

    def clear(self) -> None:
        os.read(self._ours, 4096)
        super().clear()


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
