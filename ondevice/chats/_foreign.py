"""Reads conversations out of files: our own, and the exports of ChatGPT, Claude and Open WebUI."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from ondevice.chats import _archives, _chatgpt, _claude, _open_webui, _own_export
from ondevice.chats._json_elements import LeftOut, NotJSON, elements
from ondevice.chats._loose_json import Odd, a_dict, a_list, a_text, decoded
from ondevice.chats._transfer import ChatTranscript, beginning
from ondevice.errors import FileError

_FORMAT = 1  # of our own exports
_MOST_MESSAGES = 100_000  # of a chat, which goes into one transaction


@dataclass(frozen=True, slots=True)
class NotRead:
    """A chat, or a whole text, that could not be read."""

    name: str  # its title, or its place in the file
    why: str
    place: str = ""  # where it is in the file, if the name does not say so

    def __str__(self) -> str:
        return f"{self.name}: {self.why}{f' ({self.place})' if self.place else ''}."


@dataclass(frozen=True, slots=True)
class ForeignChat:
    """A chat in a file."""

    origin: str  # the service and its id there, or what tells it from others without one
    digest: bytes  # the same for the very same text
    title: str
    transcript: ChatTranscript | None  # None: it is not wanted


#: Whether a chat of this origin and digest brings nothing new.
Known = Callable[[str, bytes], bool]


def read(
    path: Path, cancel: threading.Event | None = None, is_known: Known = lambda *_: False
) -> Iterator[ForeignChat | NotRead]:
    """The conversations in a file, or in the archive or folder that the services send.

    One at a time is in RAM. What cannot be read is named in its place, and the rest comes. After a
    ``cancel`` nothing more comes. Raises :class:`FileError` when it is none of the three.
    """
    reader = _ForeignReader(is_known)
    is_understood = False
    failures: list[NotRead] = []  # which are told once one chat is understood
    for text, read_pieces in _archives.texts(path):
        number = 0
        try:
            for element in elements(_until(read_pieces(), cancel)):
                if cancel and cancel.is_set():
                    return
                number += 1
                for found in reader.chats(element, text, number):
                    if isinstance(found, NotRead):
                        failures.append(found)
                    else:
                        is_understood = True
                        yield found
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
    raise FileError(
        " ".join(
            [
                f"{path} has no chats in a known format. Name a JSON export from ondevice, "
                "conversations.json from ChatGPT or Claude, or the archive or folder it came in.",
                *map(str, failures[:3]),
            ]
        )
    )


def _until(pieces: Iterator[bytes], cancel: threading.Event | None) -> Iterator[bytes]:
    for piece in pieces:
        if cancel and cancel.is_set():
            return
        yield piece


class _ForeignReader:
    def __init__(self, is_known: Known) -> None:
        self._is_known = is_known
        self._alike: dict[str, int] = {}  # how many chats without ids were like this one

    def chats(
        self, element: bytes | LeftOut, text: str, number: int
    ) -> Iterator[ForeignChat | NotRead]:
        """The chats of an object in a file: it is one, or one of our exports with several."""
        place = f"chat {number} of {text}"
        if isinstance(element, LeftOut):
            yield _not_read("", place, element.why)
            return
        try:
            value = a_dict(decoded(element))
        except Odd as odd:
            yield _not_read("", place, str(odd))
            return
        if "ondevice_chats" in value or isinstance(value.get("chats"), list):
            version = value.get("ondevice_chats", _FORMAT)
            if not isinstance(version, int) or version > _FORMAT:
                why = "it was written by a newer ondevice; update this one"
                yield _not_read("", place, why)
                return
            for inner, chat in enumerate(a_list(value.get("chats")), start=1):
                digest = hashlib.sha256(repr(chat).encode("utf-8", "replace")).digest()
                where = f"chat {inner} of {text}"
                kind = _own_export.read if "ondevice_chats" in value else None
                yield self._chat(a_dict(chat), digest, where, kind)
            return
        yield self._chat(value, hashlib.sha256(element).digest(), place, None)

    def _chat(
        self,
        chat: dict[str, Any],
        digest: bytes,
        place: str,
        read_chat: Callable[[dict[str, Any]], ChatTranscript] | None,
    ) -> ForeignChat | NotRead:
        title = a_text(chat.get("title")) or a_text(chat.get("name"))
        try:
            if read_chat:
                service = "ondevice"
            else:
                service, read_chat = _kind(chat)
            ids = map(a_text, map(chat.get, ("conversation_id", "id", "uuid")))
            id_ = next(filter(None, ids), "") if service != "ondevice" else ""
            origin = f"{service}:{id_}" if id_ else a_text(chat.get("origin"))
            if origin and self._is_known(origin, digest):
                return ForeignChat(origin, digest, beginning(title), None)
            transcript = _bounded(read_chat(chat))
        except Odd as odd:
            return _not_read(title, place, str(odd))
        if not origin:
            origin = f"{service}: {_fingerprint(chat, transcript)}"
            self._alike[origin] = self._alike.get(origin, 0) + 1
            origin += f", {self._alike[origin]}"
            if self._is_known(origin, digest):
                return ForeignChat(origin, digest, beginning(title), None)
        return ForeignChat(origin, digest, beginning(title), transcript)


def _bounded(transcript: ChatTranscript) -> ChatTranscript:
    if not transcript.messages:
        raise Odd("it has no messages that could be shown")
    if len(transcript.messages) > _MOST_MESSAGES:
        raise Odd(f"it has more than {_MOST_MESSAGES:,} messages")
    return transcript


def _kind(chat: dict[str, Any]) -> tuple[str, Callable[[dict[str, Any]], ChatTranscript]]:
    if "mapping" in chat:
        return "chatgpt", _chatgpt.read
    if "chat_messages" in chat:
        return "claude", _claude.read
    if "history" in a_dict(chat.get("chat")):
        return "open-webui", _open_webui.read
    raise Odd("it is not a chat from ChatGPT, Claude, Open WebUI or ondevice")


def _fingerprint(chat: dict[str, Any], transcript: ChatTranscript) -> str:
    """What stays as it is while a chat grows and is called otherwise: how it began, and when."""
    first = transcript.messages[0]
    began = (repr(chat.get("created_at") or chat.get("create_time")), first.role, first.content)
    return hashlib.sha256(msgspec.json.encode(began)).hexdigest()


def _not_read(title: str, place: str, why: str) -> NotRead:
    if title:
        return NotRead(f"“{beginning(title)}”", why, place)
    return NotRead(place[:1].upper() + place[1:], why)
