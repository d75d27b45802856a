"""One conversation: its messages, and the exchange that is under way."""

from __future__ import annotations

import asyncio

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.worker import Worker

from ondevice import chats
from ondevice.engine.messages import Event, PromptProgress, Sampling
from ondevice.engine.messages import Notice as EngineNotice
from ondevice.errors import OndeviceError
from tui.messages import ReplyEnded, ReplyProgressed
from tui.shared_engine import SharedEngine
from tui.widgets.notice import Notice
from tui.widgets.reply import Reply
from tui.widgets.user_message import UserMessage
from tui.widgets.welcome import Welcome

_SHOWN = 40  # messages of an earlier conversation; those before them stay in the store


class Conversation(VerticalScroll, can_focus=False):
    """Continues ``earlier``, or begins a new conversation, kept from its first message on."""

    def __init__(
        self,
        engine: SharedEngine,
        store: chats.Chats,
        *,
        system: str,
        sampling: Sampling,
        earlier: chats.Conversation | None = None,
    ) -> None:
        super().__init__()
        self._engine = engine
        self._store = store
        self._system = system
        self._sampling = sampling
        self._earlier = earlier
        self._conversation_id = earlier.id if earlier else None
        self._exchange: Worker[None] | None = None
        self._streaming = False
        self._stopped = False

    def compose(self) -> ComposeResult:
        if self._earlier is None:
            yield Welcome()
            return
        messages = self._earlier.messages
        if len(messages) > _SHOWN:
            yield Notice(f"{len(messages) - _SHOWN} earlier messages are not shown.")
        for message in messages[-_SHOWN:]:
            yield UserMessage(message.content) if message.role == "user" else Reply(message)

    def on_mount(self) -> None:
        self.anchor()

    @property
    def replying(self) -> bool:
        """Whether an exchange is under way."""
        return self._exchange is not None and not self._exchange.is_finished

    def ask(self, text: str) -> None:
        """Say ``text`` and show the reply. One exchange at a time."""
        assert not self.replying
        self._stopped = False
        self._exchange = self.run_worker(self._run_exchange(text))

    def stop(self) -> None:
        """End the reply under way; what has come of it stays."""
        if self._exchange is None:
            return
        self._stopped = True
        if self._streaming:
            self._engine.cancel()
        else:
            self._exchange.cancel()

    async def note(self, text: str, *, error: bool = False) -> None:
        """Show a sentence from the app."""
        await self.mount(Notice(text, error=error))

    async def _run_exchange(self, text: str) -> None:
        reply = Reply()
        await self.query(Welcome).remove()
        await self.mount(UserMessage(text), reply)
        self.anchor()
        try:
            await self._fetch(reply, await asyncio.to_thread(self._say, text))
        except OndeviceError as error:
            reply.end(None)
            await self.note(str(error), error=True)
        except asyncio.CancelledError:
            reply.end("cancelled")
            self.post_message(ReplyEnded(None))
            raise
        await reply.finish()
        self.post_message(ReplyEnded(reply.statistics))

    def _say(self, text: str) -> int:
        if self._conversation_id is None:
            self._conversation_id = self._store.create(self._system)
        self._store.say(self._conversation_id, text)
        return self._conversation_id

    async def _fetch(self, reply: Reply, conversation_id: int) -> None:
        async with self._engine.free:
            self._streaming = True
            try:
                self.post_message(ReplyProgressed("reading"))
                await self._engine.stream(
                    lambda engine: chats.reply(
                        self._store, engine, conversation_id, self._sampling
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
        self.post_message(ReplyProgressed(doing, reply.per_second))
