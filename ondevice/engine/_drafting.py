"""Several tokens for one pass over the weights: a drafter proposes, the model verifies.

A pass reads the weights once, from the disk or from RAM, for one token or for several. So what is
likely to come is proposed by something cheap, and one pass computes the logits after each proposed
token. The tokens of the reply are drawn from those logits by the ordinary sampler, one after the
other, as long as each is the one that was proposed. The logits are those of one token after the
other, to the last bit (``Context.decode``). So a reply is what it would be without drafts, whatever
the sampler: the same tokens with the same seed, not merely the same distribution. (With a proposal
that is certain of its tokens, this is the rejection sampling of "Fast inference from transformers
via speculative decoding", section 2.3.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from typing import NamedTuple, Protocol

import msgspec
import numpy as np

from ondevice.engine._states import common_prefix
from ondevice.errors import NativeError
from ondevice.holding.plan import Plan
from ondevice.llama import Context, EvalHook, Model, Predictor, Sampler
from ondevice.messages import Load
from ondevice.ram.need import DRAFT_BATCH

_MEMORY = 0.9  # what is known from earlier passes counts this much of what one more shows
_MOST_OCCURRENCES = 64  # of two tokens that are compared with the end of the text
_LONGEST_MATCH = 16  # tokens
#: The share of proposed tokens that are right, to begin with: of a model, and by the tokens before
#: that have occurred before: 1, 2, 4, 8 and 16 at least.
_ACCEPTED = (0.7, 0.2, 0.4, 0.6, 0.75, 0.85)
_PRIOR = 3  # tokens that this counts for
_MORE = 1 / 7  # seconds for one more token of a pass, of those of one alone, to begin with
_TRUST = 0.5  # passes that this counts for
_GAIN = 1.05  # that tokens a second must promise to grow by, for drafts to be computed
_SELDOM = 16  # passes after which a prediction block is tried again though it promises nothing
_FURTHEST = 8  # tokens that a prediction block foresees; it was trained for one


class Proposal(NamedTuple):
    """Tokens that may follow; those of one ``kind`` are right about equally often."""

    tokens: Sequence[int]
    kind: int = 0


class Drafter(Protocol):
    """Proposes how a text goes on."""

    is_free: bool  #: A proposal takes next to no time.
    helps_in_ram: bool  #: It costs less than a pass even if no weight is read for that.

    @property
    def is_ready(self) -> bool:
        """Whether it is to be asked now."""

    def propose(self, tokens: Sequence[int], count: int) -> Proposal:
        """At most ``count`` tokens that may follow ``tokens``."""


class PromptLookup:
    """Proposes what followed when the end of the text occurred before: needs next to no RAM.

    The occurrence with most of the same tokens before it is taken, and the latest of these. Good
    where a reply repeats its prompt: edits of code, summaries, quotations.
    """

    is_free = helps_in_ram = is_ready = True

    def __init__(self) -> None:
        self._tokens: list[int] = []  # whose pairs are known, but for the last one
        self._ends: dict[tuple[int, ...], int] = {}  # of one token or two → behind the last such
        self._earlier: list[int] = []  # at an end: the one of the same two tokens before it; or 0

    def propose(self, tokens: Sequence[int], count: int) -> Proposal:
        self._learn(tokens)
        best, length = self._ends.get(tuple(tokens[-1:]), 0), 1
        end = self._ends.get(tuple(tokens[-2:]), 0)
        for _ in range(_MOST_OCCURRENCES):
            if not end:
                break
            if (same := _same_before(tokens, end)) > length:
                best, length = end, same
            end = self._earlier[end]
        return Proposal(tokens[best : best + count], length.bit_length()) if best else Proposal(())

    def _learn(self, tokens: Sequence[int]) -> None:
        known = len(self._tokens)
        if tokens[:known] != self._tokens:
            known, self._tokens, self._ends, self._earlier = 0, [], {}, []
        for end in range(known, len(tokens)):  # what follows is known
            pair = tuple(tokens[max(0, end - 2) : end])
            self._earlier.append(self._ends.get(pair, 0))
            self._ends[pair] = self._ends[pair[1:]] = end
        self._tokens += tokens[known:]


def _same_before(tokens: Sequence[int], end: int) -> int:
    """Of the last tokens, how many are also before ``end``."""
    for n in range(min(_LONGEST_MATCH, end)):
        if tokens[end - 1 - n] != tokens[-1 - n]:
            return n
    return min(_LONGEST_MATCH, end)


class ModelDrafter:
    """Proposes what a smaller model with the same vocabulary finds most likely.

    ``context`` is the smaller model's own; ``n_vocab`` is the size of the other's vocabulary. That
    the two agree is for :func:`share_vocabulary` to say, before anything is loaded. While
    ``is_ready`` is False, nothing is proposed.
    """

    is_free = helps_in_ram = False

    def __init__(
        self, context: Context, n_vocab: int, is_ready: Callable[[], bool] = lambda: True
    ) -> None:
        self._context = context
        self._n_vocab = n_vocab
        self._is_ready = is_ready

    @property
    def is_ready(self) -> bool:
        return self._is_ready() and self._context.can_come_back

    def propose(self, tokens: Sequence[int], count: int) -> Proposal:
        context = self._context
        count = min(count, context.n_ctx - len(tokens))
        if count <= 0 or not self.is_ready:
            return Proposal(())
        known = common_prefix(context.tokens, tokens)
        context.truncate(min(known, len(tokens) - 1))
        new = list(tokens[len(context.tokens) :])
        for at in range(0, len(new), context.batch_tokens):
            context.decode(new[at : at + context.batch_tokens])
        context.remember()  # what follows may be wrong
        proposed = [self._most_likely()]
        while len(proposed) < count:
            context.decode(proposed[-1:])
            proposed.append(self._most_likely())
        return Proposal(proposed)

    def _most_likely(self) -> int:
        return int(np.argmax(self._context.logits()[: self._n_vocab]))


def context_to_draft(model: Model, plan: Plan, request: Load, hook: EvalHook) -> Context:
    """As planned, with what a drafter has less: see :meth:`ondevice.ram.need.Need.to_draft`."""
    return Context(
        model,
        n_ctx=plan.n_ctx,
        kv_type=plan.kv_type,
        n_threads=request.n_threads,
        batch_tokens=DRAFT_BATCH,
        max_outputs=1,
        eval_hook=hook,
        keeps_state=model.is_recurrent,
    )


class PredictionDrafter:
    """Proposes what the model's own prediction block finds most likely."""

    is_free, helps_in_ram = False, True

    def __init__(self, predictor: Predictor, is_ready: Callable[[], bool]) -> None:
        self._predictor = predictor
        self._is_ready = is_ready

    @property
    def is_ready(self) -> bool:
        return self._is_ready()

    def propose(self, tokens: Sequence[int], count: int) -> Proposal:
        return Proposal(self._predictor.predict(tokens, min(count, _FURTHEST)))


