"""Conversations as files: Markdown to read, JSON to keep and to read again."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from ondevice.chats import _times
from ondevice.chats._records import Attachment, Chat
from ondevice.messages import FinishReason, Statistics
from ondevice.store import Connection
from ondevice.system.whole_file import written

_TITLE_LENGTH = 60  # characters
_LONGEST_TITLE = 200  # characters, of one that somebody gives


class TranscriptMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message in a file."""

    id: str  # unique within the conversation
    parent: str | None = None  # id of the message it follows, which comes earlier in the file
    role: Literal["user", "assistant"]
    content: str
    created_at: datetime
    attachments: tuple[Attachment, ...] = ()
    thinking: str = ""
    model: str | None = None
    server: str | None = None  # that the model was on, or that its memories may go to
    finish_reason: FinishReason | None = None
    statistics: Statistics | None = None
    origin: str | None = None  # its id where it comes from


class ChatTranscript(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A conversation in a file, with all of its branches."""

    title: str
    system: str = ""
    created_at: datetime
    updated_at: datetime | None = None  # None: with the last message
    messages: tuple[TranscriptMessage, ...]
    end: str | None = None  # id of the last message of the branch that is shown
    origin: str = ""  # the service it comes from and its id there; empty: it began here
    pinned: bool = False
    archived: bool = False
    private: bool = False  # nothing of it is remembered


class Export(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a JSON file holds."""

    ondevice_chats: Literal[1]  # version of the format
    chats: tuple[ChatTranscript, ...]


def markdown(conversation: Chat) -> str:
    """The branch that is shown, to read."""
    parts = [f"# {conversation.title}"]
    for message in conversation.messages:
        who = "You" if message.role == "user" else message.model or "Assistant"
        parts.append(f"## {who}, {message.created_at.astimezone():%Y-%m-%d %H:%M}")
        parts += [f"Attached: {attachment.name}" for attachment in message.attachments]
        parts.append(message.content.strip())
    return "\n\n".join(parts) + "\n"


def to_json(transcripts: tuple[ChatTranscript, ...]) -> bytes:
    """The whole conversations, all branches."""
    export = Export(ondevice_chats=1, chats=transcripts)
    return msgspec.json.format(msgspec.json.encode(export), indent=1)


def transcript(connection: Connection, conversation_id: int) -> ChatTranscript:
    """All that is kept of a conversation but the memories, which are the memory's."""
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
            TranscriptMessage(
                id=str(row["id"]),
                parent=None if row["parent_id"] is None else str(row["parent_id"]),
                role=row["role"],
                content=row["content"],
                created_at=_times.from_store(row["created_at"]),
                attachments=tuple(Attachment(*attachment) for attachment in attachments),
                thinking=row["thinking"],
                model=row["model"],
                server=row["server"],
                finish_reason=row["finish_reason"],
                statistics=_statistics(row["statistics"]),
                origin=row["origin"],
            )
        )
    return ChatTranscript(
        title=head["title"],
        system=head["system"],
        created_at=_times.from_store(head["created_at"]),
        updated_at=_times.from_store(head["updated_at"]),
        messages=tuple(messages),
        end=None if head["end_id"] is None else str(head["end_id"]),
        origin=head["origin"] or "",
        pinned=bool(head["pinned"]),
        archived=bool(head["archived"]),
        private=bool(head["private"]),
    )


def _statistics(text: str | None) -> Statistics | None:
    return msgspec.json.decode(text, type=Statistics) if text else None


def write(path: Path, data: bytes, *, replace: bool) -> None:
    """Write a file for the user only, mode 0600, whole or not at all.

    Raises :class:`FileError` when it cannot be written, or is there and is not to be replaced.
    """
    with written(path, replace=replace) as file:
        file.write(data)


def given_title(text: str) -> str:
    """What somebody calls a chat, on one line."""
    return " ".join(text.split())[:_LONGEST_TITLE].rstrip()


def beginning(text: str) -> str:
    """The beginning of ``text`` on one line, as a title."""
    line = " ".join(text.split())
    return line if len(line) <= _TITLE_LENGTH else line[: _TITLE_LENGTH - 1].rstrip() + "…"
