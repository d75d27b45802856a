"""Cubes in the tables of the store: the only place that knows their columns."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime

import msgspec

from ondevice.errors import StoreError, UsageError
from ondevice.memory._records import (
    POSITION_BITS,
    POSITIONS,
    Cube,
    Kind,
    Link,
    LinkKind,
    Source,
    SourceKind,
    Status,
    Version,
    label,
)
from ondevice.store import Connection, Row

#: Places from one cube of a source to the next. What stands for itself keeps a distance, so that
#: it is nobody's neighbour in a search.
_STEP: dict[SourceKind, int] = {"conversation": 1, "document": 1, "notes": 8, "facts": 8}

_SELECT = (
    "SELECT cube.*, source.uid, source.kind AS source_kind, "
    "coalesce(conversation.title, source.name) AS name FROM cube "
    "JOIN source ON source.id = cube.source_id "
    "LEFT JOIN conversation ON conversation.id = source.conversation_id "
)


def open_source(
    connection: Connection,
    kind: SourceKind,
    name: str = "",
    *,
    uid: str | None = None,
    conversation_id: int | None = None,
) -> int:
    """The id of a source, made if need be.

    It is known by its ``uid`` or conversation; there is one source of notes and one of facts.
    """
    if uid is not None:
        column, key = "uid", uid
    elif conversation_id is not None:
        column, key = "conversation_id", str(conversation_id)
    else:
        column, key = "kind", kind
    row = connection.execute(f"SELECT id FROM source WHERE {column} = ?", (key,)).fetchone()
    if row is not None and kind != "document":
        return int(row["id"])
    cursor = connection.execute(
        "INSERT INTO source(uid, kind, name, conversation_id) VALUES (?, ?, ?, ?)",
        (uid or uuid.uuid4().hex, kind, name, conversation_id),
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def insert(
    connection: Connection,
    source: int,
    kind: Kind,
    content: str,
    *,
    event_at: datetime,
    written_at: datetime,
    speaker: str = "",
    topic: str | None = None,
    message_id: int | None = None,
) -> int:
    """Store a new cube at the end of its source and return its id."""
    first = source << POSITION_BITS
    (last, step) = connection.execute(
        "SELECT (SELECT max(id) FROM cube WHERE id BETWEEN ?1 AND ?1 + ?2 - 1), kind "
        "FROM source WHERE id = ?3",
        (first, POSITIONS, source),
    ).fetchone()
    cube_id = first if last is None else last + _STEP[step]
    connection.execute(
        "INSERT INTO cube(id, kind, status, content, speaker, topic, message_id, event_at, "
        "written_at, version) VALUES (?, ?, 'active', ?, ?, ?, ?, ?, ?, 1)",
        (cube_id, kind, content, speaker, topic, message_id, _text(event_at), _text(written_at)),
    )
    return int(cube_id)


#: id, kind, status, speaker, day (ISO 8601) and content: what a search goes by.
Marks = tuple[int, Kind, Status, str, str, str]


def marks(connection: Connection, ids: Iterable[int]) -> list[Marks]:
    """Those of ``ids`` that exist, in order of id."""
    return [
        tuple(row)
        for row in connection.execute(
            "SELECT id, kind, status, speaker, substr(event_at, 1, 10), content FROM cube "
            "WHERE id IN (SELECT value FROM json_each(?)) ORDER BY id",
            (json.dumps(list(ids)),),
        )
    ]


def of_messages(connection: Connection, messages: Collection[int]) -> set[int]:
    """The cubes of these messages."""
    if not messages:
        return set()
    found = connection.execute(
        "SELECT id FROM cube WHERE message_id IN (SELECT value FROM json_each(?))",
        (json.dumps(list(messages)),),
    )
    return {row[0] for row in found}


def outdated(connection: Connection, ids: Iterable[int]) -> set[int]:
    """Those of ``ids`` that facts rest on of which none is so any more."""
    found = connection.execute(
        "SELECT to_id FROM link JOIN cube ON cube.id = from_id WHERE link.kind = 'evidence' "
        "AND to_id IN (SELECT value FROM json_each(?)) GROUP BY to_id "
        "HAVING max(status = 'superseded') AND NOT max(status = 'active')",
        (json.dumps(list(ids)),),
    )
    return {row[0] for row in found}


def get_many(connection: Connection, ids: Sequence[int]) -> list[Cube]:
    """The cubes with these ids, in this order. Raises :class:`UsageError` for one that is not."""
    found = connection.execute(
        _SELECT + "WHERE cube.id IN (SELECT value FROM json_each(?))", (json.dumps(list(ids)),)
    )
    cubes = {row["id"]: _cube(row) for row in found}
    for cube_id in outdated(connection, cubes):
        cubes[cube_id] = msgspec.structs.replace(cubes[cube_id], outdated=True)
    for cube_id in ids:
        if cube_id not in cubes:
            raise UsageError(
                f"There is no memory {label(cube_id)}. “ondevice memory list” shows them."
            )
    return [cubes[cube_id] for cube_id in ids]


def get(connection: Connection, cube_id: int) -> Cube:
    """The cube with this id. Raises :class:`UsageError` when there is none."""
    return get_many(connection, [cube_id])[0]


def listing(
    connection: Connection,
    *,
    kind: Kind | None = None,
    status: Status | None = None,
    tag: str | None = None,
    limit: int = -1,
) -> list[Cube]:
    """Cubes of this kind, status and tag, the latest written first."""
    found = connection.execute(
        _SELECT + "WHERE (?1 IS NULL OR cube.kind = ?1) AND (?2 IS NULL OR status = ?2) "
        "AND (?3 IS NULL OR cube.id IN (SELECT cube_id FROM tag WHERE name = ?3)) "
        "ORDER BY written_at DESC, cube.id DESC LIMIT ?4",
        (kind, status, tag, limit),
    )
    return [_cube(row) for row in found]


def in_order(connection: Connection) -> Iterator[Cube]:
    """All cubes, source by source as they came."""
    return map(_cube, connection.execute(_SELECT + "ORDER BY cube.id"))


def edit(connection: Connection, cube_id: int, content: str, now: datetime) -> None:
    """Give a cube a new content; the old one becomes a version."""
    connection.execute(
        "INSERT INTO version SELECT id, version, content, event_at, written_at "
        "FROM cube WHERE id = ?",
        (cube_id,),
    )
    connection.execute(
        "UPDATE cube SET content = ?, version = version + 1, event_at = ?, written_at = ? "
        "WHERE id = ?",
        (content, _text(now), _text(now), cube_id),
    )


def set_status(connection: Connection, cube_id: int, status: Status) -> None:
    connection.execute("UPDATE cube SET status = ? WHERE id = ?", (status, cube_id))


def link(connection: Connection, from_id: int, kind: LinkKind, to_id: int) -> None:
    connection.execute("INSERT OR IGNORE INTO link VALUES (?, ?, ?)", (from_id, kind, to_id))


def supersede(connection: Connection, new: int, old: int) -> None:
    """Let ``old`` be found as what once was so, and ``new`` as what is."""
    link(connection, new, "supersedes", old)
    set_status(connection, old, "superseded")


def tag(connection: Connection, cube_id: int, names: Iterable[str]) -> None:
    connection.executemany(
        "INSERT OR IGNORE INTO tag VALUES (?, ?)", [(cube_id, name) for name in names]
    )


def versions(connection: Connection, cube_id: int) -> list[Version]:
    """What the cube said before, oldest first."""
    return [
        Version(
            number=row["number"],
            content=row["content"],
            event_at=moment(row["event_at"]),
            written_at=moment(row["written_at"]),
        )
        for row in connection.execute(
            "SELECT * FROM version WHERE cube_id = ? ORDER BY number", (cube_id,)
        )
    ]


def links(connection: Connection, cube_id: int) -> list[Link]:
    """The links from and to the cube."""
    return [
        Link(from_id=row["from_id"], kind=row["kind"], to_id=row["to_id"])
        for row in connection.execute(
            "SELECT * FROM link WHERE from_id = ?1 OR to_id = ?1 ORDER BY from_id, kind, to_id",
            (cube_id,),
        )
    ]


def replaced(
    connection: Connection, ids: Sequence[int]
) -> dict[int, tuple[Cube | None, Cube | None]]:
    """For those of these cubes that have them: the one before, and the one that replaced it."""
    rows = connection.execute(
        "SELECT from_id, to_id FROM link WHERE kind = 'supersedes' "
        "AND (from_id IN (SELECT value FROM json_each(?1)) "
        "OR to_id IN (SELECT value FROM json_each(?1)))",
        (json.dumps(list(ids)),),
    ).fetchall()
    ends = {end for row in rows for end in (row["from_id"], row["to_id"])}
    cubes = {cube.id: cube for cube in get_many(connection, list(ends)) if cube.content}
    before = {row["from_id"]: cubes.get(row["to_id"]) for row in rows}
    after = {row["to_id"]: cubes.get(row["from_id"]) for row in rows}
    return {end: (before.get(end), after.get(end)) for end in ids if end in ends}


def tags(connection: Connection, cube_id: int) -> list[str]:
    found = connection.execute("SELECT name FROM tag WHERE cube_id = ? ORDER BY name", (cube_id,))
    return [row["name"] for row in found]


def _cube(row: Row) -> Cube:
    return Cube(
        id=row["id"],
        kind=row["kind"],
        status=row["status"],
        content=row["content"],
        speaker=row["speaker"],
        topic=row["topic"],
        event_at=moment(row["event_at"]),
        written_at=moment(row["written_at"]),
        version=row["version"],
        message_id=row["message_id"],
        source=Source(
            id=row["source_id"], uid=row["uid"], kind=row["source_kind"], name=row["name"]
        ),
    )


def moment(text: str) -> datetime:
    """The time that a column holds. Raises :class:`StoreError` when that is damaged."""
    try:
        return datetime.fromisoformat(text)
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"A memory has “{text}” as its time, so the store is damaged. Rescue what can "
            "be read with “ondevice memory export --salvage FILE”."
        ) from error


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
