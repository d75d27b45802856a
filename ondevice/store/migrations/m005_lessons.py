"""Equal texts are found without reading others; messages about which nothing was remembered."""

from __future__ import annotations

from ondevice.store._sqlite import Connection


def migrate(connection: Connection) -> None:
    # With the length alone, every text of that length had to be read. The ends of texts differ.
    connection.execute("DROP INDEX cube_length")
    connection.execute("CREATE INDEX cube_same ON cube(length(content), substr(content, -16))")
    # Of a user's message: it asks about the user, and nothing that is remembered tells.
    connection.execute("ALTER TABLE message ADD COLUMN unknown INTEGER NOT NULL DEFAULT 0")
