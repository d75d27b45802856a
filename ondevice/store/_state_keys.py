"""Keys of the files, beside the store, with what models have computed of conversations."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from pathlib import Path

from ondevice.store._sqlite import Connection

_NAME, _SECRET = 8, 32  # bytes


def find(connection: Connection, conversation_id: int | None) -> tuple[str, bytes] | None:
    """Name and secret of the key for a conversation, or with None for what several begin with."""
    row = connection.execute(
        "SELECT name, secret FROM state_key WHERE conversation_id IS ?", (conversation_id,)
    ).fetchone()
    return (row["name"], row["secret"]) if row else None


def make(connection: Connection, conversation_id: int | None) -> tuple[str, bytes]:
    """As :func:`find`, a new one unless another process was faster."""
    if (known := find(connection, conversation_id)) is not None:
        return known
    key = secrets.token_hex(_NAME), secrets.token_bytes(_SECRET)
    connection.execute(
        "INSERT INTO state_key(name, conversation_id, secret) VALUES (?, ?, ?)",
        (key[0], conversation_id, key[1]),
    )
    return key


def sweep(connection: Connection, folder: Path) -> None:
    """Delete the files whose key is gone."""
    if not folder.is_dir():
        return
    names = {name for (name,) in connection.execute("SELECT name FROM state_key")}
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.is_dir() and path.name not in names:
                shutil.rmtree(path, ignore_errors=True)
