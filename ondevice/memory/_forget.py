"""Forgets cubes for good: the text leaves the cube and whatever was made of it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime

from ondevice.memory._profile import refresh as refresh_profile
from ondevice.store import Connection

FORGOTTEN = "[forgotten]"  # what stands in a conversation in place of a forgotten message

#: A shorter text may be part of any message by chance; longer ones are looked for in all.
_QUOTABLE = 16  # characters


def closure(connection: Connection, ids: Iterable[int]) -> list[int]:
    """``ids`` with all that has to go with them.

    That is: cubes that say the very same, what a fact, a lesson or a profile was made from, since
    that still says it, and then the facts and lessons that rest on nothing else. A profile that
    rests on more than that is written anew instead, see :func:`forget`.
    """
    return [
        row[0]
        for row in connection.execute(
            """
            WITH same(id) AS (
                SELECT other.id FROM json_each(?) JOIN cube ON cube.id = value
                    JOIN cube AS other ON length(other.content) = length(cube.content)
                        AND substr(other.content, -16) = substr(cube.content, -16)
                        AND other.content = cube.content
            ), evident(id) AS (
                SELECT id FROM same
                UNION SELECT to_id FROM evident JOIN link ON from_id = id AND kind = 'evidence'
            ), gone(id) AS (
                SELECT id FROM evident
                UNION SELECT link.from_id FROM evident
                    JOIN link ON to_id = evident.id AND link.kind = 'evidence'
                    WHERE NOT EXISTS (
                        SELECT 1 FROM link AS other WHERE other.from_id = link.from_id
                        AND other.kind = 'evidence' AND other.to_id NOT IN evident
                    )
            )
            SELECT id FROM gone JOIN cube USING (id) WHERE status <> 'deleted' ORDER BY id
            """,
            (json.dumps(list(ids)),),
        )
    ]


def forget(connection: Connection, ids: Iterable[int]) -> None:
    """Delete the text of these cubes, all of their versions, links and tags, and what quotes them.

    Only the places stay, as deleted, so that an import does not bring the text back. The profile
    is written anew without it, and without its earlier versions. The caller commits and then
    calls :meth:`ondevice.store.Database.scrub`.
    """
    gone = list(ids)
    # The latest first: what it replaced holds again, until that goes as well.
    for cube_id in sorted({*gone, *profiles_of(connection, gone)}, reverse=True):
        texts = connection.execute(
            "SELECT content FROM cube WHERE id = ?1 UNION "
            "SELECT content FROM version WHERE cube_id = ?1 UNION "
            "SELECT content FROM message WHERE id = (SELECT message_id FROM cube WHERE id = ?1)",
            (cube_id,),
        ).fetchall()
        connection.execute(
            "UPDATE message SET content = ?, thinking = '' "
            "WHERE id = (SELECT message_id FROM cube WHERE id = ?)",
            (FORGOTTEN, cube_id),
        )
        for (text,) in texts:
            _forget_quotations(connection, text)
        delete(connection, cube_id)
    refresh_profile(connection, datetime.now().astimezone())
    connection.execute("INSERT OR IGNORE INTO scrub VALUES (1)")
    connection.execute(
        "UPDATE source SET name = '', digest = NULL WHERE kind = 'document' AND id NOT IN "
        "(SELECT source_id FROM cube WHERE status <> 'deleted')"
    )


def profiles_of(connection: Connection, ids: Iterable[int]) -> list[int]:
    """The profiles that are made of any of these facts."""
    return [
        row[0]
        for row in connection.execute(
            "SELECT DISTINCT from_id FROM json_each(?) JOIN link ON to_id = value "
            "JOIN cube ON cube.id = from_id WHERE link.kind = 'evidence' AND cube.kind = 'profile'",
            (json.dumps(list(ids)),),
        )
    ]


def delete(connection: Connection, cube_id: int) -> None:
    """Delete the text of a cube, its versions, links and tags. Only its place stays."""
    connection.execute(  # what a forgotten fact had replaced holds again
        "UPDATE cube SET status = 'active' WHERE status = 'superseded' "
        "AND id IN (SELECT to_id FROM link WHERE from_id = ?1 AND kind = 'supersedes') "
        "AND topic IS NOT NULL AND NOT EXISTS (SELECT 1 FROM cube AS other "
        "WHERE other.topic = cube.topic AND other.status = 'active' AND other.id <> ?1)",
        (cube_id,),
    )
    connection.execute("DELETE FROM unread WHERE cube_id = ?", (cube_id,))
    connection.execute("DELETE FROM version WHERE cube_id = ?", (cube_id,))
    connection.execute("DELETE FROM link WHERE from_id = ?1 OR to_id = ?1", (cube_id,))
    connection.execute("DELETE FROM tag WHERE cube_id = ?", (cube_id,))
    connection.execute(
        "UPDATE cube SET status = 'deleted', content = '', speaker = '', topic = NULL, "
        "message_id = NULL, about_from = NULL, about_to = NULL WHERE id = ?",
        (cube_id,),
    )


def _forget_quotations(connection: Connection, text: str) -> None:
    """Take ``text`` out of messages and attachments that quote it, and out of titles made of it."""
    if len(text) >= _QUOTABLE:
        for table, column in (
            ("message", "content"),
            ("message", "thinking"),
            ("attachment", "content"),
            ("open_tab", "draft"),
            ("open_tab", "beneath"),
            ("open_paste", "content"),
        ):
            connection.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?1, ?2) "
                f"WHERE instr({column}, ?1)",
                (text, FORGOTTEN),
            )
    for table, column in (("conversation", "title"), ("source", "name")):
        connection.execute(
            f"UPDATE {table} SET {column} = '' "
            f"WHERE length({column}) > 3 AND instr(?, rtrim({column}, '….'))",
            (" ".join(text.split()),),
        )
