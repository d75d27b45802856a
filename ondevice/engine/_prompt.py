"""Fits a conversation into the context and makes the most of what the KV cache already holds."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from ondevice.engine._reply_text import answer_of
from ondevice.engine.messages import Turn
from ondevice.errors import ContextError, ModelFileError, UsageError
from ondevice.llama import ChatTemplate, Model


class Prompt(NamedTuple):
    rendered: str
    tokens: list[int]
    left_out: int  # turns that are left out for the first time
    stop: tuple[str, ...] = ()  # what ends the reply beside the model's own tokens


class Prompter:
    """Renders conversations for a context of ``n_ctx`` tokens.

    When one needs more, ``grow`` is asked for so many, and says how many there are then. When a
    conversation still does not fit, its oldest exchanges (a user's message and what followed)
    leave whole; the system prompt and the last exchange stay. More leave than must, so that the
    next turns find the KV cache as it was; those that left stay out.
    """

    def __init__(self, model: Model, n_ctx: int, grow: Callable[[int], int]) -> None:
        self._model = model
        self._template = ChatTemplate(model)
        self._n_ctx = n_ctx
        self._grow = grow
        self._gone: tuple[Turn, ...] = ()  # what has left the conversation under way

    def prompt(
        self,
        turns: Sequence[Turn],
        spelling: Sequence[int],
        *,
        room: int,
        reply: int = 0,
        thinking: bool | None = None,
        whole: bool = False,
        stop: Callable[[], bool] = lambda: False,
    ) -> Prompt:
        """The prompt for ``turns`` that leaves ``room`` tokens for the (rest of the) reply.

        ``spelling`` is the last conversation as tokens, ``reply`` the length of what has been
        generated already. Of a ``whole`` conversation nothing is left out. ``stop`` is asked now
        and then.

        Raises :class:`ContextError` when what may not be left out is too long, :class:`UsageError`
        when there is nothing to answer, :class:`ModelFileError` when the template fails, and
        :class:`ondevice.llama.Stopped`.
        """
        if all(turn.role == "assistant" for turn in turns):
            raise UsageError("There is no message to answer.")
        turns = [
            replace(turn, content=answer_of(turn.content)) if turn.role == "assistant" else turn
            for turn in turns
        ]
        n_systems = next((i for i, t in enumerate(turns) if t.role != "system"), len(turns))
        system, body = list(turns[:n_systems]), list(turns[n_systems:])
        # Where an exchange begins, the conversation may begin.
        starts = [i for i, turn in enumerate(body) if turn.role == "user" or i == 0] or [0]
        self._check_length([*system, *(body if whole else body[starts[-1] :])], whole=whole)

        def build(start: int) -> tuple[str, list[int]]:
            rendered = self._template.render([*system, *body[start:]], thinking=thinking, stop=stop)
            return rendered, self._tokenize(rendered, spelling, stop)

        gone = len(self._gone) if tuple(body[: len(self._gone)]) == self._gone else 0
        start = gone if gone in starts and not whole else 0
        rendered, tokens = build(start)
        if (needed := len(tokens) + reply + room) > self._n_ctx:
            self._n_ctx = self._grow(needed)
        if needed > self._n_ctx:
            candidates = [] if whole else starts[starts.index(start) + 1 :]
            goal = self._n_ctx * 3 // 4 - room - reply
            place = bisect_left(candidates, True, key=lambda at: len(build(at)[1]) <= goal)
            if candidates:
                start = candidates[min(place, len(candidates) - 1)]
                rendered, tokens = build(start)
            if len(tokens) + reply >= self._n_ctx:
                raise self._too_long(len(tokens), whole=whole)
        if not tokens:
            raise ModelFileError(
                f"The chat template of {self._model.path.name} makes an empty prompt of this "
                "conversation. Look for a newer file of this model."
            )
        self._gone = tuple(body[:start])
        left_out = start - gone if start > gone else 0
        return Prompt(rendered, tokens, left_out, self._template.stops)

    @property
    def _most(self) -> int:
        """Tokens of the largest context that there could be."""
        return max(self._n_ctx, self._model.n_ctx_train)

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
        larger = ", or make the context larger with --ctx" if self._n_ctx < self._most else ""
        return ContextError(
            f"The {'conversation' if whole else 'last message'} needs {least}"
            f"{min(n_tokens, self._most)} tokens and the context has {self._n_ctx}. "
            f"Shorten it{larger}."
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
        spelled = b""
        for i, token in enumerate(spelling):
            piece = self._model.piece(token, special=True)
            if self._model.is_control(token):
                text = spelled.decode("utf-8", "replace")
                if not rendered.startswith(text, end):
                    return known, end
                known, end = i, end + len(text)
                # BOS may have been added without standing in the text.
                spelled = b"" if i == 0 and not rendered.startswith(piece.decode()) else piece
            else:
                spelled += piece
        text = spelled.decode("utf-8", "replace")
        if rendered.startswith(text, end):
            known, end = len(spelling), end + len(text)
        return known, end


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens ``a`` and ``b`` begin with alike."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
