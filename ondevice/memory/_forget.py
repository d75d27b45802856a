"""Forgets cubes for good: the text leaves the cube, whatever was made of it and what quotes it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from ondevice.memory._profile import refresh as refresh_profile
from ondevice.memory._quotations import Quotations, says_something
from ondevice.memory._records import FORGOTTEN, Blanked
from ondevice.memory._words import words_of
from ondevice.store import Connection, words_leave

_MANY = 50  # texts for which a column is read as a whole rather than looked through for each
_LOOKED_UP = 4  # words of a text that the index is asked for
_BEGINNING = 16  # letters of a title that is the beginning of a text, not by chance
_EXCERPT = 80  # letters
_ALIKE = 5  # letters that two forms of one word have in common

#: Columns of text that nobody writes in: times, kinds and states, names that programs give.
_NO_TEXTS = frozenset(
    {"kind", "status", "role", "finish_reason", "uid", "digest", "origin", "statistics"}
    | {"model", "server", "window"}
)
_TITLES = frozenset({("conversation", "title"), ("source", "name")})
#: What people call what stands in these columns.
_NAMES = {
    ("cube", "content"): "memory",
    ("version", "content"): "earlier version",
    ("message", "content"): "message",
    ("message", "thinking"): "thinking",
    ("attachment", "content"): "attached file",
    ("conversation", "title"): "title",
    ("conversation", "system"): "system prompt",
    ("source", "name"): "title",
    ("open_tab", "draft"): "draft",
    ("open_tab", "beneath"): "draft",
    ("open_paste", "content"): "draft",
    ("tag", "name"): "tag",
    ("summary", "content"): "summary",
}


@dataclass(frozen=True)
class _Change:
    """A value of a column that has a forgotten text in it."""

    table: str
    column: str
    key: tuple[tuple[str, object], ...]  # the columns that tell which row it is
    before: str  # empty: that of a message which goes as a whole
    after: str


@dataclass(frozen=True)
class Going:
    """What is forgotten together."""

    cubes: list[int]
    texts: Quotations


def going(connection: Connection, ids: Iterable[int]) -> Going:
    """``ids`` with all that has to go with them.

    That is: cubes that say the very same, what a fact, a lesson or a profile was made from, since
    that still says it, and then the facts and lessons that rest on nothing else, or only on what
    quotes it. A profile that rests on more than that is written anew instead, see :func:`forget`.
    """
    said = _said(connection, ids)
    texts = Quotations(_texts_of(connection, said))
    quoting: list[int] = []
    for cube_id, kind, content in _quoting_cubes(connection, texts, said):
        if kind in ("fact", "lesson") or not says_something(texts.taken_out_of(content)):
            said.append(cube_id)
        else:
            quoting.append(cube_id)
    cubes = _with_facts(connection, said, quoting)
    return Going(cubes, Quotations(_texts_of(connection, cubes)))


def forget(connection: Connection, ids: Iterable[int]) -> None:
    """Delete the text of these cubes, all of their versions, links and tags, and what quotes them.

    Only the places stay, as deleted, so that an import does not bring the text back. The profile
    is written anew without it, and without its earlier versions. The caller commits and then
    calls :meth:`ondevice.store.Database.scrub`.
    """
    gone = list(ids)
    forget_all(connection, Going(gone, Quotations(_texts_of(connection, gone))))


def forget_all(connection: Connection, going: Going) -> None:
    """:func:`forget` for what :func:`going` has found."""
    changes = list(_changes(connection, going))
    changed = sum(change.table == "cube" for change in changes)
    blanked = sum(change.table == "message" for change in changes)
    with (
        words_leave(connection, "memory_index", len(going.cubes) + changed),
        words_leave(connection, "message_index", blanked),
    ):
        for change in changes:
            where = " AND ".join(f"{name} = ?" for name, _ in change.key)
            if change.table == "summary":  # it may say the same in other words
                connection.execute(
                    f"DELETE FROM summary WHERE {where}", [value for _, value in change.key]
                )
                continue
            connection.execute(
                f"UPDATE OR REPLACE {change.table} SET {change.column} = ? WHERE {where}",
                (change.after, *(value for _, value in change.key)),
            )
        # The latest first: what it replaced holds again, until that goes as well.
        for cube_id in sorted({*going.cubes, *profiles_of(connection, going.cubes)}, reverse=True):
            delete(connection, cube_id)
    refresh_profile(connection, datetime.now().astimezone())
    connection.execute("INSERT OR IGNORE INTO scrub VALUES (1)")
    connection.execute(
        "UPDATE source SET name = '', digest = NULL WHERE kind = 'document' AND id NOT IN "
        "(SELECT source_id FROM cube WHERE status <> 'deleted')"
    )


def blanked(connection: Connection, going: Going) -> list[Blanked]:
    """What :func:`forget_all` would change besides the cubes that go, as it would then read."""
    return [
        Blanked(
            where=_NAMES.get((change.table, change.column), "text"),
            text=_around(change.after or change.before),
        )
        for change in _changes(connection, going)
        if change.before
    ]


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


def _around(text: str) -> str:
    """The place from which something is taken out, on one line."""
    line = " ".join(text.split())
    start = max(0, line.find(FORGOTTEN) - _EXCERPT // 2)
    end = start + _EXCERPT
    return ("…" if start else "") + line[start:end] + ("…" if end < len(line) else "")


# ---------------------------------------------------------------------- what goes together


def _said(connection: Connection, ids: Iterable[int]) -> list[int]:
    """``ids`` with the cubes that say the same, and what facts among them were read from."""
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
            )
            SELECT id FROM evident JOIN cube USING (id) WHERE status <> 'deleted' ORDER BY id
            """,
            (json.dumps(list(ids)),),
        )
    ]


