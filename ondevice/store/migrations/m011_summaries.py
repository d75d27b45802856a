"""Summaries that stand in the prompt for the messages of a branch up to a certain one."""

from __future__ import annotations

from ondevice.store._sqlite import Connection


def migrate(connection: Connection) -> None:
    connection.execute(
        """
        CREATE TABLE summary (
            -- The last message that it stands for. Other branches, and what takes the place of one
            -- of these messages, do not have it in their past.
            message_id INTEGER PRIMARY KEY REFERENCES message(id) ON DELETE CASCADE,
            content TEXT NOT NULL,
            used INTEGER NOT NULL DEFAULT 1,    -- 0: the user has undone it
            written_at TEXT NOT NULL
        )
        """
    )
