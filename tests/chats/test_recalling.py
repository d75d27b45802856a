"""Memories take room by the context and by how fast the model reads, in the model's own tokens."""

from __future__ import annotations

import msgspec
import pytest

from ondevice.chats import recalling
from ondevice.messages import Expected, Load, Loaded
from ondevice.testing import FakeEngine


def loaded(n_ctx: int, first_token_s: float | None) -> Loaded:
    model = FakeEngine().load(Load(path="a.gguf", n_ctx=n_ctx))
    expected = first_token_s and Expected(
        peak_bytes=0, tokens_per_second=1, first_token_s=first_token_s, quality=1
    )
    return msgspec.structs.replace(model, expected=expected or None)


@pytest.mark.parametrize(
    ("n_ctx", "first_token_s", "tokens"),
    [
        (8192, 1.0, 700),  # reads 512 tokens in a second
        (8192, 6.0, 512),
        (8192, 60.0, 300),
        (1200, 1.0, 200),
        (8192, None, 700),
    ],
)
def test_memories_take_no_more_than_can_be_read_soon(
    n_ctx: int, first_token_s: float | None, tokens: int
) -> None:
    assert recalling.budget(loaded(n_ctx, first_token_s)) == tokens


def test_tokens_are_counted_by_the_model_or_else_about() -> None:
    engine = FakeEngine()
    count = recalling.counter(engine)
    assert count("one two three") == recalling.about("one two three") == 5
    engine.load(Load(path="a.gguf"))
    assert count("one two three") == 3