def _with_facts(connection: Connection, said: list[int], quoting: list[int]) -> list[int]:
    """``said`` with the facts that rest on it, and on nothing but what is ``quoting`` it."""
    return [
        row[0]
        for row in connection.execute(
            """
            WITH said(id) AS (SELECT value FROM json_each(?1)),
            going(id) AS (SELECT id FROM said UNION SELECT value FROM json_each(?2))
            SELECT id FROM said
            UNION SELECT link.from_id FROM said
                JOIN link ON to_id = said.id AND link.kind = 'evidence'
                WHERE NOT EXISTS (
                    SELECT 1 FROM link AS other WHERE other.from_id = link.from_id
                    AND other.kind = 'evidence' AND other.to_id NOT IN going
                )
            ORDER BY 1
            """,
            (json.dumps(said), json.dumps(quoting)),
        )
    ]


def _texts_of(connection: Connection, ids: list[int]) -> list[str]:
    """What these cubes say and have said, and their messages as they were typed."""
    return [
        row[0]
        for row in connection.execute(
            """
            SELECT content FROM cube WHERE id IN (SELECT value FROM json_each(?1))
            UNION SELECT content FROM version WHERE cube_id IN (SELECT value FROM json_each(?1))
            UNION SELECT message.content FROM cube JOIN message ON message.id = message_id
                WHERE cube.id IN (SELECT value FROM json_each(?1))
            """,
            (json.dumps(ids),),
        )
    ]


def _quoting_cubes(
    connection: Connection, texts: Quotations, but: list[int]
) -> list[tuple[int, str, str]]:
    """Id, kind and content of the cubes that quote one of the texts, except some."""
    ids = {row for row, _ in _quoting(connection, "cube", "content", ["id"], texts)}
    found = connection.execute(
        "SELECT id, kind, content FROM cube WHERE id IN (SELECT value FROM json_each(?)) "
        "AND kind <> 'profile' ORDER BY id",
        (json.dumps([cube_id for (cube_id,) in ids - {(cube_id,) for cube_id in but}]),),
    )
    return [tuple(row) for row in found]


# ---------------------------------------------------------------------- what quotes it


def _changes(connection: Connection, going: Going) -> Iterator[_Change]:
    """All values in the store that change when these cubes are forgotten, but those of the cubes.

    The columns are those that the store has: one that is added later is not overlooked.
    """
    ids = json.dumps(going.cubes)
    own: dict[tuple[object, ...], int] = {
        (row["id"],): row["conversation_id"]
        for row in connection.execute(
            "SELECT message.id, conversation_id FROM cube JOIN message ON message.id = message_id "
            "WHERE cube.id IN (SELECT value FROM json_each(?))",
            (ids,),
        )
    }
    for key in own:
        yield _Change("message", "content", (("id", key[0]),), "", FORGOTTEN)
        yield _Change("message", "thinking", (("id", key[0]),), "", "")
    conversations = set(own.values())
    touched = {key[0] for key in own}  # messages
    touched |= _given(connection, going.cubes)
    summaries: set[object] = set()  # that quote it
    gone = {(cube_id,) for cube_id in going.cubes}
    profiles = {(cube_id,) for cube_id in profiles_of(connection, going.cubes)}
    for table, column, keys in _text_columns(connection):
        if (table, column) in _TITLES:
            continue
        for row, content in _quoting(connection, table, column, keys, going.texts):
            if (table == "message" and row in own) or (table == "cube" and row in gone | profiles):
                continue
            if "cube_id" in keys and (row[keys.index("cube_id")],) in gone:
                continue
            if table == "summary":
                summaries.add(row[0])
                continue
            if "message_id" in keys:
                touched.add(row[keys.index("message_id")])
            names = tuple(zip(keys, row, strict=True))
            yield _Change(table, column, names, content, going.texts.taken_out_of(content))
            if table == "message":
                touched.add(row[0])
                (conversation,) = connection.execute(
                    "SELECT conversation_id FROM message WHERE id = ?", row
                ).fetchone()
                conversations.add(conversation)
    yield from _changes_of_titles(connection, going, conversations, set(own))
    yield from _changes_of_summaries(connection, touched, summaries)


