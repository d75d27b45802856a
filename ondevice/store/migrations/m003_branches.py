"""Conversations as trees of messages with attachments and recalled memories, and a search index."""

from __future__ import annotations

from ondevice.store._sqlite import Connection

_STATEMENTS = (
    # What ``position`` tells from now on is the order of writing, all branches together.
    "ALTER TABLE message ADD COLUMN parent_id INTEGER REFERENCES message(id) ON DELETE CASCADE",
    "CREATE INDEX message_parent ON message(parent_id)",
    """
    UPDATE message SET parent_id = (
        SELECT id FROM message AS earlier WHERE earlier.conversation_id = message.conversation_id
        AND earlier.position < message.position ORDER BY earlier.position DESC LIMIT 1
    )
    """,
    # The last message of the branch that is shown; NULL: the conversation is empty.
    "ALTER TABLE conversation ADD COLUMN end_id INTEGER REFERENCES message(id) ON DELETE SET NULL",
    """
    UPDATE conversation SET end_id = (
        SELECT id FROM message WHERE conversation_id = conversation.id
        ORDER BY position DESC LIMIT 1
    )
    """,
    "ALTER TABLE conversation ADD COLUMN pinned INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE conversation ADD COLUMN archived INTEGER NOT NULL DEFAULT 0",
    # Nothing of it is remembered, and nothing is recalled in it.
    "ALTER TABLE conversation ADD COLUMN private INTEGER NOT NULL DEFAULT 0",
    """
    CREATE TABLE attachment (
        message_id INTEGER NOT NULL REFERENCES message(id) ON DELETE CASCADE,
        number INTEGER NOT NULL,    -- 0, 1, … within the message
        name TEXT NOT NULL,
        content TEXT NOT NULL,
        PRIMARY KEY (message_id, number)
    ) WITHOUT ROWID
    """,
    # The memories that were quoted to the model with a message of the user.
    """
    CREATE TABLE recall (
        message_id INTEGER NOT NULL REFERENCES message(id) ON DELETE CASCADE,
        cube_id INTEGER NOT NULL REFERENCES cube(id) ON DELETE CASCADE,
        PRIMARY KEY (message_id, cube_id)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX recall_cube ON recall(cube_id)",
    # As with the memory's: no copy of the text, and words are forgotten for good.
    """
    CREATE VIRTUAL TABLE message_index USING fts5(
        content, content='message', content_rowid='id',
        tokenize='porter unicode61 remove_diacritics 2'
    )
    """,
    "INSERT INTO message_index(message_index, rank) VALUES ('secure-delete', 1)",
    "INSERT INTO message_index(message_index) VALUES ('rebuild')",
    """
    CREATE TRIGGER message_inserted AFTER INSERT ON message BEGIN
        INSERT INTO message_index(rowid, content) VALUES (new.id, new.content);
    END
    """,
    """
    CREATE TRIGGER message_deleted AFTER DELETE ON message BEGIN
        INSERT INTO message_index(message_index, rowid, content)
        VALUES ('delete', old.id, old.content);
    END
    """,
    """
    CREATE TRIGGER message_changed AFTER UPDATE OF content ON message BEGIN
        INSERT INTO message_index(message_index, rowid, content)
        VALUES ('delete', old.id, old.content);
        INSERT INTO message_index(rowid, content) VALUES (new.id, new.content);
    END
    """,
)


def migrate(connection: Connection) -> None:
    for statement in _STATEMENTS:
        connection.execute(statement)
