"""A loaded model in conversation: from turns to a stream of events."""

from __future__ import annotations

import os
import secrets
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence

import llama_cpp
import msgspec

from ondevice.engine._cache import ConversationCache
from ondevice.engine._drafting import PromptLookup, Speculation
from ondevice.engine._loading import HeldModel
from ondevice.engine._prompt import Prompt, Prompter
from ondevice.engine._repetition import Repetition
from ondevice.engine._reply_text import ReplyText
from ondevice.engine._room import Room
from ondevice.engine._states import States, common_prefix
from ondevice.engine._thinking import ThinkingLimit
from ondevice.errors import ContextError, ModelFileError, OndeviceError, UsageError
from ondevice.holding import kernels
from ondevice.json_schema import compile_schema
from ondevice.llama import (
    Constraint,
    Context,
    Grammar,
    Interrupted,
    Sampler,
    SchemaVocabulary,
    Stopped,
)
from ondevice.markup import TOKENS, open_section
from ondevice.messages import (
    Chunk,
    Embedded,
    Event,
    Finished,
    FinishReason,
    Generate,
    Measure,
    Measured,
    Notice,
    PromptProgress,
    Statistics,
    Streaming,
    Turn,
)
from ondevice.ram.process import of_process
from ondevice.system import compiled
from ondevice.system.cores import ThreadTimes

_EMBEDDED = 512  # tokens of a text to embed at most
_REPLY_SHARE = 4  # of the context, one part is kept free for a reply
_WORTH_READING = 16  # tokens, before they are needed
_PREPARED = 32  # tokens of a pass, about a message, with which all that it takes is touched
_TELL_S = 0.5  # between two reports while a batch of the prompt is computed


_ENDLESS = (
    "The model said the same thing again and again, so the reply was ended. Ask in other words, or "
    "choose another model."
)
_NOT_KEPT = (
    "What the model has read of this chat cannot be kept on the disk ({problem}). It will read the "
    "chat again after a restart. Make room on the disk."
)
_NO_TEMPLATE = (
    "This model has no chat template: it may go on with your text in place of an answer. To chat, "
    "choose a model that was made for it."
)


class _Wanted(threading.Event):
    """Set as soon as ``is_wanted`` says so."""

    def __init__(self, is_wanted: Callable[[], bool]) -> None:
        super().__init__()
        self._is_wanted = is_wanted

    def is_set(self) -> bool:
        return self._is_wanted()


