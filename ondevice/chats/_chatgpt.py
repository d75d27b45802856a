"""Reads a chat of ChatGPT's export: a tree in which hidden instructions and tools are nodes too."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from ondevice.chats import _times, _words
from ondevice.chats._loose_json import Odd, a_dict, a_list, a_text, decoded, dicts
from ondevice.chats._transfer import ChatTranscript, TranscriptMessage

_PYTHON, _CANVAS = "python", "canmore."
_WHOLE = ".*"  # the pattern of a canvas that is replaced from its beginning to its end
_SPOKEN = "audio_transcription"


@dataclass(frozen=True, slots=True)
class _NodeText:
    """What people were meant to see of a node."""

    role: Literal["user", "assistant"]
    text: str = ""
    thinking: str = ""


@dataclass(slots=True)
class _OpenReply:
    """The nodes of a reply that has not come to its end: tools and texts one after the other."""

    key: str  # of the last one with a text
    at: datetime  # of that one
    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    model: str | None = None
    nodes: list[str] = field(default_factory=list)


def read(chat: dict[str, Any]) -> ChatTranscript:
    """Raises :class:`Odd` when there is nothing in it."""
    mapping = {key: a_dict(node) for key, node in a_dict(chat.get("mapping")).items()}
    if not mapping:
        raise Odd("it has no messages")
    created_at = _times.from_file(chat.get("create_time")) or datetime.now(UTC)
    entries, places = _entries(mapping, created_at)
    end: str | None = a_text(chat.get("current_node"))
    passed: set[str] = set()  # parents may go round in a circle
    while end and end not in places and end not in passed:
        passed.add(end)
        end = a_text(mapping.get(end, {}).get("parent"))
    return ChatTranscript(
        title=a_text(chat.get("title")),
        created_at=created_at,
        messages=tuple(entries),
        end=places.get(end or ""),
    )


def _entries(
    mapping: dict[str, dict[str, Any]], created_at: datetime
) -> tuple[list[TranscriptMessage], dict[str, str]]:
    """Parents before children, and node → the entry it has become a part of.

    What is not shown is left out, and its children move up. What belongs to one reply is one
    entry, up to where branches begin. What no root leads to, as in a circle, is a branch of its
    own.
    """
    children: dict[str, dict[str, None]] = {key: {} for key in mapping}
    roots: list[str] = []
    for key, node in mapping.items():
        children[key] |= {
            c: None for c in map(a_text, a_list(node.get("children"))) if c in mapping
        }
        above = a_text(node.get("parent"))
        if above in mapping:
            children[above][key] = None
        else:
            roots.append(key)
    entries: list[TranscriptMessage] = []
    places: dict[str, str] = {}
    seen: set[str] = set()

    def end(reply: _OpenReply | None, parent: str | None) -> str | None:
        if reply is None or not (text := "\n\n".join(reply.texts)).strip():
            return parent
        entries.append(
            TranscriptMessage(
                id=reply.key,
                origin=reply.key,
                parent=parent,
                role="assistant",
                content=text,
                thinking="\n\n".join(reply.thoughts),
                created_at=reply.at,
                model=reply.model,
                finish_reason="stop",
            )
        )
        places.update(dict.fromkeys(reply.nodes, reply.key))
        return reply.key

    for start in (*roots, *mapping):
        waiting: list[tuple[str, str | None, _OpenReply | None]] = [(start, None, None)]
        while waiting:
            key, parent, reply = waiting.pop()
            if key in seen:
                continue
            seen.add(key)
            message = a_dict(mapping[key].get("message"))
            piece = _piece(message)
            at = _times.from_file(message.get("create_time")) or created_at
            if piece and piece.role == "user":
                parent, reply = end(reply, parent), None
                entries.append(
                    TranscriptMessage(
                        id=key,
                        origin=key,
                        parent=parent,
                        role="user",
                        content=piece.text,
                        created_at=at,
                    )
                )
                places[key] = parent = key
            elif piece:
                reply = reply or _OpenReply(key, at)
                if piece.text.strip():
                    reply.key, reply.at = key, at
                    reply.texts.append(piece.text)
                if piece.thinking:
                    reply.thoughts.append(piece.thinking)
                reply.model = (
                    a_text(a_dict(message.get("metadata")).get("model_slug")) or reply.model
                )
            if reply:
                reply.nodes.append(key)
            after = [child for child in children[key] if child not in seen]
            if len(after) != 1:
                parent, reply = end(reply, parent), None
            if parent is not None and reply is None:
                places.setdefault(key, parent)
            waiting += [(child, parent, reply) for child in reversed(after)]
    return entries, places


def _piece(message: dict[str, Any]) -> _NodeText | None:
    metadata = a_dict(message.get("metadata"))
    if not message or metadata.get("is_visually_hidden_from_conversation"):
        return None
    role = a_text(a_dict(message.get("author")).get("role"))
    content = a_dict(message.get("content"))
    kind = a_text(content.get("content_type")) or "text"
    to = a_text(message.get("recipient")) or "all"
    if role == "tool":
        return _of_tool(message, content, kind, metadata)
    if role == "assistant":
        return _of_assistant(content, kind, to, metadata)
    if role == "user" and to == "all" and kind in ("text", "multimodal_text"):
        text = _text(content, metadata)
        return _NodeText("user", text) if text.strip() else None
    return None


def _of_assistant(
    content: dict[str, Any], kind: str, to: str, metadata: dict[str, Any]
) -> _NodeText | None:
    if kind == "thoughts":
        thoughts = [
            "\n".join(filter(None, (a_text(one.get("summary")), a_text(one.get("content")))))
            for one in dicts(content.get("thoughts"))
        ]
        return _NodeText("assistant", thinking="\n\n".join(filter(None, thoughts)))
    if to.startswith(_CANVAS):
        return _NodeText("assistant", _canvas(a_text(content.get("text")) or _text(content, {})))
    if kind == "code":
        code = a_text(content.get("text"))
        is_call = to == "all" and (code.lstrip()[:1] in ("{", "[") or re.match(r"\w+\(", code))
        if not code.strip() or to not in (_PYTHON, "all") or is_call:  # of a search and the like
            return None
        language = a_text(content.get("language"))
        if to == _PYTHON and language in ("", "unknown"):
            language = _PYTHON
        return _NodeText("assistant", _words.fenced(code, language))
    if to == "all" and kind in ("text", "multimodal_text"):
        text = _words.without_marks(_text(content, metadata))
        return _NodeText("assistant", text) if text.strip() else None
    return None


def _of_tool(
    message: dict[str, Any], content: dict[str, Any], kind: str, metadata: dict[str, Any]
) -> _NodeText | None:
    """Pictures that were made, and what code has printed; the rest of tools is not for people."""
    parts: list[str] = []
    if kind == "execution_output" and (printed := a_text(content.get("text"))).strip():
        parts.append(_words.fenced(printed, title="Output"))
    made = dicts(a_dict(metadata.get("aggregate_result")).get("messages"))
    parts += [_words.PICTURE for one in made if one.get("message_type") == "image"]
    if kind == "multimodal_text":
        shown = map(_asset, dicts(content.get("parts")))
        parts += [word for word in shown if word == _words.PICTURE]
    return _NodeText("assistant", "\n\n".join(parts)) if parts else None


def _text(content: dict[str, Any], metadata: dict[str, Any]) -> str:
    """Texts and what was spoken, and a word for each picture, recording and file."""
    parts = a_list(content.get("parts"))
    spoken = any(one.get("content_type") == _SPOKEN for one in dicts(parts))
    texts = [part if isinstance(part, str) else _asset(a_dict(part)) for part in parts]
    if spoken:
        texts = [text for text in texts if text not in (_words.AUDIO, _words.VIDEO)]
    with_them = [
        _words.file(a_text(one.get("name")), a_text(one.get("mime_type") or one.get("mimeType")))
        for one in dicts(metadata.get("attachments"))
    ]
    missing = with_them.count(_words.PICTURE) - texts.count(_words.PICTURE)
    texts += [word for word in with_them if word != _words.PICTURE]
    texts += [_words.PICTURE] * missing
    return "\n\n".join(text for text in texts if text.strip())


def _asset(part: dict[str, Any]) -> str:
    kind = a_text(part.get("content_type"))
    if kind == _SPOKEN:
        return a_text(part.get("text"))
    if "video" in kind:
        return _words.VIDEO
    if "audio" in kind:
        return _words.AUDIO
    return _words.PICTURE if "image" in kind else ""


def _canvas(text: str) -> str:
    """A canvas that is written or changed, as a block of code with its name."""
    try:
        call = a_dict(decoded(text.encode("utf-8", "replace")))
    except Odd:
        call = {}
    kind, _, language = a_text(call.get("type")).partition("/")
    title = a_text(call.get("name")) or "Canvas"
    if written := a_text(call.get("content")):
        return _words.fenced(written, language if kind == "code" else "markdown", title)
    changes = [
        _words.fenced(
            a_text(one.get("replacement")),
            title="Canvas" if one.get("pattern") == _WHOLE else "Canvas, changed",
        )
        for one in dicts(call.get("updates"))
    ]
    return "\n\n".join(changes)
