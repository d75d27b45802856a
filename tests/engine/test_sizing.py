"""Sizing to RAM while the engine runs: as large as there is room for, and the same tokens."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice.engine import Engine
from ondevice.errors import MemoryShortError
from ondevice.messages import Chunk, Finished, Generate, Load, Notice, Sampling, Sizing, Turn
from ondevice.ram.pressure import Governor, room_for_weights
from ondevice.ram.process import ProcessRam, of_process

MB = 1_000_000
ROOM = 260 * MB  # for the default model: enough for all of it, and too little to have it twice
PATIENCE_S = 30.0
ASK = Generate(
    turns=(Turn("user", "Write about the sea."),),
    sampling=Sampling(temperature=0),
    max_tokens=40,
)


@pytest.fixture(scope="module")
def engine(default_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """An engine whose model is all in RAM, but may give it up."""
    with Engine(log=tmp_path_factory.mktemp("log") / "engine.log") as engine:
        engine.load(Load(path=str(default_model), n_ctx=512, n_threads=1, ram=ROOM))
        yield engine


def sizing(engine: Engine) -> Sizing:
    assert engine.sizing is not None
    return engine.sizing


def until(engine: Engine, reached: Callable[[Sizing], bool]) -> Sizing:
    """Its sizing once it is so."""
    end = time.monotonic() + PATIENCE_S
    while not reached(sizing(engine)):
        assert time.monotonic() < end, sizing(engine)
        time.sleep(0.01)
    return sizing(engine)


def test_the_engine_tells_how_ram_is_used(engine: Engine) -> None:
    now = sizing(engine)
    assert now.budget is None
    assert now.absent_bytes == 0
    assert now.least_bytes < now.most_bytes == now.resident_bytes
    assert now.limit_bytes == ROOM
    assert now.room_bytes >= now.resident_bytes


def test_the_user_sets_the_size_while_the_engine_waits(engine: Engine) -> None:
    start = sizing(engine)
    middle = (start.least_bytes + start.most_bytes) // 2
    engine.resize(middle)
    small = until(engine, lambda now: now.budget == middle and now.resident_bytes <= middle)
    assert small.absent_bytes > 0
    engine.resize(start.most_bytes)
    until(engine, lambda now: now.absent_bytes == 0)


def test_a_reply_that_is_resized_says_the_same(engine: Engine) -> None:
    start = sizing(engine)
    engine.resize(start.most_bytes)
    until(engine, lambda now: now.absent_bytes == 0)
    undisturbed = [event.text for event in engine.generate(ASK) if isinstance(event, Chunk)]
    sizes = set()
    disturbed = []
    for event in engine.generate(ASK):
        if isinstance(event, Chunk):
            disturbed.append(event.text)
            engine.resize((start.most_bytes, start.least_bytes)[len(disturbed) // 4 % 2])
            sizes.add(sizing(engine).resident_bytes)
    assert "".join(disturbed) == "".join(undisturbed)
    engine.resize(start.least_bytes)
    until(engine, lambda now: now.resident_bytes == start.least_bytes)
    assert "".join(e.text for e in engine.generate(ASK) if isinstance(e, Chunk)) == "".join(
        undisturbed
    )


def test_a_context_that_grows_takes_from_the_weights(default_model: Path, tmp_path: Path) -> None:
    """Nothing is forgotten, and no more RAM is used than before."""
    story = "Once there was a word. " * 180
    ask = msgspec.structs.replace(ASK, turns=(Turn("user", story),), max_tokens=8)
    ram = 186 * MB
    with Engine(log=tmp_path / "engine.log") as engine:
        loaded = engine.load(Load(path=str(default_model), n_threads=1, ram=ram))
        assert loaded.n_ctx == 1024
        before = sizing(engine)
        first = list(engine.generate(msgspec.structs.replace(ASK, max_tokens=4)))
        events = list(engine.generate(ask))
        done = events[-1]
        after = until(engine, lambda now: now.resident_bytes < before.resident_bytes)
    assert isinstance(first[-1], Finished)
    assert isinstance(done, Finished)
    assert first[-1].statistics.n_ctx == 1024 < done.statistics.n_ctx
    assert done.statistics.prompt_tokens > 1024
    assert done.statistics.peak_ram_bytes < ram * 1.05
    assert after.absent_bytes > before.absent_bytes
    assert not any(isinstance(e, Notice) for e in events)


@pytest.mark.parametrize("extra", ["schema", "grammar", "vectors", "vectors, with room"])
def test_what_a_session_makes_itself_takes_from_the_weights(
    default_model: Path, tmp_path: Path, extra: str
) -> None:
    """A limit for the process holds whatever is asked of it."""
    ram = (200 if "room" in extra else 160) * MB
    constraint = {
        "schema": {"json_schema": '{"enum": ["a", "b"]}'},
        "grammar": {"grammar": "root ::= [a-z ]+"},
    }
    with Engine(log=tmp_path / "engine.log") as engine:
        engine.load(Load(path=str(default_model), n_threads=1, ram=ram, n_ctx=1024))
        if "vectors" in extra:
            engine.embed(["The sea was calm. " * 60])
        ask = msgspec.structs.replace(ASK, max_tokens=8, **constraint.get(extra, {}))
        *_, done = engine.generate(ask)
    assert isinstance(done, Finished)
    assert done.statistics.peak_ram_bytes < ram


def test_without_room_for_it_a_schema_is_refused(default_model: Path, tmp_path: Path) -> None:
    with Engine(log=tmp_path / "engine.log") as engine:
        loaded = engine.load(
            Load(path=str(default_model), ram=135 * MB, n_ctx=1024, kv_type="q8_0")
        )
        assert loaded.streamed_bytes
        with pytest.raises(MemoryShortError, match="There is no room to follow a schema"):
            list(engine.generate(msgspec.structs.replace(ASK, json_schema="{}")))
        *_, done = engine.generate(ASK)
        assert isinstance(done, Finished)


# ------------------------------------------------------------------ what is decided


rooms = st.lists(st.integers(0, 1500 * MB), min_size=1, max_size=80)


@given(rooms=rooms)
@settings(max_examples=100)
def test_the_budget_is_never_more_than_there_is_room_for(rooms: list[int]) -> None:
    governor = Governor(100 * MB, 1000 * MB, 1000 * MB)
    for moment, room in enumerate(rooms):
        budget = governor.decide(room, moment / 10)
        assert 100 * MB <= budget <= 1000 * MB
        assert budget <= max(room, 100 * MB) + 4 * MB  # less than is always kept free


def test_room_that_lasts_is_taken_in_steps_and_room_that_does_not_is_left() -> None:
    governor = Governor(100 * MB, 1000 * MB, 400 * MB)
    assert all(governor.decide(700 * MB, at / 10) == 400 * MB for at in range(20))
    assert governor.decide(300 * MB, 2.0) < 300 * MB
    sizes = [governor.decide(700 * MB, 2.1 + at / 10) for at in range(80)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) >= 4
    assert sizes[19] < 300 * MB < 700 * MB == sizes[-1]


def test_room_that_wavers_a_little_changes_nothing() -> None:
    governor = Governor(100 * MB, 1000 * MB, 500 * MB)
    wavering = [500 * MB + at % 3 * 4 * MB for at in range(200)]
    assert {governor.decide(room, at / 10) for at, room in enumerate(wavering)} == {500 * MB}


@given(rooms=rooms, budget=st.integers(100 * MB, 1000 * MB), change=st.floats(-1, 1))
@settings(max_examples=100)
def test_what_the_budget_is_indifferent_to_changes_nothing(
    rooms: list[int], budget: int, change: float
) -> None:
    for room in rooms:
        governor = Governor(100 * MB, 1000 * MB, budget)
        budget = governor.decide(room, 0.0)
        other = room + int(change * governor.indifferent(room) * 0.999)
        waits = governor.waits
        assert governor.decide(other, 0.1) == budget
        assert governor.waits == waits


def test_an_engine_that_waits_hardly_computes(engine: Engine) -> None:
    def spent() -> float:
        times = Path(f"/proc/{engine.pid}/task").glob("*/schedstat")
        return sum(int(file.read_text().split()[0]) for file in times) / 1e9

    if not Path("/proc/self/schedstat").exists():
        pytest.skip("the system does not tell what threads take")
    engine.resize(None)
    until(engine, lambda now: now.absent_bytes == 0 and now.budget is None)
    least = min(measured(spent, 0.5) for _ in range(8))  # after a reply it looks for a while
    assert least < 0.005  # seconds; ten looks a second took 0.01 and more


def measured(spent: Callable[[], float], seconds: float) -> float:
    before = spent()
    time.sleep(seconds)
    return spent() - before


def test_the_users_limit_holds_for_all_of_the_process() -> None:
    used = ProcessRam(resident=150 * MB, page_cache=80 * MB, peak=0)
    room, _, _ = room_for_weights(used, own_bytes=50 * MB, mapped_bytes=0, limit=300 * MB)
    assert 150 * MB < room <= 200 * MB
    now = of_process(os.getpid())
    assert now is not None
    unlimited, spare, ram = room_for_weights(now, own_bytes=0, mapped_bytes=0, limit=None)
    assert unlimited <= ram.available
    assert spare == 0
