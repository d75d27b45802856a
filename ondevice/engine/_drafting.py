"""Several tokens for one pass over the disk: a drafter proposes, the model verifies.

A pass reads the streamed weights once, for one token or for several. So what is likely to come is
proposed by something cheap, and one pass computes the logits after each proposed token. The tokens
of the reply are drawn from those logits by the ordinary sampler, one after the other, as long as
each is the one that was proposed. The logits are those of one token after the other, to the last
bit (``Context.decode``). So a reply is what it would be without drafts, whatever the sampler: the
same tokens with the same seed, not merely the same distribution. (With a proposal
that is certain of its tokens, this is the rejection sampling of "Fast inference from transformers
via speculative decoding", section 2.3.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from ondevice.engine._states import common_prefix
from ondevice.errors import NativeError
from ondevice.gguf import GGUFFile
from ondevice.llama import MOST_COLUMNS, Context, Model, Sampler

MOST_VERIFIED = MOST_COLUMNS  #: Tokens of a pass.
_LOOKED_UP = (
    4,
    3,
    2,
    1,
)  # tokens at the end of the text that must have occurred before, best first
_MEMORY = 0.9  # what is known from earlier passes counts this much of what one more shows


class Drafter(Protocol):
    """Proposes how a text goes on."""

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        """At most ``count`` tokens that may follow ``tokens``."""


class PromptLookup:
    """Proposes what followed when the last few tokens occurred before: needs no RAM.

    Good where a reply repeats its prompt: edits of code, summaries, quotations.
    """

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        tokens = list(tokens)
        for length in _LOOKED_UP:
            end = tokens[-length:]
            for start in range(len(tokens) - length - 1, -1, -1):
                if tokens[start : start + length] == end:
                    return tokens[start + length : start + length + count]
        return []


class ModelDrafter:
    """Proposes what a smaller model with the same vocabulary finds most likely.

    ``context`` is the smaller model's own; ``n_vocab`` is the size of the other's vocabulary. That
    the two agree is for :func:`share_vocabulary` to say, before anything is loaded. While
    ``is_ready`` is False, nothing is proposed, and never by a model that cannot go back.
    """

    @classmethod
    def open(
        cls, file: GGUFFile, target: GGUFFile, *, n_ctx: int, kv_type: str, n_threads: int | None
    ) -> ModelDrafter:
        """A drafter for ``target`` that is in RAM, but for the vocabulary that it shares.

        Raises what ``Model`` and ``Context`` raise.
        """
        model = Model(file.path, use_extra_bufts=False, without_vocabulary=file)
        try:
            context = Context(model, n_ctx=n_ctx, kv_type=kv_type, n_threads=n_threads)
        except BaseException:
            model.close()
            raise
        return cls(context, target.n_vocab)

    def __init__(
        self, context: Context, n_vocab: int, is_ready: Callable[[], bool] = lambda: True
    ) -> None:
        self._context = context
        self._n_vocab = n_vocab
        self._is_ready = is_ready

    def propose(self, tokens: Sequence[int], count: int) -> list[int]:
        context = self._context
        count = min(count, context.n_ctx - len(tokens))
        if count <= 0 or not context.can_go_back or not self._is_ready():
            return []
        known = common_prefix(context.tokens, tokens)
        context.truncate(min(known, len(tokens) - 1))
        new = list(tokens[len(context.tokens) :])
        for at in range(0, len(new), context.batch_tokens):
            context.decode(new[at : at + context.batch_tokens])
        proposed = [self._most_likely()]
        while len(proposed) < count:
            context.decode(proposed[-1:])
            proposed.append(self._most_likely())
        return proposed

    def close(self) -> None:
        """Free the smaller model."""
        self._context.close()
        self._context.model.close()

    def _most_likely(self) -> int:
        return int(self._context.logits()[: self._n_vocab].argmax())


class Speculation:
    """Decodes tokens into ``context`` together with what ``drafter`` thinks will follow."""

    def __init__(self, context: Context, drafter: Drafter) -> None:
        self._context = context
        self._drafter = drafter
        self._accepting = 0.7  # the chance that a proposed token is accepted, as measured so far
        self._pass_seconds = 0.0
        self._propose_seconds = 0.0  # for each proposed token
        self.proposed = 0
        self.accepted = 0

    def decode(self, token: int, sampler: Sampler, most: int = MOST_VERIFIED) -> list[int]:
        """Decode ``token`` and draw what follows: at least one token, at most ``most``.

        All but the last of them are then decoded too, as if one by one. Raises what
        ``Context.decode`` raises.
        """
        context = self._context
        most = min(most, context.n_ctx - len(context.tokens))
        started = time.perf_counter()
        draft = []
        if context.may_verify and (count := min(self._worthwhile(), most - 1)):
            draft = self._drafter.propose([*context.tokens, token], count)
        proposed_at = time.perf_counter()
        context.decode([token, *draft], n_outputs=1 + len(draft))
        if draft and not context.may_verify:  # it was found out in this pass
            self.take_back(1 + len(draft))
            draft = []
            context.decode([token])
        self._learn_costs(proposed_at - started, time.perf_counter() - proposed_at, len(draft))
        drawn: list[int] = []
        for back in range(1 + len(draft), 0, -1):
            drawn.append(sampler.sample_from(context.logits(back)))
            if back == 1 or drawn[-1] != draft[1 - back] or context.model.is_end(drawn[-1]):
                break
        right = len(drawn) - 1
        self.take_back(len(draft) - right)
        self._learn_accepting(right, len(draft))
        return drawn

    def take_back(self, n_tokens: int) -> None:
        """Forget the last tokens of the context. Raises :class:`NativeError`."""
        kept = len(self._context.tokens) - n_tokens
        if n_tokens and self._context.truncate(kept) != kept:
            raise NativeError("llama.cpp lost track of the conversation. Send the message again.")

    def _worthwhile(self) -> int:
        """How many tokens to propose, so that the most tokens a second are to be expected."""
        if not self._pass_seconds:
            return MOST_VERIFIED - 1

        def per_second(count: int) -> float:
            expected = sum(self._accepting**n for n in range(count + 1))
            return expected / (self._pass_seconds + count * self._propose_seconds)

        return max(range(1, MOST_VERIFIED), key=per_second)

    def _learn_costs(self, proposing: float, passing: float, count: int) -> None:
        fresh = 1 - _MEMORY if self._pass_seconds else 1
        self._pass_seconds += (passing - self._pass_seconds) * fresh
        if count:
            self._propose_seconds += (proposing / count - self._propose_seconds) * fresh

    def _learn_accepting(self, right: int, count: int) -> None:
        """Of ``count`` proposed tokens, the first ``right`` were accepted."""
        self.proposed += count
        self.accepted += right
        for accepted in [1.0] * right + [0.0] * (right < count):
            self._accepting += (accepted - self._accepting) * (1 - _MEMORY)
