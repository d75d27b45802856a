"""Keys of the files with what models have computed of conversations: without its key, one is noise.

A key goes in the transaction in which something goes that its files have seen. The files are
deleted after it.
"""

from __future__ import annotations

from ondevice.store._sqlite import Connection

_STATEMENTS = (
    # Without a conversation: of what several begin with.
    """
    CREATE TABLE state_key (
        name TEXT PRIMARY KEY,
        conversation_id INTEGER UNIQUE REFERENCES conversation(id) ON DELETE CASCADE,
        secret BLOB NOT NULL
    )
    """,
    """
    CREATE TRIGGER conversation_states_deleted AFTER DELETE ON conversation BEGIN
        DELETE FROM state_key WHERE conversation_id IS NULL;
    END
    """,
    """
    CREATE TRIGGER message_states_deleted AFTER DELETE ON message BEGIN
        DELETE FROM state_key
        WHERE conversation_id IS old.conversation_id OR conversation_id IS NULL;
    END
    """,
    # What is forgotten may have been quoted anywhere.
    """
    CREATE TRIGGER cube_states_deleted AFTER UPDATE OF status ON cube
    WHEN new.status = 'deleted' BEGIN
        DELETE FROM state_key;
    END
    """,
)


def migrate(connection: Connection) -> None:
    for statement in _STATEMENTS:
        connection.execute(statement)
