"""Conversations and their messages."""

from __future__ import annotations

from ondevice.store._sqlite import Connection


def migrate(connection: Connection) -> None:
    connection.execute(
        """
        CREATE TABLE conversation (
            id INTEGER PRIMARY KEY,
            title TEXT NOT NULL DEFAULT '',
            created_at TEXT NOT NULL,   -- ISO 8601, UTC
            updated_at TEXT NOT NULL
        )
        """
    )
    connection.execute(
        """
        CREATE TABLE message (
            id INTEGER PRIMARY KEY,
            conversation_id INTEGER NOT NULL REFERENCES conversation(id) ON DELETE CASCADE,
            position INTEGER NOT NULL,  -- 0, 1, … within the conversation
            role TEXT NOT NULL CHECK (role IN ('system', 'user', 'assistant')),
            content TEXT NOT NULL,
            thinking TEXT NOT NULL DEFAULT '',
            status TEXT NOT NULL CHECK (status IN ('complete', 'partial', 'interrupted')),
            model TEXT,                 -- of an assistant's message
            statistics TEXT,            -- JSON of engine.messages.Statistics
            created_at TEXT NOT NULL,
            UNIQUE (conversation_id, position)
        )
        """
    )
