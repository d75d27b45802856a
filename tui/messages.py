"""What widgets tell each other."""

from __future__ import annotations

from dataclasses import dataclass

from textual.message import Message

from ondevice.engine.messages import Statistics


@dataclass
class Submitted(Message):
    """The user has sent the text of the prompt."""

    text: str


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
