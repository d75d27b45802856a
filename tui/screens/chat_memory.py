"""What the memory does in a chat: remember a note, show and forget memories, keep out of it."""

from __future__ import annotations

import asyncio

from textual import work

from ondevice.chats import Chats
from ondevice.errors import OndeviceError
from ondevice.store import TransientDatabase
from tui.screens.chat_base import ChatBase


class ChatMemory(ChatBase):
    @work
    async def action_remember(self, text: str) -> None:
        try:
            remembered = await asyncio.to_thread(self.store.memory.add, text)
        except OndeviceError as error:
            self.notify(str(error), severity="error")
            return
        await self.conversation.note(f"Remembered: {remembered.cube.content}")
        if remembered.left_out:
            kinds = ", ".join(remembered.left_out)
            await self.conversation.note(f"Not remembered, for it looks secret: {kinds}.")

    @work
    async def action_memory(self, words: str = "") -> None:
        """Browse the memory; from a memory to the message it was read from."""
        from tui.screens.memory import MemoryScreen  # noqa: PLC0415 - a faster start

        forgot, chosen = await self.app.push_screen_wait(MemoryScreen(self.store.memory, words))
        if chosen is not None and chosen.message_id is not None:
            conversation_id = await asyncio.to_thread(self.store.of_message, chosen.message_id)
            await self.go_to(conversation_id, chosen.message_id)
        elif forgot:
            await self.reload()  # what was forgotten may stand in a chat

    async def action_private(self) -> None:
        """Begin a chat of which nothing is kept, or close it."""
        if self.in_private:
            await self.close(self.conversation)
            await self.conversation.note("The private chat is gone. This one is kept.")
        else:
            await self.open(None, store=Chats(TransientDatabase()))
            await self.conversation.note(
                "Nothing of this chat is written to the disk or remembered, and nothing is "
                "recalled in it. It is gone for good when you close it."
            )
