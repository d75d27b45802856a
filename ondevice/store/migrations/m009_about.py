"""Which days each memory is about, beside when it was said."""

from __future__ import annotations

from ondevice.store._sqlite import Connection

_STATEMENTS = (
    # First and last day, ISO 8601; NULL: its text does not say.
    "ALTER TABLE cube ADD COLUMN about_from TEXT",
    "ALTER TABLE cube ADD COLUMN about_to TEXT",
    "CREATE INDEX cube_about ON cube(about_from, about_to) WHERE about_from IS NOT NULL",
    # Texts that were there before have not been read for days. To read a million takes a minute,
    # so the memory does it bit by bit, the newest first: all ids below this one.
    "CREATE TABLE about_due (below INTEGER NOT NULL)",
    "INSERT INTO about_due SELECT max(id) + 1 FROM cube HAVING count(*) > 0",
)


def migrate(connection: Connection) -> None:
    for statement in _STATEMENTS:
        connection.execute(statement)
