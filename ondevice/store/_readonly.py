"""Opens a store that cannot be written, because its disk is full or lets nobody write, to read."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

from ondevice.store._sqlite import Connection, Fault, connect

_FULL = "the disk is full. Free some space"
_NO_DISK = "the disk is read-only. Move the folder to another disk"
_FORBIDDEN = "its folder cannot be written. Make it writable"
_LITTLE = 1_000_000  # bytes free: SQLite only says “disk I/O error” when there is no room

#: Error code → what it means: of the system, and the lowest byte of SQLite's.
_SYSTEM = {
    errno.ENOSPC: _FULL,
    errno.EROFS: _NO_DISK,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    getattr(errno, "EDQUOT", errno.ENOSPC): _FULL,
}
_READONLY, _IO, _FULL_CODE, _CANNOT_OPEN = 8, 10, 13, 14


def why_unwritable(error: Exception, path: Path) -> str | None:
    """Why the store cannot be written, and what to do; None: the error says something else."""
    if isinstance(error, OSError):
        return _SYSTEM.get(error.errno or 0)
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (_IO, _FULL_CODE, _CANNOT_OPEN):
        with suppress(OSError):
            if code == _FULL_CODE or shutil.disk_usage(path.parent).free < _LITTLE:
                return _FULL
    return _FORBIDDEN if code in (_READONLY, _CANNOT_OPEN) else None


def connect_to_read(path: Path, prepare: Callable[[Connection], Connection]) -> Connection:
    """A connection that changes nothing; ``prepare`` gives it its key and reads from it.

    Raises what opening raises when there is no way.
    """
    uri = f"file:{quote(str(path.absolute()))}"
    log = path.with_name(f"{path.name}-wal")
    # The index of the write-ahead log needs a file or, for who is alone, RAM. Where neither is
    # possible and there is no such log, the file itself has all.
    ways = [("?mode=ro", ""), ("?mode=rw", "PRAGMA locking_mode=EXCLUSIVE")]
    if not (log.exists() and log.stat().st_size):
        ways.append(("?immutable=1", ""))
    failure: Exception | None = None
    for options, pragma in ways:
        connection = connect(
            f"{uri}{options}", uri=True, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute(pragma or "PRAGMA query_only=ON")
            prepare(connection)
            # A search has temporary tables. The store itself is only written by `Database.write`.
            connection.execute("PRAGMA query_only=OFF")
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except BaseException as error:
            connection.close()
            if not isinstance(error, (OSError, *Fault)):
                raise
            failure = error
        else:
            return connection
    assert failure is not None
    raise failure
