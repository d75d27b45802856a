"""A reply that is being written, saved as it grows."""

from __future__ import annotations

import time

import msgspec

from ondevice.chats._chats import append
from ondevice.chats._records import Message
from ondevice.engine.messages import Chunk, Finished
from ondevice.store import Database

_WRITE_EVERY = 0.5  # seconds between two writes


class Draft:
    """One message that grows after ``parent_id``, on disk at most half a second late.

    Until it is finished it is an interrupted message, so that nothing is left to mend if the app
    is killed. A reply of which nothing ever came is not kept. A message that is ``continued``
    grows on itself.
    """

    def __init__(
        self,
        database: Database,
        conversation_id: int,
        parent_id: int | None,
        model: str,
        continued: Message | None = None,
    ) -> None:
        self._database = database
        self._conversation_id = conversation_id
        self._parent_id = parent_id
        self._model = model
        self._message_id = continued.id if continued else None
        self._parts: dict[str, list[str]] = {
            "answer": [continued.content] if continued else [],
            "thinking": [continued.thinking] if continued else [],
        }
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
        answer, thinking = ("".join(self._parts[part]) for part in ("answer", "thinking"))
        with self._database.write() as connection:
            if self._message_id is None:
                self._message_id = append(
                    connection,
                    self._conversation_id,
                    "assistant",
                    "",
                    parent_id=self._parent_id,
                    model=self._model,
                )
            connection.execute(
                "UPDATE message SET content = ?, thinking = ?, finish_reason = ?, statistics = ? "
                "WHERE id = ?",
                (
                    answer,
                    thinking,
                    finished.reason if finished else None,
                    msgspec.json.encode(finished.statistics).decode() if finished else None,
                    self._message_id,
                ),
            )
        self._unsaved = False
