"""What widgets tell each other."""

from __future__ import annotations

from dataclasses import dataclass

from textual.message import Message

from ondevice.chats import Attachment
from ondevice.chats import Message as ChatMessage
from ondevice.engine.messages import Statistics


@dataclass
class Submitted(Message):
    """The user has sent what is in the prompt."""

    text: str
    attachments: tuple[Attachment, ...] = ()
    replaced: ChatMessage | None = None
    """The message that it is an edit of."""


@dataclass
class CommandGiven(Message):
    """The user has typed a command, such as "/rename Holidays"."""

    name: str
    argument: str


@dataclass
class Typed(Message):
    """The user types, but not in the prompt."""

    character: str


@dataclass
class ReplyProgressed(Message):
    """A reply is under way."""

    doing: str
    """In a word or two, such as "thinking"."""
    per_second: float | None = None
    """Pieces of text, which are about as many as tokens; None: none yet."""


@dataclass
class ReplyEnded(Message):
    """No reply is under way any more."""

    statistics: Statistics | None
    """None: the reply did not come to its end."""
