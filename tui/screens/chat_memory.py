"""What the memory does in a chat: remember a note, show and forget memories, keep out of it."""

from __future__ import annotations

import asyncio

from textual import work

from ondevice.errors import OndeviceError
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
        elif forgot and not self.conversation.replying and self.conversation.id_in_store:
            # What was forgotten may stand in this chat.
            id_ = self.conversation.id_in_store
            await self.open(await asyncio.to_thread(self.store.load, id_))

    async def action_private(self) -> None:
        conversation = self.conversation
        private = not conversation.private
        if (id_ := conversation.id_in_store) is not None:
            await asyncio.to_thread(self.store.set_private, id_, private)
        conversation.private = self.status.private = private
        if private:
            await conversation.note(
                "From here on, nothing of this chat is remembered, and nothing is recalled in it. "
                "The chat itself is kept in the list; /delete removes it."
            )
        else:
            await conversation.note("From here on, this chat is remembered again.")
