"""The memory as the app and the commands see it: write, find, recall, edit, forget."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from msgspec.structs import replace

from ondevice.errors import StoreError, UsageError
from ondevice.memory import _cubes, _derive, _forget
from ondevice.memory._asking import QUOTED
from ondevice.memory._documents import chunks, read_file
from ondevice.memory._namesakes import without_namesakes
from ondevice.memory._profile import asks_for_profile
from ondevice.memory._profile import refresh as refresh_profile
from ondevice.memory._reading import read_answer
from ondevice.memory._recall import GATE, Recalled, asks_of_user, judge, quote
from ondevice.memory._records import (
    Blanked,
    Cube,
    Found,
    History,
    Hit,
    Kind,
    MemoryStatistics,
    ReadTurn,
    Remembered,
    Status,
    Unread,
)
from ondevice.memory._secrets import redact
from ondevice.memory._transfer import export_lines, export_markdown, import_lines
from ondevice.memory._wishes import LEFT_OUT, asks_to_forget, is_unwanted
from ondevice.memory._words import ends
from ondevice.store import Connection, Database

_DUE = 300  # texts of an older ondevice that are read for days along with each new one
_LOOKED_AT = 40  # memories that a reply may be given, of which the best that fit are


class Memory:
    """The memory in the private store. Times are aware; without one it is now.

    Methods that name a cube raise :class:`NotFound` when there is none with that id; all raise
    :class:`StoreError` when the store cannot be read or written.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    # ------------------------------------------------------------------ writing

    def remember_turn(
        self,
        connection: Connection,
        *,
        conversation_id: int,
        message_id: int,
        text: str,
        pasted: Iterable[str] = (),
        keep_secrets: bool = False,
        read: ReadTurn | None = None,
        at: datetime | None = None,
    ) -> Remembered:
        """Remember a message of the user, within the transaction that saves it.

        No facts are read from those parts of the ``text`` that were ``pasted``. A message that
        was edited takes the place of what it said before. ``read`` is what :meth:`read_turn` made
        of the same text, before the transaction.
        """
        at = at or _cubes.after_all(connection, _now())
        read = read or self.read_turn(text, pasted, keep_secrets=keep_secrets)
        content, typed, left_out = read.content, read.typed, read.left_out
        row = connection.execute(
            "SELECT id, content FROM cube WHERE message_id = ?", (message_id,)
        ).fetchone()
        if row is None:
            source = _cubes.open_source(connection, "conversation", conversation_id=conversation_id)
            cube_id = _cubes.insert(
                connection,
                source,
                "turn",
                content,
                event_at=at,
                written_at=at,
                message_id=message_id,
            )
        else:
            cube_id = row["id"]
            if row["content"] != content:
                _cubes.edit(connection, cube_id, content, at)
        _relate(connection, cube_id, typed)
        _cubes.read_due(connection, _DUE)
        facts = _derive.derive(
            connection, cube_id, typed, at, alone=None if typed == content else False
        )
        remembered = _remembered(connection, cube_id, facts, left_out)
        return replace(remembered, unwanted=read.unwanted)

    def read_turn(
        self, text: str, pasted: Iterable[str] = (), *, keep_secrets: bool = False
    ) -> ReadTurn:
        """Look for secrets in a message, which may take a while if it is long."""
        if not keep_secrets and is_unwanted(text):
            return ReadTurn(content=LEFT_OUT, typed="", left_out=(), unwanted=True)
        content, left_out = (text, ()) if keep_secrets else redact(text)
        typed = text
        for part in pasted:
            typed = typed.replace(part, f"\n{QUOTED}\n") if part else typed
        if typed == text:
            typed = content
        elif not keep_secrets:
            typed, _ = redact(typed)
        return ReadTurn(content=content, typed=ends(typed), left_out=left_out)

    def add(
        self,
        content: str,
        *,
        tags: Iterable[str] = (),
        keep_secrets: bool = False,
        at: datetime | None = None,
    ) -> Remembered:
        """Remember what the user asked to be remembered; the same note twice is one note.

        Raises :class:`UsageError` for an empty text.
        """
        if not content.strip():
            raise UsageError("The text is empty, so there is nothing to remember.")
        content, left_out = (content, ()) if keep_secrets else redact(content)
        with self.database.write() as connection:
            now = _cubes.after_all(connection, _now())
            row = connection.execute(
                "SELECT id FROM cube WHERE length(content) = length(?1) "
                "AND substr(content, -16) = substr(?1, -16) AND content = ?1 "
                "AND kind = 'note' AND status = 'active'",
                (content,),
            ).fetchone()
            if row is None:
                cube_id = _cubes.insert(
                    connection,
                    _cubes.open_source(connection, "notes"),
                    "note",
                    content,
                    event_at=at or now,
                    written_at=now,
                )
                _relate(connection, cube_id, ends(content))
                facts = _derive.derive(connection, cube_id, ends(content), at or now, alone=True)
            else:
                cube_id, facts = row["id"], []
            _cubes.read_due(connection, _DUE)
            _cubes.tag(connection, cube_id, tags)
            return _remembered(connection, cube_id, facts, left_out)

    def add_file(self, file: Path, tags: Iterable[str] = ()) -> list[Cube]:
        """Remember a text, Markdown or PDF file in chunks; never read as the user's own words.

        A file that has changed since supersedes what it said before; one that has not adds
        nothing, and the list is empty. Raises :class:`FileError` when it holds no text.
        """
        file = file.resolve()
        name = os.fsencode(file).decode("utf-8", "replace")
        content, _ = redact(read_file(file))
        digest = hashlib.sha256(content.encode()).hexdigest()
        now = _now()
        with self.database.write() as connection:
            before = connection.execute(
                "SELECT cube.id, digest FROM cube JOIN source ON source.id = source_id "
                "WHERE source.kind = 'document' AND name = ? AND status = 'active'",
                (name,),
            ).fetchall()
            if before and before[0]["digest"] == digest:
                return []
            source = _cubes.open_source(connection, "document", name)
            connection.execute("UPDATE source SET digest = ? WHERE id = ?", (digest, source))
            added = []
            for chunk in chunks(content):
                added.append(
                    _cubes.insert(
                        connection, source, "document", chunk, event_at=now, written_at=now
                    )
                )
                _relate(connection, added[-1], chunk)
                _cubes.tag(connection, added[-1], tags)
            for old in before:
                _cubes.supersede(connection, added[0], old["id"])
            return _cubes.get_many(connection, added)

    def edit(self, cube_id: int, content: str, *, keep_secrets: bool = False) -> Cube:
        """Correct a cube; what it said before stays in its history.

        Secrets are left out, unless they are to be kept, or were in what it said before. The
        facts that were read from a turn or a note are read anew. Raises :class:`UsageError` for a
        profile, which is made of facts.
        """
        now = _now()
        with self.database.write() as connection:
            cube = _cubes.get(connection, cube_id)
            if cube.kind == "profile":
                raise UsageError("A profile is made from facts. Correct those instead.")
            if not (keep_secrets or redact(cube.content)[1]):
                content, _ = redact(content)
            _cubes.edit(connection, cube_id, content, now)
            if cube.kind in ("turn", "note", "document"):
                _relate(connection, cube_id, ends(content))
            if cube.kind in ("turn", "note"):
                _derive.derive(connection, cube_id, ends(content), now, alone=True)
            refresh_profile(connection, now)
            return _cubes.get(connection, cube_id)

    def set_status(self, cube_id: int, status: Status) -> Cube:
        """Archive a cube, so that it is not recalled, or make it active again."""
        if status not in ("active", "archived"):
            raise UsageError("A memory can be set to active or archived. To delete it, forget it.")
        with self.database.write() as connection:
            if _cubes.get(connection, cube_id).status == "proposed" and status == "active":
                _derive.accept(connection, cube_id)
            else:
                _cubes.set_status(connection, cube_id, status)
                refresh_profile(connection, _now())
            return _cubes.get(connection, cube_id)

    def accept(self, ids: Iterable[int]) -> list[Cube]:
        """Let proposed facts hold: each takes the place of an older one of its topic.

        Raises :class:`UsageError` for one that is not proposed, and then changes nothing.
        """
        return self._decide(ids, _derive.accept)

    def reject(self, ids: Iterable[int]) -> list[Cube]:
        """Archive proposed facts; the same is not proposed again. Raises as :meth:`accept`."""

        def archive(connection: Connection, cube_id: int) -> None:
            _cubes.set_status(connection, cube_id, "archived")

        return self._decide(ids, archive)

    def _decide(self, ids: Iterable[int], decide: Callable[[Connection, int], None]) -> list[Cube]:
        with self.database.write() as connection:
            cubes = _cubes.get_many(connection, list(ids))
            for cube in cubes:
                if cube.status != "proposed":
                    raise UsageError(
                        f"Memory {cube.label} is not a proposal. “ondevice memory list "
                        "--status proposed” shows them."
                    )
                decide(connection, cube.id)
            return _cubes.get_many(connection, [cube.id for cube in cubes])

    # ------------------------------------------------------------------ reading

    def unread(self) -> Unread | None:
        """The latest that the user has stated and no model has read for facts, or None."""
        with self.database.read() as connection:
            return _derive.unread(connection)

    def store_reading(self, text: Unread, answer: str) -> list[Cube]:
        """Propose the facts that a model's ``answer`` points at in ``text``; return what is new.

        The question is :func:`read_question`. Nothing is kept if the text has been edited or
        forgotten meanwhile.
        """
        with self.database.write() as connection:
            return _derive.store_reading(connection, text, read_answer(answer, text.text))

    # ------------------------------------------------------------------ finding

    def search(
        self,
        text: str,
        *,
        limit: int = 10,
        kinds: Collection[Kind] = (),
        statuses: Collection[Status] = ("active", "superseded"),
    ) -> Found:
        """The memories that answer ``text`` best; to “What do you know about me?” the profile."""
        text = ends(text)
        from ondevice.memory._search import search  # noqa: PLC0415 - numpy comes with it

        with self.database.read() as connection:
            if not kinds and asks_for_profile(text) and (found := _profile_of(connection)).hits:
                return found
            return search(
                connection,
                text,
                today=_now().date(),
                limit=limit,
                kinds=kinds,
                statuses=statuses,
                literally=True,
            )

    def recall(
        self,
        text: str,
        *,
        budget: int,
        count_tokens: Callable[[str], int],
        conversation_id: int | None = None,
        seen: Collection[int] = (),
        left: Collection[int] = (),
        at: datetime | None = None,
    ) -> Recalled | None:
        """What to put around the user's message ``text``, in at most ``budget`` tokens.

        None when nothing that is remembered helps. What was said in the conversation itself is
        left out, and so are the cubes that the model has ``seen`` in it: they are in the context
        anyway. Not so the messages with the ids ``left``, which have left the context.
        """
        from ondevice.memory._search import search  # noqa: PLC0415 - numpy comes with it

        text = ends(text)
        today = (at or _now()).date()
        with self.database.read() as connection:
            row = connection.execute(
                "SELECT id FROM source WHERE conversation_id = ?", (conversation_id,)
            ).fetchone()
            source = row and row["id"]
            lessons = _derive.lessons(connection, without_source=source)
            if asks_for_profile(text) and (profile := _profile_of(connection)).hits:
                return quote(text, profile, lessons, budget, count_tokens, seen=seen)
            if asks_to_forget(text):
                nothing = Found(hits=(), sources=(), confidence=0.0)
                return quote(text, nothing, lessons, budget, count_tokens, unknown=True, seen=seen)
            again = _cubes.of_messages(connection, left)
            found = search(
                connection,
                text,
                today=today,
                limit=_LOOKED_AT + len(seen),
                kinds=("turn", "note", "fact", "document"),
                without_source=source,
                but=again,
                rank_sources=False,
            )
            found = _derive.with_evidence(connection, found, source, again)
            found = _derive.with_hints(connection, found, asks_of_user(text), source, again)
            found = _derive.with_corrections(connection, found, source, again)
            names = _derive.names(connection)
            verdict = judge(text, found, names)
            if verdict.helps and (others := without_namesakes(text, found)) is not found:
                found, verdict = others, judge(text, others, names)
                verdict = replace(verdict, unknown=verdict.unknown or not verdict.helps)
            if verdict.unknown and source is not None:
                here = search(connection, text, today=today, limit=1, rank_sources=False)
                verdict = replace(verdict, unknown=here.confidence < GATE)
        if not verdict.helps:
            found = Found(hits=(), sources=(), confidence=0.0)
        return quote(text, found, lessons, budget, count_tokens, unknown=verdict.unknown, seen=seen)

    def shared_words(self, text: str, cubes: Sequence[Cube]) -> list[tuple[str, ...]]:
        """For each cube the words of ``text`` that it says, in any form; often why it was found."""
        from ondevice.memory._match import shared_words  # noqa: PLC0415 - numpy comes with it

        with self.database.read() as connection:
            return [shared_words(connection, text, cube.content) for cube in cubes]

    def latest(
        self,
        *,
        kind: Kind | None = None,
        status: Status | None = None,
        tag: str | None = None,
        limit: int = 50,
    ) -> list[Cube]:
        """Cubes, the latest written first; without a status all but those that are deleted."""
        with self.database.read() as connection:
            return _cubes.listing(connection, kind=kind, status=status, tag=tag, limit=limit)

    def cubes(self, ids: Sequence[int]) -> list[Cube]:
        """The cubes with these ids, in this order."""
        with self.database.read() as connection:
            return _cubes.get_many(connection, ids)

    def history(self, cube_id: int) -> History:
        """All that is known about a cube: versions, what it superseded, what superseded it."""
        with self.database.read() as connection:
            return History(
                cube=_cubes.get(connection, cube_id),
                tags=tuple(_cubes.tags(connection, cube_id)),
                versions=tuple(_cubes.versions(connection, cube_id)),
                earlier=tuple(_chain(connection, cube_id, "from_id", "to_id")),
                later=tuple(_chain(connection, cube_id, "to_id", "from_id")),
                links=tuple(_cubes.links(connection, cube_id)),
            )

    def stated_in(self, facts: Iterable[Cube]) -> dict[int, str]:
        """For each of these facts the sentence that it was read from, if that is kept."""
        with self.database.read() as connection:
            return _derive.stated_in(connection, facts)

    def replaced(self, ids: Sequence[int]) -> dict[int, tuple[Cube | None, Cube | None]]:
        """For those of these cubes that took the place of another, or were replaced: which ones.

        The one before and the one after, each None where there is none.
        """
        with self.database.read() as connection:
            return _cubes.replaced(connection, ids)

    # ------------------------------------------------------------------ forgetting

    def going(self, ids: Iterable[int]) -> list[Cube]:
        """What :meth:`forget` would delete: these cubes and all that has to go with them."""
        with self.database.read() as connection:
            asked = _cubes.get_many(connection, list(ids))
            gone = _forget.going(connection, [cube.id for cube in asked])
            return _cubes.get_many(connection, gone.cubes)

    def blanked(self, ids: Iterable[int]) -> list[Blanked]:
        """What else :meth:`forget` would change: whatever quotes these cubes, as it reads then."""
        with self.database.read() as connection:
            asked = _cubes.get_many(connection, list(ids))
            gone = _forget.going(connection, [cube.id for cube in asked])
            return _forget.blanked(connection, gone)

    def forget(self, ids: Iterable[int]) -> int:
        """Delete these cubes and all that has to go with them; return how many that were.

        Afterwards no byte of their text is in a file of the store.
        """
        with self.database.write() as connection:
            asked = _cubes.get_many(connection, list(ids))
            count = self.forget_within(connection, [cube.id for cube in asked])
        self.database.scrub()
        return count

    def forget_conversation(self, conversation_id: int) -> int:
        """Forget every turn of a conversation, and the facts that rest on them."""
        with self.database.write() as connection:
            ids = self.of_conversation(connection, conversation_id)
            count = self.forget_within(connection, ids)
        self.database.scrub()
        return count

    def of_conversation(self, connection: Connection, conversation_id: int) -> list[int]:
        """The cubes that were remembered of a conversation."""
        return [
            row["id"]
            for row in connection.execute(
                "SELECT cube.id FROM cube JOIN source ON source.id = source_id "
                "WHERE conversation_id = ? AND status <> 'deleted'",
                (conversation_id,),
            )
        ]

    def forget_within(self, connection: Connection, ids: Sequence[int]) -> int:
        """What :meth:`forget` does, in a transaction of the caller, who then has it scrubbed."""
        if not ids:
            return 0
        gone = _forget.going(connection, ids)
        _forget.forget_all(connection, gone)
        return len(gone.cubes)

    # ------------------------------------------------------------------ keeping

    def export(self, file: BinaryIO, *, markdown: bool = False) -> None:
        """Write the whole memory: as JSON Lines for :meth:`import_`, or as Markdown to read."""
        with self.database.read() as connection:
            if markdown:
                for text in export_markdown(connection):
                    file.write(text.encode())
            else:
                file.writelines(
                    export_lines(
                        lambda table: connection.execute(f"SELECT * FROM {table} ORDER BY 1, 2")
                    )
                )

    def import_(self, lines: Iterable[bytes]) -> int:
        """Add the cubes of an export that the store has not; return how many that were.

        Raises :class:`FileError` for anything but an export, and then adds nothing.
        """
        with self.database.write() as connection:
            count = import_lines(connection, lines)
            refresh_profile(connection, _now())
            return count

    def statistics(self) -> MemoryStatistics:
        with self.database.read() as connection:
            by_kind: Counter[str] = Counter()
            by_status: Counter[str] = Counter()
            for kind, status, number in connection.execute(
                "SELECT kind, status, count(*) FROM cube GROUP BY kind, status"
            ):
                by_kind[kind] += number
                by_status[status] += number

            def total(table: str) -> int:
                (number,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
                return int(number)

            return MemoryStatistics(
                cubes=by_kind.total(),
                by_kind=dict(sorted(by_kind.items())),
                by_status=dict(sorted(by_status.items())),
                sources=total("source"),
                versions=total("version"),
                links=total("link"),
                bytes=self.database.path.stat().st_size,
                encrypted=self.database.encrypted,
            )

    def check(self) -> list[str]:
        """What is wrong with the store, in plain words; an empty list is a sound one.

        Also takes what was deleted out of the write-ahead log, should that have had to wait.
        """
        problems = self.database.damage()
        try:
            with self.database.write() as connection:
                # Rank 1 compares the index with the texts as well.
                connection.execute(
                    "INSERT INTO memory_index(memory_index, rank) VALUES ('integrity-check', 1)"
                )
        except StoreError as error:
            problems.append(f"The search index does not match the memories: {error}")
        if not problems:
            self.database.scrub()
        return problems


def _chain(connection: Connection, cube_id: int, near: str, far: str) -> list[Cube]:
    """The cubes along the links “supersedes”, from ``near`` end to ``far`` end, nearest first."""
    found = connection.execute(
        f"""
        WITH RECURSIVE chain(id, depth) AS (
            SELECT ?, 0
            UNION SELECT {far}, depth + 1 FROM chain JOIN link ON {near} = chain.id
                WHERE link.kind = 'supersedes' AND depth < 1000
        )
        SELECT id FROM chain WHERE depth > 0 GROUP BY id ORDER BY min(depth), id
        """,
        (cube_id,),
    )
    return _cubes.get_many(connection, [row["id"] for row in found])


def _profile_of(connection: Connection) -> Found:
    """The user's profile as what a search for it finds."""
    cubes = sorted(
        _cubes.listing(connection, kind="profile", status="active"), key=lambda cube: cube.id
    )
    return Found(
        hits=tuple(Hit(cube=cube, score=1.0) for cube in cubes),
        sources=tuple({cube.source.id for cube in cubes}),
        confidence=1.0 if cubes else 0.0,
    )


def _relate(connection: Connection, cube_id: int, content: str) -> None:
    from ondevice.memory._related import relate  # noqa: PLC0415 - numpy comes with it

    relate(connection, cube_id, content)


def _remembered(
    connection: Connection, cube_id: int, found: Iterable[Cube], left_out: tuple[str, ...]
) -> Remembered:
    cubes = _cubes.get_many(connection, [cube.id for cube in found])
    return Remembered(
        cube=_cubes.get(connection, cube_id),
        facts=tuple(cube for cube in cubes if cube.status == "active"),
        proposed=tuple(cube for cube in cubes if cube.status == "proposed"),
        left_out=left_out,
    )


def _now() -> datetime:
    return datetime.now().astimezone()
