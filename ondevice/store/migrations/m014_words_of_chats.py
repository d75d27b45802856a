"""Messages are found by the words that the memory knows: with the vowel signs of Indic scripts.

As in :mod:`m013_vowel_signs`, which did that for the memory only.
"""

from __future__ import annotations

from ondevice.store._sqlite import Connection
from ondevice.store.migrations.m013_vowel_signs import TOKENIZER

_TOGETHER = 500  # messages: there may be many, and between two of these Ctrl+C has its turn

_STATEMENTS = (
    "DROP TABLE message_index",
    f"""
    CREATE VIRTUAL TABLE message_index USING fts5(
        content, content='message', content_rowid='id', tokenize="{TOKENIZER}"
    )
    """,
    "INSERT INTO message_index(message_index, rank) VALUES ('secure-delete', 1)",
)


def migrate(connection: Connection) -> None:
    for statement in _STATEMENTS:
        connection.execute(statement)
    ids = [id_ for (id_,) in connection.execute("SELECT id FROM message ORDER BY id")]
    for start in range(0, len(ids), _TOGETHER):
        some = ids[start : start + _TOGETHER]
        connection.execute(
            "INSERT INTO message_index(rowid, content) "
            "SELECT id, content FROM message WHERE id BETWEEN ? AND ?",
            (some[0], some[-1]),
        )
