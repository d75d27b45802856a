"""Opens the store for commands: with the passphrase from the environment, keyring or user."""

from __future__ import annotations

import os
import secrets
import sys
from contextlib import suppress
from typing import TypeVar

import click

from ondevice import paths
from ondevice.errors import StoreLocked, UsageError
from ondevice.store import Database, Salvage

_VARIABLE = "ONDEVICE_PASSPHRASE"
_SERVICE = "ondevice"
_LETTERS = "ABCDEFGHJKMNPQRSTVWXYZ23456789"  # none that look like another
_GROUPS, _GROUP = 6, 5  # of a code: 147 bits

_S = TypeVar("_S", Database, Salvage)


def unlock(kind: type[_S]) -> _S:
    """Open the store, asking for its passphrase where there is one and somebody to ask.

    Raises :class:`StoreLocked` and what ``kind`` raises.
    """
    file = paths.store_file()
    given = os.environ.get(_VARIABLE)
    try:
        return kind(file, given)
    except StoreLocked as error:
        if given:
            raise
        if kept := _kept():
            with suppress(StoreLocked):  # it may be of an earlier time
                return kind(file, kept)
        if not sys.stdin.isatty():
            raise StoreLocked(f"{error} Set {_VARIABLE} to it.") from error
        return kind(file, click.prompt("Passphrase", hide_input=True, err=True))


def keep_new_code() -> str:
    """Make a passphrase, put it into the system's keyring and return it.

    Whoever has it written down can open the store without the keyring: it is the recovery code.
    Raises :class:`UsageError` where there is no keyring.
    """
    import keyring  # noqa: PLC0415 - takes a tenth of a second
    from keyring.errors import KeyringError  # noqa: PLC0415

    groups = ("".join(secrets.choice(_LETTERS) for _ in range(_GROUP)) for _ in range(_GROUPS))
    code = "-".join(groups)
    try:
        keyring.set_password(_SERVICE, str(paths.store_file()), code)
    except KeyringError as error:
        raise UsageError(
            f"This system's keyring cannot be used: {error} Choose a passphrase of your own: "
            "ondevice memory passphrase"
        ) from error
    return code


def forget_code() -> None:
    """Take the passphrase out of the keyring, if it is there."""
    import keyring  # noqa: PLC0415
    from keyring.errors import KeyringError  # noqa: PLC0415

    with suppress(KeyringError):
        keyring.delete_password(_SERVICE, str(paths.store_file()))


def _kept() -> str | None:
    import keyring  # noqa: PLC0415
    from keyring.errors import KeyringError  # noqa: PLC0415

    with suppress(KeyringError):
        return keyring.get_password(_SERVICE, str(paths.store_file()))
    return None