class SmallModel(ModelDrafter):
    """A smaller model that takes RAM of its own, held as ``plan`` says, without a vocabulary.

    Raises what ``Way.open``, ``Model`` and ``Context`` raise.
    """

    def __init__(
        self, plan: Plan, request: Load, n_vocab: int, on_progress: Callable[[float], bool]
    ) -> None:
        request = msgspec.structs.replace(request, prefer="speed")  # drafts need not be exact
        with ExitStack() as opened:
            self._weights = opened.enter_context(closing(plan.way.open(plan, request, on_progress)))
            model = opened.enter_context(closing(self._weights.load_model(with_vocabulary=False)))
            context = context_to_draft(model, plan, request, self._weights.hook())
            opened.enter_context(closing(context))
            self._opened = opened.pop_all()
        self._is_open = True
        may_shrink = plan.file.is_stack  # of another file, what is left out would be streamed
        self._least = self._weights.least_bytes if may_shrink else self._weights.resident_bytes
        super().__init__(context, n_vocab, lambda: self._is_open)

    @property
    def resident_bytes(self) -> int:
        """RAM that its weights take; 0 once it is closed."""
        return self._weights.resident_bytes if self._is_open else 0

    def resize(self, budget_bytes: int) -> None:
        """Have as much of it in RAM as that allows, between two passes; with too little, close."""
        if budget_bytes < self._least:
            self.close()
        elif self._is_open:
            self._weights.aim(budget_bytes)
            self._weights.settle()

    def close(self) -> None:
        """Give everything back."""
        self._is_open = False
        self._opened.close()


