"""Writes the memory to JSON Lines and reads it back, complete; and to Markdown for people.

The first line names the format. Then one line each: sources, cubes with their versions and tags,
and links. A cube is known by the uid of its source and its position there, which are the same in
every store, so reading a file twice adds nothing, and what was forgotten stays forgotten.
"""

from __future__ import annotations

import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import date, datetime
from typing import Any, TypeVar, get_args

import msgspec

from ondevice.errors import FileError
from ondevice.memory import _cubes
from ondevice.memory._recall import plain
from ondevice.memory._records import (
    POSITION_BITS,
    POSITIONS,
    Kind,
    LinkKind,
    SourceKind,
    Status,
)
from ondevice.store import Connection, Row
from ondevice.text import printable

FORMAT = 1

_R = TypeVar("_R", bound=msgspec.Struct)
_Place = tuple[str, int]  # uid of the source, position


class _ExportRecord(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    pass


class _HeaderRecord(_ExportRecord, frozen=True, kw_only=True, tag="ondevice-memory"):
    format: int


class _SourceRecord(_ExportRecord, frozen=True, kw_only=True, tag="source"):
    uid: str
    kind: SourceKind
    name: str
    digest: str | None


class _VersionRecord(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    content: str
    event_at: str
    written_at: str


class _CubeRecord(_ExportRecord, frozen=True, kw_only=True, tag="cube"):
    place: _Place
    kind: Kind
    status: Status
    content: str
    speaker: str
    topic: str | None
    event_at: str
    # First and last day that it is about; unset where that is to be read from the content.
    about_from: str | msgspec.UnsetType = msgspec.UNSET
    about_to: str | msgspec.UnsetType = msgspec.UNSET
    written_at: str
    version: int
    versions: tuple[_VersionRecord, ...]
    tags: tuple[str, ...]


class _LinkRecord(_ExportRecord, frozen=True, kw_only=True, tag="link"):
    from_place: _Place
    kind: LinkKind
    to_place: _Place


_NO_TIME = "1970-01-01T00:00:00+00:00"  # of what has lost its times in a damaged store
_decoder = msgspec.json.Decoder(_HeaderRecord | _SourceRecord | _CubeRecord | _LinkRecord)


def export_lines(rows: Callable[[str], Iterable[Row]]) -> Iterator[bytes]:
    """The whole memory, one record of JSON a line, newlines included.

    ``rows`` gives the rows of a table by primary key; of a damaged store, those that are left.
    """
    yield _encode(_HeaderRecord(format=FORMAT))
    uids: dict[int, str] = defaultdict(lambda: uuid.uuid4().hex)
    for row in rows("source"):
        uids[row["id"]] = row["uid"]
        yield _encode(_record(_SourceRecord, row))

    def place(cube_id: int) -> _Place:
        return uids[cube_id >> POSITION_BITS], cube_id % POSITIONS

    versions: dict[int, list[_VersionRecord]] = defaultdict(list)
    for row in rows("version"):
        versions[row["cube_id"]].append(_record(_VersionRecord, row))
    tags: dict[int, list[str]] = defaultdict(list)
    for row in rows("tag"):
        tags[row["cube_id"]].append(row["name"])
    for row in rows("cube"):
        cube_id = row["id"]
        if (source := cube_id >> POSITION_BITS) not in uids:  # lost in a damaged store
            yield _encode(_SourceRecord(uid=uids[source], kind="notes", name="", digest=None))
        yield _encode(
            _record(
                _CubeRecord,
                row,
                place=place(cube_id),
                **_days(row),
                versions=versions[cube_id],
                tags=tags[cube_id],
            )
        )
    for row in rows("link"):
        ends = row["from_id"], row["to_id"]
        if not all(isinstance(end, int) and end >> POSITION_BITS in uids for end in ends):
            continue  # an end is lost in a damaged store
        yield _encode(
            _LinkRecord(
                from_place=place(row["from_id"]), kind=row["kind"], to_place=place(row["to_id"])
            )
        )


def _days(row: Row) -> dict[str, str | msgspec.UnsetType]:
    """The days that a cube is about; a damaged store may be of before there were any."""
    return {
        name: (name in row.keys() and row[name]) or msgspec.UNSET  # noqa: SIM118
        for name in ("about_from", "about_to")
    }


def export_salvaged(rows: Callable[[str], Iterable[Row]]) -> Iterator[bytes]:
    """:func:`export_lines` of a damaged store, with what is damaged in a line made plain.

    A kind or state that there is not becomes that of a note, a time that is none the other one of
    the cube. So all of it can be imported.
    """
    for line in export_lines(rows):
        try:
            _decode(line)
            yield line
        except msgspec.ValidationError:
            with suppress(msgspec.ValidationError):  # a link of no kind: it is lost
                _decode(mended := _mended(line))
                yield mended


def _mended(line: bytes) -> bytes:
    fields = msgspec.json.decode(line)
    is_source = fields["type"] == "source"
    for name, known, plain_one in (
        ("kind", get_args(SourceKind if is_source else Kind), "notes" if is_source else "note"),
        ("status", get_args(Status), "active"),
    ):
        if fields["type"] != "link" and name in fields and fields[name] not in known:
            fields[name] = plain_one
    for dated in (fields, *fields.get("versions", ())):
        times = [dated.get("event_at"), dated.get("written_at")]
        whole = next(filter(_is_time, times), _NO_TIME)
        for name, time in zip(("event_at", "written_at"), times, strict=True):
            if time is not None and not _is_time(time):
                dated[name] = whole
    days = (fields.get(name, msgspec.UNSET) for name in ("about_from", "about_to"))
    if not _are_days(*days):
        fields = {name: field for name, field in fields.items() if not name.startswith("about_")}
    return msgspec.json.encode(fields) + b"\n"


def import_lines(connection: Connection, lines: Iterable[bytes]) -> int:
    """Add what ``lines`` hold and the store does not; return how many cubes that were.

    Cubes that the store has, be it as deleted, stay as they are. Raises :class:`FileError`, with
    the number of the line, for a file that is not an export; the caller rolls back.
    """
    added: set[int] = set()
    for number, text in enumerate(lines, start=1):
        try:
            line = _decode(text)
            if (number == 1) != isinstance(line, _HeaderRecord):
                raise msgspec.ValidationError(
                    "the header must be the first line and appear only once"
                )
            if isinstance(line, _HeaderRecord):
                if line.format > FORMAT:
                    raise FileError("This export was written by a newer ondevice. Update ondevice.")
            elif isinstance(line, _SourceRecord):
                _import_source(connection, line)
            elif isinstance(line, _CubeRecord):
                cube_id = _id(connection, line.place)
                if _import_cube(connection, cube_id, line):
                    added.add(cube_id)
            else:
                ends = _id(connection, line.from_place), _id(connection, line.to_place)
                if added.intersection(ends) and len(_cubes.marks(connection, ends)) == 2:
                    _cubes.link(connection, ends[0], line.kind, ends[1])
        except (msgspec.DecodeError, LookupError) as error:
            raise FileError(
                f"Line {number} is not a line of a memory export: {error}. Nothing was imported."
            ) from error
    return len(added)


def _decode(text: bytes) -> _HeaderRecord | _SourceRecord | _CubeRecord | _LinkRecord:
    line: _HeaderRecord | _SourceRecord | _CubeRecord | _LinkRecord = _decoder.decode(text)
    all_dated: list[_CubeRecord | _VersionRecord] = (
        [line, *line.versions] if isinstance(line, _CubeRecord) else []
    )
    for dated in all_dated:
        if not (_is_time(dated.event_at) and _is_time(dated.written_at)):
            raise msgspec.ValidationError(f"{dated.event_at}, {dated.written_at} are not times")
    if isinstance(line, _CubeRecord) and not _are_days(line.about_from, line.about_to):
        raise msgspec.ValidationError(f"{line.about_from}, {line.about_to} are not days")
    return line


def _is_time(text: object) -> bool:
    """Whether it is a time in ISO 8601 that says how far it is from UTC."""
    try:
        return isinstance(text, str) and datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False


def _are_days(first: object, last: object) -> bool:
    """Whether they are two days in ISO 8601 in their order, or none."""
    if first is msgspec.UNSET and last is msgspec.UNSET:
        return True
    try:
        return date.fromisoformat(str(first)) <= date.fromisoformat(str(last))
    except ValueError:
        return False


def _import_source(connection: Connection, line: _SourceRecord) -> None:
    connection.execute(
        "INSERT OR IGNORE INTO source(uid, kind, name, digest) VALUES (?, ?, ?, ?)",
        (line.uid, line.kind, line.name, line.digest),
    )


def _import_cube(connection: Connection, cube_id: int, line: _CubeRecord) -> bool:
    cursor = connection.execute(
        "INSERT OR IGNORE INTO cube(id, kind, status, content, speaker, topic, event_at, "
        "written_at, version, about_from, about_to) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(cube_id, line.kind, line.status, line.content, line.speaker, line.topic),
            *(line.event_at, line.written_at, line.version),
            *(day or None for day in (line.about_from, line.about_to)),
        ),
    )
    if not cursor.rowcount:
        return False
    if line.about_from is msgspec.UNSET:
        _cubes.set_about(connection, cube_id)
    connection.executemany(
        "INSERT INTO version VALUES (?, ?, ?, ?, ?)",
        [(cube_id, v.number, v.content, v.event_at, v.written_at) for v in line.versions],
    )
    _cubes.tag(connection, cube_id, line.tags)
    return True


def _id(connection: Connection, place: _Place) -> int:
    uid, position = place
    row = connection.execute("SELECT id FROM source WHERE uid = ?", (uid,)).fetchone()
    if row is None or not 0 <= position < POSITIONS:
        raise LookupError(f"there is no source {uid} with a position {position}")
    return int(row["id"]) << POSITION_BITS | position


def export_markdown(connection: Connection) -> Iterator[str]:
    """The memory as text to read, one section per source, newlines included."""
    source = None
    for cube in _cubes.in_order(connection):
        if cube.status == "deleted":
            continue
        if cube.source != source:
            source = cube.source
            name = f": {plain(source.name)}" if source.name else ""
            yield f"\n## {source.kind.capitalize()}{name}\n\n"
        state = "" if cube.status == "active" else f", {cube.status}"
        who = f"{plain(cube.speaker)}: " if cube.speaker else ""
        yield f"- {cube.event_at.date()} ({cube.label}, {cube.kind}{state}) {who}"
        yield printable(cube.content).replace("\n", "\n  ") + "\n"
        for version in _cubes.versions(connection, cube.id):
            yield f"  - before {version.number + 1}: {printable(version.content)}\n"


def _encode(line: _ExportRecord) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def _record(kind: type[_R], row: Row, **others: Any) -> _R:
    """A record of the columns that have the names of its fields, and of ``others``."""
    names = (name for name in kind.__struct_fields__ if name not in others)
    return kind(**{name: row[name] for name in names}, **others)
