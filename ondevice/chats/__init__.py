"""Conversations: kept in the store as they go, and continued with an engine."""

from ondevice.chats._chats import Chats, Said
from ondevice.chats._compaction import compact
from ondevice.chats._fact_reading import can_learn, learn, restore_cache
from ondevice.chats._imports import Import, Imported, Undone
from ondevice.chats._records import (
    Attachment,
    Chat,
    ChatHit,
    ChatMatches,
    Heading,
    Message,
    State,
    Summary,
    with_attachments,
)
from ondevice.chats._reply import reply
from ondevice.chats._titles import think_of_title
from ondevice.chats._warming import warm_up
from ondevice.chats._windows import AppWindow, Tab

__all__ = [
    "AppWindow",
    "Attachment",
    "Chat",
    "ChatHit",
    "ChatMatches",
    "Chats",
    "Heading",
    "Import",
    "Imported",
    "Message",
    "Said",
    "State",
    "Summary",
    "Tab",
    "Undone",
    "can_learn",
    "compact",
    "learn",
    "reply",
    "restore_cache",
    "think_of_title",
    "warm_up",
    "with_attachments",
]
