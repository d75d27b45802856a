"""What the parts of the chat screen share: the open conversations, and which one is shown."""

from __future__ import annotations

import asyncio

from textual.screen import Screen

from ondevice import chats
from ondevice.config import Settings, to_fetch
from tui.shared_engine import SharedEngine
from tui.widgets.conversation import Conversation
from tui.widgets.prompt import Prompt
from tui.widgets.status_bar import StatusBar
from tui.widgets.tab_bar import TabBar

_TABS = 9  # conversations that are open at most


class ChatBase(Screen[None]):
    """Conversations, one of which is shown, the prompt and the status bar.

    Opens with ``earlier`` or a new one. The focus is moved with ``set_focus``: a widget's own
    ``focus`` waits for its turn, and by then the next key may have gone to what had it before.
    """

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
        self._model = to_fetch(settings.model)
        self.conversation = self._conversation(earlier, store)
        """The one that is shown."""
        self.conversations = [self.conversation]
        """All that are open, from left to right."""
        self.tab_bar = TabBar()
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
        store: chats.Chats | None = None,
    ) -> None:
        """Show another conversation in a tab, or begin one.

        Its own tab, if it is open, is made anew; a reply under way there is stopped and kept.
        ``store`` is where it is kept, None where all are; in another one it is private.
        """
        store = store or self.store
        fresh = self._conversation(earlier, store)
        fresh.display = False
        if (old := self._tab_for(earlier, store)) is None:
            self.conversations.insert(self._place + 1, fresh)
            await self.mount(fresh, before=self.prompt.completions)
        else:
            await self._replace(old, fresh)
        self.show(fresh)
        if len(self.conversations) > _TABS:
            await self.close(self._dullest())

    def show(self, conversation: Conversation) -> None:
        """Show one that is open; what was being typed to the other one waits there."""
        here = self.conversation
        if here is not conversation:
            if self.prompt.revised:
                self.prompt.revise(None)
            here.draft, self.prompt.text = self.prompt.text, conversation.draft
            self.prompt.move_cursor(self.prompt.document.end)
            here.display, conversation.display = False, True
        self.conversation = conversation
        self.set_focus(self.prompt)
        self.show_status()

    async def close(self, conversation: Conversation) -> None:
        """Close a tab, in which a reply under way is stopped and kept. One is always left."""
        place = self.conversations.index(conversation)
        if len(self.conversations) == 1:
            await self._replace(conversation, self._conversation(None, self.store))
            return
        del self.conversations[place]
        if conversation is self.conversation:
            self.show(self.conversations[max(0, place - 1)])
        await conversation.remove()
        self.show_status()

    async def reload(self) -> None:
        """Make all tabs anew but those with a reply under way, for the store has changed."""
        for one in [*self.conversations]:
            if one.id_in_store is not None and one.store is self.store and not one.replying:
                earlier = await asyncio.to_thread(self.store.load, one.id_in_store)
                await self._replace(one, self._conversation(earlier, self.store))
        self.show_status()

    async def look_at_store(self) -> None:
        """Close what has been deleted, and call the others what they are called now."""
        for one in [*self.conversations]:
            if one.id_in_store is not None:
                heading = await asyncio.to_thread(one.store.heading, one.id_in_store)
                if heading is None:
                    await self.close(one)
                else:
                    one.title = heading.title
        self.show_status()

    def show_status(self) -> None:
        """Say what the conversation is doing, and what else is open."""
        here = self.conversation
        self.status.doing, self.status.estimate = here.doing, here.per_second
        self.status.statistics, self.status.private = here.statistics, self.in_private
        self.status.paused = here.private and not self.in_private
        titles = [f"{'… ' if one.replying else ''}{one.title}" for one in self.conversations]
        self.tab_bar.show(titles, self._place)

    @property
    def _place(self) -> int:
        return self.conversations.index(self.conversation)

    def _tab_for(
        self, earlier: chats.Conversation | None, store: chats.Chats
    ) -> Conversation | None:
        """The tab that the conversation takes: its own, or this one if there is nothing in it."""
        for one in self.conversations:
            if earlier and (one.store, one.id_in_store) == (store, earlier.id):
                return one
        here = self.conversation
        empty = here.id_in_store is None and not here.replying and not here.messages
        return here if empty else None

    async def _replace(self, old: Conversation, fresh: Conversation) -> None:
        """Let a conversation take the tab of another one."""
        self.conversations[self.conversations.index(old)] = fresh
        fresh.draft = old.draft
        with self.app.batch_update():
            await self.mount(fresh, before=self.prompt.completions)
            if old is self.conversation:
                self.conversation = fresh
            fresh.display = old.display
            await old.remove()
        self.show_status()

    def _dullest(self) -> Conversation:
        """The leftmost tab that nobody would miss."""
        others = [one for one in self.conversations if one is not self.conversation]
        return next((one for one in others if not (one.replying or one.draft)), others[0])

    @property
    def in_private(self) -> bool:
        """Whether the conversation is in RAM only."""
        return self.conversation.store is not self.store

    async def go_to(
        self,
        conversation_id: int,
        message_id: int | None,
        store: chats.Chats | None = None,
        words: str = "",
    ) -> None:
        """Show a message of a conversation, in whatever branch it is; None: its end.

        ``words`` are then marked, and n and N go from one to the next.
        """
        store = store or self.store
        for one in self.conversations:
            if (one.store, one.id_in_store) == (store, conversation_id):
                self.show(one)
                break
        else:
            await self.open(await asyncio.to_thread(store.load, conversation_id), store=store)
        await self.conversation.go_to(message_id, words)

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
