"""Queries for conversations: the list, a branch with all that belongs to it, and the search."""

from __future__ import annotations

import json
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple, get_args

import msgspec

from ondevice.chats import _times
from ondevice.chats._records import (
    Attachment,
    Chat,
    ChatHit,
    ChatMatches,
    Heading,
    Message,
    State,
    Summary,
)
from ondevice.memory import Cube, Kind
from ondevice.messages import Statistics
from ondevice.store import VOWEL_SIGNS, Connection, Row
from ondevice.text import SOUTH_EAST, UNSPACED

_FOUND = 100  # at most
_UNDER_WAY = 20  # messages written last, among which are the replies that others may be writing
_LOOKED_FOR = 1000  # characters of what is typed
_EXCERPT, _BEFORE = 60, 15  # characters of a text without spaces, and those before what was found
#: A word as the index has it, and what is spaced of one and what is not, one after another.
_WORD = re.compile(rf"[\w{VOWEL_SIGNS}{SOUTH_EAST}]+")
_UNSPACED = re.compile(f"[{UNSPACED}]")
_RUN = re.compile(f"{_UNSPACED.pattern}+|[^{UNSPACED}]+")
#: Gives the memories with these ids, in this order.
_Cubes = Callable[[Sequence[int]], Sequence[Cube]]

#: The messages from ``:end`` back to the first one.
_BRANCH = """
    WITH RECURSIVE branch(id, parent_id) AS (
        SELECT id, parent_id FROM message WHERE id = :end
        UNION ALL SELECT message.id, message.parent_id
        FROM branch JOIN message ON message.id = branch.parent_id
    )
"""
#: So that only those of other conversations are looked at that were written meanwhile.
_OF_CONVERSATION = (
    "AND message_index.rowid BETWEEN (SELECT min(id) FROM message WHERE conversation_id = ?2) "
    "AND (SELECT max(id) FROM message WHERE conversation_id = ?2) "
)
#: How many memories were forgotten: by kind, so that no others are looked at.
COUNT_FORGOTTEN = (
    "SELECT count(*) FROM cube WHERE status = 'deleted' AND kind IN "
    f"({', '.join(map(repr, get_args(Kind)))})"
)
_COLUMNS = (
    "id, message.parent_id, role, content, created_at, server, unknown, thinking, model, "
    "finish_reason, statistics"
)
_HEADING = (
    "SELECT conversation.*, (SELECT count(*) FROM message "
    "WHERE conversation_id = conversation.id) AS messages FROM conversation "
)


def headings(connection: Connection, *, archived: bool) -> list[Heading]:
    rows = connection.execute(
        f"{_HEADING} WHERE archived = ? ORDER BY pinned DESC, updated_at DESC, id DESC",
        (archived,),
    )
    return [_heading(row) for row in rows]


def used_last(connection: Connection) -> int | None:
    for said_last in (
        "SELECT conversation_id FROM message JOIN conversation ON conversation.id = "
        "conversation_id WHERE run_id IS NULL AND NOT archived ORDER BY message.id DESC LIMIT 1",
        "SELECT id FROM conversation WHERE NOT archived ORDER BY updated_at DESC, id DESC LIMIT 1",
    ):
        if row := connection.execute(said_last).fetchone():
            return int(row[0])
    return None


def heading(connection: Connection, conversation_id: int) -> Heading | None:
    row = connection.execute(f"{_HEADING} WHERE id = ?", (conversation_id,)).fetchone()
    return _heading(row) if row else None


