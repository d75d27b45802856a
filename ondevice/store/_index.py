"""Full-text indexes that forget words for good, quickly also when many go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from ondevice.store._sqlite import Connection

_MANY = 200  # texts for which to write the index anew is quicker
_NOBODY = 1 << 62  # no text has this number


@contextmanager
def words_leave(
    connection: Connection, index: Literal["message_index", "memory_index"], texts: int
) -> Iterator[None]:
    """For a block, within a transaction, that deletes about so many texts.

    Each text alone takes a millisecond or more; many leave the index together, which is then
    written anew without them.
    """
    if texts <= _MANY:
        yield
        return
    secure = f"INSERT INTO {index}({index}, rank) VALUES ('secure-delete', ?)"
    connection.execute(secure, (0,))
    yield
    # Segments that are all on one level are merged without those above it, and then what was
    # deleted stays as such, with its words. The one that comes of it and another one are not.
    optimize = f"INSERT INTO {index}({index}) VALUES ('optimize')"
    connection.execute(optimize)
    connection.execute(f"INSERT INTO {index}(rowid, content) VALUES (?, 'a')", (_NOBODY,))
    connection.execute(
        f"INSERT INTO {index}({index}, rowid, content) VALUES ('delete', ?, 'a')", (_NOBODY,)
    )
    connection.execute(optimize)
    connection.execute(secure, (1,))
