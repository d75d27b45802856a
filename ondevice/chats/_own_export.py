"""Reads a chat as :mod:`ondevice.chats._transfer` writes it, also where it was edited by hand."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal, get_args

import msgspec

from ondevice.chats import _times
from ondevice.chats._loose_json import Odd, a_text, dicts, parents_first
from ondevice.chats._records import Attachment
from ondevice.chats._transfer import ChatTranscript, TranscriptMessage
from ondevice.messages import FinishReason, Statistics

_ROLES: dict[str, Literal["user", "assistant"]] = {"user": "user", "assistant": "assistant"}


def read(chat: dict[str, Any]) -> ChatTranscript:
    """Raises :class:`Odd` when there is nothing in it."""
    created_at = _times.from_file(chat.get("created_at")) or datetime.now(UTC)
    by_key: dict[str, dict[str, Any]] = {}
    for number, message in enumerate(dicts(chat.get("messages"))):
        key = _key(message.get("id")) or f"message {number}"
        by_key[key if key not in by_key else f"{key}, {number}"] = message
    if not by_key:
        raise Odd("it has no messages")
    parents = {key: _key(message.get("parent")) for key, message in by_key.items()}
    places: dict[str, str | None] = {}
    entries: list[TranscriptMessage] = []
    for key in parents_first(parents):
        parent = places.get(parents[key] or "")
        entry = _entry(key, parent, by_key[key], created_at)
        places[key] = entry.id if entry else parent
        if entry:
            entries.append(entry)
    return ChatTranscript(
        title=a_text(chat.get("title")),
        system=a_text(chat.get("system")),
        created_at=created_at,
        updated_at=_times.from_file(chat.get("updated_at")),
        messages=tuple(entries),
        end=places.get(_key(chat.get("end")) or ""),
        origin=a_text(chat.get("origin")),
        pinned=chat.get("pinned") is True,
        archived=chat.get("archived") is True,
        private=chat.get("private") is True,
    )


def _key(value: object) -> str | None:
    return str(value) if isinstance(value, str | int) and value != "" else None


def _entry(
    key: str, parent: str | None, message: dict[str, Any], created_at: datetime
) -> TranscriptMessage | None:
    role = _ROLES.get(a_text(message.get("role")))
    content = message.get("content")
    attachments = tuple(
        Attachment(a_text(one.get("name")), a_text(one.get("content")))
        for one in dicts(message.get("attachments"))
    )
    if role is None or not (isinstance(content, str) or attachments):
        return None
    reason = message.get("finish_reason")
    return TranscriptMessage(
        id=key,
        parent=parent,
        role=role,
        content=a_text(content),
        created_at=_times.from_file(message.get("created_at")) or created_at,
        attachments=attachments,
        thinking=a_text(message.get("thinking")),
        model=a_text(message.get("model")) or None,
        server=a_text(message.get("server")) or None,
        finish_reason=reason if reason in get_args(FinishReason) else None,
        statistics=_statistics(message.get("statistics")),
        origin=a_text(message.get("origin")) or None,
    )


def _statistics(value: object) -> Statistics | None:
    try:
        return msgspec.convert(value, Statistics) if isinstance(value, dict) else None
    except msgspec.ValidationError:
        return None