def load(
    connection: Connection, cubes: _Cubes, conversation_id: int, until: int | None
) -> Chat | None:
    head = connection.execute(
        "SELECT title, system, private, end_id FROM conversation WHERE id = ?", (conversation_id,)
    ).fetchone()
    if head is None:
        return None
    end = {"end": until or head["end_id"]}
    rows = connection.execute(
        f"{_BRANCH} SELECT {_COLUMNS} FROM branch JOIN message USING (id) ORDER BY position", end
    )
    attachments: dict[int, list[Attachment]] = defaultdict(list)
    for row in connection.execute(
        f"{_BRANCH} SELECT attachment.* FROM branch JOIN attachment ON message_id = branch.id "
        "ORDER BY message_id, number",
        end,
    ):
        attachments[row["message_id"]].append(Attachment(row["name"], row["content"]))
    recalled = _recalled(connection, cubes, end)
    summaries = _summaries(connection, end)
    versions = _versions(connection, conversation_id)
    messages = []
    for row in rows:
        # By name, ten thousand would take a fifth longer.
        id_, parent_id, role, content, created_at, server, unknown = row[:7]
        thinking, model, finish_reason, statistics = row[7:]
        messages.append(
            Message(
                id=id_,
                role=role,
                content=content,
                created_at=_times.from_store(created_at),
                versions=versions.get(parent_id, (id_,)),
                attachments=tuple(attachments.get(id_, ())),
                recalled=tuple(recalled.get(id_, ())),
                server=server,
                unknown=bool(unknown),
                unanswered=role == "user" and finish_reason is not None,
                thinking=thinking,
                model=model,
                finish_reason=finish_reason if role == "assistant" else None,
                statistics=_statistics(statistics),
                summary=summaries.get(id_),
            )
        )
    return Chat(
        conversation_id, head["title"], head["system"], bool(head["private"]), tuple(messages)
    )


def state(connection: Connection, conversation_id: int) -> State | None:
    row = connection.execute(
        f"""
        SELECT title, private, end_id, length(content) + length(thinking), finish_reason,
            (SELECT group_concat(position || ' ' || (length(content) + length(thinking)) || ' '
                || coalesce(finish_reason, '')) FROM (SELECT * FROM message
                WHERE conversation_id = ?1 ORDER BY position DESC LIMIT ?2)),
            (SELECT group_concat(message_id || written_at || used) FROM summary
                JOIN message AS its ON its.id = message_id
                WHERE its.conversation_id = conversation.id),
            ({COUNT_FORGOTTEN})
        FROM conversation LEFT JOIN message ON message.id = end_id WHERE conversation.id = ?1
        """,
        (conversation_id, _UNDER_WAY),
    ).fetchone()
    return State(row[0], bool(row[1]), *row[2:]) if row else None


def lengths(connection: Connection, message_id: int | None) -> list[tuple[int, int]]:
    """The messages of the branch that ends there, from its end, with their bytes.

    Those of attachments and memories are counted with them.
    """
    size = "coalesce(sum(length(CAST({0}.content AS BLOB))), 0)"
    rows = connection.execute(
        f"{_BRANCH} SELECT message.id, length(CAST(message.content AS BLOB)) "
        f"+ (SELECT {size.format('attachment')} FROM attachment WHERE message_id = message.id) "
        f"+ (SELECT {size.format('cube')} FROM recall JOIN cube ON cube.id = cube_id "
        "WHERE recall.message_id = message.id) "
        "FROM branch JOIN message USING (id) ORDER BY position DESC",
        {"end": message_id},
    )
    return [tuple(row) for row in rows]


def branch(connection: Connection, message_id: int) -> list[int]:
    """The messages of the branch that ends there."""
    rows = connection.execute(f"{_BRANCH} SELECT id FROM branch", {"end": message_id})
    return [row["id"] for row in rows]


def summarised_until(connection: Connection, message_id: int | None) -> int | None:
    """The last message before that one for which a summary stands; None: there is no summary."""
    row = connection.execute(
        f"{_BRANCH} SELECT id FROM branch JOIN message USING (id) JOIN summary ON "
        "summary.message_id = id WHERE used ORDER BY position DESC LIMIT 1",
        {"end": message_id},
    ).fetchone()
    return row and int(row["id"])


def recalled_until(
    connection: Connection,
    message_id: int | None,
    server: str | None = None,
    *,
    but: Collection[int] = (),
) -> set[int]:
    """The ids of all cubes that a model sees in the branch that ends there, here or on a server.

    Those that went ``but`` with these messages are not among them.
    """
    rows = connection.execute(
        f"{_BRANCH} SELECT cube_id FROM branch JOIN recall ON message_id = branch.id "
        "JOIN message ON message.id = branch.id WHERE (:server IS NULL OR server = :server) "
        "AND message.id NOT IN (SELECT value FROM json_each(:but))",
        {"end": message_id, "server": server, "but": json.dumps(list(but))},
    )
    return {row["cube_id"] for row in rows}


