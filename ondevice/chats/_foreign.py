"""Reads conversations out of files: our own, and the exports of ChatGPT and of Claude."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any, Literal

import msgspec

from ondevice.chats._records import Attachment
from ondevice.chats._transfer import Entry, Export, Transcript
from ondevice.errors import UsageError

_MEMBER = "conversations.json"  # what both services call it in the archive they send
_LONGEST = 2_000_000_000  # bytes of it

#: What the services call those who speak; others are tools and hidden instructions.
_ROLES: dict[str, Literal["user", "assistant"]] = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
}


class _Author(msgspec.Struct):
    role: str


class _Content(msgspec.Struct):
    parts: list[Any] = []  # texts, and objects such as pictures


class _GPTMetadata(msgspec.Struct):
    is_visually_hidden_from_conversation: bool | None = None


class _GPTMessage(msgspec.Struct):
    author: _Author
    content: _Content
    create_time: float | None = None
    recipient: str | None = None
    metadata: _GPTMetadata | None = None

    @property
    def is_shown(self) -> bool:
        """Whether people were meant to read it: not a tool, and not what ChatGPT put in itself."""
        hidden = self.metadata and self.metadata.is_visually_hidden_from_conversation
        return self.recipient in (None, "all") and not hidden


class _GPTNode(msgspec.Struct):
    parent: str | None = None
    message: _GPTMessage | None = None
    children: list[str] = []


class _GPTChat(msgspec.Struct):
    """Of ChatGPT's export: a tree, in which hidden and system messages are nodes as well."""

    mapping: dict[str, _GPTNode]
    title: str | None = None
    create_time: float | None = None
    current_node: str | None = None


class _ClaudeFile(msgspec.Struct):
    file_name: str = ""
    extracted_content: str | None = None


class _ClaudeBlock(msgspec.Struct):
    type: str = ""
    text: str | None = None


class _ClaudeMessage(msgspec.Struct):
    sender: str
    created_at: datetime
    text: str = ""
    content: list[_ClaudeBlock] = []  # of newer exports; others than texts are tools and thinking
    attachments: list[_ClaudeFile] = []

    @property
    def said(self) -> str:
        texts = [block.text for block in self.content if block.type == "text" and block.text]
        return "\n\n".join(texts) or self.text


class _ClaudeChat(msgspec.Struct):
    """Of Claude's export: a list of messages."""

    chat_messages: list[_ClaudeMessage]
    created_at: datetime
    name: str = ""


def read(path: Path) -> list[Transcript]:
    """The conversations in a file, which may be a zip archive as the services send it.

    Raises :class:`UsageError` when it cannot be read or is none of the three.
    """
    try:
        data = path.read_bytes()
        if zipfile.is_zipfile(BytesIO(data)):
            with zipfile.ZipFile(BytesIO(data)) as archive:
                if archive.getinfo(_MEMBER).file_size > _LONGEST:
                    raise UsageError(f"{_MEMBER} in {path} is too long to be read.")
                data = archive.read(_MEMBER)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from error
    for kind, convert in (
        (Export, lambda export: export.chats),
        (list[_GPTChat], lambda chats: map(_from_gpt, chats)),
        (list[_ClaudeChat], lambda chats: map(_from_claude, chats)),
    ):
        try:
            return list(convert(msgspec.json.decode(data, type=kind)))
        except msgspec.ValidationError:
            continue
        except msgspec.DecodeError as error:
            raise UsageError(f"{path} is not JSON: {error}.") from error
    raise UsageError(
        f"{path} holds no chats that are understood. It should be a JSON export of ondevice, or "
        f"{_MEMBER} of ChatGPT or Claude."
    )


def _from_gpt(chat: _GPTChat) -> Transcript:
    created_at = _moment(chat.create_time) or datetime.now(UTC)
    entries = tuple(_gpt_entries(chat, created_at))
    ids = {entry.id for entry in entries}
    end: str | None = chat.current_node
    while end is not None and end not in ids:
        node = chat.mapping.get(end)
        end = node.parent if node else None
    return Transcript(title=chat.title or "", created_at=created_at, messages=entries, end=end)


def _gpt_entries(chat: _GPTChat, created_at: datetime) -> Iterator[Entry]:
    """Parents before children; what is not shown is left out, and its children move up."""
    roots = [key for key, node in chat.mapping.items() if node.parent not in chat.mapping]
    waiting: list[tuple[str, str | None]] = [(key, None) for key in reversed(roots)]
    seen: set[str] = set()
    while waiting:
        key, parent = waiting.pop()
        if key in seen or key not in chat.mapping:
            continue
        seen.add(key)
        node = chat.mapping[key]
        message = node.message
        if message and message.is_shown and (role := _ROLES.get(message.author.role)):
            text = "\n\n".join(part for part in message.content.parts if isinstance(part, str))
            if text.strip():
                yield Entry(
                    id=key,
                    parent=parent,
                    role=role,
                    content=text,
                    created_at=_moment(message.create_time) or created_at,
                    finish_reason="stop" if role == "assistant" else None,
                )
                parent = key
        waiting += [(child, parent) for child in reversed(node.children)]


def _from_claude(chat: _ClaudeChat) -> Transcript:
    entries: list[Entry] = []
    for message in chat.chat_messages:
        attachments = tuple(
            Attachment(file.file_name, file.extracted_content)
            for file in message.attachments
            if file.extracted_content
        )
        role = _ROLES.get(message.sender)
        if role and (message.said.strip() or attachments):
            entries.append(
                Entry(
                    id=str(len(entries)),
                    parent=entries[-1].id if entries else None,
                    role=role,
                    content=message.said,
                    created_at=message.created_at,
                    attachments=attachments,
                    finish_reason="stop" if role == "assistant" else None,
                )
            )
    return Transcript(title=chat.name, created_at=chat.created_at, messages=tuple(entries))


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
