"""Fits a conversation into the context and makes the most of what the KV cache already holds."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from itertools import takewhile
from typing import NamedTuple, Protocol

from msgspec.structs import replace

from ondevice.engine._reply_text import answer_of
from ondevice.engine._states import common_prefix
from ondevice.errors import ContextError, ModelFileError, UsageError
from ondevice.llama import ChatTemplate, Model
from ondevice.messages import Turn

_CONVERSATIONS = 16  # of which it is known what has left them
_SIZES = 20_000  # turns whose tokens are known
_SHARED = 256  # tokens at least for other conversations to begin with: less is read again
_FRAME = 16  # tokens around a message that no template exceeds, or hardly one
_SURE = 1.25  # times: sizes that are told from the turns one by one are wrong by less


class Prompt(NamedTuple):
    rendered: str
    tokens: list[int]
    left_out: int  # turns that are left out for the first time
    stop: tuple[str, ...] = ()  # what ends the reply beside the model's own tokens
    marks: tuple[int, ...] = ()  # tokens up to which it will do for another prompt, most likely
    shared: int = 0  # tokens with which other conversations may begin


class ContextRoom(Protocol):
    """Says how large the context is, and makes it larger."""

    @property
    def n_ctx(self) -> int: ...

    def want_context(self, n_tokens: int) -> None: ...


class Prompter:
    """Renders conversations for the context of ``room``.

    When a conversation needs more, its oldest exchanges (a user's message and what followed) leave
    whole; the system prompt and the last exchange stay. More leave than must, so that the next
    turns find the KV cache as it was; those that left stay out, but of a conversation that became
    much shorter, since an earlier message goes on otherwise.

    A larger context is asked for where the last exchange needs one, and where nothing has to be
    read for it that the KV cache does not hold already: not for a long conversation that is taken
    up again, which would then be read for a minute.
    """

    def __init__(self, model: Model, room: ContextRoom) -> None:
        self._model = model
        self._template = ChatTemplate(model)
        self._room = room
        #: What has left each of the last conversations: how many turns, and the hash of them.
        self._gone: deque[tuple[int, int]] = deque(maxlen=_CONVERSATIONS)
        self._sizes: dict[str, int] = {}  # content of a turn → its tokens
        self._spelling: list[int] = []  # the last one that was looked at
        self._texts: list[tuple[int, str]] = []  # of it

    def prompt(
        self,
        turns: Sequence[Turn],
        spelling: Sequence[int],
        *,
        room: int,
        reply: int = 0,
        thinking: bool | None = None,
        whole: bool = False,
        grow: bool = True,
        keep: bool = True,
        marks: bool = False,
        stop: Callable[[], bool] = lambda: False,
    ) -> Prompt:
        """The prompt for ``turns`` that leaves ``room`` tokens for the (rest of the) reply.

        What ``stays`` of them goes only where the last exchange does not fit beside it.

        ``spelling`` is the last conversation as tokens, ``reply`` the length of what has been
        generated already. Of a ``whole`` conversation nothing is left out. Without ``grow`` the
        context stays as it is; without ``keep`` the prompt is only looked at, and what was left out
        is forgotten again. With ``marks`` it has these, for which it is rendered twice more.
        ``stop`` is asked now and then.

        Raises :class:`ContextError` when what may not be left out is too long, :class:`UsageError`
        when there is nothing to answer, :class:`ModelFileError` when the template fails, and
        :class:`ondevice.llama.Stopped`.
        """
        fit = partial(
            self._fit,
            spelling=spelling,
            room=room,
            reply=reply,
            thinking=thinking,
            whole=whole,
            grow=grow,
            keep=keep,
            marks=marks,
            stop=stop,
        )
        try:
            return fit(turns)
        except ContextError:
            *earlier, last = turns
            kept = [turn for turn in earlier if turn.role == "system" or not turn.stays]
            if len(kept) == len(earlier):
                raise
        return fit([*kept, last])

    def _fit(
        self,
        turns: Sequence[Turn],
        *,
        spelling: Sequence[int],
        room: int,
        reply: int,
        thinking: bool | None,
        whole: bool,
        grow: bool,
        keep: bool,
        marks: bool,
        stop: Callable[[], bool],
    ) -> Prompt:
        """As :meth:`prompt`, with all that stays."""
        if all(turn.role == "assistant" for turn in turns):
            raise UsageError("There is no message to answer.")
        turns = [
            replace(turn, content=answer_of(turn.content)) if turn.role == "assistant" else turn
            for turn in turns
        ]
        # The last turn is what is answered, even if it is a system prompt.
        stay = takewhile(lambda turn: turn.role == "system" or turn.stays, turns[:-1])
        n_systems = sum(1 for _ in stay)
        system, body = list(turns[:n_systems]), list(turns[n_systems:])
        # Where an exchange begins, the conversation may begin.
        starts = [i for i, turn in enumerate(body) if turn.role == "user" or i == 0] or [0]
        last = 0 if whole else starts[-1]
        self._check_length([*system, *body[last:]], whole=whole)
        beside = reply + room

        def build(start: int) -> tuple[str, list[int]]:
            rendered = self._template.render([*system, *body[start:]], thinking=thinking, stop=stop)
            return rendered, self._tokenize(rendered, spelling, stop)

        def make_room(n_tokens: int) -> None:
            # Not for what no context is large enough for.
            if grow and n_tokens + beside > self._n_ctx and n_tokens + reply < self._most:
                self._room.want_context(n_tokens + beside)

        start = gone = self._left(body, starts)
        most = 2 * max(self._n_ctx, len(spelling))
        sizes = [0] * len(body)
        # What has so few bytes fits, most likely.
        if start or _bytes([*system, *body]) + beside > self._n_ctx:
            sizes = self._tail_sizes(system, body, most, stop)
        if start and sizes[0] + beside <= self._filled:  # an earlier message goes on otherwise now
            if keep:
                self._gone.remove(_beginning(body, start))
            start = gone = 0
        if whole:
            start = 0
        if sizes[last] * _SURE + beside > self._n_ctx:
            make_room(len(build(last)[1]))
        if sizes[start] <= max(self._n_ctx, len(spelling)) * _SURE or start == last:
            rendered, tokens = build(start)
            new = len(tokens) - common_prefix(tokens, spelling)
            if start == last or len(tokens) + reply <= self._n_ctx or new + beside <= self._filled:
                make_room(len(tokens))
            fits = len(tokens) + beside <= self._n_ctx
        else:
            fits = False
        if not fits:
            if not sizes[start]:
                sizes = self._tail_sizes(system, body, most, stop)
            while start < last:
                goal = self._filled - beside
                later = starts[starts.index(start) + 1 :]
                start = next((at for at in later if sizes[at] <= goal), last)
                rendered, tokens = build(start)
                if (excess := len(tokens) + beside - self._n_ctx) <= 0:
                    break
                sizes = [size + excess for size in sizes]  # they were too small
            if len(tokens) + reply >= self._n_ctx:
                raise self._too_long(len(tokens), whole=whole)
        if not tokens:
            raise ModelFileError(
                f"The chat template of {self._model.path.name} makes an empty prompt of this "
                "conversation. Look for a newer file of this model."
            )
        if keep and start > 0 and not whole:
            left = _beginning(body, start)
            if left in self._gone:
                self._gone.remove(left)
            self._gone.append(left)
        left_out = start - gone if start > gone else 0
        prompt = Prompt(rendered, tokens, left_out, self._template.stops)
        if not marks:
            return prompt

        def alike(turns: Sequence[Turn], at: int, n_characters: int) -> int:
            """Tokens that stay if the turn ``at`` goes on otherwise after so many characters."""
            content = turns[at].content
            other = "?" if content[n_characters : n_characters + 1] != "?" else "!"
            changed = replace(turns[at], content=content[:n_characters] + other)
            turns = [*turns[:at], changed, *turns[at + 1 :]]
            rendered = self._template.render(turns, thinking=thinking, stop=stop)
            return common_prefix(tokens, self._tokenize(rendered, spelling, stop))

        turns = [*system, *body[start:]]
        users = [at for at, turn in enumerate(turns) if turn.role == "user"]
        if not users:
            return prompt
        shared = 0
        if start == 0:
            shared = alike(turns[: users[0] + 1], users[0], turns[users[0]].shared)
        return prompt._replace(
            marks=(alike(turns, users[-1], 0),), shared=shared if shared >= _SHARED else 0
        )

    def count(self, text: str, stop: Callable[[], bool] = lambda: False) -> int:
        """Tokens of ``text`` as part of a message; not all of what is longer than any context."""
        known = self._sizes.get(text)
        if known is None:
            n_bytes = len(text)
            if n_bytes > self._most and n_bytes > self._most * self._model.longest_token:
                return n_bytes // self._model.longest_token
            known = len(
                self._template.tokenize(text, plain=True, start=False, limit=self._most, stop=stop)
            )
            if len(self._sizes) >= _SIZES:
                self._sizes.clear()
            self._sizes[text] = known
        return known

    @property
    def _n_ctx(self) -> int:
        return self._room.n_ctx

    @property
    def _most(self) -> int:
        """Tokens of the largest context that there could be."""
        return max(self._n_ctx, self._model.n_ctx_train)

    @property
    def _filled(self) -> int:
        """Tokens that are in use, room for the reply included, after exchanges have left."""
        return self._n_ctx * 3 // 4

    def _left(self, body: Sequence[Turn], starts: Sequence[int]) -> int:
        """How many turns have left this conversation already."""
        for left in reversed(self._gone):
            number, _ = left
            if number in starts and _beginning(body, number) == left:
                return number
        return 0

    def _tail_sizes(
        self,
        system: Sequence[Turn],
        body: Sequence[Turn],
        most: int,
        stop: Callable[[], bool],
    ) -> list[int]:
        """About how many tokens a prompt has that begins with each turn; ``most`` and more alike.

        Told from the turns one by one, the last ones first: of a long conversation only these are
        looked at.
        """
        frame = self._frame
        size = frame + sum(self.count(turn.content, stop) + frame for turn in system)
        sizes = [most] * len(body)
        for at in reversed(range(len(body))):
            size += self.count(body[at].content, stop) + frame
            if size >= most:
                break
            sizes[at] = size
        return sizes

    @cached_property
    def _frame(self) -> int:
        """About how many tokens the template puts around a message."""
        short = [Turn("user", "1"), Turn("assistant", "1"), Turn("user", "1")]
        try:
            one, three = (
                len(self._template.tokenize(self._template.render(turns)))
                for turns in (short[:1], short)
            )
        except ModelFileError:  # which the conversation itself will tell
            return 0
        return max(0, (three - one) // 2 - self.count("1"))

    def _check_length(self, turns: Sequence[Turn], *, whole: bool) -> None:
        """Raises :class:`ContextError` if these turns have too many bytes for any context.

        Tokenizing them to find out would take long.
        """
        n_bytes = sum(len(turn.content) for turn in turns)
        if n_bytes > self._most and n_bytes > self._most * self._model.longest_token:
            raise self._too_long(n_bytes // self._model.longest_token, whole=whole)

    def _too_long(self, n_tokens: int, *, whole: bool) -> ContextError:
        # Not all tokens are counted of what is longer than any context.
        least = "more than " if n_tokens > self._most else ""
        larger = ", or make the context larger" if self._n_ctx < n_tokens < self._most else ""
        return ContextError(
            f"The {'conversation' if whole else 'last message'} needs {least}"
            f"{min(n_tokens, self._most)} tokens and the context has {self._n_ctx}. "
            f"Shorten it{larger}.",
            n_tokens,
        )

    def _tokenize(
        self, rendered: str, spelling: Sequence[int], stop: Callable[[], bool]
    ) -> list[int]:
        """Tokens of ``rendered``, as many as possible the same as ``spelling``.

        Of what is longer than any context, only the first ones. A model's reply need not be split
        into tokens as the tokenizer would split its text. Where the rendered text is the text of
        those tokens, they are taken.
        """
        limit = self._most
        fresh = self._template.tokenize(rendered, limit=limit, stop=stop)
        known, end = self._match(rendered, spelling)
        if known <= common_prefix(fresh, spelling):
            return fresh
        rest = self._template.tokenize(rendered[end:], start=False, limit=limit, stop=stop)
        # Only before a control token is the rest tokenized independently of what precedes it.
        if not rest or not self._model.is_control(rest[0]):
            return fresh
        return [*spelling[:known], *rest]

    def _match(self, rendered: str, spelling: Sequence[int]) -> tuple[int, int]:
        """How many of ``spelling`` make the beginning of ``rendered``, and where that ends.

        Counted to the last place before a control token, or to the end of ``spelling``.
        """
        known, end = 0, 0
        unseen = ""
        if spelling and self._model.is_control(spelling[0]):
            # BOS may have been added without standing in the text.
            bos = self._model.piece(spelling[0], special=True).decode()
            unseen = "" if rendered.startswith(bos) else bos
        for stop, text in self._spelled(spelling):
            seen = text if known else text.removeprefix(unseen)
            if not rendered.startswith(seen, end):
                break
            known, end = stop, end + len(seen)
        return known, end

    def _spelled(self, spelling: Sequence[int]) -> list[tuple[int, str]]:
        """The texts of the tokens from one control token to the next, and where each ends."""
        if spelling != self._spelling:
            found: list[tuple[int, str]] = []
            spelled = b""
            for i, token in enumerate(spelling):
                if i and self._model.is_control(token):
                    found.append((i, spelled.decode("utf-8", "replace")))
                    spelled = b""
                spelled += self._model.piece(token, special=True)
            found.append((len(spelling), spelled.decode("utf-8", "replace")))
            self._spelling, self._texts = list(spelling), found
        return self._texts


def _beginning(body: Sequence[Turn], count: int) -> tuple[int, int]:
    """By which the first ``count`` turns of a conversation are known again."""
    return count, hash(tuple(body[:count]))


def _bytes(turns: Sequence[Turn]) -> int:
    """About as many as there can be tokens."""
    return sum(len(turn.content.encode("utf-8", "replace")) + _FRAME for turn in turns)