def attaches(connection: Connection, message_id: int | None) -> bool:
    """Whether there are attachments in the branch that ends there."""
    row = connection.execute(
        f"{_BRANCH} SELECT 1 FROM branch JOIN attachment ON message_id = branch.id LIMIT 1",
        {"end": message_id},
    )
    return row.fetchone() is not None


class _Asked(NamedTuple):
    """What a search looks for."""

    query: str  # for the index: all the words, the last one may be the beginning of one
    parts: list[str]  # that stand within words, in scripts that do not space them

    @classmethod
    def of(cls, text: str) -> _Asked:
        words = _WORD.findall(unicodedata.normalize("NFC", text)[:_LOOKED_FOR])
        pieces = [piece for word in words for piece in _RUN.findall(word)]
        parts = [piece for piece in pieces if _UNSPACED.match(piece)]
        query = " ".join(f'"{piece}"' for piece in pieces if piece not in parts)
        if query and pieces[-1] not in parts:
            query += "*"
        return cls(query, parts)

    def rows(
        self, connection: Connection, conversation_id: int | None, *, columns: str, order: str
    ) -> Iterator[Row]:
        """These columns of the messages that have it all, of one conversation or of all.

        Parts of words are in no index. To look through all texts takes less than to keep one.
        """
        parts = (
            "AND NOT EXISTS (SELECT 1 FROM json_each(?3) WHERE NOT instr(message.content, value)) "
            if self.parts
            else ""
        )
        of_index = "message_index JOIN message ON message.id = message_index.rowid"
        return connection.execute(
            f"SELECT {columns} FROM {of_index if self.query else 'message'} "
            f"WHERE {'message_index MATCH ?1' if self.query else '?1 IS NOT NULL'} "
            f"AND (?2 IS NULL OR conversation_id = ?2) {parts}"
            f"{_OF_CONVERSATION if self.query and conversation_id else ''}"
            f"ORDER BY {order}",
            (self.query, conversation_id, *([json.dumps(self.parts)] if self.parts else [])),
        )

    def __bool__(self) -> bool:
        return bool(self.query or self.parts)


def matches(connection: Connection, text: str, conversation_id: int) -> ChatMatches:
    if not (asked := _Asked.of(text)):
        return ChatMatches((), frozenset())
    marked = "highlight(message_index, 0, char(2), char(3))" if asked.query else "''"
    rows = list(
        asked.rows(connection, conversation_id, columns=f"message.id, {marked}", order="position")
    )
    words = (word for _, marked in rows for word in re.findall("\x02([^\x03]*)\x03", marked))
    return ChatMatches(
        tuple(id_ for id_, _ in rows),
        frozenset(map(str.lower, words)),
        frozenset(asked.parts),
    )


def search(connection: Connection, text: str, conversation_id: int | None) -> list[ChatHit]:
    if not (asked := _Asked.of(text)):
        return []
    best_first = "rank" if asked.query else "message.id DESC"
    rows = asked.rows(
        connection,
        conversation_id,
        columns="message.id, conversation_id",
        order=best_first if conversation_id is None else "message.id",
    )
    best: dict[int, int] = {}  # conversation → message, or a message → itself
    for row in rows:  # and no more of them: a short beginning is in most messages
        best.setdefault(row["id"] if conversation_id else row["conversation_id"], row["id"])
        if len(best) == _FOUND:
            break
    wanted = list(best.values())
    excerpts = _excerpts(connection, asked, wanted)
    headings = {
        row["message_id"]: _heading(row)
        for row in connection.execute(
            f"SELECT heading.*, message.id AS message_id FROM ({_HEADING}) AS heading "
            "JOIN message ON conversation_id = heading.id "
            "WHERE message.id IN (SELECT value FROM json_each(?))",
            (json.dumps(wanted),),
        )
    }
    found = [ChatHit(headings[id_], id_, _pieces(excerpts[id_])) for id_ in wanted]
    if conversation_id is None:
        title = text.strip().casefold()  # SQLite knows capitals of English only
        ids = connection.execute("SELECT id, title FROM conversation").fetchall()
        titled = connection.execute(
            f"{_HEADING} WHERE id IN (SELECT value FROM json_each(?)) "
            "ORDER BY updated_at DESC LIMIT ?",
            (json.dumps([id_ for id_, called in ids if title in called.casefold()]), _FOUND),
        )
        found += [ChatHit(_heading(row), None, ()) for row in titled if row["id"] not in best]
    return found


