"""Brings chats of files into the store: each once, with what is new of it; and takes them back."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from ondevice.chats import _times
from ondevice.chats._transfer import ChatTranscript, TranscriptMessage, beginning, given_title
from ondevice.memory import FORGOTTEN
from ondevice.store import Connection, Row, words_leave

if TYPE_CHECKING:
    from ondevice.chats._foreign import ForeignChat


class Import(msgspec.Struct, frozen=True):
    """An import that can be undone."""

    id: int
    name: str  # of the file
    at: datetime  # UTC
    chats: int  # that it added
    grown: int  # to which it added messages


class Undone(msgspec.Struct, frozen=True):
    """What came of undoing an import."""

    name: str  # of the file
    removed: int  # chats that are gone
    shrunk: int  # chats of which the added messages are gone
    kept: int  # chats that stay, for something was said in them here


class Imported(list[int]):
    """The ids of the chats that an import has added or added to, oldest first, and of the rest."""

    def __init__(self) -> None:
        super().__init__()
        self.new: list[str] = []  # titles
        self.grown: list[str] = []
        self.unchanged = 0
        self.deleted: list[str] = []  # that were deleted here, and so were left out
        self.left_out: list[str] = []  # a sentence for each that could not be read
        self.run: int | None = None  # None: nothing was added, so there is nothing to undo

    def __str__(self) -> str:
        counts = [
            (len(self.new), "new"),
            (len(self.grown), "grown"),
            (self.unchanged, "unchanged"),
            (len(self.deleted), "deleted here before"),
            (len(self.left_out), "left out"),
        ]
        said = [f"{count} {what}" for count, what in counts if count or what == "new"]
        return ", ".join(said)


class Incoming:
    """One import under way."""

    def __init__(self, name: str, *, deleted: bool) -> None:
        self._name = name
        self._deleted = deleted
        self._known: dict[bytes, tuple[bytes | None, int | None]] = {}
        self._outcomes: dict[bytes, str] = {}
        self.result = Imported()
        self._times: dict[int, datetime] = {}
        self._unclaimed: dict[str, list[int]] = defaultdict(list)  # by time, chats without origin

    def begin(self, connection: Connection) -> None:
        """Learn what came in before."""
        rows = connection.execute("SELECT key, digest, conversation_id FROM imported")
        self._known = {row["key"]: (row["digest"], row["conversation_id"]) for row in rows}
        for row in connection.execute(
            "SELECT id, created_at FROM conversation WHERE origin IS NULL"
        ):
            self._unclaimed[row["created_at"]].append(row["id"])

    def is_known(self, origin: str, digest: bytes) -> bool:
        """Whether a chat need not be looked at."""
        known = self._known.get(_key(origin))
        if known is None:
            return False
        return known[0] == digest if known[1] is not None else not self._deleted

    def skip(self, found: ForeignChat) -> None:
        """Count a chat that :meth:`is_known`."""
        key = _key(found.origin)
        if key not in self._outcomes:
            is_here = self._known[key][1] is not None
            self._outcomes[key] = "unchanged" if is_here else "deleted"
            if is_here:
                self.result.unchanged += 1
            else:
                self.result.deleted.append(found.title or "A chat without a title")

    def finish(self) -> Imported:
        """All of it: oldest first."""
        self.result.extend(sorted(self._times, key=lambda id_: (self._times[id_], id_)))
        return self.result

    @property
    def looked_at(self) -> int:
        """Chats so far."""
        return len(self._outcomes)

    def add(self, connection: Connection, found: ForeignChat) -> None:
        """Add a chat, or what is new of it, within the transaction."""
        transcript = found.transcript
        assert transcript is not None
        key = _key(found.origin)
        # Another window may have added or deleted it meanwhile.
        row = connection.execute(
            "SELECT conversation_id FROM imported WHERE key = ?", (key,)
        ).fetchone()
        id_ = row["conversation_id"] if row else self._same(connection, transcript)
        if id_ is None:
            id_ = _insert(connection, transcript, found.origin, self._run(connection))
            outcome = "new"
        else:
            outcome = "unchanged"
            if _merge(connection, id_, transcript, lambda: self._run(connection)):
                outcome = "grown"
            connection.execute(
                "UPDATE conversation SET origin = coalesce(origin, ?) WHERE id = ?",
                (found.origin, id_),
            )
        run = self.result.run if outcome == "new" else None
        connection.execute(
            "INSERT INTO imported(key, digest, conversation_id, run_id) VALUES (?1, ?2, ?3, ?4) "
            "ON CONFLICT(key) DO UPDATE SET digest = ?2, conversation_id = ?3, "
            "again = again OR conversation_id IS NULL, run_id = coalesce(?4, run_id)",
            (key, found.digest, id_, run),
        )
        self._known[key] = (found.digest, id_)
        if self._outcomes.get(key) in (None, "unchanged") and outcome != self._outcomes.get(key):
            if key in self._outcomes:
                self.result.unchanged -= 1
            self._outcomes[key] = outcome
            title = found.title or beginning(transcript.messages[0].content)
            if outcome == "unchanged":
                self.result.unchanged += 1
            else:
                (self.result.new if outcome == "new" else self.result.grown).append(title)
                self._times[id_] = _times.sane(transcript.created_at) or datetime.now(UTC)

    def _run(self, connection: Connection) -> int:
        if self.result.run is None:
            (self.result.run,) = connection.execute(
                "INSERT INTO import_run(name, at) VALUES (?, ?) RETURNING id",
                (self._name, datetime.now(UTC).isoformat()),
            ).fetchone()
        return self.result.run

    def _same(self, connection: Connection, transcript: ChatTranscript) -> int | None:
        """A chat that is here and began as this one did, although nobody knows where it is from."""
        began = _times.sane(transcript.created_at)
        if began is None:
            return None
        first = transcript.messages[0]
        written = {began.isoformat(), began.isoformat(timespec="microseconds")}
        for id_ in [one for text in written for one in self._unclaimed.get(text, ())]:
            row = connection.execute(
                "SELECT role, content FROM message WHERE conversation_id = ? "
                "ORDER BY position LIMIT 1",
                (id_,),
            ).fetchone()
            same = row and row["role"] == first.role
            if same and (row["content"] == first.content or FORGOTTEN in row["content"]):
                for text in written:
                    if id_ in self._unclaimed.get(text, ()):
                        self._unclaimed[text].remove(id_)
                return id_
        return None


def _key(origin: str) -> bytes:
    return hashlib.sha256(origin.encode("utf-8", "replace")).digest()


def _insert(connection: Connection, transcript: ChatTranscript, origin: str, run: int) -> int:
    last = transcript.messages[-1]
    created_at = _times.sane(transcript.created_at) or datetime.now(UTC)
    updated_at = transcript.updated_at or last.created_at
    (conversation_id,) = connection.execute(
        "INSERT INTO conversation (id, title, system, created_at, updated_at, origin, pinned, "
        "archived, private) SELECT id + 1, ?, ?, ?, ?, ?, ?, ?, ? FROM last_conversation "
        "RETURNING id",
        (
            given_title(transcript.title) or beginning(transcript.messages[0].content),
            transcript.system,
            created_at.isoformat(),
            (_times.sane(updated_at) or created_at).isoformat(),
            origin,
            transcript.pinned,
            transcript.archived,
            transcript.private,
        ),
    ).fetchone()
    ids: dict[str, int] = {}
    for position, entry in enumerate(transcript.messages):
        parent = ids.get(entry.parent or "")
        ids[entry.id] = _insert_message(
            connection, conversation_id, entry, parent, position, created_at, run
        )
    connection.execute(
        "UPDATE conversation SET end_id = ? WHERE id = ?",
        (ids.get(transcript.end or "", ids[last.id]), conversation_id),
    )
    return int(conversation_id)


def _insert_message(
    connection: Connection,
    conversation_id: int,
    entry: TranscriptMessage,
    parent_id: int | None,
    position: int,
    created_at: datetime,
    run: int,
) -> int:
    statistics = msgspec.json.encode(entry.statistics).decode() if entry.statistics else None
    (id_,) = connection.execute(
        "INSERT INTO message (conversation_id, parent_id, position, role, content, created_at, "
        "thinking, model, server, finish_reason, statistics, origin, run_id) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
        (
            conversation_id,
            parent_id,
            position,
            entry.role,
            entry.content,
            (_times.sane(entry.created_at) or created_at).isoformat(),
            entry.thinking,
            entry.model,
            entry.server,
            entry.finish_reason,
            statistics,
            entry.origin,
            run,
        ),
    ).fetchone()
    connection.executemany(
        "INSERT INTO attachment VALUES (?, ?, ?, ?)",
        [(id_, i, a.name, a.content) for i, a in enumerate(entry.attachments)],
    )
    return int(id_)


def _merge(
    connection: Connection, conversation_id: int, transcript: ChatTranscript, run: Callable[[], int]
) -> bool:
    """Add the messages that are new, in their places, and let cut replies go on; whether any are.

    The branch that is shown changes only if it is the file's own: what was said here since stays
    in view.
    """
    rows = connection.execute(
        "SELECT id, parent_id, position, role, content, created_at, origin FROM message "
        "WHERE conversation_id = ? ORDER BY position",
        (conversation_id,),
    ).fetchall()
    by_origin: dict[str, Row] = {row["origin"]: row for row in rows if row["origin"]}
    children: dict[int | None, list[Row]] = defaultdict(list)
    for row in rows:
        children[row["parent_id"]].append(row)
    created_at = _times.sane(transcript.created_at) or datetime.now(UTC)
    ids: dict[str, int] = {}
    met: set[int] = set()
    new: list[int] = []
    has_grown = False
    for entry in transcript.messages:
        parent = ids.get(entry.parent or "")
        row = by_origin.get(entry.origin or "")
        if row is None:
            row = _same_message(entry, [one for one in children[parent] if one["id"] not in met])
        if row is None:
            position = len(rows) and rows[-1]["position"] + 1
            ids[entry.id] = _insert_message(
                connection, conversation_id, entry, parent, position + len(new), created_at, run()
            )
            new.append(ids[entry.id])
            continue
        ids[entry.id] = row["id"]
        met.add(row["id"])
        if entry.origin and not row["origin"]:
            connection.execute(
                "UPDATE message SET origin = ? WHERE id = ?", (entry.origin, row["id"])
            )
        if entry.role == row["role"] == "assistant" and _goes_on(row["content"], entry.content):
            has_grown = True
            connection.execute(
                "UPDATE message SET content = ?, thinking = ?, finish_reason = ? WHERE id = ?",
                (entry.content, entry.thinking, entry.finish_reason, row["id"]),
            )
    if new:
        (end, updated_at) = connection.execute(
            "SELECT end_id, updated_at FROM conversation WHERE id = ?", (conversation_id,)
        ).fetchone()
        if end is None or end in met:
            end = ids.get(transcript.end or "", new[-1])
        last = _times.sane(transcript.updated_at or transcript.messages[-1].created_at)
        latest = max(_times.from_store(updated_at), last or created_at)
        connection.execute(
            "UPDATE conversation SET end_id = ?, updated_at = ? WHERE id = ?",
            (end, latest.isoformat(), conversation_id),
        )
    return bool(new) or has_grown


def _goes_on(before: str, now: str) -> bool:
    return len(now) > len(before) and now.startswith(before)


def _same_message(entry: TranscriptMessage, rows: list[Row]) -> Row | None:
    """Which of the messages at this place a message without an id is, if any."""
    at = _times.sane(entry.created_at)
    rows = [
        row for row in rows if row["role"] == entry.role and (not entry.origin or not row["origin"])
    ]
    alike = [row for row in rows if row["content"] == entry.content]
    then = [row for row in rows if _times.from_store(row["created_at"]) == at]
    both = [row for row in alike if row in then]
    changed = [
        row
        for row in then
        if FORGOTTEN in row["content"]
        or _goes_on(row["content"], entry.content)
        or _goes_on(entry.content, row["content"])
    ]
    return next(iter([*both, *alike, *changed]), None)


def last(connection: Connection) -> Import | None:
    """The latest import of which something is left."""
    row = connection.execute(
        "SELECT id, name, at, (SELECT count(*) FROM imported WHERE run_id = import_run.id "
        "AND conversation_id IS NOT NULL) AS chats, "
        "(SELECT count(DISTINCT conversation_id) FROM message WHERE run_id = import_run.id) "
        "AS touched FROM import_run "
        "WHERE EXISTS (SELECT 1 FROM message WHERE run_id = import_run.id) "
        "ORDER BY id DESC LIMIT 1"
    ).fetchone()
    if row is None:
        return None
    grown = max(0, row["touched"] - row["chats"])
    return Import(row["id"], row["name"], _times.from_store(row["at"]), row["chats"], grown)


def undo(connection: Connection, run: Import) -> Undone:
    """Take back what an import has added, and what the memory has learnt from it.

    What was said here since stays, with all that it follows. The caller commits and then calls
    :meth:`ondevice.store.Database.scrub`.
    """
    touched = connection.execute(
        "SELECT DISTINCT conversation_id FROM message WHERE run_id = ?", (run.id,)
    ).fetchall()
    made = {
        row["conversation_id"]
        for row in connection.execute(
            "SELECT conversation_id FROM imported WHERE run_id = ?", (run.id,)
        )
    }
    whole: list[int] = []
    going: list[int] = []
    shrunk = kept = 0
    for (id_,) in touched:
        rows = connection.execute(
            "SELECT id, parent_id, run_id FROM message WHERE conversation_id = ? ORDER BY id DESC",
            (id_,),
        ).fetchall()
        parents = {row["id"]: row["parent_id"] for row in rows}
        staying: set[int] = set()
        for row in rows:
            at = row["id"] if row["run_id"] != run.id else None
            while at is not None and at not in staying:
                staying.add(at)
                at = parents[at]
        if not staying:
            whole.append(id_)
        elif id_ in made:
            kept += 1
        else:
            gone = [row["id"] for row in rows if row["id"] not in staying]
            shrunk += bool(gone)
            kept += not gone
            going += gone
            _shorten(connection, id_, parents, set(gone))
    from ondevice.memory import unlearn  # noqa: PLC0415 - a faster start

    unlearn(connection, going, whole)
    ids = json.dumps(whole)
    connection.execute(
        "DELETE FROM imported WHERE conversation_id IN (SELECT value FROM json_each(?)) "
        "AND NOT again",
        (ids,),
    )
    # One trigger for each message that follows another would be too many.
    count = connection.execute(
        "UPDATE message SET parent_id = NULL "
        "WHERE conversation_id IN (SELECT value FROM json_each(?))",
        (ids,),
    ).rowcount
    with words_leave(connection, "message_index", count + len(going)):
        connection.execute(
            "DELETE FROM conversation WHERE id IN (SELECT value FROM json_each(?))", (ids,)
        )
        for id_ in sorted(going, reverse=True):  # children first
            connection.execute("DELETE FROM message WHERE id = ?", (id_,))
    connection.execute("DELETE FROM import_run WHERE id = ?", (run.id,))
    connection.execute("INSERT OR IGNORE INTO scrub VALUES (1)")
    return Undone(run.name, len(whole), shrunk, kept)


def _shorten(
    connection: Connection, conversation_id: int, parents: dict[int, int | None], gone: set[int]
) -> None:
    """Let a chat end before what is to go, and be looked at again by the next import."""
    (end,) = connection.execute(
        "SELECT end_id FROM conversation WHERE id = ?", (conversation_id,)
    ).fetchone()
    while end in gone:
        end = parents[end]
    connection.execute("UPDATE conversation SET end_id = ? WHERE id = ?", (end, conversation_id))
    connection.execute(
        "UPDATE imported SET digest = NULL WHERE conversation_id = ?", (conversation_id,)
    )
