"""Conversations: kept in the store as they go, and continued with an engine."""

from ondevice.chats._chats import Chats, Draft
from ondevice.chats._records import Conversation, Heading, Message
from ondevice.chats._reply import reply

__all__ = ["Chats", "Conversation", "Draft", "Heading", "Message", "reply"]
