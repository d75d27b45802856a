"""What a conversation is made of, as read from the store."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from ondevice.engine.messages import FinishReason, Statistics, Turn


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation. The fields from ``thinking`` on are an assistant's."""

    id: int
    role: Literal["user", "assistant"]
    content: str
    created_at: datetime  # UTC
    thinking: str = ""
    model: str | None = None
    finish_reason: FinishReason | None = None  # None: interrupted
    statistics: Statistics | None = None


@dataclass(frozen=True, slots=True)
class Heading:
    """A conversation in a list."""

    id: int
    title: str  # the beginning of the first message
    updated_at: datetime  # UTC
    messages: int  # how many


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation with all its messages, oldest first."""

    id: int
    title: str
    system: str  # the system prompt; empty: none
    messages: tuple[Message, ...]

    def turns(self) -> tuple[Turn, ...]:
        """What the model is to see.

        Chat templates want user and assistant in turn: messages that met no reply are joined with
        the next one.
        """
        turns = [Turn("system", self.system)] if self.system else []
        for message in self.messages:
            if not message.content:
                continue
            if turns and turns[-1].role == message.role:
                turns[-1] = Turn(message.role, f"{turns[-1].content}\n\n{message.content}")
            else:
                turns.append(Turn(message.role, message.content))
        return tuple(turns)
