"""What a reply may quote, kept in RAM while it is written: what is forgotten of it is known here.

The store has no byte of a text that is forgotten, so a quotation whose end has not come yet could
not be told from other words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ondevice.chats._queries import COUNT_FORGOTTEN
from ondevice.chats._records import Chat
from ondevice.memory import FORGOTTEN
from ondevice.store import Connection

if TYPE_CHECKING:
    from ondevice.memory import Quotations

#: The texts of these messages in which something was forgotten, with their names in ``_texts``.
_FORGOTTEN_OF = """
    WITH given(id) AS (SELECT value FROM json_each(?1))
    SELECT 'message ' || id, content FROM message
        WHERE id IN given AND instr(content, ?3)
    UNION ALL SELECT 'thinking ' || id, CASE content WHEN ?3 THEN ?3 ELSE thinking END FROM message
        WHERE id IN given AND (content = ?3 OR instr(thinking, ?3))
    UNION ALL SELECT 'attachment ' || message_id || ' ' || number, content FROM attachment
        WHERE message_id IN given AND instr(content, ?3)
    UNION ALL SELECT 'cube ' || id, CASE status WHEN 'deleted' THEN ?3 ELSE content END FROM cube
        WHERE id IN (SELECT value FROM json_each(?2))
            AND (status = 'deleted' OR instr(content, ?3))
    UNION ALL SELECT 'system', system FROM conversation WHERE id = ?4 AND instr(system, ?3)
"""
#: A note in a summary.
_NOTE = re.compile(r"^[\s•*–-]+|\s+$")


class Given:
    """The texts of the conversation that a reply answers, and of the memories that came with it."""

    def __init__(self, conversation: Chat) -> None:
        self._conversation_id = conversation.id
        self._texts = {"system": conversation.system}
        self._summaries: dict[int, str] = {}
        self._messages: list[int] = []
        self._cubes: list[int] = []
        self._count: int | None = None  # memories that were forgotten, when it was last looked
        self._gone: list[str] = []
        self._forgotten: Quotations | None = None
        for message in conversation.messages:
            self._messages.append(message.id)
            if message.summary:
                self._summaries[message.id] = message.summary.content
            self._texts[f"message {message.id}"] = message.content
            self._texts[f"thinking {message.id}"] = message.thinking
            for number, attachment in enumerate(message.attachments):
                self._texts[f"attachment {message.id} {number}"] = attachment.content
            for cube in message.recalled:
                self._cubes.append(cube.id)
                self._texts[f"cube {cube.id}"] = cube.content

    def forgotten(self, connection: Connection) -> Quotations | None:
        """What of it has been forgotten since; None: nothing."""
        (count,) = connection.execute(COUNT_FORGOTTEN).fetchone()
        if count == self._count:
            return self._forgotten
        self._count = count
        rows = connection.execute(
            _FORGOTTEN_OF,
            (
                *(json.dumps(self._messages), json.dumps(self._cubes)),
                *(FORGOTTEN, self._conversation_id),
            ),
        )
        gone = list(self._of_summaries(connection))
        for name, now in rows:
            gone += _taken_out(self._texts.get(name, ""), now)
            self._texts[name] = now
        if gone:
            from ondevice.memory import Quotations  # noqa: PLC0415 - a faster start

            self._gone += gone
            self._forgotten = Quotations(self._gone)
        return self._forgotten

    def _of_summaries(self, connection: Connection) -> Iterator[str]:
        """The notes of the summaries that have gone: any of them may be what was forgotten."""
        left = connection.execute(
            "SELECT message_id FROM summary WHERE message_id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(self._summaries)),),
        )
        for message_id in self._summaries.keys() - {message_id for (message_id,) in left}:
            lines = self._summaries.pop(message_id).splitlines()
            yield from filter(None, (_NOTE.sub("", line) for line in lines))


def _taken_out(before: str, now: str) -> Iterator[str]:
    """The parts of a text in whose place there is :data:`FORGOTTEN` now."""
    first, *parts = now.split(FORGOTTEN)
    if not before.startswith(first):
        return
    at = len(first)
    for number, part in enumerate(parts, 1):
        last = number == len(parts)
        end = len(before) - len(part) if last else before.find(part, at)
        if end < at or not before.startswith(part, end):
            return
        if (gone := before[at:end]) and gone != FORGOTTEN:
            yield gone
        at = end + len(part)
