"""What the parts of the chat screen share."""

from __future__ import annotations

import asyncio

from textual.screen import Screen

from ondevice import chats
from ondevice.config import AUTO, FIRST, Settings
from tui.shared_engine import SharedEngine
from tui.widgets.conversation import Conversation
from tui.widgets.prompt import Prompt
from tui.widgets.status_bar import StatusBar


class ChatBase(Screen[None]):
    """A conversation, the prompt and the status bar. Opens with ``earlier`` or a new one."""

    def __init__(
        self,
        engine: SharedEngine,
        store: chats.Chats,
        settings: Settings,
        earlier: chats.Conversation | None = None,
    ) -> None:
        super().__init__()
        self.engine = engine
        self.store = store
        self.settings = settings
        self._model = FIRST if settings.model == AUTO else settings.model
        self.conversation = self._conversation(earlier, store)
        self.prompt = Prompt(store.said)
        self.status = StatusBar()

    @property
    def id_in_store(self) -> int | None:
        """Of the conversation; None and a word to the user: there is nothing in it yet."""
        if self.conversation.id_in_store is None:
            self.notify("Nothing has been said in this chat yet.")
        return self.conversation.id_in_store

    async def open(
        self,
        earlier: chats.Conversation | None,
        at: int | None = None,
        store: chats.Chats | None = None,
    ) -> None:
        """Show another conversation, from message ``at`` on if given, or begin one.

        A reply under way in this one is stopped and kept. ``store`` is where it is kept, None
        where all are; in another one it is private.
        """
        await self.conversation.remove()
        self.conversation = self._conversation(earlier, store or self.store)
        await self.mount(self.conversation, before=self.prompt.completions)
        self.status.doing = ""
        self.status.private = self.conversation.private
        self.status.statistics = None
        if at is not None:
            await self.conversation.jump(at)
        else:
            self.prompt.focus()

    @property
    def in_private(self) -> bool:
        """Whether the conversation is in RAM only."""
        return self.conversation.store is not self.store

    async def go_to(
        self, conversation_id: int, message_id: int | None, store: chats.Chats | None = None
    ) -> None:
        """Show a message of a conversation, in whatever branch it is; None: its end."""
        store = store or self.store
        conversation = await asyncio.to_thread(store.load, conversation_id)
        shown = {message.id for message in conversation.messages}
        if message_id is not None and message_id not in shown:  # it is in another branch
            await asyncio.to_thread(store.show, message_id)
            conversation = await asyncio.to_thread(store.load, conversation_id)
        here = self.conversation
        if (store, conversation_id) == (here.store, here.id_in_store) and message_id in {
            message.id for message in here.messages
        }:
            await here.jump(message_id)
        else:
            await self.open(conversation, message_id, store)

    def is_busy(self) -> bool:
        """Whether a reply is under way, which the user is then told."""
        if self.conversation.replying:
            self.notify("A reply is under way. Esc stops it.")
        return self.conversation.replying

    def _conversation(self, earlier: chats.Conversation | None, store: chats.Chats) -> Conversation:
        return Conversation(
            self.engine,
            store,
            system=self.settings.system_prompt,
            sampling=self.settings.sampling,
            private=store is not self.store or not self.settings.memory,
            earlier=earlier,
        )
