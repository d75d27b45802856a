"""What keeps a memory of a million cubes quick: the latest, the number, text without spaces."""

from __future__ import annotations

from ondevice.store._sqlite import Connection

#: Texts with letters of scripts that put no spaces between words.
UNSPACED = "GLOB '*[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]*'"
#: So that the last two letters of a text begin a trigram, as all other pairs do.
END = "'  '"


def triggers(condition: str) -> tuple[str, ...]:
    """What keeps ``memory_trigram`` up to date with the texts that meet ``condition``."""
    return (
        f"""
        CREATE TRIGGER cube_inserted_unspaced AFTER INSERT ON cube
        WHEN new.content {condition} BEGIN
            INSERT INTO memory_trigram(rowid, content) VALUES (new.id, new.content || {END});
        END
        """,
        f"""
        CREATE TRIGGER cube_deleted_unspaced AFTER DELETE ON cube
        WHEN old.content {condition} BEGIN
            INSERT INTO memory_trigram(memory_trigram, rowid, content)
            VALUES ('delete', old.id, old.content || {END});
        END
        """,
        f"""
        CREATE TRIGGER cube_changed_unspaced AFTER UPDATE OF content ON cube BEGIN
            INSERT INTO memory_trigram(memory_trigram, rowid, content)
            SELECT 'delete', old.id, old.content || {END} WHERE old.content {condition};
            INSERT INTO memory_trigram(rowid, content)
            SELECT new.id, new.content || {END} WHERE new.content {condition};
        END
        """,
    )


_STATEMENTS = (
    "CREATE INDEX cube_latest ON cube(kind, status, written_at)",
    "CREATE TABLE cube_count (number INTEGER NOT NULL)",  # counting them takes long
    "INSERT INTO cube_count SELECT count(*) FROM cube",
    """
    CREATE TRIGGER cube_counted AFTER INSERT ON cube BEGIN
        UPDATE cube_count SET number = number + 1;
    END
    """,
    """
    CREATE TRIGGER cube_uncounted AFTER DELETE ON cube BEGIN
        UPDATE cube_count SET number = number - 1;
    END
    """,
    # The other index has whole clauses of these. As it, this one has no copy of the text and
    # forgets for good.
    """
    CREATE VIRTUAL TABLE memory_trigram USING fts5(
        content, content='', detail='none', tokenize='trigram'
    )
    """,
    "INSERT INTO memory_trigram(memory_trigram, rank) VALUES ('secure-delete', 1)",
    f"""
    INSERT INTO memory_trigram(rowid, content)
    SELECT id, content || {END} FROM cube WHERE content {UNSPACED}
    """,
    *triggers(UNSPACED),
)


def migrate(connection: Connection) -> None:
    for statement in _STATEMENTS:
        connection.execute(statement)
