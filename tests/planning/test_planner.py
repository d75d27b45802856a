"""The planner: never over budget, never worse with more RAM, and what it says comes true."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import shapes
from headers import dense
from hypothesis import given, settings
from hypothesis import strategies as st
from planned import plan

from ondevice import gguf
from ondevice.cli import run
from ondevice.disk import speed as disk_speed
from ondevice.disk.reader import Reader, Reading, Span
from ondevice.engine import Engine
from ondevice.errors import MemoryShortError, ModelFileError
from ondevice.gguf import GGUFFile
from ondevice.holding import machine, speeds
from ondevice.holding.machine import Machine
from ondevice.holding.plan import Plan
from ondevice.holding.speeds import USUAL
from ondevice.messages import Load, Preference
from ondevice.models import catalogue
from ondevice.planning import _kernel_speed, fit, measuring, planner
from ondevice.planning.planner import best, best_plan, least_ram, why
from ondevice.ram.available import AvailableRam

MB = 1_000_000
PREFERENCES: tuple[Preference, ...] = get_args(Preference)
ROOMY = 64_000 * MB
SLOW_DISK = msgspec.structs.replace(USUAL, disk=1e7)


def ram(usable: int, reserve: int = 0) -> AvailableRam:
    return AvailableRam(2 * ROOMY, usable + reserve, "all RAM of this machine", reserve)


@pytest.fixture(scope="module")
def file(default_model: Path) -> GGUFFile:
    return gguf.read(default_model)


preferences = st.sampled_from(PREFERENCES)


@given(usable=st.integers(0, 500 * MB), preference=preferences)
@settings(max_examples=60)
def test_a_plan_is_never_over_budget_and_always_the_same(
    file: GGUFFile, usable: int, preference: Preference
) -> None:
    try:
        chosen = plan(file, ram(usable), USUAL, preference=preference)
    except MemoryShortError as error:
        assert "It needs" in str(error)
        return
    assert chosen.peak_bytes <= usable
    assert chosen == plan(file, ram(usable), USUAL, preference=preference)
    assert chosen.kind == ("window" if chosen.streamed_bytes else "resident")


@given(
    usable=st.integers(120 * MB, 500 * MB), more=st.integers(0, 200 * MB), preference=preferences
)
@settings(max_examples=60)
def test_more_ram_never_gives_a_worse_plan(
    file: GGUFFile, usable: int, more: int, preference: Preference
) -> None:
    try:
        little = plan(file, ram(usable), USUAL, preference=preference)
    except MemoryShortError:
        return
    much = plan(file, ram(usable + more), USUAL, preference=preference)
    assert much.worth(preference) >= little.worth(preference)


def test_the_reserve_is_left_alone() -> None:
    whole = plan(dense(), ram(ROOMY), USUAL)
    assert plan(dense(), ram(whole.peak_bytes, reserve=5 * MB), USUAL) == whole
    assert plan(dense(), ram(whole.peak_bytes - 5 * MB, reserve=5 * MB), USUAL) != whole


def test_with_room_nothing_is_given_up() -> None:
    for preference in PREFERENCES:
        chosen = plan(dense(), ram(ROOMY), USUAL, preference=preference)
        assert (chosen.kind, chosen.n_ctx, chosen.kv_type) == ("resident", 4096, "f16")


def test_what_was_asked_for_is_kept(file: GGUFFile) -> None:
    for usable in (180 * MB, 200 * MB, 400 * MB):
        chosen = plan(file, ram(usable), USUAL, n_ctx=2048, kv_type="q8_0")
        assert (chosen.n_ctx, chosen.kv_type) == (2048, "q8_0")


@pytest.mark.parametrize(
    "odd",
    [
        {"attention__key_length": 80},
        {"attention__value_length": 100},
        {"attention__key_length_swa": 48},
        {"architecture": "grok"},
    ],
)
def test_a_type_of_kv_cache_that_llama_cpp_refuses_is_never_planned(odd: dict[str, Any]) -> None:
    whole = dense(n_blocks=24)
    architecture = odd.pop("architecture", "test")
    metadata = {"general.architecture": architecture} | {
        key.replace("test.", f"{architecture}."): value
        for key, value in whole.metadata.items()
        if key != "general.architecture"
    }
    metadata |= {f"{architecture}.{key.replace('__', '.')}": odd[key] for key in odd}
    file = replace(whole, metadata=metadata)
    least, most = least_ram(file), plan(file, ram(ROOMY), USUAL).peak_bytes
    assert least > least_ram(whole)
    for usable in range(least, most + MB, (most - least) // 20):
        for preference in PREFERENCES:
            assert plan(file, ram(usable), USUAL, preference=preference).kv_type == "f16"
        assert plan(whole, ram(usable), USUAL, kv_type="q4_0").kv_type == "q4_0"
    with pytest.raises(ModelFileError, match=r"KV cache in q4_0: .*use --kv-type f16"):
        plan(file, ram(ROOMY), USUAL, kv_type="q4_0")
    small = plan(whole, ram(least_ram(whole)), USUAL, drafter=file)  # nor for what drafts
    assert small.drafter is None


@pytest.mark.parametrize("kind", ["adapter", "mmproj", "imatrix"])
def test_what_is_no_model_by_itself_gets_no_plan(kind: str) -> None:
    file = dense()
    file = replace(file, metadata={**file.metadata, "general.type": kind})
    with pytest.raises(ModelFileError, match="Choose the file of the model itself"):
        plan(file, ram(ROOMY), USUAL)


def test_exact_gives_up_length_and_speed_before_precision(file: GGUFFile) -> None:
    tight = ram(plan(file, ram(ROOMY), USUAL, n_ctx=1024).peak_bytes - 15 * MB)
    assert plan(file, tight, SLOW_DISK, preference="exact").kv_type == "f16"
    assert plan(file, tight, SLOW_DISK, preference="speed").kind == "resident"


@pytest.mark.parametrize("per_second", [90e6, 20e6, 2e6])
def test_a_slow_disk_is_seen_before_a_model_is_streamed_from_it(
    file: GGUFFile, monkeypatch: pytest.MonkeyPatch, per_second: float
) -> None:
    monkeypatch.setattr(machine, "_seen", {})
    monkeypatch.setattr(disk_speed, "glance", lambda *_: per_second)
    load, tight = Load(path=str(file.path), prefer="exact"), Machine(ram(200 * MB), USUAL)
    usual, slow = best_plan(file, load, tight), planner.plan(file, load, tight)
    assert usual.streamed_bytes > 0
    assert slow.tokens_per_second < usual.tokens_per_second / 3
    seconds = slow.streamed_bytes / per_second
    assert 0.6 * seconds < 1 / slow.tokens_per_second < 2 * seconds + 0.1
    assert ("Expect a token every" in why(slow, tight.ram)) == (slow.tokens_per_second < 1 / 1.5)
    with_room = Machine(ram(ROOMY), USUAL)
    assert with_room.reading(file) is with_room


def test_one_read_tells_that_a_disk_is_fast_enough(
    file: GGUFFile, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    offsets = []
    start = Reader.start

    def seen(reader: Reader, span: Span, buffer: memoryview) -> Reading:
        offsets.append(span.offset)
        return start(reader, span, buffer)

    monkeypatch.setattr(Reader, "start", seen)
    assert disk_speed.glance(file.path, enough=1.0) > 1
    assert len(offsets) == 1
    assert disk_speed.glance(file.path, enough=1e15) < 1e15
    assert len(set(offsets)) > 3
    (tmp_path / "small").write_bytes(bytes(1000))
    with pytest.raises(OSError, match="too small"):
        disk_speed.glance(tmp_path / "small", enough=1.0)


def test_a_little_more_or_less_ram_changes_no_type_of_kv_cache(file: GGUFFile) -> None:
    """For chats that are kept would have to be read again."""
    room = plan(file, ram(ROOMY), USUAL).peak_bytes
    less = range(room - 90 * MB, room, 3 * MB)
    for usable in less:
        near = ram(usable - MB)
        before = plan(file, ram(usable), USUAL).kv_type
        again = plan(file, near, USUAL, kv_type_before=before)
        assert again.kv_type == before or not again.streamed_bytes
    assert len({plan(file, ram(usable), USUAL).kv_type for usable in less}) > 1
    with_room = plan(file, ram(ROOMY), USUAL, kv_type_before="q8_0")
    assert with_room.kv_type == "f16", "with room, nothing is given up"
    tight = ram(least_ram(file, 4096) + MB)
    squeezed = plan(file, tight, USUAL, n_ctx=4096, kv_type_before="f16")
    assert squeezed.kv_type != "f16", "there is no other way"


def test_a_drafter_is_used_where_weights_are_streamed(file: GGUFFile) -> None:
    small = dense(n_blocks=1)
    usable = ram(170 * MB)
    alone = plan(file, usable, SLOW_DISK, n_ctx=512)
    drafted = plan(file, usable, SLOW_DISK, n_ctx=512, drafter=small)
    assert alone.drafter is None
    assert drafted.drafter is not None
    assert drafted.drafter.file is small
    assert drafted.tokens_per_second > alone.tokens_per_second
    assert "drafts for it" in why(drafted, usable)


@pytest.mark.parametrize("shape", ["convolution", "state space", "delta net"])
def test_a_recurrent_model_is_drafted_for(tmp_path: Path, shape: str) -> None:
    hybrid, small = gguf.read(shapes.write(tmp_path, shape)), dense(n_blocks=1)
    for more, has_room in ((5 * MB, False), (40 * MB, True)):
        usable = ram(least_ram(hybrid, 1024, "f16") + more)
        alone = plan(hybrid, usable, SLOW_DISK, n_ctx=1024)
        asked = plan(hybrid, usable, SLOW_DISK, n_ctx=1024, drafter=small)
        assert alone.streamed_bytes > 0
        assert "draft" not in why(alone, usable)
        assert (asked.drafter is not None) == has_room
        assert (asked.tokens_per_second > alone.tokens_per_second) == has_room
        words = "Test drafts for it" if has_room else "does not draft: there is no room for it"
        assert words in why(asked, usable)


def test_a_refusal_says_how_much_is_missing(file: GGUFFile) -> None:
    with pytest.raises(MemoryShortError, match=r"needs at least \d+ MB.* It needs \d+ MB more"):
        plan(file, ram(50 * MB), USUAL)


def test_the_better_of_two_models_is_the_larger_if_it_is_fast_enough(file: GGUFFile) -> None:
    small, large = (plan(f, ram(ROOMY), USUAL) for f in (dense(), file))
    assert best([small, large]) == large


def planned(usable: int, model: Path) -> Plan:
    return plan(gguf.read(model), ram(usable), speeds.known(), n_ctx=512)


@pytest.mark.parametrize("usable", [165 * MB, 400 * MB])
def test_the_engine_does_what_was_planned(default_model: Path, usable: int) -> None:
    chosen = planned(usable, default_model)
    with Engine() as engine:
        loaded = engine.load(Load(path=str(default_model), n_ctx=512, ram=usable))
    assert loaded.streamed_bytes == chosen.streamed_bytes
    assert (loaded.n_ctx, loaded.kv_type) == (chosen.n_ctx, chosen.kv_type)
    assert loaded.plan


def test_plan_and_fit_say_how_models_run(
    default_model: Path,
    home: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(measuring, "_ROUNDS", 1)  # the best of several takes long
    assert run(["plan", str(default_model), "--ram", "160M", "--ctx", "512"]) == 0
    shown = capfd.readouterr().out
    assert "read from the disk" in shown
    assert "KV cache" in shown
    assert (home / "cache" / "speeds.json").exists()
    assert run(["plan", str(default_model), "--json"]) == 0
    report = json.loads(capfd.readouterr().out)
    assert report["kind"] == "resident"
    assert report["measured"]
    assert report["peak_bytes"] <= report["usable_bytes"]
    assert run(["fit", "--json"]) == 0
    fits = json.loads(capfd.readouterr().out)["models"]
    assert {"qwen3-30b-a3b", "smollm2-135m"} <= {each["name"] for each in fits}
    assert run(["fit"]) == 0
    assert "qwen3-4b" in capfd.readouterr().out


def test_a_model_to_fetch_is_foretold_to_run_about_as_it_does_once_it_is_there(
    file: GGUFFile,
) -> None:
    (recipe,) = (each for each in catalogue() if each.size_bytes == file.path.stat().st_size)
    foretold = fit.of_recipe(recipe, Machine(ram(ROOMY), USUAL)).tokens_per_second
    assert foretold == pytest.approx(plan(file, ram(ROOMY), USUAL).tokens_per_second, rel=0.2)


def test_speeds_are_measured_again_when_the_machine_is_another(home: Path) -> None:
    file = home / "cache" / "speeds.json"
    file.parent.mkdir(parents=True)
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(USUAL, machine="an older one")))
    assert speeds.known() is USUAL
    file.write_text("{broken")
    assert speeds.known() is USUAL


def test_a_busy_machine_is_measured_in_one_round(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Which is all that the patience of whoever waits for it may be enough for."""
    monkeypatch.setattr(_kernel_speed, "_LONG_S", -1.0)
    monkeypatch.setattr("ondevice.system.children.end_with_parent", lambda: None)
    speed = iter([1.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr(_kernel_speed, "multiply_speed", lambda *_: next(speed))
    monkeypatch.setattr(sys, "argv", ["", "128", "3", "Q4_K", "F16"])
    _kernel_speed.main()
    assert json.loads(capsys.readouterr().out)[:2] == [
        {"Q4_K": 1.0, "F16": 3.0},
        {"Q4_K": 2.0, "F16": 4.0},
    ]


def test_speeds_of_a_busy_moment_are_kept_for_a_while_only(home: Path) -> None:
    file = home / "cache" / "speeds.json"
    file.parent.mkdir(parents=True)
    busy = msgspec.structs.replace(USUAL, machine=speeds.machine(), busy=True)
    file.write_bytes(msgspec.json.encode(busy))
    assert speeds.known() == busy
    os.utime(file, (0, 0))
    assert speeds.known() is USUAL
    file.write_bytes(msgspec.json.encode(msgspec.structs.replace(busy, busy=False)))
    os.utime(file, (0, 0))
    assert speeds.known() is not USUAL


def test_planning_needs_no_native_code() -> None:
    code = "import sys, ondevice.planning.planner; print('llama_cpp' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
