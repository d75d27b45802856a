"""One conversation: its messages, and the exchange that is under way."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate, takewhile
from typing import Any

from textual import work
from textual.app import ComposeResult
from textual.timer import Timer
from textual.worker import Worker, WorkerError

from ondevice import chats
from ondevice.chats import Attachment, recalling
from ondevice.engine import EngineLike
from ondevice.errors import ContextError, OndeviceError, StoreError, UsageError
from ondevice.memory import Cube
from ondevice.messages import (
    Event,
    Measure,
    Measured,
    Notice,
    PromptProgress,
    Sampling,
    Statistics,
    server_of,
)
from tui import fitting, sharing
from tui.background import end_of
from tui.messages import NotKept, ReplyEnded, ReplyProgressed, Submitted
from tui.progress import Progress
from tui.shared_engine import SharedEngine
from tui.typed import Typed
from tui.widgets.marks import Marks
from tui.widgets.memories import Memories
from tui.widgets.reply import Reply
from tui.widgets.transcript import Transcript
from tui.widgets.user_message import UserMessage
from tui.widgets.welcome import Welcome

_LOOK_AT_STORE = 1.0  # seconds
_TELL_EVERY = 1.0  # seconds while a reply is awaited, and while it comes
_MEASURED = 16  # characters for each token of the context: what is older than that has left it
_CALM = 60.0  # seconds without anything new, after which it is looked at more rarely
_RARELY = 3  # looks, of which one is made then
_ABOVE = 3  # part of the view's height that is above a word that was found


class Conversation(Transcript):
    """Continues ``earlier``, or begins a new conversation, kept from its first message on."""

    def __init__(
        self,
        engine: SharedEngine,
        store: chats.Chats,
        *,
        system: str,
        sampling: Sampling,
        thinks: bool | None,
        thinking_tokens: int | None,
        private: bool,
        send_memories: Mapping[str, bool],
        earlier: chats.Chat | None = None,
    ) -> None:
        super().__init__(earlier.messages if earlier else ())
        self.id_in_store = earlier.id if earlier else None
        self.private = earlier.private if earlier else private
        """Whether nothing of it is remembered, and nothing is recalled."""
        self.title = earlier.title if earlier else ""
        self.typed = Typed()
        """What was being typed here when another one came to be shown; the prompt has that of the
        one that is shown."""
        self.queued: list[Submitted] = []
        """What was sent while a reply was under way, and waits for its end."""
        self.unsaid: Submitted | None = None
        """What was sent and is not in the store yet."""
        self._asked: int | None = None
        """The message that is being answered, once it is in the store."""
        self.unread = False
        """Whether a reply has ended here while another one was shown."""
        self.persona = ""
        """Whose system prompt it has; empty: nobody's."""
        self.doing = ""
        """In a word or two, such as "thinking", while a reply is under way."""
        self.per_second: float | None = None
        """Pieces of text of this reply, which are about as many as tokens; None: none yet."""
        self.statistics: Statistics | None = None
        """Of the last reply."""
        self.progress = Progress(empty=not self.messages)
        """How far the reply under way has come, and what of the context is in use."""
        self._measured: int | None = 0
        """The last message of the branch whose tokens are known; 0: none are."""
        self._ticker: Timer | None = None
        self._told_at = 0.0
        self._engine = engine
        self.store = store
        """Where it is kept; a private one's is in RAM only."""
        self._system = earlier.system if earlier else system
        self.sampling = sampling
        self.thinks, self.thinking_tokens = thinks, thinking_tokens
        """Whether the model is to think first (None: as it does), and for how many tokens."""
        self.send_memories = send_memories
        """Server → whether memories may go there; one not named: it is asked."""
        self._exchange: Worker[None] | None = None
        self._streaming = False
        self._stopped = False
        self._is_aside = False
        """Whether another window goes on in another version than the one under way here."""
        self._is_apart = False
        """Whether the reply under way has become a version of its own beside that of a window."""
        self._reading = asyncio.Lock()
        """Held from a change in the store until its messages are the list that is shown."""
        self._changes: tuple[int, int] | None = None
        self._state: chats.State | None = None
        """Of the conversation in the store, when it was looked at last."""
        self._looks, self._changed_at = 0, time.monotonic()
        self._finding: tuple[int, ...] = ()
        """The messages that have the words that are looked for; empty: none are."""
        self._steps = deque[int]()
        """To the next match (1) or to the one before (-1), as far as they are not made."""
        self._stepping: Worker[None] | None = None

    def compose(self) -> ComposeResult:
        if not self.messages:
            yield self.welcome()

    def welcome(self) -> Welcome:
        path = self._engine.loaded.path if self._engine.loaded else ""
        return Welcome(path, None if self.private else self.send_memories)

    def on_mount(self) -> None:
        super().on_mount()
        self._changes = self.store.database.changes()
        self.set_interval(_LOOK_AT_STORE, self._check_store)

    @property
    def not_stored(self) -> list[Submitted]:
        """What was sent here and the store does not have, in order."""
        return [*([self.unsaid] if self.unsaid else []), *self.queued]

    @property
    def replying(self) -> bool:
        """Whether an exchange is under way."""
        return self._exchange is not None and not self._exchange.is_finished

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

    def regenerate(self, message: chats.Message) -> None:
        """Have another reply: another one than this, or another one to this message."""
        before = self._before(message.id)
        question = message if message.role == "user" else before[-1] if before else None
        if question:
            reply = Reply(recalled=self._given(question), server=self._server)
            self._begin(self._answer(reply, question.id))

    def go_on(self, message: chats.Message) -> None:
        """Let the last reply go on if it was cut short, or have one to a message that met none."""
        if message.role == "assistant":
            self._begin(self._go_on(message.id))
        else:
            self.regenerate(message)

    def _before(self, message_id: int | None) -> list[chats.Message]:
        """The messages before this one; all of them if it is not among them."""
        ids = [message.id for message in self.messages]
        return self.messages[: ids.index(message_id)] if message_id in ids else self.messages

    def stop(self) -> None:
        """End the reply under way; what has come of it stays."""
        if self._exchange is None:
            return
        self._stopped = True
        if self._streaming:
            self._engine.cancel()
        else:
            self._exchange.cancel()

    @property
    def can_answer_now(self) -> bool:
        """Whether the model thinks, and would end that for an answer: a server would not."""
        return self._streaming and self.doing == "thinking" and self._server is None

    def answer_now(self) -> None:
        """Let the answer begin if the model still thinks."""
        if self.can_answer_now:
            self._engine.answer_now()

    async def end(self) -> None:
        """Stop the reply under way, and wait until what has come of it is kept."""
        self.stop()
        await self.ended()

    async def ended(self) -> None:
        """Wait until no exchange is under way."""
        if self._exchange is not None:
            with suppress(WorkerError):
                await self._exchange.wait()

    # ------------------------------------------------------------------ other places

    async def show_version(self, message_id: int) -> None:
        """Show the branch with this message, at the place of its sibling."""
        siblings = [v for v in self.views if v.message and message_id in v.message.versions]
        above = self.lines_above(siblings[0]) if siblings else 0
        await self._show_branch(message_id)
        self.jump(message_id, above)

    async def go_to(self, message_id: int | None, words: str = "") -> None:
        """Show a message, in whatever branch it is, and the words in it; None: the end."""
        self.end_find()
        if message_id is None:
            self.to_end()
            return
        if message_id not in {message.id for message in self.messages}:
            await self._show_branch(message_id)
        self.jump(message_id)
        if words.strip() and self.id_in_store is not None:
            self._find(words, message_id)

    async def _show_branch(self, message_id: int) -> None:
        async with self._reading:
            await asyncio.to_thread(self.store.show, message_id)
            await self._read()

    # ------------------------------------------------------------------ words that are found

    @property
    def finding(self) -> bool:
        """Whether words that were looked for are marked, and n and N go from one to the next."""
        return self.marks is not None

    def find_next(self, direction: int) -> None:
        """Go to the next place of the words, or to the one before."""
        self._steps.append(direction)
        if self._stepping is None or self._stepping.is_finished:
            self._stepping = self._make_steps()

    def end_find(self) -> None:
        """Mark nothing any more."""
        self.workers.cancel_group(self, "find")
        self._steps.clear()
        self.leave_focus()
        if self.marks:
            self.marks.remove()
            self.marks = None

    @work(group="find", exclusive=True)
    async def _find(self, words: str, message_id: int) -> None:
        if self.id_in_store is None:  # deleted by another window meanwhile
            return
        found = await asyncio.to_thread(self.store.matches, words, self.id_in_store)
        self.marks = Marks(found.words, found.parts)
        self._finding = found.message_ids
        self.marks.put_on(self.views)
        self.screen.refresh_bindings()
        await self._go_to_hit(message_id, 0)

    @work(group="find", exclusive=True)
    async def _make_steps(self) -> None:
        """One after the other, also those that are asked for meanwhile."""
        while self._steps:
            await self._step(self._steps.popleft())

    async def _step(self, direction: int) -> None:
        marks = self.marks
        here = self.in_focus
        if marks is None or here is None or here.message is None:
            return
        hits, at = marks.hits(here), marks.here
        place = hits.index(at) + direction if at in hits else -1
        if 0 <= place < len(hits):
            await self._go_to_hit(here.message.id, place)
            return
        # On from here to the end, and then from the beginning.
        places = {message.id: place for place, message in enumerate(self.messages)}
        count, at_place = len(places), places.get(here.message.id, 0)
        found = [id_ for id_ in self._finding if id_ in places]
        if found:
            nearest = min(found, key=lambda id_: ((places[id_] - at_place) * direction - 1) % count)
            await self._go_to_hit(nearest, 0 if direction > 0 else -1)

    async def _go_to_hit(self, message_id: int, place: int) -> None:
        """Go to one of the words of a message, or to its top if none of them is to be seen."""
        if (view := self.view_of(message_id)) is None:
            self.jump(message_id)
        else:
            self.jump(message_id, self.lines_above(view))
        await self.equal()
        view, marks = self.view_of(message_id), self.marks
        if view is None or marks is None or not await self.arranged(view):
            return
        hits = marks.hits(view)
        marks.here = hits[place] if hits else None
        row, height = marks.here.row if marks.here else 0, self.size.height
        if not 0 <= row - self.lines_above(view) < height - 1:
            self.jump(message_id, row - height // _ABOVE if row > height // 2 else 0)

    # ------------------------------------------------------------------ what others write

    def _check_store(self) -> None:
        """See whether anybody has written but a reply here, without waiting for anything."""
        self._looks += 1
        calm = time.monotonic() - self._changed_at > _CALM and self._looks % _RARELY
        if self.id_in_store is None or not self.display or calm:
            return
        self.measure()
        changes = self.store.database.changes(own=not self.replying)
        if changes is not None and changes != self._changes:
            self._changes, self._changed_at = changes, time.monotonic()
            self.follow()

    def on_show(self) -> None:
        self._changed_at = time.monotonic()
        self._measured = 0  # so that the engine learns what may go on
        self._check_store()

    @work(group="follow", exclusive=True)
    async def follow(self) -> None:
        """Show what has become of the conversation in the store."""
        await self._follow()
        if self.id_in_store is None:
            self.stop()

    async def _follow(self) -> None:
        if (id_ := self.id_in_store) is None:
            return
        try:
            state = await asyncio.to_thread(self.store.state, id_)
            if state is None:
                self._deleted()
            elif state != self._state:
                async with self._reading:
                    await self._read()
        except OndeviceError:
            self._changes = None  # it cannot be read now: at the next look
        self.post_message(ReplyProgressed(self))

    def _deleted(self) -> None:
        """Begin anew where the conversation was; what was typed stays.

        All at once: whoever looks at the store is cancelled where another look begins.
        """
        if self.id_in_store is None:
            return
        self.id_in_store, self._state, self.title = None, None, ""
        self.end_find()
        self._unsaved.clear()
        self._after = None
        self.follow_list(())
        self.measure()
        self.note("This chat was deleted in another window. Your next message starts a new one.")

    async def _read(self) -> None:
        """Show the messages that the store has now, with ``_reading`` held."""
        if (id_ := self.id_in_store) is None:
            return
        begun = [view for view in self._unsaved if view.id_in_store is not None]
        state = await asyncio.to_thread(self.store.state, id_)
        conversation = await asyncio.to_thread(self.store.load, id_)
        messages = conversation.messages
        # What is being written here stays in view, in whatever version another window goes on.
        here = self._under_way
        self._is_aside = here is not None and here not in {message.id for message in messages}
        if self._is_aside:
            own = await asyncio.to_thread(partial(self.store.load, id_, until=here))
            messages = own.messages or messages  # none: it is not in the store quite yet
        self._state = state  # only now: a stop may have come in between
        self.title, self.private = conversation.title, conversation.private
        self._unsaved = [view for view in self._unsaved if view not in begun]
        self.follow_list(messages)

    @property
    def _under_way(self) -> int | None:
        """The last message in the store of the exchange under way."""
        if not self.replying:
            return None
        ids = [view.id_in_store for view in self._live if view.id_in_store is not None]
        return ids[-1] if ids else self._asked

    # ------------------------------------------------------------------ how it goes

    def measure(self, *, anew: bool = False) -> None:
        """Find out how much of the context the conversation takes, unless that is known."""
        if anew:
            self._measured, self.progress.tokens = 0, None
        if self._end == self._measured or self.replying or not self.is_attached:
            return
        if not self.messages:
            self.progress.tokens, self._measured = 0, self._end
        elif self._engine.n_ctx and not self._engine.is_busy:
            self._measure()

    @property
    def _end(self) -> int | None:
        return self.messages[-1].id if self.messages else None

    @work(group="measure", exclusive=True)
    async def _measure(self) -> None:
        end, room = self._end, (self._engine.n_ctx or 0) * _MEASURED
        self._measured = end
        lengths = accumulate(len(message.prompt()) for message in reversed(self.messages))
        recent = sum(1 for _ in takewhile(lambda length: length <= room, lengths)) + 1
        turns = chats.Chat(0, "", self._system, False, tuple(self.messages[-recent:])).turns()
        shown = self.id_in_store if self.display else None

        def measure(engine: EngineLike) -> Measured:
            keep = None if shown is None else self.store.keep(shown)
            return engine.measure(Measure(turns=turns, grow=False, keep=keep))

        try:
            found = await self._engine.aside(measure)
        except OndeviceError:
            self.progress.tokens = None
            return
        if self._measured != end or self.replying:
            return
        if found is None:  # somebody else wanted the engine: another time
            self._measured = 0
            return
        self.progress.tokens = found.tokens
        self.post_message(ReplyProgressed(self))

    def _tick(self) -> None:
        """While a reply is awaited something moves each second, whatever the model does."""
        self._show_progress(self.doing, self.per_second)

    def _begin(self, exchange: Coroutine[Any, Any, None]) -> None:
        assert not self.replying
        self._stopped, self._asked = False, None
        self._is_aside = self._is_apart = False
        self.progress.begin()
        self._ticker = self.set_interval(_TELL_EVERY, self._tick)
        self.end_find()
        self._exchange = self.run_worker(self._carry_out(exchange))
        self.screen.refresh_bindings()

    async def _carry_out(self, exchange: Coroutine[Any, Any, None]) -> None:
        """Whatever ends it before its time: nothing is left that seems to be still written."""
        try:
            await exchange
        except BaseException as error:
            for view in [*self._live]:
                self.release(view)
            if self.unsaid:
                self.post_message(NotKept(self))
            self._show_end(None)
            if isinstance(error, asyncio.CancelledError):
                await self._leave_unanswered()
            if self.is_attached:
                self.follow()
            raise

    async def _leave_unanswered(self) -> None:
        """Have the message that is being answered say so if no reply to it has begun."""
        if self._asked is not None:
            leaving = asyncio.to_thread(self.store.leave_unanswered, self._asked)
            await end_of(task := asyncio.ensure_future(leaving))
            task.exception()  # what ended the reply is told, and matters more

    async def _ask(
        self,
        text: str,
        attachments: Sequence[Attachment],
        instead_of: int | None,
        pasted: Sequence[str],
    ) -> None:
        view = self._show_unsaved(text, attachments, instead_of)
        draft = await self._fitted(text, attachments)
        if draft is None:
            self.release(view)
            self.post_message(NotKept(self))
            self._show_end(None)
            return
        self.progress.begin()  # not counted while the user chooses
        if (draft.text, draft.attachments) != (text, tuple(attachments)):
            self.release(view)
            text, attachments = draft.text, draft.attachments
            view = self._show_unsaved(text, attachments, instead_of)
        try:
            async with self._reading, self._engine.counting() as count_tokens:
                said = await self._whole(
                    self._say, text, attachments, instead_of, pasted, draft.room, count_tokens
                )
                view.id_in_store = said.message_id
        except OndeviceError as error:
            self.release(view)
            self.note(str(error), error=True)
            self.post_message(NotKept(self))
            self._show_end(None)
            await self._follow()
            return
        await self._read_whole()
        self.release(view)
        if said.withheld:
            said = await sharing.sent_if_agreed(self, said)
            self.progress.begin()  # as above
            await self._read_whole()
        if said.learnt:
            self.note(f"Remembered: {' '.join(said.learnt)}")
        if said.unwanted:
            self.note("Not remembered, as you asked.")
        if said.left_out:
            self.note(f"Not remembered because it looks like a secret: {', '.join(said.left_out)}.")
        await self._answer(Reply(recalled=said.recalled, server=self._server), said.message_id)

    def _show_unsaved(
        self, text: str, attachments: Sequence[Attachment], instead_of: int | None
    ) -> UserMessage:
        view = UserMessage(text=text, attachments=attachments)
        before = self._before(instead_of)
        self.add_unsaved(view, before[-1].id if before else None)
        return view

    async def _fitted(self, text: str, attachments: Sequence[Attachment]) -> fitting.Draft | None:
        """The message as it is to be sent; None: it is not."""
        self._show_progress("waiting")
        draft = fitting.Draft(self._system, text, tuple(attachments))
        return await fitting.fitted(self.app, self._engine, draft, beside=self._recall)

    async def _whole(self, say: Callable[..., chats.Said], *what: object) -> chats.Said:
        """Store a message. No stop comes between it and our knowing that it is stored."""
        storing = asyncio.create_task(asyncio.to_thread(say, *what))
        storing.add_done_callback(self._know_stored)
        try:
            await asyncio.wait([storing])  # which a cancel of the wait does not cancel
            return storing.result()
        except asyncio.CancelledError:
            await end_of(storing)
            raise

    def _know_stored(self, storing: asyncio.Task[chats.Said]) -> None:
        if not storing.cancelled() and storing.exception() is None:
            self.unsaid, self._asked = None, storing.result().message_id

    @property
    def _recall(self) -> int:
        """Tokens that memories may take at most in a message."""
        return recalling.budget(self._engine.loaded)

    def _say(
        self,
        text: str,
        attachments: Sequence[Attachment],
        instead_of: int | None,
        pasted: Sequence[str],
        room: int | None,
        count_tokens: Callable[[str], int],
    ) -> chats.Said:
        if self.id_in_store is None:
            self.id_in_store = self.store.create(self._system, private=self.private)
            instead_of = None
        server = self._server
        agreed = server is None or self.send_memories.get(server)
        most = self._recall if room is None else min(self._recall, room)
        return self.store.say(
            self.id_in_store,
            text,
            attachments,
            pasted=pasted,
            instead_of=instead_of,
            after=self._end,
            recall=0 if agreed is False else most,
            count_tokens=count_tokens,
            n_ctx=self._engine.n_ctx or 0,
            server=server,
            withhold=agreed is None,
        )

    @property
    def _server(self) -> str | None:
        """Where the model is; None: on this device."""
        return server_of(self._engine.loaded.path) if self._engine.loaded else None

    def _given(self, question: chats.Message) -> tuple[Cube, ...]:
        """The memories that go with a message to the model as it is now."""
        server = self._server
        if server is None or (self.send_memories.get(server) and question.server == server):
            return question.recalled
        return ()

    async def _go_on(self, message_id: int) -> None:
        self.forget_errors(message_id)
        self.to_end()
        await self.equal()
        view = self.view_of(message_id)
        if isinstance(view, Reply):
            self.keep(view)
            await view.go_on()
            await self._write(view, message_id)
        else:
            self._show_end(None)

    async def _answer(self, reply: Reply, after: int) -> None:
        self._asked = after
        self.forget_errors(after)
        self.add_unsaved(reply, after)
        await self.equal()
        if isinstance(question := self.view_of(after), UserMessage):
            question.ask_again()
        await self._write(reply, after)

    async def _write(self, reply: Reply, after: int) -> None:
        """Show a reply as it comes, until it has ended."""
        failed = ""
        try:
            await self._stream(reply, after)
        except OndeviceError as error:
            if reply.statistics is None:  # otherwise it is whole, but could not be saved
                reply.end(None)
            failed = str(error)
            if isinstance(error, ContextError):
                failed += " To choose which parts are sent, edit it (e) and send it again."
        except asyncio.CancelledError:
            reply.end("cancelled")
            raise
        await reply.finish()
        await self._read_whole()
        is_aside = self._is_aside
        self.release(reply)
        if failed and self.id_in_store is not None:
            self.note(failed, error=True)
        if is_aside:
            await self._leave_version(reply)
        elif self._is_apart:
            self.note("Another window continued this reply as well. Both versions are kept.")
        self._show_end(reply.statistics)

    async def _leave_version(self, reply: Reply) -> None:
        """The chat went on in another version: show that, unless more is to be said in this one."""
        if self.queued and reply.id_in_store is not None:
            with suppress(OndeviceError):  # otherwise it is said there all the same
                await self._show_branch(reply.id_in_store)
            return
        own = {message.id for message in self.messages}
        self._asked = None
        await self._read_whole()
        other = next((message for message in self.messages if message.id not in own), None)
        if other:
            where = f"‹ {other.versions.index(other.id) + 1}/{len(other.versions)} ›"
            self.note(
                "Another window went on in another version of this chat, which is shown now. "
                f"What was written here is kept: the arrows {where} lead to it."
            )

    async def _read_whole(self) -> None:
        """Learn from the store what it has become there."""
        try:
            async with self._reading:
                await self._read()
        except OndeviceError:
            await self._follow()  # it was deleted, or it is read later

    async def _stream(self, reply: Reply, after: int) -> None:
        conversation_id = self.id_in_store
        if conversation_id is None:
            raise StoreError("This chat was deleted. Start a new one.")
        self._show_progress("waiting")
        if not await self._engine.make_ready():
            await self._leave_unanswered()
            raise UsageError("No model is loaded. Press Ctrl+L to choose one.")
        async with self._engine.turn():
            self._streaming = True
            asked = next((m for m in self.messages if m.id == after and m.role == "user"), None)
            if asked and not self._given(asked):  # another model has come meanwhile
                await reply.query(Memories).remove()
            try:
                self._show_progress("reading")
                await self._engine.stream(
                    lambda engine: chats.reply(
                        self.store,
                        engine,
                        conversation_id,
                        self.sampling,
                        thinking=self.thinks,
                        thinking_tokens=self.thinking_tokens,
                        after=after,
                        memories_to=[one for one, yes in self.send_memories.items() if yes],
                        called=self._engine.title,
                        on_begun=partial(self._begun, reply),
                    ),
                    lambda events: self._show(reply, events),
                )
            finally:
                self._streaming = False

    def _begun(self, reply: Reply, message_id: int) -> None:
        """A message in the store has the reply; a second one if another window writes to the first.

        Comes from the thread that writes it.
        """
        self._is_apart = reply.id_in_store not in (None, message_id)
        reply.id_in_store = message_id

    async def _show(self, reply: Reply, events: list[Event]) -> None:
        if self._stopped:  # again, in case the reply had not begun the first time
            self._engine.cancel()
        await reply.show(events)
        doing = reply.doing
        for event in events:
            self.progress.hear(event)
            if isinstance(event, Notice) and not event.says_end:  # which the reply says itself
                self.note_before(reply, event.text)
            elif isinstance(event, PromptProgress):
                doing = f"reading {event.done / event.total:.0%}"
        self._show_progress(doing, reply.per_second)

    def _show_progress(self, doing: str, per_second: float | None = None) -> None:
        now, news = time.monotonic(), doing != self.doing
        self.doing, self.per_second = doing, per_second
        if news or now - self._told_at > 0.9 * _TELL_EVERY:
            self._told_at = now
            self.post_message(ReplyProgressed(self))

    def _show_end(self, statistics: Statistics | None) -> None:
        self.doing, self.per_second = "", None
        self.progress.end()
        if self._ticker:
            self._ticker.stop()
        if statistics and statistics.prompt_tokens:
            # Who stops it while the prompt is read learns from the engine only how far that was.
            self._measured = self._end if statistics.generated_tokens else 0
        if self.id_in_store is None:  # it was deleted meanwhile
            self.progress.tokens = 0
        self.statistics = statistics or self.statistics
        self.post_message(ReplyEnded(self))
