"""The memory: sources, cubes with their versions, links and tags, and the search index."""

from __future__ import annotations

from ondevice.store._sqlite import Connection

_STATEMENTS = (
    """
    CREATE TABLE source (
        id INTEGER PRIMARY KEY,
        uid TEXT NOT NULL UNIQUE,   -- the same in every store that a copy is imported into
        kind TEXT NOT NULL CHECK (kind IN ('conversation', 'document', 'notes', 'facts')),
        name TEXT NOT NULL,         -- title of the conversation, path of the document
        digest TEXT,                -- SHA-256 of the document's file
        conversation_id INTEGER UNIQUE REFERENCES conversation(id) ON DELETE SET NULL
    )
    """,
    """
    CREATE TABLE cube (
        id INTEGER PRIMARY KEY,     -- source.id << 32 | position: neighbours in a source are ±1
        kind TEXT NOT NULL CHECK
            (kind IN ('turn', 'note', 'fact', 'profile', 'lesson', 'document')),
        status TEXT NOT NULL CHECK (status IN ('active', 'superseded', 'archived', 'deleted')),
        content TEXT NOT NULL,      -- empty once deleted: only the place is remembered
        speaker TEXT NOT NULL,      -- empty: the user
        topic TEXT,                 -- what a fact is about; a new value supersedes the old one
        message_id INTEGER REFERENCES message(id) ON DELETE SET NULL,
        event_at TEXT NOT NULL,     -- ISO 8601 with the user's offset: when it was said or was so
        written_at TEXT NOT NULL,   -- the same: when it came into the store
        version INTEGER NOT NULL,   -- 1, 2, …; the earlier ones are in the table version
        source_id INTEGER NOT NULL GENERATED ALWAYS AS (id >> 32) VIRTUAL REFERENCES source(id)
    )
    """,
    "CREATE INDEX cube_message ON cube(message_id) WHERE message_id IS NOT NULL",
    # Finds equal texts without holding them a second time.
    "CREATE INDEX cube_length ON cube(length(content))",
    "CREATE INDEX cube_event ON cube(event_at)",
    "CREATE INDEX cube_speaker ON cube(speaker COLLATE NOCASE) WHERE speaker <> ''",
    "CREATE INDEX cube_topic ON cube(topic) WHERE topic IS NOT NULL",
    """
    CREATE TABLE version (
        cube_id INTEGER NOT NULL REFERENCES cube(id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        content TEXT NOT NULL,
        event_at TEXT NOT NULL,
        written_at TEXT NOT NULL,
        PRIMARY KEY (cube_id, number)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE link (
        from_id INTEGER NOT NULL REFERENCES cube(id) ON DELETE CASCADE,
        kind TEXT NOT NULL CHECK (kind IN ('evidence', 'supersedes', 'related')),
        to_id INTEGER NOT NULL REFERENCES cube(id) ON DELETE CASCADE,
        PRIMARY KEY (from_id, kind, to_id)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX link_to ON link(to_id)",
    """
    CREATE TABLE tag (
        cube_id INTEGER NOT NULL REFERENCES cube(id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        PRIMARY KEY (cube_id, name)
    ) WITHOUT ROWID
    """,
    "CREATE INDEX tag_name ON tag(name)",
    "CREATE TABLE scrub (due INTEGER PRIMARY KEY)",  # a row: deleted text is still in the WAL
    # The index has no copy of the text, and forgets a word for good when it is deleted.
    """
    CREATE VIRTUAL TABLE memory_index USING fts5(
        content, content='cube', content_rowid='id', detail='none',
        tokenize='porter unicode61 remove_diacritics 2'
    )
    """,
    "INSERT INTO memory_index(memory_index, rank) VALUES ('secure-delete', 1)",
    """
    CREATE TRIGGER cube_inserted AFTER INSERT ON cube BEGIN
        INSERT INTO memory_index(rowid, content) VALUES (new.id, new.content);
    END
    """,
    """
    CREATE TRIGGER cube_deleted AFTER DELETE ON cube BEGIN
        INSERT INTO memory_index(memory_index, rowid, content)
        VALUES ('delete', old.id, old.content);
    END
    """,
    """
    CREATE TRIGGER cube_changed AFTER UPDATE OF content ON cube BEGIN
        INSERT INTO memory_index(memory_index, rowid, content)
        VALUES ('delete', old.id, old.content);
        INSERT INTO memory_index(rowid, content) VALUES (new.id, new.content);
    END
    """,
)


def migrate(connection: Connection) -> None:
    for statement in _STATEMENTS:
        connection.execute(statement)
