"""What was computed goes out of a context and comes back, to the last bit, in every family."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from random import Random
from threading import Event

import gguf
import numpy as np
import pytest
import shapes

from ondevice.llama import Context, EvalHook, Interrupted, Model, interrupt
from ondevice.products import handlers

FAMILIES = [
    *("dense", "experts", "sliding window", "short window"),
    *("state space", "convolution", "delta net"),
]
RANDOM = np.random.default_rng(7)
FIRST, SECOND, OTHER = (RANDOM.integers(3, 250, n).tolist() for n in (80, 120, 60))
AFTER = RANDOM.integers(3, 250, 4).tolist()


@pytest.fixture(scope="module", params=FAMILIES)
def context(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Context]:
    folder = tmp_path_factory.mktemp("family")
    kind = gguf.GGMLQuantizationType.Q8_0
    path = shapes.write_random(folder, request.param, kind, np.random.default_rng(1))
    model = Model(path, use_extra_bufts=False)
    context = Context(model, n_ctx=512, n_threads=1, keeps_state=True)
    yield context
    context.close()
    model.close()


@pytest.fixture
def checking(context: Context) -> Iterator[Context]:
    """The same model in a context that computes several tokens as one by one."""
    hook = EvalHook(*handlers(1))
    checking = Context(context.model, n_ctx=512, n_threads=1, eval_hook=hook, keeps_state=True)
    yield checking
    checking.close()


@contextmanager
def interrupted() -> Iterator[None]:
    interrupt(True)
    try:
        yield
    finally:
        interrupt(False)


def goes_on(context: Context) -> list[bytes]:
    logits = []
    for token in AFTER:
        context.decode([token])
        logits.append(context.logits().tobytes())
    return logits


def read(context: Context, *batches: list[int]) -> list[bytes]:
    context.truncate(0)
    for batch in batches:
        context.decode(batch)
    return goes_on(context)


def test_what_comes_back_is_what_went_out(context: Context) -> None:
    plain = Context(context.model, n_ctx=512, n_threads=1)
    expected = read(plain, FIRST, SECOND)
    plain.close()
    context.truncate(0)
    context.decode(FIRST)
    first = context.export(0, len(FIRST))
    context.decode(SECOND)
    second = context.export(len(FIRST), len(FIRST) + len(SECOND))
    assert goes_on(context) == expected
    parts = [(FIRST, first), (SECOND, second)]
    assert context.restore(parts) == 200
    assert context.tokens == [*FIRST, *SECOND]
    assert goes_on(context) == expected
    assert context.restore(parts[:1]) == 80
    context.decode(OTHER)
    edited = goes_on(context)
    assert edited == read(context, FIRST, OTHER)


def test_it_says_what_it_holds_of_a_beginning(context: Context) -> None:
    context.truncate(0)
    context.decode(FIRST)
    context.decode(SECOND)
    assert context.held_at(100) == (100 if context.can_go_back else 80)
    assert context.held_at(79) == (79 if context.can_go_back else 0)
    states = [(FIRST + SECOND, context.export(0, 200))]
    expected = context.can_go_back
    assert context.held_at(100) == (100 if expected else 0)
    context.restore(states)
    assert context.held_at(100) == (100 if expected else 0)
    assert context.truncate(100) == (100 if expected else 0)
    assert len(context.tokens) in (0, 100)


@pytest.mark.parametrize("how", ["at once", "after an export", "after it has grown"])
def test_a_recurrent_context_comes_back_to_its_checkpoint(context: Context, how: str) -> None:
    expected = read(context, FIRST, OTHER)
    context.truncate(0)
    context.decode(FIRST)
    assert context.takes_checkpoints != context.can_go_back
    if not context.takes_checkpoints:
        return
    assert not context.has_checkpoint
    context.checkpoint()
    context.decode(SECOND)
    if how == "after an export":  # through the sequence that remembers where a batch began
        context.export(0, len(context.tokens))
    if how == "after it has grown":
        context.grow(512)
        assert not context.has_checkpoint
        return
    for length in (200, 150, 80):  # what comes after it is decoded again
        assert context.held_at(length) == (200 if length == 200 else 80)
        assert context.truncate(length) == length and context.n_due == (70 if length == 150 else 0)
    context.decode(OTHER)
    assert goes_on(context) == expected
    assert context.truncate(79) == 0 and not context.has_checkpoint
    assert read(context, FIRST, OTHER) == expected


def alone(context: Context) -> list[bytes]:
    """The logits after each token of the second part, one after the other."""
    context.truncate(0)
    context.decode(FIRST)
    logits = []
    for token in SECOND:
        context.decode([token])
        logits.append(context.logits().tobytes())
    return logits


def test_what_was_wrong_in_a_batch_is_taken_back(checking: Context) -> None:
    """Whatever happens between two batches of which a part is right."""
    context, expected, random = checking, alone(checking), Random(1)
    context.truncate(0)
    context.decode(FIRST)
    context.decode(SECOND[:1])
    done = 1
    while done < 60:
        n = random.randint(1, context.most_verified)
        right = random.randint(0, n) if n > 1 else 1
        wrong = [255 - token for token in SECOND[done + right : done + n]]
        context.decode([*SECOND[done : done + right], *wrong], n_outputs=n)
        logits = [context.logits(back).tobytes() for back in range(n, n - right, -1)]
        assert logits == expected[done : done + right]
        done += right
        assert context.truncate(len(FIRST) + done) == len(FIRST) + done
        match random.randrange(8):
            case 0:
                context.grow(512)
            case 1:
                context.export(0, len(context.tokens))
            case 2 if done > 30:
                context.restore([(context.tokens[:], context.export(0, len(context.tokens)))])
            case 3:
                done -= 1 if context.n_due else 0
                assert context.truncate(len(FIRST) + done) == len(FIRST) + done
            case 4:
                with pytest.raises(Interrupted), interrupted():
                    context.decode(SECOND[done : done + 2], n_outputs=2)
            case 5:
                stopped = Event()
                stopped.set()
                assert not context.decode(SECOND[done : done + 40], stopped)
        assert context.tokens == [*FIRST, *SECOND[:done]]
    context.decode(SECOND[done : done + 1])
    assert context.logits().tobytes() == expected[done]


def test_it_comes_back_to_what_it_remembers(checking: Context) -> None:
    """As a drafter does, after tokens that it has proposed."""
    context, expected = checking, alone(checking)
    context.truncate(0)
    context.decode(FIRST)
    for done in range(0, 50, 5):
        context.decode(SECOND[done : done + 5])
        context.remember()
        for token in OTHER[:6]:
            context.decode([token])
        assert context.truncate(len(FIRST) + done + 5) == len(FIRST) + done + 5
        context.decode([SECOND[done + 5]])
        assert context.logits().tobytes() == expected[done + 5]
        context.truncate(len(FIRST) + done + 5)


def test_what_comes_back_goes_on_and_goes_out_again(context: Context) -> None:
    """Pieces of any length, of which some come from a context in which others came back.

    Attention is summed in stretches of 512 cells, so it must not matter where they came back to.
    """
    random, tokens = Random(3), RANDOM.integers(3, 250, 1000).tolist()

    def in_any_batches(context: Context, end: int) -> None:
        while (done := len(context.tokens)) < end:
            context.decode(tokens[done : min(end, done + random.choice([1, 2, 16, 100, 512]))])

    def opened() -> Context:
        hook = EvalHook(*handlers(1))
        return Context(context.model, n_ctx=768, n_threads=1, eval_hook=hook, keeps_state=True)

    one, plain = opened(), opened()
    for _ in range(4):
        one.truncate(0)
        parts: list[tuple[list[int], bytearray]] = []
        at = 0
        for _ in range(3):
            ends = sorted(random.sample(range(at + 1, at + 200), 2))
            if one.can_go_back:
                in_any_batches(one, ends[-1] + random.choice([0, 40]))
            for end in ends:
                in_any_batches(one, end)
                parts.append((tokens[at:end], one.export(at, end)))
                at = end
            match random.choice(["restore", "restore", "grow", "truncate"]):
                case "restore":
                    assert one.restore(parts) == at
                case "grow":
                    one.grow(1024)
            if one.can_go_back:
                one.truncate(at)
        end = at + random.choice([0, 1, 10, 100])
        in_any_batches(one, end)
        plain.truncate(0)
        plain.decode(tokens[: min(end, 512)])
        in_any_batches(plain, end)
        assert one.tokens == plain.tokens
        assert goes_on(one) == goes_on(plain), [len(part) for part, _ in parts]
    one.close()
    plain.close()


def test_a_state_that_is_none_is_not_taken(context: Context) -> None:
    context.truncate(0)
    context.decode(FIRST)
    state = context.export(0, len(FIRST))
    assert context.restore([(FIRST, state[: len(state) // 2])]) == 0
    assert context.tokens == []
    assert context.restore([(FIRST, state), (SECOND, b"")]) == len(FIRST)
    assert read(context, FIRST) == read(context, FIRST)
