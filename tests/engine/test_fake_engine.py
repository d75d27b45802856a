"""The fake engine, as the tests of a program that uses ondevice have it."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from contextlib import closing
from typing import Any

import pytest

from ondevice import (
    Aside,
    Chunk,
    EngineDied,
    EngineLike,
    Event,
    Finished,
    Generate,
    Load,
    LoadCancelled,
    Measure,
    Notice,
    Turn,
    UsageError,
)
from ondevice.testing import FakeEngine, Gate, Pause, Step

HI = (Turn("user", "Hi"),)


def loaded(*replies: Sequence[Step], **scripts: Any) -> FakeEngine:
    engine = FakeEngine(*replies, **scripts)
    engine.load(Load(path="any.gguf"))
    return engine


def text(events: Iterable[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Chunk))


def test_it_is_an_engine_to_the_type_checker_and_a_context() -> None:
    with FakeEngine() as engine:
        assert engine.loaded is None
        like: EngineLike = engine
        with pytest.raises(UsageError, match="No model"):
            text(like.generate(Generate(turns=HI)))
        assert like.load(Load(path="folder/any.gguf")).name == "any"
        assert text(like.generate(Generate(turns=HI))) == "Hello."
    assert engine.closed


def test_replies_come_in_order_and_the_last_one_stays() -> None:
    engine = loaded(["One", "."], [Notice(text="So."), "Two."])
    assert [text(engine.generate(Generate(turns=HI))) for _ in range(3)] == ["One.", "Two.", "Two."]
    assert [type(request) for request in engine.requests] == [Load, *[Generate] * 3]


def test_a_limit_of_tokens_makes_no_aside() -> None:
    engine = loaded(["A reply."], asides=[["A title."], []])
    assert text(engine.generate(Aside(turns=HI, max_tokens=5))) == "A title."
    assert text(engine.generate(Generate(turns=HI, max_tokens=5))) == "A reply."
    assert text(engine.generate(Aside(turns=HI))) == ""


def test_it_dies_on_demand_and_loads_again() -> None:
    engine = loaded([EngineDied("It crashed.")], ["Back."])
    with pytest.raises(EngineDied, match="crashed"):
        text(engine.generate(Generate(turns=HI)))
    assert engine.loaded is None
    assert text(engine.generate(Generate(turns=HI))) == "Back."
    assert engine.loaded


@pytest.mark.parametrize("wait", [Gate(), Pause(60)])
def test_a_cancel_ends_what_waits(wait: Gate) -> None:
    engine = loaded(["One", wait, "Two"])
    with closing(engine.generate(Generate(turns=HI))) as events:
        seen = [next(events)]
        threading.Timer(0.01, engine.cancel).start()
        seen += events
    assert text(seen) == "One"
    assert isinstance(seen[-1], Finished)
    assert seen[-1].reason == "cancelled"


def test_a_load_may_be_slow_or_be_cancelled() -> None:
    gate = Gate()
    engine = FakeEngine(loads=[[0.25, gate, 1.0]])
    seen: list[float] = []

    def on_progress(fraction: float) -> None:
        seen.append(fraction)
        engine.cancel()

    with pytest.raises(LoadCancelled):
        engine.load(Load(path="any.gguf"), on_progress)
    assert seen == [0.25]


def test_a_word_is_a_token() -> None:
    measured = loaded().measure(Measure(turns=HI, texts=("one two", "three")))
    assert (measured.tokens, measured.texts) == (1, (2, 1))