class Speculation:
    """Decodes tokens into ``context`` together with what ``drafters`` think will follow.

    As many as promise most tokens a second, by what passes took and how often drafts of a kind
    were right; so of the drafters, too. What costs nothing to propose is judged even where it is
    not worth computing; what costs time, of one drafter at most, is then tried now and then, or
    in each pass if it only helps while weights are read from the disk.
    """

    def __init__(self, context: Context, *drafters: Drafter) -> None:
        self._context = context
        self._drafters = sorted(drafters, key=lambda drafter: not drafter.is_free)
        self._accepted = list(_ACCEPTED)
        self._judged = [_PRIOR] * len(_ACCEPTED)
        self._costs = _PassCosts()
        self._propose_seconds = 0.0  # for each token that costs time
        self._untried = 0  # passes since that was last proposed
        self.proposed = 0
        self.accepted = 0

    def decode(self, token: int, sampler: Sampler, most: int | None = None) -> list[int]:
        """Decode ``token`` and draw what follows: at least one token, at most ``most``.

        All but the last of them are then decoded too, as if one by one. Raises what
        ``Context.decode`` raises.
        """
        context = self._context
        room = min(context.most_verified, context.n_ctx - len(context.tokens), most or 1 << 30) - 1
        foreseen: list[Proposal] = []
        draft: Sequence[int] = ()
        if context.may_verify and room > 0:
            foreseen, draft = self._propose([*context.tokens, token], room)
        due = context.n_due
        started = time.perf_counter()
        context.decode([token, *draft], n_outputs=1 + len(draft))
        if draft and not context.may_verify:  # it was found out in this pass
            self.take_back(1 + len(draft))
            foreseen, draft = [], ()
            context.decode([token])
        self._costs.learn(due + 1 + len(draft), time.perf_counter() - started)
        drawn: list[int] = []
        for back in range(1 + len(draft), 0, -1):
            drawn.append(sampler.sample_from(context.logits(back)))
            if back == 1 or drawn[-1] != draft[1 - back] or context.model.is_end(drawn[-1]):
                break
        right = len(drawn) - 1
        self.take_back(len(draft) - right)
        self.proposed += len(draft)
        self.accepted += right
        for each in foreseen:
            self._learn_accepting(each, drawn)
        return drawn

    def take_back(self, n_tokens: int) -> None:
        """Forget the last tokens of the context. Raises :class:`NativeError`."""
        kept = len(self._context.tokens) - n_tokens
        if n_tokens and self._context.truncate(kept) != kept:
            raise NativeError("llama.cpp lost track of the conversation. Send the message again.")

    def _propose(self, tokens: Sequence[int], room: int) -> tuple[list[Proposal], Sequence[int]]:
        """What may follow ``tokens``, and which of it is to be computed."""
        foreseen: list[Proposal] = []
        draft: Sequence[int] = ()
        rate = 0.0
        for drafter in self._drafters:
            if not drafter.is_ready:
                continue
            if drafter.is_free:
                foreseen.append(drafter.propose(tokens, room))
                count, promised = self._worthwhile(foreseen[-1].kind, len(foreseen[-1].tokens))
                if promised > rate:
                    draft, rate = foreseen[-1].tokens[:count], promised
                continue
            count, promised = self._worthwhile(0, room, self._propose_seconds)
            self._untried += 1
            is_due = self._untried > (_SELDOM if drafter.helps_in_ram else 0)
            if (count and promised > rate) or (not draft and is_due):
                self._untried = 0
                foreseen.append(self._timed(drafter, tokens, max(1, count)))
                draft = foreseen[-1].tokens
        return foreseen, draft

    def _timed(self, drafter: Drafter, tokens: Sequence[int], count: int) -> Proposal:
        started = time.perf_counter()
        proposal = drafter.propose(tokens, count)
        if n := len(proposal.tokens):
            seconds = (time.perf_counter() - started) / n
            fresh = 1 - _MEMORY if self._propose_seconds else 1
            self._propose_seconds += (seconds - self._propose_seconds) * fresh
        return proposal

    def _worthwhile(self, kind: int, most: int, propose_seconds: float = 0.0) -> tuple[int, float]:
        """How many tokens to compute, so that the most tokens a second are to be expected; and how
        many that are."""
        if not self._costs.are_known:
            return most, float(most > 0)
        context, costs = self._context, self._costs
        due, redone = context.n_due, 0.0 if context.can_go_back else costs.seconds_for_one_more
        best, best_rate = 0, _GAIN / costs.seconds(due + 1)
        expected = chance = 1.0
        for count in range(1, most + 1):
            chance *= self._accepted[kind]
            expected += chance
            seconds = costs.seconds(due + 1 + count) + count * propose_seconds
            # Unless all are right, those that are right are decoded once more, and what is due.
            seconds += redone * (expected - chance * (1 + count) + (1 - chance) * due)
            if (rate := expected / seconds) > best_rate:
                best, best_rate = count, rate
        return best, best_rate

    def _learn_accepting(self, foreseen: Proposal, drawn: Sequence[int]) -> None:
        kind = foreseen.kind
        for proposed, token in zip(foreseen.tokens, drawn, strict=False):
            self._judged[kind] += 1
            fresh = max(1 - _MEMORY, 1 / self._judged[kind])
            self._accepted[kind] += (float(proposed == token) - self._accepted[kind]) * fresh


class _PassCosts:
    """Seconds of a pass by its tokens: a line through the passes so far, of which the latest count
    most, by least squares. Where there was little to learn from, one more token costs ``_MORE``."""

    def __init__(self) -> None:
        self._passes = self._more = self._more_squared = 0.0  # weights, and of them: tokens − 1
        self._seconds = self._seconds_more = 0.0
        self._first = self._slope = 0.0

    @property
    def are_known(self) -> bool:
        return self._first > 0

    def learn(self, n_tokens: int, seconds: float) -> None:
        more = n_tokens - 1
        self._passes = _MEMORY * self._passes + 1
        self._more = _MEMORY * self._more + more
        self._more_squared = _MEMORY * self._more_squared + more * more
        self._seconds = _MEMORY * self._seconds + seconds
        self._seconds_more = _MEMORY * self._seconds_more + seconds * more
        # Least squares, with _TRUST * (slope - _MORE * first)² added.
        a = self._passes + _TRUST * _MORE * _MORE
        b = self._more - _TRUST * _MORE
        c = self._more_squared + _TRUST
        self._first = (self._seconds * c - self._seconds_more * b) / (a * c - b * b)
        self._slope = max(0.0, (self._seconds_more * a - self._seconds * b) / (a * c - b * b))

    @property
    def seconds_for_one_more(self) -> float:
        return self._slope

    def seconds(self, n_tokens: int) -> float:
        return self._first + (n_tokens - 1) * self._slope