def _excerpts(connection: Connection, asked: _Asked, ids: Sequence[int]) -> dict[int, str]:
    """Of each of these messages the place that was found, as :func:`_pieces` takes it."""
    among = "IN (SELECT value FROM json_each(?))"
    if asked.query:
        # With the +, SQLite looks for the words once, and not for each of the messages.
        rows = connection.execute(
            "SELECT rowid, snippet(message_index, 0, char(2), char(3), '…', 12) "
            f"FROM message_index WHERE message_index MATCH ? AND +rowid {among}",
            (asked.query, json.dumps(ids)),
        )
        return dict(rows.fetchall())
    pattern = re.compile("|".join(map(re.escape, asked.parts)))
    excerpts: dict[int, str] = {}
    for id_, content in connection.execute(
        f"SELECT id, content FROM message WHERE id {among}", (json.dumps(ids),)
    ):
        found = pattern.search(content)
        start = max(0, found.start() - _BEFORE) if found else 0
        marked = pattern.sub("\x02\\g<0>\x03", content[start : start + _EXCERPT])
        rest = "…" if start + _EXCERPT < len(content) else ""
        excerpts[id_] = f"{'…' if start else ''}{marked}{rest}"
    return excerpts


def _recalled(connection: Connection, cubes: _Cubes, end: dict[str, Any]) -> dict[int, list[Cube]]:
    """What was recalled with each message; memories that were forgotten since are left out."""
    rows = connection.execute(
        # In this order: by their days, SQLite would go through all memories.
        f"{_BRANCH} SELECT recall.* FROM branch CROSS JOIN recall ON recall.message_id = branch.id "
        "CROSS JOIN cube ON cube.id = cube_id "
        "WHERE status <> 'deleted' ORDER BY event_at, cube_id",
        end,
    ).fetchall()
    recalled: dict[int, list[Cube]] = defaultdict(list)
    found = cubes([row["cube_id"] for row in rows]) if rows else ()
    for row, cube in zip(rows, found, strict=True):
        recalled[row["message_id"]].append(cube)
    return recalled


def _summaries(connection: Connection, end: dict[str, Any]) -> dict[int, Summary]:
    """The last summary of a branch, and the last one that is used: earlier ones are part of it."""
    rows = connection.execute(
        f"{_BRANCH} SELECT summary.* FROM branch JOIN summary ON message_id = branch.id "
        "JOIN message ON message.id = branch.id ORDER BY position DESC",
        end,
    ).fetchall()
    last = rows[:1] + [row for row in rows if row["used"]][:1]
    return {row["message_id"]: Summary(row["content"], bool(row["used"])) for row in last}


def _versions(connection: Connection, conversation_id: int) -> dict[int | None, tuple[int, ...]]:
    """Parent → its children, for those that have several."""
    rows = connection.execute(
        "SELECT parent_id, json_group_array(id) AS ids FROM message WHERE conversation_id = ? "
        "GROUP BY parent_id HAVING count(*) > 1",
        (conversation_id,),
    )
    return {row["parent_id"]: tuple(sorted(json.loads(row["ids"]))) for row in rows}


def _heading(row: Row) -> Heading:
    return Heading(
        row["id"],
        row["title"],
        _times.from_store(row["updated_at"]),
        row["messages"],
        bool(row["pinned"]),
        bool(row["archived"]),
    )


def _pieces(excerpt: str) -> tuple[tuple[str, bool], ...]:
    """The excerpt, in which matches begin with character 2 and end with 3, cut there."""
    before, *rest = excerpt.split("\x02")
    pieces = [(before, False)]
    for part in rest:
        match, _, after = part.partition("\x03")
        pieces += [(match, True), (after, False)]
    return tuple(piece for piece in pieces if piece[0])


def _statistics(text: str | None) -> Statistics | None:
    return msgspec.json.decode(text, type=Statistics) if text else None