class Session:
    """Answers conversations with the model of ``held``, whose KV cache it keeps warm.

    What the conversation has said before is proposed as what comes next, or what a drafter thinks:
    a smaller model while some weights are streamed. ``room`` is looked at between two passes, and
    asked for a larger context.
    """

    def __init__(self, held: HeldModel, room: Room) -> None:
        model, context = held.model, held.context
        self._model, self._context, self._weights = model, context, held.weights
        self._room = room
        self._check_files = held.files.check
        self._lookup = Speculation(context, PromptLookup())
        self._drafter = held.drafter
        self._drafted = self._lookup
        if held.drafter is not None:
            self._drafted = Speculation(context, PromptLookup(), held.drafter)
        self._files = tuple(map(str, held.files.identities()))
        self._kv_type = held.plan.kv_type
        self._most_embedded = min(_EMBEDDED, held.plan.file.n_positions or _EMBEDDED)
        self._states = States(room.may_hold)
        self._cache = ConversationCache(context, self._states, self._identity, room.for_checkpoint)
        self._prompter = Prompter(model, room)
        self._embedder: Context | None = None  # made when it is first wanted
        self._schemas: SchemaVocabulary | None = None  # likewise
        self._answered: tuple[Generate, str] | None = None  # last, and with what
        self._is_prepared = False
        self._visited: Measure | None = None  # a conversation that may go on next
        #: What the user is told with the first reply.
        self._notice = "" if (model.chat_template or "").strip() else _NO_TEMPLATE
        #: Control tokens whose text matters, because they mark the thinking.
        self._tags = {
            tokens[0]: tag.encode()
            for tag in TOKENS
            if len(tokens := model.tokenize(tag, parse_special=True)) == 1
        }

    def close(self) -> None:
        """Free what the session has made itself."""
        if self._embedder is not None:
            self._embedder.close()

    def between_passes(self) -> None:
        """Take up what RAM there is now: for the thread that decodes to call."""
        self._room.between_passes()
        if self._is_streaming and self._context.can_go_back:
            self._states.make_room(0, None)  # other conversations go before weights do

    def measure(self, request: Measure, cancel: threading.Event) -> Measured:
        """Count the tokens of a conversation as a prompt, and of texts.

        Raises :class:`UsageError`, also when cancelled, and :class:`ModelFileError`.
        """
        n_ctx = self._context.n_ctx
        tokens = 0
        if request.keep is not None:
            self._visited = request
        try:
            texts = tuple(self._prompter.count(text, cancel.is_set) for text in request.texts)
            if request.turns:
                prompt = self._prompter.prompt(
                    request.turns,
                    self._cache.spelling,
                    room=n_ctx // _REPLY_SHARE,
                    grow=request.grow,
                    keep=False,
                    stop=cancel.is_set,
                )
                tokens = len(prompt.tokens)
        except ContextError as error:
            tokens = error.tokens
        except Stopped:
            raise UsageError("Cancelled.") from None
        return Measured(
            tokens=tokens,
            n_ctx=self._context.n_ctx,
            texts=texts,
            may_grow=self._room.may_grow,
        )

    def embed(self, texts: Sequence[str], cancel: threading.Event) -> Embedded:
        """A vector for each text.

        Raises :class:`UsageError` for a text that is empty or too long or when cancelled,
        :class:`MemoryShortError`, :class:`ModelFileError` if a file of the model was changed, and
        :class:`NativeError`.
        """
        self._check_files()
        if self._embedder is None:
            self._embedder = self._open_embedder()
        vectors, total = [], 0
        most = self._most_embedded
        for text in texts:
            if len(text) > most * self._model.longest_token:
                raise UsageError(f"A text to embed has at most {most} tokens.")
            tokens = self._model.tokenize(text, add_special=True)
            if not 0 < len(tokens) <= most:
                raise UsageError(
                    f"A text to embed has 1 to {most} tokens; this one has {len(tokens)}."
                )
            if cancel.is_set():
                raise UsageError("Cancelled.")
            try:
                vectors.append(tuple(self._embedder.embed(tokens).tolist()))
            except Interrupted:
                raise UsageError("Cancelled.") from None
            total += len(tokens)
        self._check_files()
        return Embedded(vectors=tuple(vectors), tokens=total)

    def _open_embedder(self) -> Context:
        # An encoder's tokens see each other, so they are computed at once.
        at_once = bool(self._model.cannot_chat)
        with self._room.for_embedding(_EMBEDDED, at_once=at_once) as batch_tokens:
            return Context(
                self._model,
                n_ctx=_EMBEDDED,
                n_threads=self._context.n_threads,
                eval_hook=self._weights.hook(),
                batch_tokens=batch_tokens,
                embeddings=True,
            )

    def reply(
        self,
        request: Generate,
        cancel: threading.Event,
        tell: Callable[[PromptProgress], None] = lambda _: None,
        answer_now: threading.Event | None = None,
    ) -> Iterator[Event]:
        """The events of one reply, ``Finished`` last.

        ``tell`` is called with what happens in the middle of a computation. ``answer_now`` ends
        the thinking.

        Raises :class:`UsageError`, :class:`ContextError`, :class:`MemoryShortError`,
        :class:`ModelFileError` (the chat template, or a file of the model that was changed) or
        :class:`NativeError`.
        """
        if self._model.cannot_chat:
            raise ModelFileError(
                f"{self._model.path.name} cannot chat: {self._model.cannot_chat}. "
                "Choose a chat model."
            )
        if request.max_tokens is not None and request.max_tokens < 1:
            raise UsageError("The number of tokens to generate must be at least 1.")
        constraint = self._constraint(request)
        seed = request.sampling.seed
        if seed is None:
            seed = secrets.randbelow(2**32 - 1)
        sampler = Sampler(self._model, request.sampling, seed, constraint)
        try:
            yield from self._reply(
                request, sampler, seed, cancel, tell, answer_now or threading.Event()
            )
        finally:
            sampler.close()

    def _constraint(self, request: Generate) -> Constraint | None:
        if request.json_schema is not None:
            schema = compile_schema(request.json_schema)
            if self._schemas is None:
                with self._room.for_schemas():
                    self._schemas = SchemaVocabulary(self._model)
            return self._schemas.constraint(schema)
        return Grammar(self._model, request.grammar) if request.grammar is not None else None

    def _constrain_answer(self, prompt: str, sampler: Sampler) -> None:
        """Let a model think first whose template has begun that, where one token ends it."""
        section = open_section(prompt)
        if section is not None and section.part == "thinking":
            closing = self._model.tokenize(section.closing, parse_special=True)
            if len(closing) == 1:
                sampler.constrain_after(closing[0])

    def _reply(
        self,
        request: Generate,
        sampler: Sampler,
        seed: int,
        cancel: threading.Event,
        tell: Callable[[PromptProgress], None],
        answer_now: threading.Event,
    ) -> Iterator[Event]:
        context, cache = self._context, self._cache
        self._check_files()
        self._answered = self._visited = None
        cache.begin(request.keep)
        room = min(request.max_tokens or context.n_ctx, context.n_ctx // _REPLY_SHARE)

        def prompt_for(spelling: list[int], n_generated: int = 0) -> Prompt:
            return self._prompter.prompt(
                request.turns,
                spelling,
                room=room,
                reply=n_generated,
                thinking=request.thinking,
                whole=request.whole,
                marks=cache.uses_marks,
                stop=cancel.is_set,
            )

        try:
            prompt = prompt_for(cache.spelling)
        except Stopped:
            yield Finished(reason="cancelled", statistics=self._nothing_done(seed))
            return
        if self._notice:
            yield Notice(text=self._notice)
            self._notice = ""
        if problem := cache.problem():
            yield Notice(text=_NOT_KEPT.format(problem=problem))
        if prompt.left_out:
            yield self._left_out_notice(prompt.left_out)
        text = ReplyText(prompt.rendered, (*request.stop, *prompt.stop))
        if request.json_schema is not None or request.grammar is not None:
            self._constrain_answer(prompt.rendered, sampler)
        limit = ThinkingLimit(self._model, text, request.thinking_tokens, answer_now)
        repetition = Repetition()
        generated: list[int] = []
        said: list[Chunk] = []
        told = 0  # tokens of which the chunks are
        given = 0  # tokens of the drawn ones that come from the limit
        reason: FinishReason | None = None
        before = self._streamed()
        started = time.perf_counter()
        reused, drawn = yield from self._prefill(prompt, prompt.tokens, sampler, cancel, tell)
        first_token_at, first_times = time.perf_counter(), ThreadTimes.now()

        while reason is None:
            if not drawn:
                reason = "cancelled"
                break
            token = drawn.pop(0)
            if given:
                given -= 1
            elif end := limit.end_before(token, may_end=not sampler.is_constrained):
                # Drafts may have been decoded already that are not wanted now.
                self._speculation.take_back(
                    len(context.tokens) - len(prompt.tokens) - len(generated)
                )
                sampler.accept(end)
                token, *drawn = end
                given = len(drawn)
            elif self._model.is_end(token):
                generated.append(token)
                reason = "stop"
                break
            generated.append(token)
            for chunk in text.feed(self._tags.get(token) or self._model.piece(token)):
                said.append(chunk)
                yield msgspec.structs.replace(chunk, tokens=len(generated) - told)
                told = len(generated)
            if text.stopped:
                reason = "stop"
            elif len(generated) == request.max_tokens:
                reason = "length"
            elif cancel.is_set():
                reason = "cancelled"
            elif repetition.is_endless(token):
                reason = "length"
                yield Notice(text=_ENDLESS, says_end=True)
            elif drawn:
                continue
            elif len(prompt.tokens) + len(generated) <= context.n_ctx:
                behind = generated[len(context.tokens) - len(prompt.tokens) :]
                drawn = self._next(behind, sampler, limit.left)
            else:
                # The context is full in mid-reply: older turns make room, or the reply ends.
                try:
                    prompt = prompt_for(prompt.tokens, len(generated))
                except ContextError:
                    reason = "length"
                    break
                except Stopped:
                    reason = "cancelled"
                    break
                if prompt.left_out:
                    yield self._left_out_notice(prompt.left_out)
                tokens = [*prompt.tokens, *generated]
                _, drawn = yield from self._prefill(prompt, tokens, sampler, cancel, tell)

        cache.spelling = [*prompt.tokens, *generated]
        for chunk in text.finish():
            said.append(chunk)
            yield chunk
        if reason == "stop" and request.max_tokens is None:
            answer = "".join(chunk.text for chunk in said if chunk.part == "answer")
            self._answered = request, answer
        now, streamed = time.perf_counter(), self._streamed()
        self._check_files()
        yield Finished(
            reason=reason,
            statistics=Statistics(
                prompt_tokens=len(prompt.tokens),
                reused_tokens=reused,
                prompt_ms=(first_token_at - started) * 1e3,
                generated_tokens=len(generated),
                generated_ms=(now - first_token_at) * 1e3,
                context_tokens=len(context.tokens),
                n_ctx=context.n_ctx,
                peak_ram_bytes=ram.peak if (ram := of_process(os.getpid())) else 0,
                seed=seed,
                streaming=streamed.since(before) if before and streamed else None,
                waited_share=ThreadTimes.now().waited_share(first_times),
                thinking_tokens=limit.tokens,
                thinking_cut=limit.has_cut,
            ),
        )

    def _prefill(
        self,
        prompt: Prompt,
        tokens: list[int],
        sampler: Sampler,
        cancel: threading.Event,
        tell: Callable[[PromptProgress], None],
    ) -> Generator[PromptProgress, None, tuple[int, list[int]]]:
        """How many of ``tokens`` the KV cache had, and the token after them; none: cancelled."""
        reused = self._cache.reuse(tokens, prompt.marks, prompt.shared)
        if not (yield from self._process(tokens, cancel, tell)):
            return reused, []
        return reused, [sampler.sample_from(self._cache.prompt_logits)]

    def _process(
        self,
        tokens: list[int],
        cancel: threading.Event,
        tell: Callable[[PromptProgress], None],
        *,
        answers: bool = True,
    ) -> Generator[PromptProgress, None, bool]:
        """Decode what the KV cache does not have yet of ``tokens``; False when cancelled.

        In batches of one size, whatever the time they take: where a product or attention is
        llama.cpp's, other ones would give other last bits.
        """
        context = self._context
        reused = len(context.tokens)
        new = tokens[reused:]
        told_at = time.monotonic()

        def progress(done: int) -> PromptProgress:
            return PromptProgress(done=done, total=len(new), reused=reused, n_ctx=context.n_ctx)

        def tell_within(fraction: float) -> None:
            nonlocal told_at
            if (now := time.monotonic()) - told_at >= _TELL_S:
                told_at = now
                tell(progress(at + int(fraction * len(batch))))

        stops = self._cache.stops(len(tokens))
        at = 0
        while at < len(new):
            self.between_passes()
            stop = next((stop - reused for stop in stops if stop - reused > at), len(new))
            batch = new[at : min(at + context.batch_tokens, stop)]
            try:
                if not context.decode(batch, cancel, on_progress=tell_within):
                    return False
            except Interrupted:
                return False
            at += len(batch)
            if at + reused in stops:
                self._cache.hold()
            yield progress(at)
            told_at = time.monotonic()
        if new and answers:
            self._cache.keep_logits()
        return True

    def _next(self, tokens: list[int], sampler: Sampler, most: int | None) -> list[int]:
        """The tokens after ``tokens``: one, or as many as a drafter foresaw; none: cancelled.

        At most ``most`` of them. ``tokens`` is the last one, or several that were not drawn.
        """
        self.between_passes()
        try:
            if len(tokens) == 1:
                return self._speculation.decode(tokens[0], sampler, most)
            self._context.decode(tokens)
        except Interrupted:
            return []
        return [sampler.sample(self._context)]

    def _prepare(self, is_wanted: Callable[[], bool]) -> None:
        """What the first reply needs: an app has other wishes right after the load, so this may
        take several tries.

        The template is compiled, the vocabulary looked through, and a pass like that of a message
        is made, so that weights in RAM and what it computes in have their pages.
        """
        context = self._context
        if self._model.cannot_chat:  # it computes texts otherwise, in a context of its own
            self._is_prepared = True
            return
        tokens = self._look_at((), is_wanted)
        if tokens and not (is_wanted() or self._is_streaming or context.tokens):
            try:
                if not context.decode(tokens[-_PREPARED:], _Wanted(is_wanted)):
                    return
                context.truncate(0)
            except (OndeviceError, Interrupted):
                pass  # if it is an error, the first reply will meet it as well
        self._is_prepared = not is_wanted()

    def _look_at(self, turns: Sequence[Turn], is_wanted: Callable[[], bool]) -> list[int]:
        """The prompt for a message after ``turns``: what of that stays need not be found again."""
        try:
            return self._prompter.prompt(
                (*turns, Turn("user", "?")),
                self._cache.spelling,
                room=0,
                grow=False,
                keep=False,
                stop=is_wanted,
            ).tokens
        except (OndeviceError, Stopped):
            return []  # if it is an error, the next message will tell

    def rest(self, is_wanted: Callable[[], bool]) -> None:
        """What can be done while nobody waits, until the engine ``is_wanted``.

        After a load, the first reply is prepared. After a reply, the next prompt may spell it
        otherwise, and leave out its thinking: it is read so now, and not when the next message
        comes. Then what was computed is kept, and if another conversation has been opened since,
        what is kept of that is made ready.
        """
        if not self._is_prepared:
            self._prepare(is_wanted)
        self._read_ahead(is_wanted)
        for _ in self._cache.settling():
            if is_wanted():
                return
        visited, self._visited = self._visited, None
        if visited is None or visited.keep is None:
            return
        try:
            if self._cache.visit(visited.keep):
                self._look_at(visited.turns, is_wanted)
        except OndeviceError:
            traceback.print_exc()  # into the log; a message there meets it as well

    def _read_ahead(self, is_wanted: Callable[[], bool]) -> None:
        if self._answered is None:
            return
        (request, answer), self._answered = self._answered, None
        context, cache = self._context, self._cache
        try:
            prompt = self._prompter.prompt(
                (*request.turns, Turn("assistant", answer), Turn("user", "?")),
                cache.spelling,
                room=0,
                thinking=request.thinking,
                grow=False,
                keep=False,
                marks=True,
                stop=is_wanted,
            )
        except (OndeviceError, Stopped):  # if it is an error, the next message will tell
            return
        tokens = prompt.tokens[: prompt.marks[0]]
        if len(tokens) - common_prefix(tokens, context.tokens) < _WORTH_READING:
            return
        cache.reuse(tokens)
        cache.spelling = tokens
        try:
            for _ in self._process(tokens, _Wanted(is_wanted), lambda _: None, answers=False):
                pass
        except OndeviceError:
            traceback.print_exc()  # into the log; the next reply meets it as well

    def _identity(self) -> bytes:
        """Of all that decides what is computed of some tokens."""
        left_out = self._weights.absent_bytes - self._weights.streamed_bytes  # of a stack
        computing = compiled.digest(*kernels.PACKAGES)
        parts = (llama_cpp.__version__, computing, self._kv_type, str(left_out), *self._files)
        return "\n".join(parts).encode()

    @property
    def _is_streaming(self) -> bool:
        return self._weights.streamed_bytes > 0

    @property
    def _speculation(self) -> Speculation:
        drafter = self._drafter
        helps = drafter is not None and (self._is_streaming or drafter.helps_in_ram)
        return self._drafted if helps else self._lookup

    def _streamed(self) -> Streaming | None:
        """What was streamed since the model was loaded; None: nothing is."""
        if not self._is_streaming:
            return None
        return msgspec.structs.replace(
            self._weights.statistics(),
            drafted_tokens=self._drafted.proposed,
            accepted_tokens=self._drafted.accepted,
        )

    def _nothing_done(self, seed: int) -> Statistics:
        """Of a reply that was cancelled before its prompt was there."""
        return Statistics(
            prompt_tokens=0,
            reused_tokens=0,
            prompt_ms=0.0,
            generated_tokens=0,
            generated_ms=0.0,
            context_tokens=len(self._context.tokens),
            n_ctx=self._context.n_ctx,
            peak_ram_bytes=ram.peak if (ram := of_process(os.getpid())) else 0,
            seed=seed,
        )

    def _left_out_notice(self, turns: int) -> Notice:
        return Notice(
            text=f"The chat is longer than the context of {self._context.n_ctx} tokens: "
            f"{turns} more of its oldest messages are no longer seen by the model."
        )
