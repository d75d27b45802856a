"""What was computed goes out of a context and comes back, to the last bit, in every family."""

from __future__ import annotations

from collections.abc import Iterator

import gguf
import numpy as np
import pytest
import shapes

from ondevice.llama import Context, Model

FAMILIES = ["dense", "experts", "sliding window", "state space", "convolution", "delta net"]
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


def test_it_says_where_it_can_end(context: Context) -> None:
    context.truncate(0)
    context.decode(FIRST)
    context.decode(SECOND)
    states = [(FIRST + SECOND, context.export(0, 200))]
    expected = context.can_go_back
    assert context.can_end_at(100) == expected
    context.restore(states)
    assert context.can_end_at(100) == (expected and not context.model.slides)
    assert context.truncate(100) == (100 if expected and not context.model.slides else 0)
    assert len(context.tokens) in (0, 100)


def test_a_state_that_is_none_is_not_taken(context: Context) -> None:
    context.truncate(0)
    context.decode(FIRST)
    state = context.export(0, len(FIRST))
    assert context.restore([(FIRST, state[: len(state) // 2])]) == 0
    assert context.tokens == []
    assert context.restore([(FIRST, state), (SECOND, b"")]) == len(FIRST)
    assert read(context, FIRST) == read(context, FIRST)
