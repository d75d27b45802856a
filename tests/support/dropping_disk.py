"""A disk that loses, at a power failure, what was written and not yet synced.

Of the writes since the last sync some are kept, at random, as a real disk may do in any order. It
is a VFS of apsw's own SQLite, behind as much of the interface of :mod:`sqlite3` as the store uses.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, ClassVar

import apsw


class Disk:
    """Files in memory. :attr:`Error` is what SQLite says of a disk that has failed."""

    Error: ClassVar[type[Exception]] = apsw.Error

    def __init__(self) -> None:
        self._files: dict[str, _Contents] = {}
        self._left: int | None = None  # writes and syncs until it fails; None: it does not
        self._vfs = _Vfs(self)
        self._connections: list[apsw.Connection] = []

    def connect(self, path: Any, **_: Any) -> _Connection:
        connection = apsw.Connection(str(path), vfs=self._vfs.name)
        self._connections.append(connection)
        return _Connection(connection)

    def fail_after(self, operations: int) -> None:
        self._left = operations

    def lose_power(self, choose: random.Random) -> None:
        """Forget open files and some of what was not synced; then work again."""
        for connection in self._connections:
            with suppress(apsw.Error):  # it would still like to write
                connection.close()
        self._connections.clear()
        self._left = None
        for contents in self._files.values():
            contents.lose(choose)

    def files(self) -> dict[str, bytes]:
        return {name: bytes(contents.now) for name, contents in self._files.items()}

    # ---- for the VFS

    def spend(self) -> None:
        if self._left is not None:
            self._left -= 1
            if self._left < 0:
                raise apsw.IOError("the power has failed")

    def contents(self, name: str) -> _Contents:
        return self._files.setdefault(name, _Contents())

    def exists(self, name: str) -> bool:
        return name in self._files

    def remove(self, name: str) -> None:
        self._files.pop(name, None)


class _Contents:
    """A file as it is now and as it was at the last sync."""

    def __init__(self) -> None:
        self.now = bytearray()
        self._synced = b""
        self._since: list[tuple[int, bytes | None]] = []  # offset and data, or length and None

    def apply(self, offset: int, data: bytes | None) -> None:
        if data is None:
            del self.now[offset:]
        else:
            self.now.extend(bytes(max(0, offset + len(data) - len(self.now))))
            self.now[offset : offset + len(data)] = data

    def write(self, offset: int, data: bytes | None) -> None:
        self.apply(offset, data)
        self._since.append((offset, data))

    def sync(self) -> None:
        self._synced = bytes(self.now)
        self._since.clear()

    def lose(self, choose: random.Random) -> None:
        self.now = bytearray(self._synced)
        for offset, data in self._since:
            if choose.random() < 0.5:
                self.apply(offset, data)
        self.sync()


class _Vfs(apsw.VFS):
    name = "dropping"

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        super().__init__(self.name, "")

    def xFullPathname(self, name: str) -> str:
        return name

    def xAccess(self, name: str, flags: int) -> bool:
        return self._disk.exists(name)

    def xDelete(self, name: str, sync: bool) -> None:
        self._disk.spend()
        self._disk.remove(name)

    def xOpen(self, name: Any, flags: list[int]) -> Any:
        flags[1] = flags[0]
        if name is None:  # a temporary file, which is gone once it is closed
            return _File(self._disk, _Contents())
        named = name if isinstance(name, str) else name.filename()
        return _File(self._disk, self._disk.contents(named))


class _File:
    def __init__(self, disk: Disk, contents: _Contents) -> None:
        self._disk = disk
        self._contents = contents

    def xRead(self, amount: int, offset: int) -> bytes:
        return bytes(self._contents.now[offset : offset + amount])

    def xWrite(self, data: bytes, offset: int) -> None:
        self._disk.spend()
        self._contents.write(offset, bytes(data))

    def xTruncate(self, size: int) -> None:
        self._disk.spend()
        self._contents.write(size, None)

    def xSync(self, flags: int) -> None:
        self._disk.spend()
        self._contents.sync()

    def xFileSize(self) -> int:
        return len(self._contents.now)

    def xSectorSize(self) -> int:
        return 512

    def xDeviceCharacteristics(self) -> int:
        return 0

    def xFileControl(self, operation: int, pointer: int) -> bool:
        return False

    def xLock(self, level: int) -> None: ...

    def xUnlock(self, level: int) -> None: ...

    def xCheckReservedLock(self) -> bool:
        return False

    def xClose(self) -> None: ...


class _Connection:
    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self.row_factory: object = None
        # Without shared memory between connections, WAL is for one of them alone.
        self.execute("PRAGMA locking_mode=EXCLUSIVE")

    @property
    def in_transaction(self) -> bool:
        return self._connection.in_transaction

    def execute(self, statement: str, values: Any = ()) -> _Rows:
        return _Rows(self._connection, self._connection.execute(statement, tuple(values)))

    def executemany(self, statement: str, values: Iterable[Any]) -> None:
        self._connection.executemany(statement, values)

    def close(self) -> None:
        self._connection.close()


class _Rows:
    def __init__(self, connection: apsw.Connection, cursor: apsw.Cursor) -> None:
        names: tuple[str, ...] = ()
        self._rows: list[_Row] = []
        for row in cursor:
            names = names or tuple(column[0] for column in cursor.get_description())
            self._rows.append(_Row(row, names))
        self.rowcount = connection.changes()
        self.lastrowid = connection.last_insert_rowid()

    def __iter__(self) -> Iterator[_Row]:
        while self._rows:
            yield self._rows.pop(0)

    def fetchone(self) -> _Row | None:
        return next(iter(self), None)

    def fetchall(self) -> list[_Row]:
        return list(self)


class _Row:
    def __init__(self, values: tuple[Any, ...], names: tuple[str, ...]) -> None:
        self._values = values
        self._names = names

    def __getitem__(self, key: int | str) -> Any:
        return self._values[self._names.index(key) if isinstance(key, str) else key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._values)
