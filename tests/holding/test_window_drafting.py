"""Drafting: fewer passes, and the very tokens that there would have been without it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
from eager import Eager

from ondevice import gguf
from ondevice.engine import _drafting
from ondevice.engine._drafting import (
    Drafter,
    ModelDrafter,
    PromptLookup,
    Proposal,
    Speculation,
)
from ondevice.errors import UsageError
from ondevice.gguf.vocabulary import check_vocabulary
from ondevice.holding.window.placement import least_bytes
from ondevice.holding.window.window import Window
from ondevice.llama import Context, EvalHook, Grammar, Model, Sampler
from ondevice.messages import Sampling
from ondevice.products import handlers

PROMPT = "def add(a, b):\n    return a + b\n\n\ndef subtract(a, b):\n    return a - b\n\n\ndef "


@pytest.fixture(scope="module")
def model(default_model: Path) -> Iterator[Model]:
    model = Model(default_model, use_extra_bufts=False)
    yield model
    model.close()


@pytest.fixture(scope="module")
def short_model(short: Path) -> Iterator[Model]:
    model = Model(short, use_extra_bufts=False)
    yield model
    model.close()


class Knowing:
    """Knows the text and how it goes on, and needs no time: a model's draft is shorter when it is
    slow, on a busy machine too."""

    is_free, helps_in_ram, is_ready = False, False, True

    def __init__(self, text: Sequence[int]) -> None:
        self._text = list(text)

    def propose(self, tokens: Sequence[int], count: int) -> Proposal:
        return Proposal(self._text[len(tokens) :][:count])


class Stubborn:
    """Proposes a control token that is never drawn, over and over."""

    is_free, helps_in_ram, is_ready = False, False, True

    def propose(self, tokens: Sequence[int], count: int) -> Proposal:
        return Proposal([1] * count)


def reply(
    model: Model,
    sampling: Sampling,
    drafter: Drafter | Literal["itself"] | None,
    *,
    seed: int = 7,
    n_tokens: int = 40,
    grammar: str | None = None,
    speculate: type[Speculation] = Speculation,
) -> tuple[list[int], int]:
    """The tokens of a reply, and how many passes it took."""
    context = Context(model, n_ctx=256, n_threads=1)
    own = Context(model, n_ctx=256, n_threads=1) if drafter == "itself" else None
    if own is not None:
        drafter = ModelDrafter(own, model.n_vocab)
    assert drafter != "itself"
    constraint = Grammar(model, grammar) if grammar is not None else None
    sampler = Sampler(model, sampling, seed, constraint)
    context.decode(model.tokenize(PROMPT))
    tokens = [sampler.sample_from(context.logits())]
    speculation = speculate(context, drafter) if drafter else None
    passes = 0
    while len(tokens) < n_tokens and not model.is_end(tokens[-1]):
        passes += 1
        if speculation:
            tokens += speculation.decode(tokens[-1], sampler, n_tokens - len(tokens))
        else:
            context.decode(tokens[-1:])
            tokens.append(sampler.sample_from(context.logits()))
    sampler.close()
    assert context.tokens == model.tokenize(PROMPT) + tokens[:-1]
    for used in filter(None, (context, own)):
        used.close()
    return tokens, passes


GREEDY = Sampling(temperature=0)
WARM = Sampling(temperature=1.2, top_k=0, top_p=1, min_p=0)


@pytest.fixture(scope="module")
def undrafted(short_model: Model) -> Callable[..., list[int]]:
    """The tokens of a reply without drafts, worked out once."""
    return cache(partial(_undrafted, short_model))


def _undrafted(model: Model, sampling: Sampling, **options: Any) -> list[int]:
    return reply(model, sampling, None, **options)[0]


@pytest.mark.parametrize(
    "drafter", ["itself", PromptLookup(), Stubborn()], ids=["model", "lookup", "bad"]
)
def test_greedy_replies_are_the_same(
    short_model: Model, undrafted: Callable[..., list[int]], drafter: Drafter | Literal["itself"]
) -> None:
    assert reply(short_model, GREEDY, drafter)[0] == undrafted(GREEDY)


@pytest.mark.parametrize(
    "drafter", ["itself", PromptLookup(), Stubborn()], ids=["model", "lookup", "bad"]
)
def test_sampled_replies_are_the_same_for_each_seed(
    short_model: Model, undrafted: Callable[..., list[int]], drafter: Drafter | Literal["itself"]
) -> None:
    for seed in range(3):
        drafted, _ = reply(short_model, WARM, drafter, seed=seed, n_tokens=30)
        assert drafted == undrafted(WARM, seed=seed, n_tokens=30)


def test_repetition_penalty_and_grammar_see_one_token_after_the_other(short_model: Model) -> None:
    penalised = Sampling(temperature=0, repeat_penalty=1.3)
    assert reply(short_model, penalised, "itself")[0] == reply(short_model, penalised, None)[0]
    grammar = 'root ::= "multiply(a, b):" [a-z *\\n]*'
    drafted = reply(short_model, GREEDY, "itself", grammar=grammar)
    assert drafted[0] == reply(short_model, GREEDY, None, grammar=grammar)[0]


def test_a_good_drafter_saves_passes(model: Model) -> None:
    tokens, plain = reply(model, GREEDY, None)
    # Otherwise drafts are only computed where that saves time.
    _, looked_up = reply(model, GREEDY, PromptLookup(), speculate=Eager)
    _, known = reply(model, GREEDY, Knowing(model.tokenize(PROMPT) + tokens), speculate=Eager)
    assert looked_up < 0.7 * plain
    assert known < 0.2 * plain


def test_the_draft_gets_shorter_when_nothing_is_accepted(short_model: Model) -> None:
    context, own = (Context(short_model, n_ctx=256, n_threads=1) for _ in range(2))
    context.decode(short_model.tokenize(PROMPT))
    sampler = Sampler(short_model, GREEDY, 0, None)
    counts: list[int] = []

    class Costly(Stubborn):
        """As slow as the model itself, and wrong."""

        def propose(self, tokens: Sequence[int], count: int) -> Proposal:
            counts.append(count)
            ModelDrafter(own, short_model.n_vocab).propose(tokens, count)
            return super().propose(tokens, count)

    speculation = Speculation(context, Costly())
    token = sampler.sample_from(context.logits())
    for _ in range(30):
        (token,) = speculation.decode(token, sampler)
    assert counts[0] == context.most_verified - 1
    assert counts[-1] == 1
    assert (speculation.accepted, speculation.proposed) == (0, sum(counts))
    for used in (sampler, context, own):
        used.close()


def test_the_logits_of_a_pass_do_not_depend_on_its_length(short_model: Model) -> None:
    """What :attr:`Context.most_verified` rests on, without products of ours and with them."""
    tokens = short_model.tokenize(PROMPT)
    for hooks in ((None, None), (EvalHook(*handlers(1)), EvalHook(*handlers(1)))):
        alone, together = (
            Context(short_model, n_ctx=256, n_threads=1, eval_hook=hook) for hook in hooks
        )
        for context in (alone, together):
            context.decode(tokens[:8])
            context.decode(tokens[8:9])
        assert together.may_verify
        most = together.most_verified
        assert most == (16 if handlers(1) and hooks[0] else 7)
        together.decode(tokens[9 : 9 + most], n_outputs=most)
        for i in range(most):
            alone.decode(tokens[9 + i : 10 + i])
            assert (alone.logits() == together.logits(most - i)).all()
        alone.close()
        together.close()


def test_a_lookup_finds_the_longest_of_the_same_before() -> None:
    lookup = PromptLookup()
    text = [1, 2, 3, 4, 5, 9, 3, 4, 6, 7, 2, 3, 4]
    draft = lookup.propose(text, 3)
    assert draft == ([5, 9, 3], 2)
    assert lookup.propose([*text, 6], 2).tokens == [7, 2]
    assert lookup.propose([*text[:9], 8], 2) == ((), 0)  # another text
    assert lookup.propose([*text[:9], 9], 2) == ([3, 4], 1)
    assert lookup.propose([7], 2) == ((), 0)
    assert lookup.propose([7] * 40, 3) == ([7], 5)


def test_drafts_that_are_never_right_are_not_computed(
    short_model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a proposal costs nothing; and once they are right, they are computed again."""

    class Moody(Knowing):
        is_free = True
        is_right = False

        def propose(self, tokens: Sequence[int], count: int) -> Proposal:
            right = super().propose(tokens, count).tokens
            return Proposal(right if self.is_right else [1] * count)

    tokens, _ = reply(short_model, GREEDY, None, n_tokens=120)
    context = Context(short_model, n_ctx=256, n_threads=1)
    prompt = short_model.tokenize(PROMPT)
    context.decode(prompt)
    sampler = Sampler(short_model, GREEDY, 0, None)
    drafter = Moody([*prompt, *tokens])
    speculation = Speculation(context, drafter)
    drawn = [sampler.sample_from(context.logits())]
    decode, took = context.decode, [0.0]

    def timed(tokens: Sequence[int], **options: Any) -> None:
        took[0] += 1 + (len(tokens) - 1) / 4
        decode(tokens, **options)

    monkeypatch.setattr(context, "decode", timed)
    monkeypatch.setattr(_drafting, "time", SimpleNamespace(perf_counter=lambda: took[0]))
    proposed = []
    for wanted, is_right in ((50, False), (100, True)):
        drafter.is_right = is_right
        while len(drawn) < wanted:
            before = speculation.proposed
            drawn += speculation.decode(drawn[-1], sampler, 120 - len(drawn))
            proposed.append(speculation.proposed - before)
        if not is_right:
            assert not any(proposed[-20:])
    assert max(proposed[-5:]) > 1
    assert drawn[:100] == tokens[:100]
    sampler.close()
    context.close()


