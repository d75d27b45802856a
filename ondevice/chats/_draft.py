"""A reply that is being written, saved as it grows."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from ondevice.chats._chats import append, check
from ondevice.chats._given import Given
from ondevice.chats._records import Chat, Message
from ondevice.errors import StoreError, StoreUnwritable
from ondevice.memory import FORGOTTEN
from ondevice.messages import Chunk, Finished
from ondevice.store import Connection, Database, Row

if TYPE_CHECKING:
    from ondevice.memory import Quotations

_WRITE_EVERY = 0.5  # seconds between two writes
_PATIENCE = 0.1  # seconds that the reply waits for another program; it is tried again soon


class ReplyDraft:
    """One message that grows after ``parent_id``, on disk at most half a second late.

    While another program keeps the store to itself, or the disk is full, it grows in RAM and is
    written later, at the latest when it is finished.

    Until it is finished it is an interrupted message, so that nothing is left to mend if the app
    is killed. A reply of which nothing ever came is not kept. A message that is ``continued``
    grows on itself; any other one has an id from its first write on, which ``on_begun`` gets
    before anybody can read it. The model is on a ``server``, or on this device.

    Where somebody else has written to the message meanwhile, theirs stays as it is, and this one
    becomes a version of its own beside it, whose id ``on_begun`` gets. What is forgotten of it
    meanwhile stays so, and what is forgotten of the ``conversation``, as the model was given it,
    comes into it no more: what may become a quotation of that is written only once it is known to
    be none.
    """

    def __init__(
        self,
        database: Database,
        conversation: Chat,
        parent_id: int | None,
        model: str,
        continued: Message | None = None,
        server: str | None = None,
        on_begun: Callable[[int], None] | None = None,
    ) -> None:
        self._database = database
        self._conversation_id = conversation.id
        self._parent_id = parent_id
        self._model = model
        self._server = server
        self._message_id = continued.id if continued else None
        self._on_begun = on_begun
        self._parts: dict[str, list[str]] = {
            "answer": [continued.content] if continued else [],
            "thinking": [continued.thinking] if continued else [],
        }
        self._stored = {part: "".join(pieces) for part, pieces in self._parts.items()}
        self._written_at = -_WRITE_EVERY
        self._unsaved = False
        self._finished: Finished | None = None
        self._given = Given(conversation)
        self._forgotten: Quotations | None = None  # of that

    @property
    def parent_id(self) -> int | None:
        """The message that it answers."""
        return self._parent_id

    @property
    def message_id(self) -> int | None:
        """Its own, once it is in the store."""
        return self._message_id

    def add(self, chunk: Chunk) -> None:
        """Append a piece of the reply."""
        self._parts[chunk.part].append(chunk.text)
        self._unsaved = True
        if time.monotonic() - self._written_at >= _WRITE_EVERY:
            with suppress(StoreUnwritable):
                self._save(patience=_PATIENCE)
            self._written_at = time.monotonic()

    def finish(self, finished: Finished) -> None:
        """Save the whole reply and how it ended. Raises what :meth:`close` does."""
        self._finished = finished
        self._unsaved = True
        self.close()

    def close(self) -> None:
        """Write what is not written yet.

        Raises :class:`StoreUnwritable` when it cannot be. It may be called again then.
        """
        try:
            self._save(ended=True)
        except StoreUnwritable as error:
            raise StoreUnwritable(
                f"The reply, or the end of it, could not be saved: {error.__cause__ or error}. "
                "Saving it is tried again until you quit."
            ) from error

    def _save(self, *, patience: float | None = None, ended: bool = False) -> None:
        if not self._unsaved and not (ended and self._is_forgotten_of()):
            return
        finished = self._finished
        message_id = self._message_id
        with self._database.write(patience=patience) as connection:
            self._forgotten = self._given.forgotten(connection)
            parent_id = self._parent_id
            if message_id is not None and (row := _row(connection, message_id)):
                parent_id = row["parent_id"]
                if self._is_changed(row):
                    if not self._has_grown:
                        return
                    message_id = None
            texts = {part: self._without_quotations(part, ended) for part in self._parts}
            answer, thinking = texts["answer"][0], texts["thinking"][0]
            if message_id is None:
                message_id = append(
                    connection,
                    self._conversation_id,
                    "assistant",
                    "",
                    parent_id=parent_id,
                    model=self._model,
                )
                if self._on_begun:
                    self._on_begun(message_id)
            changed = connection.execute(
                "UPDATE message SET content = ?, thinking = ?, server = ?, finish_reason = ?, "
                "statistics = ? WHERE id = ?",
                (
                    answer,
                    thinking,
                    self._server,
                    finished.reason if finished else None,
                    msgspec.json.encode(finished.statistics).decode() if finished else None,
                    message_id,
                ),
            )
            check(changed.rowcount)
            if answer:
                connection.execute(  # its question met an error before, perhaps
                    "UPDATE message SET finish_reason = NULL WHERE role = 'user' AND id = "
                    "(SELECT parent_id FROM message WHERE id = ?)",
                    (message_id,),
                )
            goes = not all(texts[part][0].startswith(self._stored[part]) for part in texts)
            if goes:
                connection.execute("INSERT OR IGNORE INTO scrub VALUES (1)")
        self._message_id = message_id
        self._stored = {part: text for part, (text, _) in texts.items()}
        self._parts = {part: list(pieces) for part, pieces in texts.items()}
        self._unsaved = any(held for _, held in texts.values())
        if goes:
            with suppress(StoreError):  # whoever opens the store next does it
                self._database.scrub()

    def _is_forgotten_of(self) -> bool:
        """Whether something of what is in the store has been forgotten since it was written."""
        if self._message_id is None:
            return False
        with suppress(StoreError), self._database.read() as connection:  # it may be closed already
            self._forgotten = self._given.forgotten(connection)
        return any(
            self._without_quotations(part, ended=True)[0] != stored
            for part, stored in self._stored.items()
        )

    def _without_quotations(self, part: str, ended: bool) -> tuple[str, str]:
        """What is to be written of a part, and its end that is not, as it may become one."""
        text = "".join(self._parts[part])
        if self._forgotten is None:
            return text, ""
        if ended:
            return self._forgotten.taken_out_of_ended(text), ""
        return self._forgotten.taken_out_of_growing(text)

    @property
    def _texts(self) -> tuple[str, str]:
        return "".join(self._parts["answer"]), "".join(self._parts["thinking"])

    @property
    def _has_grown(self) -> bool:
        return self._texts != (self._stored["answer"], self._stored["thinking"])

    def _is_changed(self, row: Row) -> bool:
        """Whether somebody else has written to it; what was forgotten of it goes from here, too."""
        changed = False
        for part, now in (("answer", row["content"]), ("thinking", row["thinking"])):
            before = self._stored[part]
            kept, more = _without_forgotten(before, now)
            changed = changed or bool(more)
            if kept != before:
                self._parts[part] = [kept, "".join(self._parts[part])[len(before) :]]
                self._stored[part] = kept
        return changed


def _row(connection: Connection, message_id: int) -> Row | None:
    row: Row | None = connection.execute(
        "SELECT parent_id, content, thinking FROM message WHERE id = ?", (message_id,)
    ).fetchone()
    return row


def _without_forgotten(before: str, now: str) -> tuple[str, str]:
    """A text without what was forgotten of it, and what somebody wrote after it.

    ``now`` is what has become of it. Where the two cannot be compared any more, nothing is left.
    """
    if now.startswith(before):
        return before, now[len(before) :]
    if FORGOTTEN not in now:
        return before, now
    first, *parts, end = now.split(FORGOTTEN)
    place = len(first) if before.startswith(first) else -1
    for part in parts:
        if place >= 0 and (place := before.find(part, place)) >= 0:
            place += len(part)
    if place < 0:
        return FORGOTTEN, now
    at = max(place, len(before) - len(end))
    while not end.startswith(before[at:]):
        at += 1
    rest = before[at:]  # as much of its end as is there still
    return now[: len(now) - len(end)] + rest, end[len(rest) :]