def _given(connection: Connection, cubes: list[int]) -> set[object]:
    """The messages that were given one of these memories."""
    rows = connection.execute(
        "SELECT message_id FROM recall WHERE cube_id IN (SELECT value FROM json_each(?))",
        (json.dumps(cubes),),
    )
    return {row[0] for row in rows}


def _changes_of_summaries(
    connection: Connection, touched: set[object], quoting: set[object]
) -> Iterator[_Change]:
    """The summaries that go: those that quote it, and those of a branch that has had it."""
    if connection.execute("SELECT 1 FROM summary LIMIT 1").fetchone() is None:
        return
    rows = connection.execute(
        """
        WITH RECURSIVE after(id) AS (
            SELECT value FROM json_each(?1)
            UNION SELECT message.id FROM after JOIN message ON parent_id = after.id
        )
        SELECT message_id, content FROM summary WHERE message_id IN after
            OR message_id IN (SELECT value FROM json_each(?2)) ORDER BY message_id
        """,
        (json.dumps(list(touched)), json.dumps(list(quoting))),
    ).fetchall()
    for message_id, content in rows:
        yield _Change("summary", "content", (("message_id", message_id),), content, "")


def _changes_of_titles(
    connection: Connection, going: Going, changed: set[int], own: set[tuple[object, ...]]
) -> Iterator[_Change]:
    """Titles that say what is forgotten.

    The title of a chat in which something is blanked goes if it has a word of that, or if it was
    thought of for a first message that is gone. Others go only if they quote the text, or are its
    beginning.
    """
    texts = _texts_of(connection, going.cubes)
    said = {word[:_ALIKE] for text in texts for word in words_of(text)}
    whole = [" ".join(text.split()).lower() for text in texts]
    firsts = connection.execute(
        "SELECT (SELECT id FROM message WHERE conversation_id = value AND role = 'user' "
        "ORDER BY position LIMIT 1), value FROM json_each(?)",
        (json.dumps(sorted(changed)),),
    )
    untitled = {conversation for first, conversation in firsts if (first,) in own}
    for table, column in sorted(_TITLES):
        for id_, title in connection.execute(
            f"SELECT id, {column} FROM {table} WHERE {column} <> ''"
        ).fetchall():
            of_changed = table == "conversation" and id_ in changed
            start = title.rstrip("….").lower()
            if (
                (of_changed and (id_ in untitled or said & {w[:_ALIKE] for w in words_of(title)}))
                or (len(start) >= _BEGINNING and any(text.startswith(start) for text in whole))
                or not says_something(after := going.texts.taken_out_of(title))
            ):
                after = ""
            if after != title:
                yield _Change(table, column, (("id", id_),), title, after)


def _text_columns(connection: Connection) -> list[tuple[str, str, list[str]]]:
    """Table, column and the columns of its key, of all columns in which texts of people are."""
    found: list[tuple[str, str, list[str]]] = []
    for (table,) in connection.execute(
        "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' "
        "AND name NOT LIKE 'sqlite_%' ORDER BY name"
    ).fetchall():
        columns = connection.execute(
            # The key last: by it the other columns of the row are found.
            "SELECT name, type, pk FROM pragma_table_info(?) ORDER BY pk",
            (table,),
        ).fetchall()
        keys = [row["name"] for row in columns if row["pk"]] or ["rowid"]
        found += [
            (table, row["name"], keys)
            for row in columns
            if row["type"] == "TEXT"
            and not (row["name"] in _NO_TEXTS or row["name"] == "at" or row["name"].endswith("_at"))
        ]
    return found


def _quoting(
    connection: Connection, table: str, column: str, keys: list[str], texts: Quotations
) -> list[tuple[tuple[object, ...], str]]:
    """Key and content of the rows that quote one of the texts in this column."""
    if not texts:
        return []
    index = {"cube": "memory_index", "message": "message_index"}.get(table)
    select = f"SELECT {', '.join(keys)}, {column} FROM {table} WHERE {column} <> ''"
    if index and column == "content" and all(texts.indexed):
        asked = f"SELECT rowid FROM {index} WHERE {index} MATCH ?"
        ids: set[int] = set()
        for words in texts.indexed:
            wanted = " AND ".join(f'"{word}"' for word in words[:_LOOKED_UP])
            ids.update(row[0] for row in connection.execute(asked, (wanted,)))
        rows = connection.execute(
            f"{select} AND id IN (SELECT value FROM json_each(?))", (json.dumps(sorted(ids)),)
        )
    elif len(texts.probes) <= _MANY:
        holds = " OR ".join([f"instr(lower({column}), ?)"] * len(texts.probes))
        rows = connection.execute(f"{select} AND ({holds})", texts.probes)
    else:
        rows = connection.execute(select)
    return [(tuple(row)[:-1], row[-1]) for row in rows if texts.quoted_in(row[-1])]
