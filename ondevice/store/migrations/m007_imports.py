"""Where chats come from, so that the same export adds only what is new and can be taken back."""

from __future__ import annotations

from ondevice.store._sqlite import Connection

_STATEMENTS = (
    """
    CREATE TABLE import_run (
        id INTEGER PRIMARY KEY,
        name TEXT NOT NULL,         -- of the file
        at TEXT NOT NULL            -- ISO 8601, UTC
    )
    """,
    # A row stays when its chat is deleted, so that the next import does not bring it back. It then
    # holds hashes only.
    """
    CREATE TABLE imported (
        key BLOB PRIMARY KEY,       -- SHA-256 of conversation.origin
        digest BLOB,                -- of what the file had of it last; NULL: look at all of it
        conversation_id INTEGER REFERENCES conversation(id) ON DELETE SET NULL,
        run_id INTEGER REFERENCES import_run(id) ON DELETE SET NULL,    -- that added it
        again INTEGER NOT NULL DEFAULT 0    -- it was deleted here before that
    ) WITHOUT ROWID
    """,
    "CREATE INDEX imported_conversation ON imported(conversation_id)",
    "CREATE INDEX imported_run ON imported(run_id)",
    # The service and its id there; NULL: it began here, or came in before this was kept.
    "ALTER TABLE conversation ADD COLUMN origin TEXT",
    "ALTER TABLE message ADD COLUMN origin TEXT",  # its id there
    "ALTER TABLE message ADD COLUMN run_id INTEGER REFERENCES import_run(id) ON DELETE SET NULL",
    "CREATE INDEX message_run ON message(run_id) WHERE run_id IS NOT NULL",
    # Of a reply: the server that its model was on; NULL: this device. Of a message of the user:
    # the server that its memories may be sent to; NULL: none.
    "ALTER TABLE message ADD COLUMN server TEXT",
)


def migrate(connection: Connection) -> None:
    for statement in _STATEMENTS:
        connection.execute(statement)
