"""What widgets tell each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from textual.message import Message

from ondevice.chats import Attachment
from ondevice.chats import Message as ChatMessage

if TYPE_CHECKING:
    from ondevice.chats import ChatHit
    from tui.open_tabs import OpenTab
    from tui.widgets.conversation import Conversation


@dataclass
class Submitted(Message):
    """The user has sent what is in the prompt."""

    text: str
    attachments: tuple[Attachment, ...] = ()
    replaced: ChatMessage | None = None
    """The message that it is an edit of."""
    pasted: tuple[str, ...] = ()
    """Lines of the text that were not typed."""


@dataclass
class NotKept(Message):
    """What was said last in a conversation could not be stored."""

    conversation: Conversation


@dataclass
class CommandGiven(Message):
    """The user has typed a command, such as "/rename Holidays"."""

    name: str
    argument: str


@dataclass
class ReplyProgressed(Message):
    """A reply is under way in a conversation, which says what it is doing."""

    conversation: Conversation


@dataclass
class ReplyEnded(Message):
    """No reply is under way any more in a conversation."""

    conversation: Conversation


@dataclass
class ChatChosen(Message):
    """The user has chosen a place in a conversation, or a tab, in the list of chats."""

    item: ChatHit | OpenTab
    words: str
    """What was searched for."""


@dataclass
class ChatsChanged(Message):
    """Chats were renamed, pinned, archived or deleted in their list."""
