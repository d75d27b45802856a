"""Facts may be proposed until the user decides.

The table is not written anew, which takes minutes with a million cubes: only the constraint
changes, as SQLite's documentation describes for constraints that take nothing from what is there
(https://www.sqlite.org/lang_altertable.html, “Making Other Kinds Of Table Schema Changes”).
"""

from __future__ import annotations

from ondevice.store._sqlite import Connection

_BEFORE = "status IN ('active', 'superseded', 'archived', 'deleted')"
_NOW = "status IN ('active', 'proposed', 'superseded', 'archived', 'deleted')"


def migrate(connection: Connection) -> None:
    (version,) = connection.execute("PRAGMA schema_version").fetchone()
    connection.execute("PRAGMA writable_schema=ON")
    try:
        connection.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, ?, ?) WHERE type = 'table' "
            "AND name = 'cube'",
            (_BEFORE, _NOW),
        )
        connection.execute(f"PRAGMA schema_version={version + 1}")
    finally:
        connection.execute("PRAGMA writable_schema=OFF")
    # Proposals are few and asked for often; and what was rejected is not proposed again.
    connection.execute("CREATE INDEX cube_proposed ON cube(id) WHERE status = 'proposed'")
