"""Thai, Lao, Burmese and Khmer are in the index for text without spaces between words.

The other index has whole clauses of them, as of Chinese; see :mod:`m010_memory_index`.
"""

from __future__ import annotations

from ondevice.store._sqlite import Connection
from ondevice.store.migrations.m010_memory_index import END, triggers
from ondevice.store.migrations.m010_memory_index import UNSPACED as _BEFORE

_SOUTH_EAST = (
    "\u0e00-\u0e3a\u0e40-\u0e4e\u0e80-\u0ecf\u0edc-\u0edf\u1000-\u103f\u1050-\u108f\u1780-\u17d3"
)
_UNSPACED = _BEFORE.replace("[", f"[{_SOUTH_EAST}")

_STATEMENTS = (
    "DROP TRIGGER cube_inserted_unspaced",
    "DROP TRIGGER cube_deleted_unspaced",
    "DROP TRIGGER cube_changed_unspaced",
    f"""
    INSERT INTO memory_trigram(rowid, content)
    SELECT id, content || {END} FROM cube
    WHERE content {_UNSPACED} AND NOT content {_BEFORE}
    """,
    *triggers(_UNSPACED),
)


def migrate(connection: Connection) -> None:
    for statement in _STATEMENTS:
        connection.execute(statement)
