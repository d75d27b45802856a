"""What comes to a command from outside: arguments, standard input, small files and Ctrl+C."""

from __future__ import annotations

import codecs
import os
import select
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import click

from ondevice.errors import FileError, UsageError
from ondevice.text import reason, size

_MOST_PIPED = 32_000_000  # bytes; a context of a million tokens holds about 5 MB
_MOST_OF_FILE = 1_000_000  # bytes of a schema or a grammar
_PATIENCE_S = 1.5  # without a word about what is waited for
_LATE_S = 10.0  # after which a pipe that is given as a file has nothing to say
_PIECE = 1 << 16  # bytes


def argument(text: str, what: str) -> str:
    """``text`` from the command line, its bytes that are no UTF-8 replaced, which is said."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return _decoded(os.fsencode(text), what)
    return text


def confirm(question: str) -> None:
    """Ask before what cannot be undone. A command that does has ``--yes``.

    Raises :class:`click.Abort` for a no, and :class:`UsageError` where nobody answers.
    """
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        if sys.stdin is not None and sys.stdin.isatty():
            raise
        click.echo(err=True)  # the question's line ends
        raise UsageError("Nobody answered. Say yes in a terminal, or add --yes.") from None
    if not agreed:
        raise click.Abort


@contextmanager
def stopped_by_ctrl_c(stop: Callable[[], None] = lambda: None) -> Iterator[threading.Event]:
    """Set by Ctrl+C, which calls ``stop`` as well and interrupts nothing.

    For what must not be cut in two, and for what native code calls: nothing can be raised there.
    """
    stopped = threading.Event()

    def pressed(_: int, __: FrameType | None) -> None:
        stopped.set()
        stop()

    before = signal.signal(signal.SIGINT, pressed)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


def piped() -> str:
    """What standard input holds, unless it is a terminal, /dev/null, or closed.

    Raises :class:`FileError` if it cannot be read, or is without end.
    """
    try:
        number = sys.stdin.fileno()
        is_terminal = sys.stdin.isatty()
    except (OSError, ValueError, AttributeError):
        return ""
    if is_terminal or _is_nothing(number):
        return ""
    content = bytearray()
    told = os.name != "posix"  # elsewhere one cannot look whether something has come
    try:
        while len(content) <= _MOST_PIPED:
            if not told and not select.select([number], [], [], _PATIENCE_S)[0]:
                told = True
                click.echo(
                    "ondevice: waiting for standard input to end, because it is part of "
                    "the question. Press Ctrl+C to give up, or add </dev/null for no "
                    "input.",
                    err=True,
                )
            if not (piece := os.read(number, _PIECE)):
                return _decoded(bytes(content), "Standard input").strip()
            content += piece
    except OSError as error:
        raise FileError(f"Standard input cannot be read: {reason(error)}.") from error
    raise FileError(
        f"Standard input holds more than {size(_MOST_PIPED)}, which is more than any "
        "model can read."
    )


def small_file(path: Path) -> str:
    """The text of a file or pipe of at most 1 MB.

    Raises :class:`FileError` for anything else, and for what is not UTF-8.
    """
    try:
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
        try:
            content = _read(path, number)
        finally:
            os.close(number)
        return content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise FileError(f"{path} cannot be read: {reason(error)}.") from error


def _read(path: Path, number: int) -> bytes:
    kind = os.fstat(number).st_mode
    is_pipe = stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)
    if not (stat.S_ISREG(kind) or is_pipe):
        raise FileError(f"{path} is a {'folder' if stat.S_ISDIR(kind) else 'device'}, not a file.")
    content = bytearray()
    end = time.monotonic() + _LATE_S
    while len(content) <= _MOST_OF_FILE:
        if is_pipe and not select.select([number], [], [], max(0, end - time.monotonic()))[0]:
            raise FileError(f"{path} is a pipe that does not end.")
        if not (piece := os.read(number, _PIECE)):
            return bytes(content)
        content += piece
    raise FileError(f"{path} is larger than {size(_MOST_OF_FILE)}.")


def _is_nothing(number: int) -> bool:
    """Whether it is /dev/null."""
    try:
        return os.path.samestat(os.fstat(number), Path(os.devnull).stat())
    except OSError:
        return False


def _decoded(content: bytes, what: str) -> str:
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if marked else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        text = content.decode(encoding, "replace")
        click.echo(
            f"ondevice: {what} is not valid UTF-8; the model sees � in place of the invalid bytes.",
            err=True,
        )
    return text.replace("\r\n", "\n")
