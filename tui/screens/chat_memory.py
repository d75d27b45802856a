"""What the memory does in a chat: remember a note, show and forget memories, keep out of it."""

from __future__ import annotations

import asyncio

from textual import work

from ondevice.chats import Chats, Message
from ondevice.errors import OndeviceError
from ondevice.store import TransientDatabase
from tui.screens.chat_settings import ChatSettings


class ChatMemory(ChatSettings):
    @work
    async def action_remember(self, text: str) -> None:
        try:
            remembered = await asyncio.to_thread(self.store.memory.add, text)
        except OndeviceError as error:
            self.notify(str(error), severity="error")
            return
        self.conversation.note(f"Remembered: {remembered.cube.content}")
        if remembered.left_out:
            kinds = ", ".join(remembered.left_out)
            self.conversation.note(f"Not remembered because it looks like a secret: {kinds}.")

    @work
    async def action_memory(self, words: str = "") -> None:
        """Browse the memory; from a memory to the message it was read from."""
        await self._browse(words, None)

    @work
    async def action_used(self) -> None:
        """Show what a reply was given of the memory, and why."""
        view = self.conversation.pointed_at
        messages = self.conversation.messages
        if view and view.message and view.message.role == "assistant":
            view_place = messages.index(view.message)
            messages = messages[:view_place]
        asked = next((m for m in reversed(messages) if m.role == "user"), None)
        if asked is None:
            self.notify("There is no reply yet.")
        elif not asked.recalled:
            self.notify("This reply used no memories.")
        else:
            await self._browse("", asked)

    async def _browse(self, words: str, asked: Message | None) -> None:
        from tui.screens.memory import MemoryScreen  # noqa: PLC0415 - a faster start

        screen = MemoryScreen(self.store.memory, words, self._paused, self.action_pause, asked)
        forgot, chosen = await self.app.push_screen_wait(screen)
        if chosen is not None and chosen.message_id is not None:
            conversation_id = await asyncio.to_thread(self.store.of_message, chosen.message_id)
            await self.go_to(conversation_id, chosen.message_id)
        elif forgot:
            await self.reload()  # what was forgotten may stand in a chat

    def _paused(self) -> bool:
        return self.status.paused

    async def action_pause(self) -> None:
        """Remember and recall nothing from here on, or do so again."""
        paused = not self.conversation.private
        if self.in_private:
            self.notify("Private chats are never remembered.")
            return
        if not self.set("memory", "false" if paused else "true", quiet=True):
            return
        if (id_ := self.conversation.id_in_store) is not None:
            await asyncio.to_thread(self.store.pause, id_, paused)
        self.conversation.private = paused
        self.show_status()
        now = "paused" if paused else "on again"
        self.notify(f"Memory is {now}, in this chat and in new ones.")

    async def action_private(self) -> None:
        """Begin a chat of which nothing is kept."""
        if await self.open(None, store=Chats(TransientDatabase())):
            self.conversation.note(
                "This chat is not saved or remembered, and it uses no memories. It is "
                "gone for good when you close it."
            )
