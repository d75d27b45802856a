"""The terminal on Linux and macOS. It may vanish: its window is closed, its connection breaks."""

from __future__ import annotations

import codecs
import errno
import io
import os
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import partial
from typing import IO, Any

from textual._xterm_parser import XTermParser
from textual.app import App
from textual.drivers import linux_driver
from textual.drivers.linux_driver import LinuxDriver
from textual.message import Message

from tui import textual_gaps

# Textual's thread that reads the terminal keeps the process from ending, if it does not end itself.
setattr(linux_driver, "Thread", partial(threading.Thread, daemon=True))  # noqa: B010

_HALF_S = 0.1  # between two looks whether half an escape sequence is a press of Escape
_LONGEST = 20.0  # seconds from being told to end to the end
_KEEP_TITLE, _TITLE_AS_IT_WAS = "\x1b[22;2t", "\x1b[23;2t"
_PASTE_BEGINS, _PASTE_ENDS = "\x1b[200~", "\x1b[201~"
_SIGNALS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class TerminalDriver(LinuxDriver):
    """Textual's own, but the app ends in good order when its terminal is gone or it is told to.

    Textual's reads a vanished terminal for ever at full speed, and waits for ever to write to it.
    It also begins anew with each SIGCONT, which comes along when a terminal vanishes.
    """

    def __init__(self, app: App[Any], **options: Any) -> None:
        super().__init__(app, **options)
        self._file: Any = _Output(_terminal(self._file))
        self._suspended = False
        self._leaving: int | None = None
        self._has_terminal = False
        self.exit_event: _End = _End()

    def _get_terminal_size(self) -> tuple[int, int]:
        """Of the terminal itself: COLUMNS and LINES, if somebody exports them, do not change."""
        with suppress(OSError):
            return os.get_terminal_size(self.fileno)
        return super()._get_terminal_size()

    def write(self, data: str) -> None:
        """Only while the terminal is the app's: what is still told at the end comes too late."""
        if self._has_terminal:
            super().write(data)

    def start_application_mode(self) -> None:
        self._has_terminal = True
        super().start_application_mode()  # type: ignore[no-untyped-call]
        self.write(textual_gaps.TELL_KEYS_APART)
        for number in _SIGNALS:
            self._loop.add_signal_handler(number, self._leave, number)
        # In the loop, and not in the middle of whatever it does.
        self._loop.add_signal_handler(signal.SIGTSTP, self._sigtstp_application)
        self.write(_KEEP_TITLE)

    @property
    def has_shell(self) -> bool:
        """Whether somebody is there who can bring the app back once it is suspended."""
        return self.input_tty and os.getsid(0) != os.getpid()

    def _sigtstp_application(self, *_: object) -> None:
        self._suspended = True
        super()._sigtstp_application()

    def _sigcont_application(self, *_: object) -> None:
        if self._suspended and self._leaving is None and os.isatty(self.fileno):
            self._suspended = False
            super()._sigcont_application()
            self._app.refresh(layout=True)
        elif self._leaving is None and os.isatty(self.fileno):  # stopped by others
            self._app.call_later(self._app.refresh, layout=True)

    def stop_application_mode(self) -> None:
        self.write(textual_gaps.NO_LONGER)
        self.write(_TITLE_AS_IT_WAS)
        super().stop_application_mode()
        self._has_terminal = False

    def run_input_thread(self) -> None:
        """Textual's looks ten times a second whether it is to end, and takes what is no UTF-8, such
        as a byte of Latin-1 that was pasted, for the end of the app."""
        parser = _PasteParser(self._debug)
        decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        end = self.exit_event.fileno()
        while not self.exit_event.is_set():
            half = getattr(parser, "_timeout_time", 0) is not None
            ready = select.select([self.fileno, end], [], [], _HALF_S if half else None)[0]
            if self.fileno in ready:
                if not (read := self._read()):  # it is gone
                    self._loop.call_soon_threadsafe(self._leave, signal.SIGHUP)
                    return
                self._take(parser.feed(decode(read)))
            self._take(parser.tick())

    def _take(self, messages: Iterable[Message]) -> None:
        """Pass them on. An error in that is the app's, which goes on, and so does this thread."""
        try:
            for message in messages:
                self.process_message(message)
        except Exception as error:
            self._loop.call_soon_threadsafe(self._app._handle_exception, error)

    def _read(self) -> bytes:
        """Nothing: there will be no more."""
        with suppress(OSError):
            return os.read(self.fileno, 4096)
        return b""

    def _leave(self, number: int) -> None:
        if self._leaving is None:
            self._leaving = number
            # Whatever may hang: nothing stays behind. The engine's process ends with this one.
            last = threading.Timer(_LONGEST, os._exit, (128 + number,))
            last.daemon = True
            last.start()
        self._app.exit(return_code=128 + number)


class _PasteParser(XTermParser):
    """Textual takes what follows an ESC in a paste for keys, which may send half a message."""

    _is_paste = False
    _half = ""  # of the next mark: held back in a paste, passed on before one

    def feed(self, data: str) -> Iterable[Message]:
        text = "".join(self._without_escapes(data))
        return super().feed(text) if text else ()  # to Textual, no text means that there is no more

    def _without_escapes(self, data: str) -> Iterator[str]:
        marked = True
        while marked:
            mark = _PASTE_ENDS if self._is_paste else _PASTE_BEGINS
            half = self._half
            text, marked_by, data = (half + data).partition(mark)
            marked = bool(marked_by)
            self._half = "" if marked else _half(text, mark)
            if self._is_paste:
                yield text.removesuffix(self._half).replace("\x1b", "") + marked_by
            else:
                yield (text + marked_by)[len(half) :]
            self._is_paste ^= marked


def _half(text: str, mark: str) -> str:
    """The most of the beginning of ``mark`` with which ``text`` ends."""
    return next(mark[:n] for n in reversed(range(len(mark))) if text.endswith(mark[:n]))


def _terminal(file: IO[str]) -> IO[str]:
    """Textual draws on standard error; where that goes to a file, standard output is drawn on."""
    if file.isatty() or sys.__stdout__ is None:
        return file
    if isinstance(sys.__stdout__, io.TextIOWrapper):
        sys.__stdout__.reconfigure(errors="backslashreplace")  # as standard error has it
    return sys.__stdout__


class _End(threading.Event):
    """Can be waited for together with what is read."""

    def __init__(self) -> None:
        super().__init__()
        self._ours, self._theirs = os.pipe()
        os.set_blocking(self._ours, False)

    def fileno(self) -> int:
        return self._ours

    def set(self) -> None:
        super().set()
        os.write(self._theirs, b".")

    def clear(self) -> None:
        with suppress(BlockingIOError):
            os.read(self._ours, 4096)
        super().clear()


class _Output:
    """Drops what can no longer be written, so that nothing waits for it."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def write(self, text: str) -> None:
        self._try(lambda: self._file.write(text))

    def flush(self) -> None:
        self._try(self._file.flush)

    def _try(self, write: Callable[[], object]) -> None:
        try:
            write()
        except OSError as error:
            # Python writes what is left once more when it ends, and its exit code would be 120.
            if error.errno == errno.EIO:  # the terminal is gone
                with suppress(OSError):
                    nowhere = os.open(os.devnull, os.O_WRONLY)
                    os.dup2(nowhere, self.fileno())
                    os.close(nowhere)

    def fileno(self) -> int:
        return self._file.fileno()
