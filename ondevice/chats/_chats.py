"""Reads and writes conversations in the store. They are trees: nothing is ever overwritten."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from ondevice.chats import _imports, _queries, _times, _transfer
from ondevice.chats._imports import Import, Imported, Undone
from ondevice.chats._records import (
    Attachment,
    Chat,
    ChatHit,
    ChatMatches,
    Heading,
    Message,
    State,
)
from ondevice.chats._unsaved import UnsavedReplies
from ondevice.chats.recalling import about
from ondevice.errors import NotFound, StoreError, StoreUnwritable
from ondevice.memory import FORGOTTEN, Cube
from ondevice.messages import Keep, Role, StateKey
from ondevice.store import Connection, Database, words_leave

if TYPE_CHECKING:
    from ondevice.memory import Memory

_TYPED = 1500  # characters that a message has at most which was typed

_BYTES_OF_TOKEN = 4  # of most
#: Part of the context: with more in use exchanges may have left it, and that much is there still.
_FULL, _THERE = 0.7, 0.4

# Of what is imported, this much goes into one transaction.
_BATCH = 500  # messages; one that is long counts as several
_LONG = 10_000  # characters
_REMEMBERED_TOGETHER = 50  # messages
_TOLD_AFTER = 100  # chats that need not be written
_PAUSE, _LONGEST_PAUSE = 0.3, 0.1  # between two: part of the time of the first, and seconds


class Said(msgspec.Struct, frozen=True):
    """What came of a message of the user."""

    message_id: int
    recalled: tuple[Cube, ...] = ()  # memories that go with it to the model
    learnt: tuple[str, ...] = ()  # facts that were read from it, new ones only
    left_out: tuple[str, ...] = ()  # kinds of secrets that were not remembered
    unwanted: bool = False  # nothing of it was remembered, because it says that it is not to be
    withheld: tuple[Cube, ...] = ()  # memories that would help, and wait for :meth:`Chats.send`
    server: str = ""  # to which these would go


class Chats:
    """The conversations in ``database``, and the memory beside them. May be used from any thread.

    Methods that name a conversation or a message raise :class:`StoreError` if it is not there.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.unsaved = UnsavedReplies()
        self._state_bytes = 0

    @cached_property
    def memory(self) -> Memory:
        """What the user once said."""
        from ondevice.memory import Memory  # noqa: PLC0415 - a faster start

        return Memory(self.database)

    # ------------------------------------------------------------------ finding

    def headings(self, *, archived: bool = False) -> list[Heading]:
        """Conversations, pinned ones first, then the one used last first."""
        with self.database.read() as connection:
            return _queries.headings(connection, archived=archived)

    def used_last(self) -> int | None:
        """The conversation in which something was said last here, whatever clocks say.

        Archived ones do not count, and imported ones only where there is no other. None: no chats.
        """
        with self.database.read() as connection:
            return _queries.used_last(connection)

    def heading(self, conversation_id: int) -> Heading | None:
        """The conversation as in a list, or None if it is not there."""
        with self.database.read() as connection:
            return _queries.heading(connection, conversation_id)

    def of_message(self, message_id: int) -> int:
        """The conversation that has this message."""
        with self.database.read() as connection:
            row = connection.execute(
                "SELECT conversation_id FROM message WHERE id = ?", (message_id,)
            ).fetchone()
        check(row is not None)
        return int(row["conversation_id"])

    def search(self, text: str, *, conversation_id: int | None = None) -> list[ChatHit]:
        """The best message of each conversation that has these words, best first.

        The last word may be the beginning of one. Within one conversation: all such messages of
        all branches, oldest first.
        """
        with self.database.read() as connection:
            return _queries.search(connection, text, conversation_id)

    def matches(self, text: str, conversation_id: int) -> ChatMatches:
        """All messages of a conversation that :meth:`search` would find, and the words in them."""
        with self.database.read() as connection:
            return _queries.matches(connection, text, conversation_id)

    def state(self, conversation_id: int) -> State | None:
        """What tells whether a conversation has changed, or None if it is not there."""
        with self.database.read() as connection:
            return _queries.state(connection, conversation_id)

    def said(self, limit: int = 500) -> list[str]:
        """What the user has said last, in all conversations, oldest first, each text once."""
        with self.database.read() as connection:
            newest_first = connection.execute(
                "SELECT content FROM message WHERE role = 'user' AND content <> '' ORDER BY id DESC"
            )
            said: dict[str, None] = {}
            for row in newest_first:
                if len(said) == limit:
                    break
                said.setdefault(row["content"])
        return list(reversed(said))

    def load(self, conversation_id: int, *, until: int | None = None) -> Chat:
        """The conversation with the messages of the branch it shows.

        ``until`` is the last of them that is wanted; it may be in another branch.
        """
        with self.database.read() as connection:
            conversation = _queries.load(connection, self._cubes, conversation_id, until)
        if conversation is None:
            raise StoreError("This chat is no longer in the store. Start a new one.")
        return conversation

    def _cubes(self, ids: Sequence[int]) -> Sequence[Cube]:
        return self.memory.cubes(ids)

    # ------------------------------------------------------------------ talking

    def create(self, system: str = "", *, private: bool = False) -> int:
        """Begin a conversation with a system prompt (empty: none) and return its id."""
        now = _now()
        with self.database.write() as connection:
            (id_,) = connection.execute(
                "INSERT INTO conversation (id, system, private, created_at, updated_at) "
                "SELECT id + 1, ?, ?, ?, ? FROM last_conversation RETURNING id",
                (system, private, now, now),
            ).fetchone()
        return int(id_)

    def say(
        self,
        conversation_id: int,
        text: str,
        attachments: Sequence[Attachment] = (),
        *,
        pasted: Sequence[str] = (),
        instead_of: int | None = None,
        after: int | None = None,
        recall: int = 0,
        count_tokens: Callable[[str], int] = about,
        n_ctx: int = 0,
        server: str | None = None,
        withhold: bool = False,
    ) -> Said:
        """Append what the user typed; all of it is on disk when this returns.

        Parts of the text that were ``pasted`` are remembered with it, but no facts are read from
        them.

        ``instead_of`` names an earlier message: this one then begins a new branch at its place.
        ``after`` is the last one that the user sees: if another window has gone on in another
        branch meanwhile, this one follows what was seen.
        ``recall`` is how many tokens the memories that help may take, as ``count_tokens`` counts
        them; they go to a model on this device, or on the ``server`` only, and are but named if it
        is to ``withhold`` them. What the model has seen in its context of ``n_ctx`` tokens (0: of
        any size) is not recalled again. The first message gives the conversation its title.

        A reply that could not be saved is saved first, if it can be now.
        """
        with suppress(StoreUnwritable):
            begun = self.unsaved.save()
            after = begun.get(after, after) if after is not None else None
        recalled: tuple[Cube, ...] = ()
        unknown = False
        if recall:
            recalled, unknown = self._recall(
                conversation_id, text, recall, count_tokens, n_ctx, (instead_of, after), server
            )
        unknown = unknown and not attachments  # they may tell
        withheld, recalled = (recalled, ()) if withhold else ((), recalled)
        unknown = unknown and not withhold
        # Before the transaction, in which other programs have to wait.
        read = self.memory.read_turn(text, pasted)
        with self.database.write() as connection:
            message_id = append(
                connection,
                conversation_id,
                "user",
                text,
                parent_id=_parent(connection, conversation_id, instead_of, after),
                title=_transfer.beginning(text or " ".join(a.name for a in attachments)),
            )
            connection.executemany(
                "INSERT INTO attachment VALUES (?, ?, ?, ?)",
                [(message_id, i, a.name, a.content) for i, a in enumerate(attachments)],
            )
            connection.executemany(
                "INSERT INTO recall VALUES (?, ?)", [(message_id, cube.id) for cube in recalled]
            )
            connection.execute(
                "UPDATE message SET unknown = ?, server = ? WHERE id = ?",
                (unknown, server if recalled or unknown else None, message_id),
            )
            if not text or _is_private(connection, conversation_id):
                return Said(message_id, recalled, withheld=withheld, server=server or "")
            remembered = self.memory.remember_turn(
                connection,
                conversation_id=conversation_id,
                message_id=message_id,
                text=text,
                read=read,
            )
        return Said(
            message_id,
            recalled,
            learnt=tuple(cube.content for cube in remembered.facts),
            left_out=remembered.left_out,
            unwanted=remembered.unwanted,
            withheld=withheld,
            server=server or "",
        )

    def send(self, said: Said) -> Said:
        """Let the memories that were withheld go to the server with the message."""
        with self.database.write() as connection:
            connection.executemany(
                "INSERT OR IGNORE INTO recall SELECT ?, id FROM cube "
                "WHERE id = ? AND status <> 'deleted'",
                [(said.message_id, cube.id) for cube in said.withheld],
            )
            connection.execute(
                "UPDATE message SET server = ? WHERE id = ?", (said.server, said.message_id)
            )
        return replace(said, recalled=said.withheld, withheld=())

    def leave_unanswered(self, message_id: int) -> None:
        """Take note that a message of the user met an error, unless it had a reply before."""
        with self.database.write() as connection:
            # In a user's message this column tells that and nothing else.
            connection.execute(
                "UPDATE message SET finish_reason = 'cancelled' WHERE id = ? AND role = 'user' "
                "AND NOT EXISTS (SELECT 1 FROM message AS reply WHERE reply.parent_id = message.id "
                "AND reply.content <> '')",
                (message_id,),
            )

    def show(self, message_id: int) -> None:
        """Let the conversation go on in the branch of this message, the newest one if many."""
        with self.database.write() as connection:
            changed = connection.execute(
                """
                WITH RECURSIVE after(id, conversation_id) AS (
                    SELECT id, conversation_id FROM message WHERE id = ?
                    UNION ALL SELECT message.id, message.conversation_id
                    FROM after JOIN message ON parent_id = after.id
                )
                UPDATE conversation SET end_id = (SELECT max(id) FROM after)
                WHERE id = (SELECT conversation_id FROM after)
                """,
                (message_id,),
            )
            check(changed.rowcount)

    # ------------------------------------------------------------------ summaries

    def summarise(self, message_id: int, content: str, *, of: Sequence[Message] = ()) -> bool:
        """Let a text stand in the prompt for all messages of the branch up to this one.

        Not so if one of those that it was made ``of`` has changed, or was forgotten, meanwhile.
        """
        with self.database.write() as connection:
            for message in of:
                row = connection.execute(
                    "SELECT message.content, summary.content FROM message "
                    "LEFT JOIN summary ON message_id = message.id WHERE message.id = ?",
                    (message.id,),
                ).fetchone()
                attached = connection.execute(
                    "SELECT content FROM attachment WHERE message_id = ? ORDER BY number",
                    (message.id,),
                ).fetchall()
                if (
                    row is None
                    or row[0] != message.content
                    or (message.summary and row[1] != message.summary.content)
                    or [content for (content,) in attached]
                    != [attachment.content for attachment in message.attachments]
                ):
                    return False
            connection.execute(  # whoever asks for another one wants those no more
                "DELETE FROM summary WHERE NOT used AND message_id IN (SELECT other.id "
                "FROM message JOIN message AS other USING (conversation_id) WHERE message.id = ?)",
                (message_id,),
            )
            connection.execute(
                "INSERT OR REPLACE INTO summary VALUES (?, ?, 1, ?)", (message_id, content, _now())
            )
        return True

    def edit_summary(self, message_id: int, content: str, *, instead_of: str) -> str:
        """Correct the summary that ends with a message; an empty one changes nothing.

        ``instead_of`` is what it said when the user began: where another window has changed it
        meanwhile, it stays so. Returns what it says now.
        """
        content = content.strip()
        with self.database.write() as connection:
            row = connection.execute(
                "SELECT content FROM summary WHERE message_id = ?", (message_id,)
            ).fetchone()
            if row is None:
                raise StoreError("This summary is no longer there.")
            if not content or row["content"] != instead_of:
                return str(row["content"])
            connection.execute(
                "UPDATE summary SET content = ?, written_at = ? WHERE message_id = ?",
                (content, _now(), message_id),
            )
        return content

    def use_summary(self, message_id: int, used: bool) -> None:
        """Have the summary that ends with a message stand for the messages again, or undo it.

        With it go the earlier ones that it was made of.
        """
        with self.database.read() as connection:
            ids = [message_id] if used else _queries.branch(connection, message_id)
        with self.database.write() as connection:
            changed = connection.execute(
                "UPDATE summary SET used = ?, written_at = ? "
                "WHERE message_id IN (SELECT value FROM json_each(?))",
                (used, _now(), json.dumps(ids)),
            )
            if not changed.rowcount:
                raise StoreError("This summary is no longer there.")

    # ------------------------------------------------------------------ keeping

    def rename(self, conversation_id: int, title: str) -> None:
        """Give it a title of the user's own; an empty one changes nothing."""
        if title := _transfer.given_title(title):
            self._set(conversation_id, "title", title)

    def is_titled(self, conversation_id: int) -> bool:
        """Whether its title is more than the beginning of its first message."""
        with self.database.read() as connection:
            return _title_of(connection, conversation_id) != _beginning(connection, conversation_id)

    def give_title(self, conversation_id: int, title: str) -> bool:
        """Give it another title than the beginning of its first message, unless it has one."""
        with self.database.write() as connection:
            beginning = _beginning(connection, conversation_id)
            if _title_of(connection, conversation_id) != beginning:
                return False
            connection.execute(
                "UPDATE conversation SET title = ? WHERE id = ?", (title, conversation_id)
            )
        return True

    def pin(self, conversation_id: int, pinned: bool = True) -> None:
        """Keep it at the top of the list, or no longer."""
        self._set(conversation_id, "pinned", pinned)

    def archive(self, conversation_id: int, archived: bool = True) -> None:
        """Take it out of the list without deleting it, or bring it back."""
        self._set(conversation_id, "archived", archived)

    def pause(self, conversation_id: int, paused: bool = True) -> None:
        """Remember nothing of it and recall nothing in it, or do so again."""
        self._set(conversation_id, "private", paused)
        if paused:
            self.database.delete_states(conversation_id)

    def limit_states(self, n_bytes: int) -> None:
        """What models have computed of conversations may take so much of the disk.

        With 0, as at first, nothing is kept, and what there is is deleted.
        """
        self._state_bytes = n_bytes
        if not n_bytes:
            self.database.delete_states()

    def keep(self, conversation_id: int) -> Keep | None:
        """Where a model keeps what it has computed of the conversation; None: nowhere."""
        if not self._state_bytes:
            return None
        with self.database.read() as connection:
            if _is_private(connection, conversation_id):
                return None
        own = self.database.state_key(conversation_id)
        shared = self.database.state_key(None)
        if own is None or shared is None:
            return None
        return Keep(
            folder=str(self.database.states),
            own=StateKey(*own),
            shared=StateKey(*shared),
            most_bytes=self._state_bytes,
        )

    def delete(self, conversation_id: int, *, forget: bool = False) -> None:
        """Remove the conversation for good: no byte of it stays in a file of the store.

        What is remembered of it stays in the memory, unless that is to ``forget`` it as well.
        """
        with self.database.write() as connection:
            gone = self.memory.of_conversation(connection, conversation_id) if forget else []
            remove(connection, conversation_id)
            self.memory.forget_within(connection, gone)
        self.database.scrub()

    def export(self, conversation_id: int, path: Path, *, replace: bool = False) -> int:
        """Write the conversation to a file, mode 0600: JSON for ``.json``, else Markdown.

        JSON has all branches and can be imported again. Markdown has the branch that is shown;
        returned is how many messages of others are not in it. Raises :class:`FileError` when the
        file cannot be written, or is there and is not to be replaced.
        """
        if path.suffix.lower() == ".json":
            self.export_all([conversation_id], path, replace=replace)
            return 0
        conversation = self.load(conversation_id)
        heading = self.heading(conversation_id)
        _transfer.write(path, _transfer.markdown(conversation).encode(), replace=replace)
        return heading.messages - len(conversation.messages) if heading else 0

    def export_all(
        self, conversation_ids: Sequence[int], path: Path, *, replace: bool = False
    ) -> None:
        """Write these conversations to one JSON file, as :meth:`export` does."""
        with self.database.read() as connection:
            for id_ in conversation_ids:
                check(_queries.heading(connection, id_) is not None)
            transcripts = tuple(_transfer.transcript(connection, id_) for id_ in conversation_ids)
        _transfer.write(path, _transfer.to_json(transcripts), replace=replace)

    def import_(
        self,
        path: Path,
        on_progress: Callable[[int], None] | None = None,
        cancel: threading.Event | None = None,
        on_left_out: Callable[[str], None] | None = None,
        deleted: bool = False,
    ) -> Imported:
        """Add the conversations of a file that are not here yet, and what is new of the others.

        It may be an export of our own, of ChatGPT, Claude or Open WebUI; also the archive as it
        was sent, or its folder. Nothing of them is remembered unless :meth:`remember` is called.
        What was deleted here stays away, unless ``deleted``.

        A conversation is added whole or not at all, some in each transaction, so that others can
        write meanwhile. ``on_left_out`` gets a sentence for each that cannot be read, and
        ``on_progress`` how many were looked at so far; after a ``cancel`` what was added stays,
        until :meth:`undo_import`. Raises :class:`FileError`, and then adds nothing, when there is
        none that can be read.
        """
        from ondevice.chats import _foreign  # noqa: PLC0415 - only to import

        incoming = _imports.Incoming(path.name, deleted=deleted)
        with self.database.read() as connection:
            incoming.begin(connection)
        batch: list[_foreign.ForeignChat] = []
        weight = added = 0

        def add_batch() -> None:
            nonlocal added
            began = time.monotonic()
            with self.database.write() as connection:
                for one in batch:
                    incoming.add(connection, one)
            batch.clear()
            added = len(incoming.result.new) + len(incoming.result.grown)
            if on_progress:
                on_progress(incoming.looked_at)
            # Who waits to write looks only now and then whether it can.
            time.sleep(min(_LONGEST_PAUSE, _PAUSE * (time.monotonic() - began)))

        try:
            for found in _foreign.read(path, cancel, incoming.is_known):
                if isinstance(found, _foreign.NotRead):
                    incoming.result.left_out.append(str(found))
                    if on_left_out:
                        on_left_out(str(found))
                    continue
                if found.transcript is None:
                    incoming.skip(found)
                    if on_progress and incoming.looked_at % _TOLD_AFTER == 0:
                        on_progress(incoming.looked_at)
                    continue
                batch.append(found)
                messages = found.transcript.messages
                weight += 1 + sum(1 + len(one.content) // _LONG for one in messages)
                if weight >= _BATCH:
                    add_batch()
                    weight = 0
            if batch:
                add_batch()
        except StoreUnwritable as error:
            kept = f" {added} chats were added before that and are kept." if added else ""
            raise StoreUnwritable(f"{error}{kept}") from error
        return incoming.finish()

    def last_import(self) -> Import | None:
        """The latest import, if anything of it is left."""
        with self.database.read() as connection:
            return _imports.last(connection)

    def undo_import(self, run: Import | None = None) -> Undone:
        """Take back an import (None: the latest), with what is remembered of it.

        What was said here since stays, with all that it follows. Raises :class:`NotFound` when
        there is none.
        """
        with self.database.write() as connection:
            run = run or _imports.last(connection)
            if run is None:
                raise NotFound("There is no import to undo.")
            undone = _imports.undo(connection, run)
        self.database.scrub()
        return undone

    def remember(
        self,
        conversation_ids: Sequence[int],
        on_progress: Callable[[int], None] | None = None,
        cancel: threading.Event | None = None,
        *,
        run: int | None = None,
    ) -> int:
        """Remember what the user said in imported conversations, and return how many messages.

        It counts as said when it was said. ``run`` is the import whose messages are meant, None:
        all. No facts are read from what is so long that it must have been pasted. ``on_progress``
        gets the number of messages so far; after a ``cancel``, what is remembered stays, and to
        remember it again changes nothing.
        """
        count = 0
        for conversation_id in conversation_ids:
            with self.database.read() as connection:
                if _is_private(connection, conversation_id):
                    continue
                rows = connection.execute(
                    "SELECT id, content, created_at FROM message WHERE conversation_id = ?1 "
                    "AND role = 'user' AND content NOT IN ('', ?2) "
                    "AND (?3 IS NULL OR run_id = ?3) ORDER BY position",
                    (conversation_id, FORGOTTEN, run),
                ).fetchall()
            for start in range(0, max(1, len(rows)), _REMEMBERED_TOGETHER):
                some = rows[start : start + _REMEMBERED_TOGETHER]
                texts = [row["content"] for row in some]
                turns = [
                    self.memory.read_turn(text, [text] if len(text) > _TYPED else [])
                    for text in texts
                ]
                with self.database.write() as connection:
                    for row, read in zip(some, turns, strict=True):
                        self.memory.remember_turn(
                            connection,
                            conversation_id=conversation_id,
                            message_id=row["id"],
                            text=row["content"],
                            read=read,
                            at=_times.from_store(row["created_at"]).astimezone(),
                        )
                count += len(some)
                if on_progress:
                    on_progress(count)
                if cancel and cancel.is_set():
                    return count
        return count

    def _set(self, conversation_id: int, column: str, value: str | bool) -> None:
        with self.database.write() as connection:
            changed = connection.execute(
                f"UPDATE conversation SET {column} = ? WHERE id = ?", (value, conversation_id)
            )
            check(changed.rowcount)

    def _recall(
        self,
        conversation_id: int,
        text: str,
        budget: int,
        count_tokens: Callable[[str], int],
        n_ctx: int,
        place: tuple[int | None, int | None],  # instead_of and after
        server: str | None,
    ) -> tuple[tuple[Cube, ...], bool]:
        """Memories that help to answer ``text``, but those that the model has seen already.

        And whether it asks for something about the user that nothing tells.
        """
        with self.database.read() as connection:
            if _is_private(connection, conversation_id):
                return (), False
            parent = _parent(connection, conversation_id, *place)
            left = _left(
                _queries.lengths(connection, parent),
                n_ctx,
                _queries.summarised_until(connection, parent),
            )
            seen = _queries.recalled_until(connection, parent, server, but=left)
            attaches = _queries.attaches(connection, parent)
        recalled = self.memory.recall(
            text,
            budget=budget,
            count_tokens=count_tokens,
            conversation_id=conversation_id,
            seen=seen,
            left=left,
        )
        if recalled is None:
            return (), False
        return recalled.cubes, recalled.unknown and not attaches


def append(
    connection: Connection,
    conversation_id: int,
    role: Role,
    content: str,
    *,
    parent_id: int | None,
    title: str = "",
    model: str | None = None,
) -> int:
    """Add a message after ``parent_id`` (None: the first one), where its branch then ends."""
    now = _now()
    changed = connection.execute(
        "UPDATE conversation SET updated_at = ?, title = coalesce(nullif(title, ''), ?) "
        "WHERE id = ?",
        (now, title, conversation_id),
    )
    check(changed.rowcount)
    (id_,) = connection.execute(
        "INSERT INTO message "
        "(conversation_id, parent_id, position, role, content, created_at, model) "
        "SELECT ?1, ?2, coalesce(max(position) + 1, 0), ?3, ?4, ?5, ?6 "
        "FROM message WHERE conversation_id = ?1 RETURNING id",
        (conversation_id, parent_id, role, content, now, model),
    ).fetchone()
    connection.execute("UPDATE conversation SET end_id = ? WHERE id = ?", (id_, conversation_id))
    return int(id_)


def remove(connection: Connection, conversation_id: int) -> None:
    """Delete a conversation with all that hangs on it, whatever its length.

    The caller commits and then calls :meth:`ondevice.store.Database.scrub`.
    """
    # Messages delete those that follow them. In a chain, each would do so within the deletion of
    # the one before: SQLite goes at most 1000 deep, and for each searches all that it is in.
    count = connection.execute(
        "UPDATE message SET parent_id = NULL WHERE conversation_id = ?", (conversation_id,)
    ).rowcount
    with words_leave(connection, "message_index", count):
        connection.execute("DELETE FROM conversation WHERE id = ?", (conversation_id,))
    connection.execute("INSERT OR IGNORE INTO scrub VALUES (1)")


def _parent(
    connection: Connection, conversation_id: int, instead_of: int | None, after: int | None
) -> int | None:
    """What the next message follows: what ``instead_of`` follows, or the end of the branch.

    The branch is the one that is shown or, where that has not ``after``, the one that ends there.
    """
    row = connection.execute(
        "SELECT parent_id FROM message WHERE conversation_id = ? AND id = ?"
        if instead_of
        else "SELECT end_id FROM conversation WHERE id = ?",
        (conversation_id, instead_of) if instead_of else (conversation_id,),
    ).fetchone()
    check(row is not None)
    parent: int | None = row[0]
    if instead_of or after is None or parent in (None, after):
        return parent
    if after in _queries.branch(connection, parent):
        return parent
    seen = connection.execute(
        "SELECT id FROM message WHERE conversation_id = ? AND id = ?", (conversation_id, after)
    ).fetchone()
    return int(seen["id"]) if seen else parent


def _is_private(connection: Connection, conversation_id: int) -> bool:
    row = connection.execute(
        "SELECT private FROM conversation WHERE id = ?", (conversation_id,)
    ).fetchone()
    check(row is not None)
    return bool(row["private"])


def check(found: int) -> None:
    """Raise :class:`StoreError` if nothing was found of a conversation."""
    if not found:
        raise StoreError("This chat was deleted. Start a new one.")


def _title_of(connection: Connection, conversation_id: int) -> str:
    row = connection.execute(
        "SELECT title FROM conversation WHERE id = ?", (conversation_id,)
    ).fetchone()
    check(row is not None)
    return str(row["title"])


def _left(
    lengths: Iterable[tuple[int, int]], n_ctx: int, summarised: int | None = None
) -> list[int]:
    """The messages, of these with their bytes from the last one back, that have left a context.

    Those up to the one that is ``summarised`` last have, and of a full context all that may have.
    """
    left: list[int] = []
    of_branch = list(lengths)
    is_full = sum(n_bytes for _, n_bytes in of_branch) > n_ctx * _BYTES_OF_TOKEN * _FULL
    room = n_ctx * _BYTES_OF_TOKEN * (_THERE if is_full else 1)
    in_summary = False
    for message_id, n_bytes in of_branch:
        in_summary = in_summary or message_id == summarised
        room -= n_bytes
        if in_summary or (n_ctx and room < 0):
            left.append(message_id)
    return left


def _beginning(connection: Connection, conversation_id: int) -> str:
    """The title that its first message gives a conversation."""
    row = connection.execute(
        "SELECT id, content FROM message WHERE conversation_id = ? ORDER BY position LIMIT 1",
        (conversation_id,),
    ).fetchone()
    if row is None:
        return ""
    names = connection.execute(
        "SELECT name FROM attachment WHERE message_id = ? ORDER BY number", (row["id"],)
    )
    return _transfer.beginning(row["content"] or " ".join(name for (name,) in names))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
