"""Reads conversations out of files: our own, and the exports of ChatGPT and of Claude."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from ondevice.chats import _archives, _times
from ondevice.chats._elements import LeftOut, NotJSON, elements
from ondevice.chats._records import Attachment
from ondevice.chats._transfer import Entry, Transcript, beginning
from ondevice.errors import UsageError

#: What the services call those who speak; others are tools and hidden instructions.
_ROLES: dict[str, Literal["user", "assistant"]] = {
    "user": "user",
    "human": "user",
    "assistant": "assistant",
}
_FORMAT = 1  # of our own exports
_MOST_MESSAGES = 100_000  # of a chat, which goes into one transaction

_T = TypeVar("_T")
_Time = float | str | None


@dataclass(frozen=True, slots=True)
class NotRead:
    """A chat, or a whole text, that could not be read."""

    name: str
    why: str

    def __str__(self) -> str:
        return f"{self.name}: {self.why}."


class _Probe(msgspec.Struct):
    """What tells the kinds of objects from each other; nothing in it is looked at yet."""

    mapping: msgspec.Raw = msgspec.Raw(b"")  # of ChatGPT
    chat_messages: msgspec.Raw = msgspec.Raw(b"")  # of Claude
    ondevice_chats: msgspec.Raw = msgspec.Raw(b"")  # of ours: the version of the format
    chats: msgspec.Raw = msgspec.Raw(b"")
    title: msgspec.Raw = msgspec.Raw(b"")
    name: msgspec.Raw = msgspec.Raw(b"")
    conversation_id: msgspec.Raw = msgspec.Raw(b"")
    id: msgspec.Raw = msgspec.Raw(b"")
    uuid: msgspec.Raw = msgspec.Raw(b"")


class _Author(msgspec.Struct):
    role: str | None = None


class _Content(msgspec.Struct):
    parts: list[Any] | None = None  # texts, and objects such as pictures and what was spoken

    @property
    def text(self) -> str:
        texts = (
            part.get("text")
            if isinstance(part, dict) and part.get("content_type") == "audio_transcription"
            else part
            for part in self.parts or ()
        )
        return "\n\n".join(text for text in texts if isinstance(text, str))


class _GPTMetadata(msgspec.Struct):
    is_visually_hidden_from_conversation: bool | None = None


class _GPTMessage(msgspec.Struct):
    author: _Author | None = None
    content: _Content | None = None
    create_time: _Time = None
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
    children: list[str] | None = None


class _GPTChat(msgspec.Struct):
    """Of ChatGPT's export: a tree, in which hidden and system messages are nodes as well."""

    mapping: dict[str, _GPTNode]
    title: str | None = None
    create_time: _Time = None
    current_node: str | None = None


class _ClaudeFile(msgspec.Struct):
    file_name: str | None = None
    extracted_content: str | None = None


class _ClaudeBlock(msgspec.Struct):
    type: str | None = None
    text: str | None = None


class _ClaudeMessage(msgspec.Struct):
    sender: str | None = None
    created_at: _Time = None
    text: str | None = None
    # Of newer exports; others than texts are tools and thinking.
    content: list[_ClaudeBlock] | None = None
    attachments: list[_ClaudeFile] | None = None

    @property
    def said(self) -> str:
        texts = [block.text for block in self.content or () if block.type == "text" and block.text]
        return "\n\n".join(texts) or self.text or ""


class _ClaudeChat(msgspec.Struct):
    """Of Claude's export: a list of messages."""

    chat_messages: list[_ClaudeMessage]
    created_at: _Time = None
    name: str | None = None


class _Odd(Exception):
    """Why an object is no chat that can be read."""


def read(path: Path, cancel: threading.Event | None = None) -> Iterator[Transcript | NotRead]:
    """The conversations in a file, or in the archive or folder that the services send.

    One at a time is in RAM. What cannot be read is named in its place, and the rest comes. After a
    ``cancel`` nothing more comes. Raises :class:`UsageError` when it is none of the three.
    """
    is_understood = False
    failures: list[NotRead] = []  # which are told once one chat is understood
    seen: set[str] = set()  # ids: the parts of an export may overlap
    for text, read_pieces in _archives.texts(path):
        number = 0
        pieces = _until(read_pieces(), cancel)
        try:
            for element in elements(pieces):
                if cancel and cancel.is_set():
                    return
                number += 1
                try:
                    found = _understood(element, seen)
                except _Odd as odd:
                    failures.append(NotRead(_name(element, text, number), str(odd)))
                else:
                    is_understood = True
                    yield from found
                if is_understood:
                    yield from failures
                    failures.clear()
        except (_archives.Unreadable, NotJSON) as error:
            rest = f"The rest of {text}" if number else text
            failures.append(NotRead(rest, str(error)))
        if cancel and cancel.is_set():
            return
    if is_understood:
        yield from failures
        return
    raise UsageError(
        f"{path} holds no chats that are understood. It should be a JSON export of ondevice, or "
        "conversations.json of ChatGPT or Claude, or the archive or folder it came in. "
        + " ".join(map(str, failures[:3]))
    )


def _until(pieces: Iterator[bytes], cancel: threading.Event | None) -> Iterator[bytes]:
    for piece in pieces:
        if cancel and cancel.is_set():
            return
        yield piece


