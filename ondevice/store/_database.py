"""Opens the store, migrates it, and hands out read and write transactions."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ondevice.errors import StoreError
from ondevice.paths import ensure_private
from ondevice.store.migrations import MIGRATIONS


class Database:
    """A SQLite connection in WAL mode with ``synchronous=FULL``: what was committed survives.

    One connection, used from any thread, one transaction at a time.

    Raises :class:`StoreError` when the file cannot be opened, is not a store, or was written by a
    newer version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        try:
            ensure_private(path.parent)
            # SQLite creates its files with the mode of the database, so this one decides for all.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._connection.row_factory = sqlite3.Row
            for pragma in (
                "journal_mode=WAL",
                "synchronous=FULL",
                "foreign_keys=ON",
                "secure_delete=ON",
                "busy_timeout=5000",
            ):
                self._connection.execute(f"PRAGMA {pragma}")
            self._migrate()
        except (OSError, sqlite3.Error) as error:
            raise StoreError(
                f"The store {path} cannot be opened: {error}. If the file is damaged, move it "
                "aside and start again, or set ONDEVICE_HOME to another folder."
            ) from error

    def _migrate(self) -> None:
        (version,) = self._connection.execute("PRAGMA user_version").fetchone()
        if version > len(MIGRATIONS):
            raise StoreError(
                f"The store {self.path} was written by a newer ondevice (format {version}, this "
                f"one knows {len(MIGRATIONS)}). Update ondevice to open it."
            )
        for number, migrate in enumerate(MIGRATIONS[version:], start=version + 1):
            with self.write() as connection:
                migrate(connection)
                connection.execute(f"PRAGMA user_version={number}")

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: committed when the block ends, rolled back when it raises."""
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                except BaseException:
                    self._connection.execute("ROLLBACK")
                    raise
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                raise StoreError(f"The store {self.path} could not be written: {error}.") from error

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """The connection, for queries only."""
        with self._lock:
            try:
                yield self._connection
            except sqlite3.Error as error:
                raise StoreError(f"The store {self.path} could not be read: {error}.") from error

    def close(self) -> None:
        with self._lock:
            self._connection.close()
