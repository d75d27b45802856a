"""Chats of any length and any branches, written into the store at once."""

from __future__ import annotations

from collections.abc import Sequence

from ondevice.chats import Chats
from ondevice.chats._chats import append
from ondevice.messages import Role


def write(chats: Chats, texts: Sequence[str]) -> int:
    """A chat of these messages, said in turn by the user and a model; its id."""
    chat = chats.create()
    add(chats, chat, texts)
    return chat


def add(chats: Chats, chat: int, texts: Sequence[str], parent_id: int | None = None) -> list[int]:
    """Let a chat go on after a message, or at its end; returns the ids."""
    ids = []
    with chats.database.write() as connection:
        if parent_id is None:
            (parent_id,) = connection.execute(
                "SELECT end_id FROM conversation WHERE id = ?", (chat,)
            ).fetchone()
        before = connection.execute(
            "SELECT role FROM message WHERE id = ?", (parent_id,)
        ).fetchone()
        user_is_next = before is None or before["role"] == "assistant"
        for place, text in enumerate(texts):
            role: Role = "user" if (place % 2 == 0) == user_is_next else "assistant"
            parent_id = append(connection, chat, role, text, parent_id=parent_id, title="A chat")
            ids.append(parent_id)
        connection.execute("UPDATE message SET finish_reason = 'stop' WHERE role = 'assistant'")
    return ids
