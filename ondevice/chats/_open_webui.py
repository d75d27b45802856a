"""Reads a chat of Open WebUI's export: a tree of messages, each with its parent."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Literal

from ondevice.chats import _times, _words
from ondevice.chats._loose_json import Odd, a_dict, a_text, dicts, parents_first
from ondevice.chats._transfer import ChatTranscript, TranscriptMessage

_ROLES: dict[str, Literal["user", "assistant"]] = {"user": "user", "assistant": "assistant"}
_THOUGHT = re.compile(
    r'<details type="reasoning"[^>]*>\s*(?:<summary>[^<]*</summary>)?(.*?)</details>', re.DOTALL
)


def read(chat: dict[str, Any]) -> ChatTranscript:
    """Raises :class:`Odd` when there is nothing in it."""
    inner = a_dict(chat.get("chat"))
    history = a_dict(inner.get("history"))
    messages = {key: a_dict(one) for key, one in a_dict(history.get("messages")).items()}
    if not messages:
        raise Odd("it has no messages")
    created_at = _times.from_file(chat.get("created_at")) or datetime.now(UTC)
    parents = {key: a_text(one.get("parentId")) or None for key, one in messages.items()}
    places: dict[str, str | None] = {}
    entries: list[TranscriptMessage] = []
    for key in parents_first(parents):
        message = messages[key]
        parent = places.get(parents[key] or "")
        role = _ROLES.get(a_text(message.get("role")))
        text = a_text(message.get("content"))
        thoughts = [re.sub(r"(?m)^> ?", "", one).strip() for one in _THOUGHT.findall(text)]
        files = [
            _words.file(a_text(one.get("name")), a_text(one.get("type")))
            for one in dicts(message.get("files"))
        ]
        content = "\n\n".join(filter(None, [_THOUGHT.sub("", text).strip(), *files]))
        if role is None or not content:
            places[key] = parent
            continue
        places[key] = key
        entries.append(
            TranscriptMessage(
                id=key,
                origin=key,
                parent=parent,
                role=role,
                content=content,
                thinking="\n\n".join(thoughts),
                created_at=_times.from_file(message.get("timestamp")) or created_at,
                model=a_text(message.get("model")) or None,
                finish_reason="stop" if role == "assistant" else None,
            )
        )
    return ChatTranscript(
        title=a_text(chat.get("title")) or a_text(inner.get("title")),
        created_at=created_at,
        messages=tuple(entries),
        end=places.get(a_text(history.get("currentId"))),
    )
