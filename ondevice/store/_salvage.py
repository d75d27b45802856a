"""Reads what can still be read of a damaged store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ondevice.errors import StoreError
from ondevice.store._database import open_connection
from ondevice.store._sqlite import Fault, Row
from ondevice.text import reason

_MOST_FAILURES = 5_000  # reads that fail before what is left of a table is given up
_LAST = (1 << 63) - 1  # rowid


class Salvage:
    """A store that may be damaged, to be read only.

    Raises :class:`StoreLocked` when the passphrase is missing or wrong, and :class:`StoreError`
    when not even the list of tables can be read.
    """

    def __init__(self, path: Path, passphrase: str | None = None) -> None:
        self.failures = 0  # reads that failed; 0 for a store that is whole
        try:
            path.stat()
            self._connection = open_connection(path, passphrase)
            self._connection.text_factory = lambda text: text.decode("utf-8", "replace")
            self._connection.execute("SELECT * FROM sqlite_schema").fetchall()
        except (OSError, *Fault) as error:
            raise StoreError(
                f"Nothing in the store {path} can be read: {reason(error)}. If there is a backup "
                "next to it, put that in its place."
            ) from error

    def rows(self, table: str) -> Iterator[Row]:
        """The readable rows of ``table`` by primary key, those in damaged pages left out."""
        (without_rowid,) = self._connection.execute(
            "SELECT wr FROM pragma_table_list WHERE name = ?", (table,)
        ).fetchone()
        if not without_rowid:
            yield from self._between(table, 0, _LAST)
            return
        try:
            yield from self._connection.execute(f"SELECT * FROM {table}")
        except Fault:
            self.failures += 1

    def _between(self, table: str, low: int, high: int) -> Iterator[Row]:
        """Rows with these rowids: up to the damage, from behind up to it, and in halves between."""
        query = f"SELECT * FROM {table} WHERE rowid BETWEEN ? AND ? ORDER BY rowid"
        try:
            for row in self._connection.execute(query, (low, high)):
                yield row
                low = row[0] + 1
        except Fault:
            self.failures += 1
        else:
            return
        later: list[Row] = []
        try:
            for row in self._connection.execute(f"{query} DESC", (low, high)):
                later.append(row)
                high = row[0] - 1
        except Fault:
            self.failures += 1
        if low < high and self.failures < _MOST_FAILURES:
            middle = (low + high) // 2
            yield from self._between(table, low, middle)
            yield from self._between(table, middle + 1, high)
        yield from reversed(later)

    def close(self) -> None:
        self._connection.close()
