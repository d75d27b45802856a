"""Conversations as files: Markdown to read, JSON to keep and to read again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Literal

import msgspec

from ondevice.chats import _times
from ondevice.chats._records import Attachment, Conversation
from ondevice.engine.messages import FinishReason
from ondevice.store import Connection

_TITLE_LENGTH = 60  # characters
_LONGEST_TITLE = 200  # characters, of one that a file gives


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message in a file."""

    id: str  # unique within the conversation
    parent: str | None = None  # id of the message it follows, which comes earlier in the file
    role: Literal["user", "assistant"]
    content: str
    created_at: datetime
    attachments: tuple[Attachment, ...] = ()
    thinking: str = ""
    model: str | None = None
    finish_reason: FinishReason | None = None


class Transcript(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A conversation in a file, with all of its branches."""

    title: str
    system: str = ""
    created_at: datetime
    messages: tuple[Entry, ...]
    end: str | None = None  # id of the last message of the branch that is shown


class Export(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a JSON file holds."""

    ondevice_chats: Literal[1]  # version of the format
    chats: tuple[Transcript, ...]


def markdown(conversation: Conversation) -> str:
    """The branch that is shown, to read."""
    parts = [f"# {conversation.title}"]
    for message in conversation.messages:
        who = "You" if message.role == "user" else message.model or "Assistant"
        parts.append(f"## {who}, {message.created_at.astimezone():%Y-%m-%d %H:%M}")
        parts += [f"Attached: {attachment.name}" for attachment in message.attachments]
        parts.append(message.content.strip())
    return "\n\n".join(parts) + "\n"


def to_json(connection: Connection, conversation_id: int) -> bytes:
    """The whole conversation, all branches."""
    head = connection.execute(
        "SELECT * FROM conversation WHERE id = ?", (conversation_id,)
    ).fetchone()
    messages = []
    for row in connection.execute(
        "SELECT * FROM message WHERE conversation_id = ? ORDER BY position", (conversation_id,)
    ).fetchall():
        attachments = connection.execute(
            "SELECT name, content FROM attachment WHERE message_id = ? ORDER BY number",
            (row["id"],),
        )
        messages.append(
            Entry(
                id=str(row["id"]),
                parent=None if row["parent_id"] is None else str(row["parent_id"]),
                role=row["role"],
                content=row["content"],
                created_at=_times.from_store(row["created_at"]),
                attachments=tuple(Attachment(*attachment) for attachment in attachments),
                thinking=row["thinking"],
                model=row["model"],
                finish_reason=row["finish_reason"],
            )
        )
    transcript = Transcript(
        title=head["title"],
        system=head["system"],
        created_at=_times.from_store(head["created_at"]),
        messages=tuple(messages),
        end=None if head["end_id"] is None else str(head["end_id"]),
    )
    export = Export(ondevice_chats=1, chats=(transcript,))
    return msgspec.json.format(msgspec.json.encode(export), indent=1)


def beginning(text: str) -> str:
    """The beginning of ``text`` on one line, as a title."""
    line = " ".join(text.split())
    return line if len(line) <= _TITLE_LENGTH else line[: _TITLE_LENGTH - 1].rstrip() + "…"


def insert(connection: Connection, transcript: Transcript) -> int | None:
    """Add a conversation from a file and return its id; None: there is nothing in it."""
    if not transcript.messages:
        return None
    last = transcript.messages[-1]
    created_at = _times.sane(transcript.created_at) or datetime.now(UTC)
    (conversation_id,) = connection.execute(
        "INSERT INTO conversation (id, title, system, created_at, updated_at) "
        "SELECT id + 1, ?, ?, ?, ? FROM last_conversation RETURNING id",
        (
            " ".join(transcript.title.split())[:_LONGEST_TITLE]
            or beginning(transcript.messages[0].content),
            transcript.system,
            created_at.isoformat(),
            (_times.sane(last.created_at) or created_at).isoformat(),
        ),
    ).fetchone()
    ids: dict[str, int] = {}
    for position, entry in enumerate(transcript.messages):
        (ids[entry.id],) = connection.execute(
            "INSERT INTO message (conversation_id, parent_id, position, role, content, "
            "created_at, thinking, model, finish_reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) "
            "RETURNING id",
            (
                conversation_id,
                ids.get(entry.parent or ""),
                position,
                entry.role,
                entry.content,
                (_times.sane(entry.created_at) or created_at).isoformat(),
                entry.thinking,
                entry.model,
                entry.finish_reason,
            ),
        ).fetchone()
        connection.executemany(
            "INSERT INTO attachment VALUES (?, ?, ?, ?)",
            [(ids[entry.id], i, a.name, a.content) for i, a in enumerate(entry.attachments)],
        )
    connection.execute(
        "UPDATE conversation SET end_id = ? WHERE id = ?",
        (ids.get(transcript.end or "", ids[last.id]), conversation_id),
    )
    return int(conversation_id)
