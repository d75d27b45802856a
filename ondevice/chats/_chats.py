"""Reads and writes conversations in the store; a reply is saved while it is being written."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import msgspec

from ondevice.chats._records import Conversation, Heading, Message
from ondevice.engine.messages import Chunk, Finished, Statistics
from ondevice.errors import StoreError
from ondevice.store import Database, Row

_WRITE_EVERY = 0.5  # seconds between two writes of a reply that is being generated
_TITLE_LENGTH = 60  # characters


class Chats:
    """The conversations in ``database``. May be used from any thread."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, system: str = "") -> int:
        """Begin a conversation with a system prompt (empty: none) and return its id."""
        now = _now()
        with self._database.write() as connection:
            (id_,) = connection.execute(
                "INSERT INTO conversation (system, created_at, updated_at) VALUES (?, ?, ?) "
                "RETURNING id",
                (system, now, now),
            ).fetchone()
        return int(id_)

    def headings(self) -> list[Heading]:
        """All conversations, the one used last first."""
        with self._database.read() as connection:
            rows = connection.execute(
                "SELECT c.id, c.title, c.updated_at, count(m.id) AS messages "
                "FROM conversation c LEFT JOIN message m ON m.conversation_id = c.id "
                "GROUP BY c.id ORDER BY c.updated_at DESC, c.id DESC"
            ).fetchall()
        return [
            Heading(row["id"], row["title"], _time(row["updated_at"]), row["messages"])
            for row in rows
        ]

    def load(self, conversation_id: int) -> Conversation:
        """The conversation with all its messages. Raises :class:`StoreError` if it is not there."""
        with self._database.read() as connection:
            head = connection.execute(
                "SELECT title, system FROM conversation WHERE id = ?", (conversation_id,)
            ).fetchone()
            rows = connection.execute(
                "SELECT * FROM message WHERE conversation_id = ? ORDER BY position",
                (conversation_id,),
            ).fetchall()
        if head is None:
            raise StoreError("This conversation is no longer in the store. Begin a new one.")
        return Conversation(
            conversation_id, head["title"], head["system"], tuple(map(_message, rows))
        )

    def delete(self, conversation_id: int) -> None:
        """Remove the conversation and all its messages."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM conversation WHERE id = ?", (conversation_id,))

    def say(self, conversation_id: int, text: str) -> int:
        """Append what the user typed, on disk when this returns, and return the message's id.

        The first message gives the conversation its title.
        """
        return self._append(conversation_id, "user", text, title=_title(text))

    def draft(self, conversation_id: int, model: str) -> Draft:
        """Begin the assistant's reply by the named model."""
        return Draft(self, conversation_id, model)

    def _append(
        self, conversation_id: int, role: str, content: str, *, model: str = "", title: str = ""
    ) -> int:
        now = _now()
        with self._database.write() as connection:
            updated = connection.execute(
                "UPDATE conversation SET updated_at = ?, title = coalesce(nullif(title, ''), ?) "
                "WHERE id = ?",
                (now, title, conversation_id),
            )
            if not updated.rowcount:
                raise StoreError("This conversation was deleted. Begin a new one.")
            (id_,) = connection.execute(
                "INSERT INTO message (conversation_id, position, role, content, created_at, model) "
                "SELECT ?, coalesce(max(position) + 1, 0), ?, ?, ?, nullif(?, '') "
                "FROM message WHERE conversation_id = ? RETURNING id",
                (conversation_id, role, content, now, model, conversation_id),
            ).fetchone()
        return int(id_)

    def _update(
        self,
        message_id: int,
        content: str,
        thinking: str,
        finished: Finished | None,
    ) -> None:
        with self._database.write() as connection:
            connection.execute(
                "UPDATE message SET content = ?, thinking = ?, finish_reason = ?, statistics = ? "
                "WHERE id = ?",
                (
                    content,
                    thinking,
                    finished.reason if finished else None,
                    msgspec.json.encode(finished.statistics).decode() if finished else None,
                    message_id,
                ),
            )


class Draft:
    """A reply that is being written: one message that grows, on disk at most half a second late.

    Until it is finished it is an interrupted message, so that nothing is left to mend if the app
    is killed. A reply of which nothing ever came is not kept.
    """

    def __init__(self, chats: Chats, conversation_id: int, model: str) -> None:
        self._chats = chats
        self._conversation_id = conversation_id
        self._model = model
        self._message_id: int | None = None
        self._parts: dict[str, list[str]] = {"answer": [], "thinking": []}
        self._written_at = -_WRITE_EVERY
        self._unsaved = False

    def add(self, chunk: Chunk) -> None:
        """Append a piece of the reply."""
        self._parts[chunk.part].append(chunk.text)
        self._unsaved = True
        if time.monotonic() - self._written_at >= _WRITE_EVERY:
            self.save()
            self._written_at = time.monotonic()

    def finish(self, finished: Finished) -> None:
        """Save the whole reply and how it ended."""
        self._unsaved = True
        self.save(finished)

    def save(self, finished: Finished | None = None) -> None:
        """Write what has come so far."""
        if not self._unsaved:
            return
        if self._message_id is None:
            self._message_id = self._chats._append(
                self._conversation_id, "assistant", "", model=self._model
            )
        answer, thinking = ("".join(self._parts[part]) for part in ("answer", "thinking"))
        self._chats._update(self._message_id, answer, thinking, finished)
        self._unsaved = False


def _message(row: Row) -> Message:
    return Message(
        id=row["id"],
        role=row["role"],
        content=row["content"],
        created_at=_time(row["created_at"]),
        thinking=row["thinking"],
        model=row["model"],
        finish_reason=row["finish_reason"],
        statistics=msgspec.json.decode(row["statistics"], type=Statistics)
        if row["statistics"]
        else None,
    )


def _title(text: str) -> str:
    """The beginning of ``text`` on one line."""
    line = " ".join(text.split())
    return line if len(line) <= _TITLE_LENGTH else line[: _TITLE_LENGTH - 1].rstrip() + "…"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
