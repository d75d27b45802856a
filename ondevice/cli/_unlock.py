"""Opens the store for commands: with the passphrase from the environment, keyring or user."""

from __future__ import annotations

import os
import secrets
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import click

from ondevice import paths
from ondevice.errors import StoreLocked, UsageError
from ondevice.store import Database, Salvage
from ondevice.system import crashes

_VARIABLE = "ONDEVICE_PASSPHRASE"
_SERVICE = "ondevice"
_LETTERS = "ABCDEFGHJKMNPQRSTVWXYZ23456789"  # none that look like another
_GROUPS, _GROUP = 6, 5  # of a code: 147 bits
_TRIES = 3  # to type it

_S = TypeVar("_S", Database, Salvage)


def unlock(kind: type[_S]) -> _S:
    """Open the store, asking for its passphrase where there is one and somebody to ask.

    Its folder is made the user's own, and no core dump is written of this process, which is about
    to know the passphrase. Raises :class:`StoreLocked` and what ``kind`` raises.
    """
    file = paths.store_file()
    _make_private(file.parent)
    crashes.leave_no_core()
    given = os.environ.get(_VARIABLE)
    try:
        return _opened(kind, file, given)
    except StoreLocked as error:
        if given:
            raise
        for next_one in (False, True):
            if (code := _kept(next_one=next_one)) is not None:
                with suppress(StoreLocked):  # it may be of an earlier time
                    store = kind(file, code)
                    if next_one:  # a change was killed after the store had taken it
                        _keep(code)
                    return store
        if not sys.stdin.isatty():
            raise StoreLocked(f"{error} Give it in {_VARIABLE}.") from error
        for left in reversed(range(_TRIES)):
            try:
                return _opened(kind, file, click.prompt("Passphrase", hide_input=True, err=True))
            except StoreLocked as wrong:
                if not left:
                    raise
                click.echo(f"{wrong} Try again.", err=True)
        raise


def _opened(kind: type[_S], file: Path, code: str | None) -> _S:
    """The store, whichever way its passphrase spells letters with accents: it looks the same."""
    if code and not _is_text(code):
        raise StoreLocked("The passphrase is not UTF-8 text, so it opens no store.")
    composed = code and unicodedata.normalize("NFC", code)
    apart = code and unicodedata.normalize("NFD", code)
    *others, last = dict.fromkeys((code, composed, apart))
    for one in others:
        with suppress(StoreLocked):
            return kind(file, one)
    return kind(file, last)


def _is_text(code: str) -> bool:
    try:
        return b"\0" not in code.encode()
    except UnicodeEncodeError:
        return False


def usable(code: str) -> str:
    """A passphrase as it is to be set. Raises :class:`UsageError` where nobody could type it."""
    code = unicodedata.normalize("NFC", code)
    if not code.isprintable() or not code.strip():
        raise UsageError("A passphrase is a line of text. This one is blank or holds other things.")
    return code


@contextmanager
def new_code() -> Iterator[str]:
    """A new passphrase for the block to give to the store, kept in the system's keyring.

    Whoever has it written down can open the store without the keyring: it is the recovery code.
    The keyring keeps the code so far as well, until the block is left. Raises
    :class:`UsageError` where there is no keyring.
    """
    groups = ("".join(secrets.choice(_LETTERS) for _ in range(_GROUP)) for _ in range(_GROUPS))
    code = "-".join(groups)
    _keep(code, next_one=True)
    yield code
    _keep(code)


def forget_code() -> None:
    """Take the passphrase out of the keyring, if it is there."""
    import keyring  # noqa: PLC0415 - takes a tenth of a second
    from keyring.errors import KeyringError  # noqa: PLC0415

    for next_one in (False, True):
        with suppress(KeyringError):
            keyring.delete_password(_SERVICE, _name(next_one))


def _keep(code: str, *, next_one: bool = False) -> None:
    import keyring  # noqa: PLC0415
    from keyring.errors import KeyringError  # noqa: PLC0415

    try:
        keyring.set_password(_SERVICE, _name(next_one), code)
        # There are keyrings that take everything and keep nothing.
        why = (
            ""
            if keyring.get_password(_SERVICE, _name(next_one)) == code
            else ("It stores nothing.")
        )
    except KeyringError as error:
        why = str(error)
    if why:
        raise UsageError(
            f"This system's keyring cannot be used: {why} Choose your own passphrase: "
            "ondevice memory passphrase"
        )


def _kept(*, next_one: bool) -> str | None:
    import keyring  # noqa: PLC0415
    from keyring.errors import KeyringError  # noqa: PLC0415

    with suppress(KeyringError):
        return keyring.get_password(_SERVICE, _name(next_one))
    return None


def _make_private(folder: Path) -> None:
    """Take what a folder of ours grants to others from them, where that can be done."""
    with suppress(OSError):
        mode = folder.stat().st_mode
        if os.name == "posix" and mode & 0o077:
            folder.chmod(mode & 0o700)
            if folder.stat().st_mode & 0o077:  # a disk without permissions: `doctor` tells
                return
            click.echo(f"Other users could open {folder}; now only you can.", err=True)


def _name(next_one: bool) -> str:
    """Under which the keyring has the code, and the one that the store is about to take."""
    return f"{paths.store_file()}{' (next)' if next_one else ''}"
