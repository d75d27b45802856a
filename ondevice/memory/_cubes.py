"""Cubes in the tables of the store: the only place that knows their columns."""

from __future__ import annotations

import json
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import date, datetime, timedelta
from itertools import product
from typing import get_args

import msgspec

from ondevice.errors import NotFound, StoreError
from ondevice.memory._dates import about
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

_SET_BACK = timedelta(days=2)  # that a clock may be since the latest cube
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
        "written_at, version, about_from, about_to) "
        "VALUES (?, ?, 'active', ?, ?, ?, ?, ?, ?, 1, ?, ?)",
        (
            *(cube_id, kind, content, speaker, topic, message_id),
            *(text_of(event_at), text_of(written_at)),
            *_about(kind, content, event_at),
        ),
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


def abouts(connection: Connection, ids: Iterable[int]) -> dict[int, tuple[date, date]]:
    """First and last of the days that each of these cubes is about, where its text tells."""
    return {
        row[0]: (moment(row[1]).date(), moment(row[2]).date())
        for row in connection.execute(
            "SELECT id, about_from, about_to FROM cube "
            "WHERE id IN (SELECT value FROM json_each(?)) AND about_from IS NOT NULL",
            (json.dumps(list(ids)),),
        )
    }


def of_days(connection: Connection, first: date, last: date, limit: int) -> list[int]:
    """Cubes that were said on these days or are about them, so many of each at most."""
    said = connection.execute(
        "SELECT id FROM cube WHERE event_at >= ? AND event_at < ? ORDER BY event_at LIMIT ?",
        (first.isoformat(), (last + timedelta(days=1)).isoformat(), limit),
    )
    about = connection.execute(
        # What is about more than a year tells of no day in it.
        "SELECT id FROM cube WHERE about_from >= ? AND about_from <= ? AND about_to >= ? "
        "ORDER BY about_from DESC LIMIT ?",
        (_days_before(first, 366).isoformat(), last.isoformat(), first.isoformat(), limit),
    )
    return list(dict.fromkeys(row[0] for rows in (said, about) for row in rows))


def _days_before(day: date, count: int) -> date:
    return day - timedelta(days=min(count, (day - date.min).days))


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
    """The cubes with these ids, in this order. Raises :class:`NotFound` for one that is not."""
    found = connection.execute(
        _SELECT + "WHERE cube.id IN (SELECT value FROM json_each(?))", (json.dumps(list(ids)),)
    )
    cubes = {row["id"]: _cube(row) for row in found}
    for cube_id in outdated(connection, cubes):
        cubes[cube_id] = msgspec.structs.replace(cubes[cube_id], outdated=True)
    for cube_id in ids:
        if cube_id not in cubes:
            raise NotFound(
                f"There is no memory {label(cube_id)}. “ondevice memory list” shows them."
            )
    return [cubes[cube_id] for cube_id in ids]


def get(connection: Connection, cube_id: int) -> Cube:
    """The cube with this id. Raises :class:`NotFound` when there is none."""
    return get_many(connection, [cube_id])[0]


def listing(
    connection: Connection,
    *,
    kind: Kind | None = None,
    status: Status | None = None,
    tag: str | None = None,
    limit: int = -1,
) -> list[Cube]:
    """Cubes of this kind, status and tag, the latest written first.

    Without a status: all but those that are deleted.
    """
    kinds = [kind] if kind else get_args(Kind)
    statuses = [status] if status else [each for each in get_args(Status) if each != "deleted"]
    if tag is None:  # the index has each of them in order
        ids = [
            row["id"]
            for each, state in product(kinds, statuses)
            for row in connection.execute(
                "SELECT id FROM cube WHERE kind = ? AND status = ? "
                "ORDER BY written_at DESC, id DESC LIMIT ?",
                (each, state, limit),
            )
        ]
    else:
        ids = [
            row["id"]
            for row in connection.execute(
                "SELECT id FROM tag CROSS JOIN cube ON cube.id = cube_id WHERE name = ? "
                "AND kind IN (SELECT value FROM json_each(?)) "
                "AND status IN (SELECT value FROM json_each(?))",
                (tag, json.dumps(kinds), json.dumps(statuses)),
            )
        ]
    found = connection.execute(
        _SELECT + "WHERE cube.id IN (SELECT value FROM json_each(?)) "
        "ORDER BY written_at DESC, cube.id DESC LIMIT ?",
        (json.dumps(ids), limit),
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
        (content, text_of(now), text_of(now), cube_id),
    )
    set_about(connection, cube_id)


def set_about(connection: Connection, cube_id: int) -> None:
    """Read anew which days a cube is about."""
    kind, content, event_at = connection.execute(
        "SELECT kind, content, event_at FROM cube WHERE id = ?", (cube_id,)
    ).fetchone()
    connection.execute(
        "UPDATE cube SET about_from = ?, about_to = ? WHERE id = ?",
        (*_about(kind, content, moment(event_at)), cube_id),
    )


def read_due(connection: Connection, count: int) -> int:
    """Read which days the texts are about that an older ondevice has stored, so many at most.

    The newest come first. Returns how many were read.
    """
    row = connection.execute("SELECT below FROM about_due").fetchone()
    if row is None:
        return 0
    rows = connection.execute(
        "SELECT id, kind, content, event_at FROM cube WHERE id < ? AND status <> 'deleted' "
        "ORDER BY id DESC LIMIT ?",
        (row["below"], count),
    ).fetchall()
    found = [
        (*about, row["id"])
        for row in rows
        if any(about := _about(row["kind"], row["content"], moment(row["event_at"])))
    ]
    connection.executemany("UPDATE cube SET about_from = ?, about_to = ? WHERE id = ?", found)
    if len(rows) < count:
        connection.execute("DELETE FROM about_due")
    else:
        connection.execute("UPDATE about_due SET below = ?", (rows[-1]["id"],))
    return len(rows)


def _about(kind: Kind, content: str, said: datetime) -> tuple[str | None, str | None]:
    """First and last of the days that ``content`` is about, as they are stored."""
    # Nobody knows on which day a document was written, and a profile is made of facts.
    span = None if kind in ("document", "profile", "lesson") else about(content, said.date())
    return (span[0].isoformat(), span[1].isoformat()) if span else (None, None)


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
        about_from=_date(row["about_from"]),
        about_to=_date(row["about_to"]),
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


def _date(text: str | None) -> date | None:
    return moment(text).date() if text else None


def after_all(connection: Connection, now: datetime) -> datetime:
    """``now``, or if the clock was set back a little, when the latest cube was said.

    A machine whose clock stands still while it is off, such as a Raspberry Pi without a network,
    starts with a time of before; what is said then is still the latest.
    """
    (latest,) = connection.execute(
        "SELECT max(event_at) FROM cube WHERE event_at < ?", (text_of(now + _SET_BACK),)
    ).fetchone()
    return max(now, moment(latest)) if latest else now


def text_of(moment: datetime) -> str:
    """A time as it is stored."""
    return moment.isoformat(timespec="seconds")