def test_drafts_over_the_window(short: Path, short_model: Model) -> None:
    file = gguf.read(short)
    window = Window(file, least_bytes(file) + 3_000_000)
    streamed = window.load_model()
    context = Context(streamed, n_ctx=256, n_threads=1, eval_hook=EvalHook(window))
    context.decode(short_model.tokenize(PROMPT))
    sampler = Sampler(short_model, GREEDY, 0, None)
    own = Context(short_model, n_ctx=256, n_threads=1)
    speculation = Speculation(context, ModelDrafter(own, short_model.n_vocab))
    tokens = [sampler.sample_from(context.logits())]
    while len(tokens) < 40:
        tokens += speculation.decode(tokens[-1], sampler)
    assert tokens[:40] == reply(short_model, GREEDY, None)[0][:40]
    sampler.close()
    for used in (context, own, streamed, window):
        used.close()


def test_another_vocabulary_is_refused(
    default_model: Path, big_model: Callable[[str], Path]
) -> None:
    ours = gguf.read(default_model)
    check_vocabulary(ours, ours)
    other = gguf.read(big_model("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"))
    check_vocabulary(other, gguf.read(big_model("qwen2.5-coder-1.5b-instruct-q4_k_m.gguf")))
    with pytest.raises(UsageError, match="different vocabularies"):
        check_vocabulary(ours, other)
