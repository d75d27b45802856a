"""One conversation: its messages, and the exchange that is under way."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from typing import Any

from textual.app import ComposeResult
from textual.worker import Worker, WorkerCancelled, WorkerFailed

from ondevice import chats
from ondevice.chats import Attachment
from ondevice.engine.messages import Event, PromptProgress, Sampling, Statistics
from ondevice.engine.messages import Notice as EngineNotice
from ondevice.errors import OndeviceError, UsageError
from tui.messages import ReplyEnded, ReplyProgressed
from tui.shared_engine import SharedEngine
from tui.widgets.message import MessageView
from tui.widgets.notice import Notice
from tui.widgets.reply import Reply
from tui.widgets.transcript import Transcript
from tui.widgets.user_message import UserMessage
from tui.widgets.welcome import Welcome

_RECALL = 300  # tokens that memories may take at most in a message
_RECALL_SHARE = 8  # or so many of the context


class Conversation(Transcript):
    """Continues ``earlier``, or begins a new conversation, kept from its first message on."""

    def __init__(
        self,
        engine: SharedEngine,
        store: chats.Chats,
        *,
        system: str,
        sampling: Sampling,
        private: bool,
        earlier: chats.Conversation | None = None,
    ) -> None:
        super().__init__(earlier.messages if earlier else ())
        self.id_in_store = earlier.id if earlier else None
        self.private = earlier.private if earlier else private
        """Whether nothing of it is remembered, and nothing is recalled."""
        self.title = earlier.title if earlier else ""
        self.draft = ""
        """What was being typed here when another one came to be shown."""
        self.doing = ""
        """In a word or two, such as "thinking", while a reply is under way."""
        self.per_second: float | None = None
        """Pieces of text of this reply, which are about as many as tokens; None: none yet."""
        self.statistics: Statistics | None = None
        """Of the last reply."""
        self._engine = engine
        self.store = store
        """Where it is kept; a private one's is in RAM only."""
        self._system = system
        self.sampling = sampling
        self._exchange: Worker[None] | None = None
        self._streaming = False
        self._stopped = False

    def compose(self) -> ComposeResult:
        if not self.messages:
            yield Welcome(self._engine.loaded.path if self._engine.loaded else "")
        yield from super().compose()

    @property
    def replying(self) -> bool:
        """Whether an exchange is under way."""
        return self._exchange is not None and not self._exchange.is_finished

    @property
    def _may_prune(self) -> bool:
        return not self.replying

    # ------------------------------------------------------------------ one exchange at a time

    def ask(
        self,
        text: str,
        attachments: Sequence[Attachment] = (),
        instead_of: int | None = None,
        pasted: Sequence[str] = (),
    ) -> None:
        """Say ``text``, at the end or in place of an earlier message, and show the reply.

        Parts of it were ``pasted``.
        """
        self._begin(self._ask(text, attachments, instead_of, pasted))

    def regenerate(self, view: MessageView) -> None:
        """Have another reply: another one than this, or another one to this message."""
        assert view.message
        place = self.messages.index(view.message) + isinstance(view, UserMessage)
        if place:
            self._begin(self._answer_anew(place))

    def go_on(self, view: MessageView) -> None:
        """Let a reply that was cut short go on, or have one to a message that met none."""
        assert view.message
        if isinstance(view, Reply):
            self._begin(self._go_on(view, view.message.id))
        else:
            self.regenerate(view)

    def stop(self) -> None:
        """End the reply under way; what has come of it stays."""
        if self._exchange is None:
            return
        self._stopped = True
        if self._streaming:
            self._engine.cancel()
        else:
            self._exchange.cancel()

    async def ended(self) -> None:
        """Wait until no exchange is under way."""
        if self._exchange is not None:
            with suppress(WorkerFailed, WorkerCancelled):
                await self._exchange.wait()

    async def note(self, text: str, *, error: bool = False) -> Notice:
        """Show a sentence from the app."""
        notice = Notice(text, error=error)
        await self.mount(notice)
        return notice

    async def show_version(self, message_id: int) -> None:
        """Show the branch with this message instead of its sibling."""
        assert self.id_in_store is not None
        await asyncio.to_thread(self.store.show, message_id)
        conversation = await asyncio.to_thread(self.store.load, self.id_in_store)
        known = [message.id for message in self.messages]
        place = [message.id for message in conversation.messages].index(message_id)
        assert known[:place] == [message.id for message in conversation.messages[:place]]
        await self.cut(place)
        self.messages = list(conversation.messages)
        await self.jump(message_id)

    # ------------------------------------------------------------------ how it goes

    def _begin(self, exchange: Coroutine[Any, Any, None]) -> None:
        assert not self.replying
        self._stopped = False
        self._exchange = self.run_worker(exchange)

    async def _ask(
        self,
        text: str,
        attachments: Sequence[Attachment],
        instead_of: int | None,
        pasted: Sequence[str],
    ) -> None:
        if instead_of is not None:
            await self.cut([message.id for message in self.messages].index(instead_of))
        await self.query(Welcome).remove()
        await self.to_end()
        view = UserMessage(text=text, attachments=attachments)
        await self.mount(view)
        try:
            said = await asyncio.to_thread(self._say, text, attachments, instead_of, pasted)
        except OndeviceError as error:
            await self.note(str(error), error=True)
            self._tell_end(None)
            return
        await self._read_back(view)
        if said.learnt:
            await self.note(f"Remembered: {' '.join(said.learnt)}")
        if said.left_out:
            await self.note(f"Not remembered, for it looks secret: {', '.join(said.left_out)}.")
        await self._answer(Reply(recalled=said.recalled), said.message_id)

    def _say(
        self,
        text: str,
        attachments: Sequence[Attachment],
        instead_of: int | None,
        pasted: Sequence[str],
    ) -> chats.Said:
        if self.id_in_store is None:
            self.id_in_store = self.store.create(self._system, private=self.private)
        loaded = self._engine.loaded
        room = loaded.n_ctx // _RECALL_SHARE if loaded and loaded.n_ctx else _RECALL
        return self.store.say(
            self.id_in_store,
            text,
            attachments,
            pasted=pasted,
            instead_of=instead_of,
            recall=min(_RECALL, room),
        )

    async def _answer_anew(self, place: int) -> None:
        question = self.messages[place - 1]
        await self.cut(place)
        await self.to_end()
        await self._answer(Reply(recalled=question.recalled), question.id)

    async def _go_on(self, reply: Reply, message_id: int) -> None:
        await reply.go_on()
        await self._answer(reply, message_id)

    async def _answer(self, reply: Reply, after: int) -> None:
        if not reply.is_attached:
            await self.mount(reply)
        self.anchor()
        try:
            await self._stream(reply, after)
        except OndeviceError as error:
            if reply.statistics is None:  # otherwise it is whole, but could not be saved
                reply.end(None)
            await self.note(str(error), error=True)
            if not reply.begun:
                await reply.remove()
        except asyncio.CancelledError:
            reply.end("cancelled")
            self._tell_end(None)
            raise
        await reply.finish()
        await self._read_back(reply)
        self._tell_end(reply.statistics)

    async def _read_back(self, latest: MessageView) -> None:
        """Learn from the store what it has become there; ``latest`` may be its last message."""
        assert self.id_in_store is not None
        conversation = await asyncio.to_thread(self.store.load, self.id_in_store)
        self.messages = list(conversation.messages)
        self.title = conversation.title
        by_id = {message.id: message for message in self.messages}
        known = set()
        for view in self.views:
            assert view.message
            known.add(view.message.id)
            view.message = by_id.get(view.message.id, view.message)
        if self.messages and self.messages[-1].id not in known:
            latest.message = self.messages[-1]
        self._look()  # what is shown now may be an earlier reply, taken away for one that failed

    async def _stream(self, reply: Reply, after: int) -> None:
        assert self.id_in_store is not None
        conversation_id = self.id_in_store
        self._tell("waiting")
        if not await self._engine.make_ready():
            raise UsageError("No model is loaded. Ctrl+L chooses one.")
        async with self._engine.turn():
            self._streaming = True
            try:
                self._tell("reading")
                await self._engine.stream(
                    lambda engine: chats.reply(
                        self.store, engine, conversation_id, self.sampling, after=after
                    ),
                    lambda events: self._show(reply, events),
                )
            finally:
                self._streaming = False

    async def _show(self, reply: Reply, events: list[Event]) -> None:
        if self._stopped:  # again, in case the reply had not begun the first time
            self._engine.cancel()
        await reply.show(events)
        doing = reply.doing
        for event in events:
            if isinstance(event, EngineNotice):
                await self.mount(Notice(event.text), before=reply)
            elif isinstance(event, PromptProgress):
                doing = f"reading {event.done / event.total:.0%}"
        self._tell(doing, reply.per_second)

    def _tell(self, doing: str, per_second: float | None = None) -> None:
        self.doing, self.per_second = doing, per_second
        self.post_message(ReplyProgressed(self))

    def _tell_end(self, statistics: Statistics | None) -> None:
        self.doing, self.per_second = "", None
        self.statistics = statistics or self.statistics
        self.post_message(ReplyEnded(self))
