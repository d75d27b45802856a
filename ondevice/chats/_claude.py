"""Reads a chat of Claude's export: a list of messages that name what they follow."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Literal

from ondevice.chats import _times, _words
from ondevice.chats._loose_json import Odd, a_dict, a_text, dicts, parents_first
from ondevice.chats._records import Attachment
from ondevice.chats._transfer import ChatTranscript, TranscriptMessage

_ROLES: dict[str, Literal["user", "assistant"]] = {
    "human": "user",
    "user": "user",
    "assistant": "assistant",
}
_NO_PARENT = "00000000-0000-"
_NO_BLOCK = re.compile(r"```\s*This block is not supported on your current device yet\.\s*```")
# As artifacts stood in the text at first.
_ARTIFACT = re.compile(r"<antArtifact\b([^>]*)>(.*?)(?:</antArtifact>|\Z)", re.DOTALL)
_THOUGHT = re.compile(r"<antThinking>.*?(?:</antThinking>|\Z)", re.DOTALL)
_ATTRIBUTE = re.compile(r'(\w+)="([^"]*)"')
_LANGUAGES = {
    "text/markdown": "markdown",
    "text/html": "html",
    "image/svg+xml": "svg",
    "application/vnd.ant.react": "jsx",
    "application/vnd.ant.mermaid": "mermaid",
}


def read(chat: dict[str, Any]) -> ChatTranscript:
    """Raises :class:`Odd` when there is nothing in it."""
    if not (messages := dicts(chat.get("chat_messages"))):
        raise Odd("it has no messages")
    created_at = _times.from_file(chat.get("created_at")) or datetime.now(UTC)
    by_key: dict[str, dict[str, Any]] = {}
    parents: dict[str, str | None] = {}
    latest: str | None = None
    known = {a_text(message.get("uuid")) for message in messages}
    for number, message in enumerate(messages):
        key = a_text(message.get("uuid")) or str(number)
        if key in by_key:
            continue
        named = a_text(message.get("parent_message_uuid"))
        is_known = named in known or named.startswith(_NO_PARENT)
        by_key[key], parents[key] = message, named if named and is_known else latest
        latest = key
    entries: list[TranscriptMessage] = []
    places: dict[str, str | None] = {}  # message → its entry, or what that of its parent is
    artifacts: dict[str, str] = {}
    for key in parents_first(parents):
        parent = places.get(parents[key] or "")
        entry = _entry(key, parent, by_key[key], created_at, artifacts)
        places[key] = entry.id if entry else parent
        if entry:
            entries.append(entry)
    end = a_text(chat.get("current_leaf_message_uuid"))
    return ChatTranscript(
        title=a_text(chat.get("name")),
        created_at=created_at,
        messages=tuple(entries),
        end=places.get(end) or (places.get(latest) if latest else None),
    )


def _entry(
    key: str,
    parent: str | None,
    message: dict[str, Any],
    created_at: datetime,
    artifacts: dict[str, str],
) -> TranscriptMessage | None:
    role = _ROLES.get(a_text(message.get("sender")))
    if role is None:
        return None
    attachments = tuple(
        Attachment(a_text(file.get("file_name")) or "attachment", text)
        for file in dicts(message.get("attachments"))
        if (text := a_text(file.get("extracted_content")))
    )
    content, thinking = _said(message, artifacts)
    files = _files(message, {attachment.name for attachment in attachments})
    content = "\n\n".join(filter(None, [content, *files]))
    if not (content.strip() or attachments):
        return None
    return TranscriptMessage(
        id=key,
        origin=key if message.get("uuid") else None,
        parent=parent,
        role=role,
        content=content,
        thinking=thinking,
        created_at=_times.from_file(message.get("created_at")) or created_at,
        attachments=attachments,
        finish_reason="stop" if role == "assistant" else None,
    )


def _said(message: dict[str, Any], artifacts: dict[str, str]) -> tuple[str, str]:
    """The text with its artifacts, and what was thought."""
    texts: list[str] = []
    thoughts: list[str] = []
    has_text = False
    for block in dicts(message.get("content")):
        kind = a_text(block.get("type"))
        if kind == "text":
            text = _in_text(a_text(block.get("text")))
            has_text |= bool(text.strip())
            texts.append(text)
        elif kind == "thinking":
            thoughts.append(a_text(block.get("thinking")))
        elif kind == "tool_use":
            texts.append(_artifact(block, artifacts))
        elif kind == "image":
            texts.append(_words.PICTURE)
        elif kind == "voice_note":
            texts.append(a_text(block.get("text")) or _words.AUDIO)
    if not has_text:
        texts.insert(0, _in_text(a_text(message.get("text"))))
    texts = [text.strip("\n") for text in texts if text.strip()]
    return "\n\n".join(texts), "\n\n".join(filter(None, thoughts))


def _in_text(text: str) -> str:
    def artifact(found: re.Match[str]) -> str:
        attributes = dict(_ATTRIBUTE.findall(found[1]))
        language = attributes.get("language") or _LANGUAGES.get(attributes.get("type", ""), "")
        return _words.fenced(found[2].strip("\n"), language, attributes.get("title", "Artifact"))

    text = _THOUGHT.sub("", _NO_BLOCK.sub("", text))
    return _ARTIFACT.sub(artifact, text)


def _artifact(block: dict[str, Any], artifacts: dict[str, str]) -> str:
    """An artifact that is made or changed, or code that is run, as a block of code; else nothing.

    What an artifact has become is kept in ``artifacts``.
    """
    given = a_dict(block.get("input"))
    name = a_text(block.get("name"))
    language = a_text(given.get("language")) or _LANGUAGES.get(a_text(given.get("type")), "")
    if name in ("repl", "analysis_tool"):
        code = a_text(given.get("code"))
        return _words.fenced(code, "javascript") if code.strip() else ""
    if name == "create_file":
        text, path = a_text(given.get("file_text")), a_text(given.get("path"))
        title = path.rpartition("/")[2] or "File"
        return _words.fenced(text, title.rpartition(".")[2], title) if text.strip() else ""
    if name != "artifacts":
        return ""
    key = a_text(given.get("id"))
    title = a_text(given.get("title")) or "Artifact"
    if a_text(given.get("command")) == "update" and not given.get("content"):
        old, new = a_text(given.get("old_str")), a_text(given.get("new_str"))
        before = artifacts.get(key, "")
        text = before.replace(old, new, 1) if old and old in before else new
        title = f"{title}, changed"
    else:
        text = a_text(given.get("content"))
    if not text.strip():
        return ""
    artifacts[key] = text
    return _words.fenced(text, language, title)


def _files(message: dict[str, Any], known: set[str]) -> list[str]:
    """A word for each file without a text in the export."""
    words: dict[str, str] = {}
    for place in ("files", "files_v2", "attachments"):
        for number, file in enumerate(dicts(message.get(place))):
            name = a_text(file.get("file_name"))
            if name in known:
                continue
            key = a_text(file.get("file_uuid")) or name or f"{number}"
            kind = a_text(file.get("file_kind")) or a_text(file.get("file_type"))
            if name not in words:
                words.setdefault(key, _words.file(name, kind))
    return list(words.values())
