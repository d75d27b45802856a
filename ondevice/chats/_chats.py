"""Reads and writes conversations in the store. They are trees: nothing is ever overwritten."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ondevice.chats import _foreign, _read, _times, _transfer
from ondevice.chats._records import Attachment, Conversation, Found, Heading, Matches, State
from ondevice.engine.messages import Role
from ondevice.errors import StoreError, StoreUnwritable, UsageError
from ondevice.memory import Cube, Memory
from ondevice.store import Connection, Database, words_leave

_TYPED = 1500  # characters that a message has at most which was typed

# Of what is imported, this much goes into one transaction.
_BATCH = 500  # messages; one that is long counts as several
_LONG = 10_000  # characters
_REMEMBERED_TOGETHER = 50  # messages
_PAUSE, _LONGEST_PAUSE = 0.3, 0.1  # between two: part of the time of the first, and seconds


@dataclass(frozen=True, slots=True)
class Said:
    """What came of a message of the user."""

    message_id: int
    recalled: tuple[Cube, ...] = ()  # memories that go with it to the model
    learnt: tuple[str, ...] = ()  # facts that were read from it, new ones only
    left_out: tuple[str, ...] = ()  # kinds of secrets that were not remembered


class Chats:
    """The conversations in ``database``, and the memory beside them. May be used from any thread.

    Methods that name a conversation or a message raise :class:`StoreError` if it is not there.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.memory = Memory(database)

    # ------------------------------------------------------------------ finding

    def headings(self, *, archived: bool = False) -> list[Heading]:
        """Conversations, pinned ones first, then the one used last first."""
        with self.database.read() as connection:
            return _read.headings(connection, archived=archived)

    def heading(self, conversation_id: int) -> Heading | None:
        """The conversation as in a list, or None if it is not there."""
        with self.database.read() as connection:
            return _read.heading(connection, conversation_id)

    def of_message(self, message_id: int) -> int:
        """The conversation that has this message."""
        with self.database.read() as connection:
            row = connection.execute(
                "SELECT conversation_id FROM message WHERE id = ?", (message_id,)
            ).fetchone()
        check(row is not None)
        return int(row["conversation_id"])

    def search(self, text: str, *, conversation_id: int | None = None) -> list[Found]:
        """The best message of each conversation that has these words, best first.

        The last word may be the beginning of one. Within one conversation: all such messages of
        all branches, oldest first.
        """
        with self.database.read() as connection:
            return _read.search(connection, text, conversation_id)

    def matches(self, text: str, conversation_id: int) -> Matches:
        """All messages of a conversation that :meth:`search` would find, and the words in them."""
        with self.database.read() as connection:
            return _read.matches(connection, text, conversation_id)

    def state(self, conversation_id: int) -> State | None:
        """What tells whether a conversation has changed, or None if it is not there."""
        with self.database.read() as connection:
            return _read.state(connection, conversation_id)

    def said(self, limit: int = 500) -> list[str]:
        """What the user has said last, in all conversations, oldest first, each text once."""
        with self.database.read() as connection:
            rows = connection.execute(
                "SELECT content FROM message WHERE role = 'user' AND content <> '' "
                "GROUP BY content ORDER BY max(id) DESC LIMIT ?",
                (limit,),
            ).fetchall()
        return [row["content"] for row in reversed(rows)]

    def load(self, conversation_id: int, *, until: int | None = None) -> Conversation:
        """The conversation with the messages of the branch it shows.

        ``until`` is the last of them that is wanted; it may be in another branch.
        """
        with self.database.read() as connection:
            conversation = _read.load(connection, self.memory, conversation_id, until)
        if conversation is None:
            raise StoreError("This conversation is no longer in the store. Begin a new one.")
        return conversation

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
        recall: int = 0,
    ) -> Said:
        """Append what the user typed; all of it is on disk when this returns.

        Parts of the text that were ``pasted`` are remembered with it, but no facts are read from
        them.

        ``instead_of`` names an earlier message: this one then begins a new branch at its place.
        ``recall`` is how many tokens the memories that help may take. The first message gives the
        conversation its title.
        """
        recalled: tuple[Cube, ...] = ()
        unknown = False
        if recall:
            recalled, unknown = self._recall(conversation_id, text, recall, instead_of)
        unknown = unknown and not attachments  # they may tell
        with self.database.write() as connection:
            message_id = append(
                connection,
                conversation_id,
                "user",
                text,
                parent_id=_parent(connection, conversation_id, instead_of),
                title=_transfer.beginning(text or " ".join(a.name for a in attachments)),
            )
            connection.executemany(
                "INSERT INTO attachment VALUES (?, ?, ?, ?)",
                [(message_id, i, a.name, a.content) for i, a in enumerate(attachments)],
            )
            connection.executemany(
                "INSERT INTO recall VALUES (?, ?)", [(message_id, cube.id) for cube in recalled]
            )
            connection.execute("UPDATE message SET unknown = ? WHERE id = ?", (unknown, message_id))
            if not text or _is_private(connection, conversation_id):
                return Said(message_id, recalled)
            remembered = self.memory.remember_turn(
                connection,
                conversation_id=conversation_id,
                message_id=message_id,
                text=text,
                pasted=pasted,
            )
        learnt = tuple(cube.content for cube in remembered.facts)
        return Said(message_id, recalled, learnt, remembered.left_out)

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

    # ------------------------------------------------------------------ keeping

    def rename(self, conversation_id: int, title: str) -> None:
        """Give it a title of the user's own; an empty one changes nothing."""
        if title := " ".join(title.split()):
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

    def delete(self, conversation_id: int, *, forget: bool = False) -> None:
        """Remove the conversation for good: no byte of it stays in a file of the store.

        What is remembered of it stays in the memory, unless that is to ``forget`` it as well.
        """
        with self.database.write() as connection:
            gone = self.memory.of_conversation(connection, conversation_id) if forget else []
            remove(connection, conversation_id)
            self.memory.forget_within(connection, gone)
        self.database.scrub()

    def export(self, conversation_id: int, path: Path) -> None:
        """Write the conversation to a new file, mode 0600: JSON for ``.json``, else Markdown.

        JSON has all branches and can be imported again. Raises :class:`UsageError` when the file
        is there already or cannot be written.
        """
        if path.suffix.lower() == ".json":
            with self.database.read() as connection:
                data = _transfer.to_json(connection, conversation_id)
        else:
            data = _transfer.markdown(self.load(conversation_id)).encode()
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
            except OSError:  # the disk is full
                path.unlink()
                raise
        except OSError as error:
            raise UsageError(f"{path} cannot be written: {error.strerror}.") from error

    def import_(
        self,
        path: Path,
        on_progress: Callable[[int], None] | None = None,
        cancel: threading.Event | None = None,
        on_left_out: Callable[[str], None] | None = None,
    ) -> list[int]:
        """Add the conversations of a file and return their ids, oldest first.

        It may be an export of our own, of ChatGPT or of Claude; of these also the archive as it
        was sent, or its folder. Nothing of them is remembered unless :meth:`remember` is called.

        A conversation is added whole or not at all, some in each transaction, so that others can
        write meanwhile. ``on_left_out`` gets a sentence for each that cannot be read, and
        ``on_progress`` how many were added so far; after a ``cancel`` those stay. Raises
        :class:`UsageError`, and then adds nothing, when there is none that can be read.
        """
        added: list[tuple[datetime, int]] = []
        batch: list[_transfer.Transcript] = []
        weight = 0

        def add_batch() -> None:
            began = time.monotonic()
            with self.database.write() as connection:
                pairs = [(one.created_at, _transfer.insert(connection, one)) for one in batch]
            now = datetime.now(UTC)
            added.extend((_times.sane(at) or now, id_) for at, id_ in pairs if id_ is not None)
            batch.clear()
            if on_progress:
                on_progress(len(added))
            # Who waits to write looks only now and then whether it can.
            time.sleep(min(_LONGEST_PAUSE, _PAUSE * (time.monotonic() - began)))

        try:
            for found in _foreign.read(path, cancel):
                if isinstance(found, _foreign.NotRead):
                    if on_left_out:
                        on_left_out(str(found))
                    continue
                batch.append(found)
                weight += 1 + sum(1 + len(one.content) // _LONG for one in found.messages)
                if weight >= _BATCH:
                    add_batch()
                    weight = 0
            if batch:
                add_batch()
        except StoreUnwritable as error:
            kept = f" {len(added)} chats were added before that, and stay." if added else ""
            raise StoreUnwritable(f"{error}{kept}") from error
        return [id_ for _, id_ in sorted(added)]

    def remember(
        self,
        conversation_ids: Sequence[int],
        on_progress: Callable[[int], None] | None = None,
        cancel: threading.Event | None = None,
    ) -> int:
        """Remember what the user said in imported conversations, and return how many messages.

        It counts as said when it was said. No facts are read from what is so long that it must
        have been pasted. ``on_progress`` gets the number of messages so far; after a ``cancel``,
        what is remembered stays, and to remember it again changes nothing.
        """
        count = 0
        for conversation_id in conversation_ids:
            with self.database.read() as connection:
                if _is_private(connection, conversation_id):
                    continue
                rows = connection.execute(
                    "SELECT id, content, created_at FROM message WHERE conversation_id = ? "
                    "AND role = 'user' AND content <> '' ORDER BY position",
                    (conversation_id,),
                ).fetchall()
            for start in range(0, max(1, len(rows)), _REMEMBERED_TOGETHER):
                some = rows[start : start + _REMEMBERED_TOGETHER]
                with self.database.write() as connection:
                    for row in some:
                        self.memory.remember_turn(
                            connection,
                            conversation_id=conversation_id,
                            message_id=row["id"],
                            text=row["content"],
                            pasted=[row["content"]] if len(row["content"]) > _TYPED else [],
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
        self, conversation_id: int, text: str, budget: int, instead_of: int | None
    ) -> tuple[tuple[Cube, ...], bool]:
        """Memories that help to answer ``text``, but those that the model has seen already.

        And whether it asks for something about the user that nothing tells.
        """
        with self.database.read() as connection:
            if _is_private(connection, conversation_id):
                return (), False
            parent = _parent(connection, conversation_id, instead_of)
            seen = _read.recalled_until(connection, parent)
            attaches = _read.attaches(connection, parent)
        recalled = self.memory.recall(
            text, budget=budget, count_tokens=_about_tokens, conversation_id=conversation_id
        )
        if recalled is None:
            return (), False
        unseen = tuple(cube for cube in recalled.cubes if cube.id not in seen)
        return unseen, recalled.unknown and not attaches


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


def _parent(connection: Connection, conversation_id: int, instead_of: int | None) -> int | None:
    """What the next message follows: the end of the branch, or what ``instead_of`` follows."""
    row = connection.execute(
        "SELECT parent_id FROM message WHERE conversation_id = ? AND id = ?"
        if instead_of
        else "SELECT end_id FROM conversation WHERE id = ?",
        (conversation_id, instead_of) if instead_of else (conversation_id,),
    ).fetchone()
    check(row is not None)
    parent: int | None = row[0]
    return parent


def _is_private(connection: Connection, conversation_id: int) -> bool:
    row = connection.execute(
        "SELECT private FROM conversation WHERE id = ?", (conversation_id,)
    ).fetchone()
    check(row is not None)
    return bool(row["private"])


def check(found: int) -> None:
    """Raise :class:`StoreError` if nothing was found of a conversation."""
    if not found:
        raise StoreError("This conversation was deleted. Begin a new one.")


def _title_of(connection: Connection, conversation_id: int) -> str:
    row = connection.execute(
        "SELECT title FROM conversation WHERE id = ?", (conversation_id,)
    ).fetchone()
    check(row is not None)
    return str(row["title"])


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


def _about_tokens(text: str) -> int:
    """Tokens of ``text``, rather too many than too few: only the engine could count them."""
    return len(text.encode()) // 3 + 1


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")
