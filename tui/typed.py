"""What is typed in a conversation and not sent."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from ondevice.chats import Message


class Typed(msgspec.Struct, frozen=True):
    """While a message is edited, ``text`` is to take the place of ``replaced``."""

    text: str = ""
    replaced: Message | None = None
    beneath: str = ""
    """What was typed before, and comes back after the edit."""
    pastes: Mapping[str, str] = msgspec.field(default_factory=dict)
    """Long texts that were pasted: name in the text → what it stands for."""

    def __bool__(self) -> bool:
        return bool(self.text.strip() or self.beneath.strip() or self.replaced)
