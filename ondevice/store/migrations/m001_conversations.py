"""Conversations and their messages."""

from __future__ import annotations

from ondevice.store._sqlite import Connection


def migrate(connection: Connection) -> None:
    connection.execute(
        """
        CREATE TABLE conversation (
            id INTEGER PRIMARY KEY,
            title TEXT NOT NULL DEFAULT '',
            system TEXT NOT NULL,       -- the system prompt; empty: none
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
            role TEXT NOT NULL CHECK (role IN ('user', 'assistant')),
            content TEXT NOT NULL,
            created_at TEXT NOT NULL,
            -- of an assistant's message:
            thinking TEXT NOT NULL DEFAULT '',
            model TEXT,
            finish_reason TEXT          -- NULL: being written, or interrupted
                CHECK (finish_reason IN ('stop', 'length', 'cancelled')),
            statistics TEXT,            -- JSON of engine.messages.Statistics, once finished
            UNIQUE (conversation_id, position)
        )
        """
    )