def _understood(element: bytes | LeftOut, seen: set[str]) -> list[Transcript]:
    """The chats of an object, less those with an id that was ``seen``. Raises :class:`_Odd`."""
    if isinstance(element, LeftOut):
        raise _Odd(element.why)
    probe = _decoded(element, _Probe)
    ids = (probe.conversation_id, probe.id, probe.uuid)
    id_ = next((text for raw in ids if (text := _text(raw))), "")
    if id_ in seen:
        return []
    if bytes(probe.ondevice_chats):
        if _decoded(bytes(probe.ondevice_chats), int) > _FORMAT:
            raise _Odd("it was written by a newer ondevice; update this one")
        return [_bounded(one) for one in _decoded(bytes(probe.chats) or b"[]", list[Transcript])]
    if bytes(probe.mapping):
        transcript = _from_gpt(_decoded(element, _GPTChat))
    elif bytes(probe.chat_messages):
        transcript = _from_claude(_decoded(element, _ClaudeChat))
    else:
        raise _Odd("it is no chat of ChatGPT, Claude or ondevice")
    if id_:
        seen.add(id_)
    return [_bounded(transcript)]


def _bounded(transcript: Transcript) -> Transcript:
    if len(transcript.messages) > _MOST_MESSAGES:
        raise _Odd(f"it has more than {_MOST_MESSAGES:,} messages")
    return transcript


def _decoded(data: bytes, kind: type[_T]) -> _T:
    """The JSON as ``kind``. Raises :class:`_Odd`."""
    try:
        try:
            return msgspec.json.decode(data, type=kind)
        except UnicodeDecodeError:  # a broken character is no reason to lose a chat
            return msgspec.json.decode(data.decode("utf-8", "replace").encode(), type=kind)
    except (ValueError, RecursionError, OverflowError) as error:  # msgspec's are ValueErrors
        raise _Odd(f"it is not as such chats are ({error})") from error


def _text(raw: msgspec.Raw) -> str:
    """The text, or nothing where there is none."""
    try:
        return msgspec.json.decode(raw, type=str)
    except ValueError:
        return ""


def _name(element: bytes | LeftOut, text: str, number: int) -> str:
    """What the user may know an object by: its title, or its place in the file."""
    if isinstance(element, bytes):
        try:
            probe = _decoded(element, _Probe)
            if title := _text(probe.title) or _text(probe.name):
                return f"“{beginning(title)}”"
        except _Odd:
            pass
    return f"Chat {number} of {text}"


def _from_gpt(chat: _GPTChat) -> Transcript:
    created_at = _times.from_file(chat.create_time) or datetime.now(UTC)
    entries = tuple(_gpt_entries(chat, created_at))
    ids = {entry.id for entry in entries}
    end: str | None = chat.current_node
    passed: set[str] = set()  # parents may go round in a circle
    while end is not None and end not in ids:
        node = None if end in passed else chat.mapping.get(end)
        passed.add(end)
        end = node.parent if node else None
    return Transcript(title=chat.title or "", created_at=created_at, messages=entries, end=end)


def _gpt_entries(chat: _GPTChat, created_at: datetime) -> Iterator[Entry]:
    """Parents before children; what is not shown is left out, and its children move up.

    What no root leads to, as in a circle, begins a branch of its own.
    """
    roots = [key for key, node in chat.mapping.items() if node.parent not in chat.mapping]
    others = iter(chat.mapping)
    waiting: list[tuple[str, str | None]] = [(key, None) for key in reversed(roots)]
    seen: set[str] = set()
    while waiting or (other := next((key for key in others if key not in seen), None)) is not None:
        key, parent = waiting.pop() if waiting else (other, None)
        if key in seen or key not in chat.mapping:
            continue
        seen.add(key)
        node = chat.mapping[key]
        message = node.message
        role = _ROLES.get((message.author and message.author.role) or "") if message else None
        if message and message.is_shown and role:
            text = message.content.text if message.content else ""
            if text.strip():
                yield Entry(
                    id=key,
                    parent=parent,
                    role=role,
                    content=text,
                    created_at=_times.from_file(message.create_time) or created_at,
                    finish_reason="stop" if role == "assistant" else None,
                )
                parent = key
        waiting += [(child, parent) for child in reversed(node.children or ())]


def _from_claude(chat: _ClaudeChat) -> Transcript:
    created_at = _times.from_file(chat.created_at) or datetime.now(UTC)
    entries: list[Entry] = []
    for message in chat.chat_messages:
        attachments = tuple(
            Attachment(file.file_name or "", file.extracted_content)
            for file in message.attachments or ()
            if file.extracted_content
        )
        role = _ROLES.get(message.sender or "")
        if role and (message.said.strip() or attachments):
            entries.append(
                Entry(
                    id=str(len(entries)),
                    parent=entries[-1].id if entries else None,
                    role=role,
                    content=message.said,
                    created_at=_times.from_file(message.created_at) or created_at,
                    attachments=attachments,
                    finish_reason="stop" if role == "assistant" else None,
                )
            )
    return Transcript(title=chat.name or "", created_at=created_at, messages=tuple(entries))
