"""What the user has stated and no model has read for facts yet."""

from __future__ import annotations

from ondevice.store._sqlite import Connection


def migrate(connection: Connection) -> None:
    connection.execute(
        """
        CREATE TABLE unread (
            cube_id INTEGER PRIMARY KEY REFERENCES cube(id) ON DELETE CASCADE,
            statements TEXT NOT NULL    -- of what was typed: no code, quotations or questions
        )
        """
    )
