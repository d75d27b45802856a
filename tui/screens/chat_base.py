"""What the parts of the chat screen share: the open conversations, and which one is shown."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from textual import on
from textual.screen import Screen
from textual.widgets import TextArea
from textual.worker import WorkerError

from ondevice import chats
from ondevice.chats import Tab
from ondevice.config import Settings, to_fetch
from ondevice.errors import OndeviceError
from tui.messages import Submitted
from tui.open_tabs import MOST, Keeping, OpenTab, named, to_restore, typed_of
from tui.shared_engine import SharedEngine
from tui.typed import Typed
from tui.widgets.conversation import Conversation
from tui.widgets.prompt import PromptInput
from tui.widgets.queue import Queue
from tui.widgets.status_bar import StatusBar
from tui.widgets.tab_bar import TabBar, TabState


class ChatBase(Screen[None]):
    """Conversations, one of which is shown, the prompt and the status bar.

    Opens with what earlier windows had open, and ``earlier`` or else what was shown last.

    The focus is moved with ``set_focus``: a widget's own ``focus`` waits for its turn, and by then
    the next key may have gone to what had it before.
    """

    def __init__(
        self,
        engine: SharedEngine,
        store: chats.Chats,
        settings: Settings,
        earlier: chats.Chat | None = None,
    ) -> None:
        super().__init__()
        self.engine = engine
        self.store = store
        self.settings = settings
        self._model = to_fetch(settings.model)
        self.tab_bar = TabBar()
        self.prompt = PromptInput(self._typed_before, self._edit_queued)
        self.queue = Queue()
        self.status = StatusBar()
        self._app_window = window = chats.AppWindow(store.database)
        self.keeping = Keeping(window, self._tabs, self.set_timer, self.run_worker)
        self._offers_answer = False
        """Whether the keys show that the answer may begin now."""
        self._to_open: list[Tab] = []
        """Tabs of earlier windows that are not open yet."""
        self._trouble: OndeviceError | None = None
        self.conversation = self._first_one(window, earlier)
        """The one that is shown."""
        self.conversations = [self.conversation]
        """All that are open, from left to right."""

    def _typed_before(self) -> list[str]:
        """What Up brings back."""
        put_away = self._app_window.put_away
        return [*(text for text in self.store.said() if text not in put_away), *put_away]

    @property
    def id_in_store(self) -> int | None:
        """Of the conversation; None and a word to the user: there is nothing in it yet."""
        if self.conversation.id_in_store is None:
            self.notify("This chat is empty.")
        return self.conversation.id_in_store

    async def open(
        self,
        earlier: chats.Chat | None,
        store: chats.Chats | None = None,
    ) -> bool:
        """Show another conversation in a tab, or begin one.

        Its own tab, if it is open, is made anew; a reply under way there is stopped and kept.
        ``store`` is where it is kept, None where all are; in another one it is private. Whether
        it is open: there may be too many others that none can take the place of.
        """
        store = store or self.store
        old = self._tab_for(earlier, store)
        expendable = None
        full = old is None and len(self.conversations) >= MOST
        if full and (expendable := self._expendable_tab()) is None:
            self.notify(
                f"{MOST} chats are open already. Press F4 to close one.", severity="warning"
            )
            return False
        fresh = self._conversation(earlier, store)
        fresh.display = False
        if old is None:
            self.conversations.insert(self._place + 1, fresh)
            await self.mount(fresh, before=self.prompt.completions)
        elif not await self._replace(old, fresh):
            return await self.open(earlier, store)
        if fresh in self.conversations:  # not closed meanwhile
            self.show(fresh)
        if expendable is not None:
            await self.close(expendable)
        return True

    def show(self, conversation: Conversation) -> None:
        """Show one that is open; what was being typed to the other one waits there."""
        here = self.conversation
        if here is not conversation:
            here.typed = self.prompt.typed
            self.prompt.show_typed(conversation.typed, self._whose(conversation))
            conversation.typed = Typed()
            here.display, conversation.display = False, True
        conversation.unread = False
        self.conversation = conversation
        self.set_focus(self.prompt)
        self.show_status()

    async def close(self, conversation: Conversation) -> None:
        """Close a tab, in which a reply under way is stopped and kept. One is always left.

        Up brings back what was typed there, but not of a private one, of which nothing is left.
        """
        if conversation not in self.conversations:
            return  # closed meanwhile
        place = self.conversations.index(conversation)
        if self._whose(conversation):
            self.prompt.forget(conversation)
        else:
            typed = self.typed_in(conversation)
            waiting = [sent.text for sent in conversation.not_stored]
            texts = [text for text in (*waiting, typed.beneath, typed.text) if text.strip()]
            self.prompt.remember(texts)
            self.keeping.put_away(texts)
        if len(self.conversations) == 1:
            self.prompt.show_typed(Typed())
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

    async def refresh_from_store(self) -> None:
        """Close what has been deleted, and call the others what they are called now."""
        for one in [*self.conversations]:
            if one.id_in_store is not None:
                heading = await asyncio.to_thread(one.store.heading, one.id_in_store)
                if heading is None and one not in self.conversations:
                    continue  # closed meanwhile
                if heading is None and (self.typed_in(one) or one.queued):
                    with suppress(WorkerError):  # another look may have come between
                        await one.follow().wait()  # which begins anew
                elif heading is None:
                    await self.close(one)
                else:
                    one.title = heading.title
        self.show_status()

    def show_status(self) -> None:
        """Say what the conversation is doing, and what else is open."""
        here = self.conversation
        if self._offers_answer != here.can_answer_now:
            self._offers_answer = here.can_answer_now
            self.refresh_bindings()
        self.status.estimate = here.per_second
        self.status.statistics, self.status.private = here.statistics, self.in_private
        self.status.paused = here.private and not self.in_private
        self.status.doing = here.progress.describe(here.doing)
        self.status.n_ctx, self.status.context_tokens = self.engine.n_ctx, here.progress.tokens
        here.measure()
        tabs = [tab.state for tab in self.open_tabs()]
        self.tab_bar.show(tabs, self._place, here.persona)
        self.queue.show([sent.text for sent in here.queued])
        self.changed()

    def open_tabs(self) -> list[OpenTab]:
        """What is open, from left to right."""
        return [
            OpenTab(
                one,
                None if self._whose(one) else one.id_in_store,
                TabState(one.title, self._whose(one) is not None, one.replying, one.unread),
                one is self.conversation,
            )
            for one in self.conversations
        ]

    @property
    def _place(self) -> int:
        return self.conversations.index(self.conversation)

    def _tab_for(self, earlier: chats.Chat | None, store: chats.Chats) -> Conversation | None:
        """The tab that the conversation takes: its own, or this one if there is nothing in it."""
        if earlier and (there := self._open_of(store, earlier.id)):
            return there[0]
        here = self.conversation
        empty = here.id_in_store is None and not here.replying and not here.messages
        return here if empty else None

    def _open_of(self, store: chats.Chats, id_: int) -> list[Conversation]:
        """The tabs of a conversation of a store."""
        return [one for one in self.conversations if (one.store, one.id_in_store) == (store, id_)]

    async def _replace(self, old: Conversation, fresh: Conversation) -> bool:
        """Let a conversation take the tab of another one, if that is still open."""
        with self.app.batch_update():
            fresh.display = False
            await self.mount(fresh, before=self.prompt.completions)
            if old not in self.conversations:  # closed meanwhile
                await fresh.remove()
                return False
            self.conversations[self.conversations.index(old)] = fresh
            fresh.typed = old.typed
            queued = old.not_stored
            old.unsaid, old.queued = None, []
            if old is self.conversation:
                self.conversation = fresh
                if self._whose(old) or self._whose(fresh):
                    self.prompt.show_typed(self.prompt.typed, self._whose(fresh))
            fresh.display = old.display
            await old.remove()
        if queued:
            self.give_back(fresh, queued)
        self.show_status()
        return True

    def _expendable_tab(self) -> Conversation | None:
        """The leftmost tab that nobody would miss; None: there is none."""
        others = [one for one in self.conversations if one is not self.conversation]
        dull = (one for one in others if not (one.replying or one.typed or one.queued))
        return next((one for one in dull if one not in self.would_be_lost), None)

    @property
    def would_be_lost(self) -> list[Conversation]:
        """Private conversations in which something was said or typed: they are kept nowhere."""
        return [
            one
            for one in self.conversations
            if self._whose(one)
            and (one.messages or one.replying or one.queued or self.typed_in(one))
        ]

    def _whose(self, conversation: Conversation) -> Conversation | None:
        """The conversation if it is a private one, whose words are for no other."""
        return conversation if conversation.store is not self.store else None

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
        if there := self._open_of(store, conversation_id):
            self.show(there[0])
        else:
            earlier = await asyncio.to_thread(store.load, conversation_id)
            await self.open(earlier, store=store)
            there = self._open_of(store, conversation_id)
        if there:  # the tab that is shown may be another one by now
            await there[0].go_to(message_id, words)

    def is_busy(self) -> bool:
        """Whether a reply is under way, which the user is then told."""
        if self.conversation.replying:
            self.notify("A reply is in progress. Press Esc to stop it.")
        return self.conversation.replying

    def _conversation(self, earlier: chats.Chat | None, store: chats.Chats) -> Conversation:
        fresh = Conversation(
            self.engine,
            store,
            system=self.settings.system_prompt,
            sampling=self.settings.sampling,
            thinks=self.settings.thinks,
            thinking_tokens=self.settings.thinking_tokens,
            private=store is not self.store or not self.settings.memory,
            send_memories=self.settings.send_memories,
            earlier=earlier,
        )
        system = earlier.system if earlier else self.settings.system_prompt
        personas = self.settings.personas.items()
        fresh.persona = next((name for name, prompt in personas if prompt == system), "")
        return fresh

    # ------------------------------------------------------------------ what is typed and open

    def typed_in(self, conversation: Conversation) -> Typed:
        """What is typed there and not sent."""
        return self.prompt.typed if conversation is self.conversation else conversation.typed

    def give_back(self, conversation: Conversation, sent: Sequence[Submitted]) -> None:
        """Put messages that are not to be sent now before what is typed in a conversation."""
        typed = self.typed_in(conversation)
        replaced = next((one.replaced for one in sent if one.replaced), None)
        pastes = {a.name: a.content for one in sent for a in one.attachments}
        if replaced and not typed.replaced:
            typed = Typed("", replaced, typed.text, typed.pastes)
        text = "\n".join(filter(None, [*(one.text for one in sent), typed.text]))
        self._set_typed(
            conversation,
            Typed(text, typed.replaced, typed.beneath, {**typed.pastes, **named(pastes, text)}),
        )

    async def end_reply(self, store: chats.Chats, id_: int) -> None:
        """Stop what is being written in a conversation, and wait until it is."""
        for one in self._open_of(store, id_):
            one.queued.clear()
            await one.end()

    def forget_typed(self, store: chats.Chats, id_: int) -> None:
        """A conversation was deleted, and what was typed there with it."""
        for one in self._open_of(store, id_):
            self._set_typed(one, Typed())

    @on(TextArea.Changed)
    def changed(self) -> None:
        """Something is open or typed that the store may not have yet."""
        if self.is_running:
            self.keeping.change()

    async def open_the_rest(self) -> None:
        """Open what earlier windows had open beside what is shown."""
        if self._trouble:
            raise self._trouble
        left = 0
        for number, tab in enumerate([*self._to_open]):
            earlier = None
            if tab.conversation_id is not None:
                with suppress(OndeviceError):  # deleted meanwhile, or not to be read now
                    earlier = await asyncio.to_thread(self.store.load, tab.conversation_id)
            if earlier is not None or tab.draft or tab.beneath:
                fresh = self._conversation(earlier, self.store)
                fresh.typed = typed_of(tab, earlier)
                fresh.display = False
                if number < self._shown_from:
                    self.conversations.insert(left, fresh)
                    left += 1
                else:
                    self.conversations.append(fresh)
                await self.mount(fresh, before=self.prompt.completions)
            self._to_open.remove(tab)
        self.show_status()

    def _first_one(self, window: chats.AppWindow, earlier: chats.Chat | None) -> Conversation:
        """What is shown first; what else is to be opened is in ``_to_open``."""
        tabs: list[Tab] = []
        try:
            tabs = to_restore(window.open(), earlier.id if earlier else None)
        except OndeviceError as error:
            self._trouble = error
        shown = next((tab for tab in tabs if tab.shown), None)
        self._shown_from = tabs.index(shown) if shown else len(tabs)
        self._to_open = [tab for tab in tabs if tab is not shown]
        if earlier is None and shown and shown.conversation_id is not None:
            with suppress(OndeviceError):
                earlier = self.store.load(shown.conversation_id)
        first = self._conversation(earlier, self.store)
        if shown:
            first.typed = typed_of(shown, earlier)
        return first

    def _set_typed(self, conversation: Conversation, typed: Typed) -> None:
        if conversation is self.conversation:
            self.prompt.show_typed(typed, self._whose(conversation))
        else:
            conversation.typed = typed
        self.changed()

    def _edit_queued(self) -> bool:
        """Put the message that was sent last, and waits, into the prompt again."""
        if not self.conversation.queued:
            return False
        self.give_back(self.conversation, [self.conversation.queued.pop()])
        self.show_status()
        return True

    def _tabs(self) -> list[Tab]:
        tabs = [self._tab(one) for one in self.conversations if not self._whose(one)]
        worth_it = (tab for tab in tabs if tab.conversation_id or tab.draft or tab.beneath)
        return [*worth_it, *self._to_open]

    def _tab(self, conversation: Conversation) -> Tab:
        typed = self.typed_in(conversation)
        shown = conversation is self.conversation
        leaving = self.prompt.on_its_way if shown else ()
        waiting = [*conversation.not_stored, *leaving]
        text = "\n".join(filter(None, [*(sent.text for sent in waiting), typed.text]))
        folded = {a.name: a.content for sent in waiting for a in sent.attachments}
        return Tab(
            conversation_id=conversation.id_in_store,
            shown=shown,
            draft=text,
            edited_id=typed.replaced.id if typed.replaced else None,
            beneath=typed.beneath,
            pastes={**typed.pastes, **named(folded, text)},
        )
