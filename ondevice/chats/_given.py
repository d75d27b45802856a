"""What a reply may quote, kept in RAM while it is written: what is forgotten of it is known here.

The store has no byte of a text that is forgotten, so a quotation whose end has not come yet could
not be told from other words.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ondevice.chats._records import Message
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
"""


class Given:
    """The texts of the messages that a reply answers, and of the memories that came with them."""

    def __init__(self, messages: Iterable[Message]) -> None:
        self._texts: dict[str, str] = {}
        self._messages: list[int] = []
        self._cubes: list[int] = []
        self._count: int | None = None  # memories that were forgotten, when it was last looked
        self._gone: list[str] = []
        self._forgotten: Quotations | None = None
        for message in messages:
            self._messages.append(message.id)
            self._texts[f"message {message.id}"] = message.content
            self._texts[f"thinking {message.id}"] = message.thinking
            for number, attachment in enumerate(message.attachments):
                self._texts[f"attachment {message.id} {number}"] = attachment.content
            for cube in message.recalled:
                self._cubes.append(cube.id)
                self._texts[f"cube {cube.id}"] = cube.content

    def forgotten(self, connection: Connection) -> Quotations | None:
        """What of it has been forgotten since; None: nothing."""
        (count,) = connection.execute(
            "SELECT count(*) FROM cube WHERE status = 'deleted'"
        ).fetchone()
        if count == self._count:
            return self._forgotten
        self._count = count
        rows = connection.execute(
            _FORGOTTEN_OF, (json.dumps(self._messages), json.dumps(self._cubes), FORGOTTEN)
        )
        gone: list[str] = []
        for name, now in rows:
            gone += _taken_out(self._texts.get(name, ""), now)
            self._texts[name] = now
        if gone:
            from ondevice.memory import Quotations  # noqa: PLC0415 - a faster start

            self._gone += gone
            self._forgotten = Quotations(self._gone)
        return self._forgotten


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
