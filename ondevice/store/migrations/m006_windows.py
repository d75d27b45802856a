"""What each window of the app has open and is typed there; what makes long chats go quickly."""

from __future__ import annotations

from ondevice.store._sqlite import Connection

_STATEMENTS = (
    """
    CREATE TABLE open_tab (
        window TEXT NOT NULL,       -- names the window, and the file that it keeps locked
        place INTEGER NOT NULL,     -- 0, 1, … from left to right
        conversation_id INTEGER REFERENCES conversation(id) ON DELETE CASCADE,  -- NULL: a new one
        shown INTEGER NOT NULL,
        draft TEXT NOT NULL,        -- what is typed and not sent
        edited_id INTEGER,          -- the message that the draft is to replace
        beneath TEXT NOT NULL,      -- what was typed before that message was taken to be edited
        PRIMARY KEY (window, place)
    ) WITHOUT ROWID
    """,
    # Long texts that were pasted into a draft, which only names them.
    """
    CREATE TABLE open_paste (
        window TEXT NOT NULL,
        place INTEGER NOT NULL,
        name TEXT NOT NULL,
        content TEXT NOT NULL,
        PRIMARY KEY (window, place, name),
        FOREIGN KEY (window, place) REFERENCES open_tab(window, place) ON DELETE CASCADE
    ) WITHOUT ROWID
    """,
    "CREATE INDEX open_tab_conversation ON open_tab(conversation_id)",
    # Without it, each message that is deleted has all conversations looked through.
    "CREATE INDEX conversation_end ON conversation(end_id)",
    # A number is never given twice: a window that has a deleted conversation open must not say
    # something to another one.
    "CREATE TABLE last_conversation (id INTEGER NOT NULL)",
    "INSERT INTO last_conversation SELECT coalesce(max(id), 0) FROM conversation",
    """
    CREATE TRIGGER conversation_inserted AFTER INSERT ON conversation BEGIN
        UPDATE last_conversation SET id = max(id, new.id);
    END
    """,
)


def migrate(connection: Connection) -> None:
    for statement in _STATEMENTS:
        connection.execute(statement)
