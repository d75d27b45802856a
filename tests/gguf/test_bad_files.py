"""One bad file in a folder of models harms nothing but itself: lists, plans, choice and app."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import bad_models
import gguf_files
import pytest
import tiny_model
from planned import plan
from terminal_user import at_the_terminal

from ondevice import gguf, models
from ondevice.chats import Chats
from ondevice.cli import run
from ondevice.config import Settings
from ondevice.errors import ModelFileError
from ondevice.gguf import GGUFFile, runnable
from ondevice.holding.machine import Machine
from ondevice.holding.speeds import USUAL
from ondevice.holding.window.placement import Placements, least_bytes, most_bytes, place, spans
from ondevice.messages import Load
from ondevice.planning import fit, planner
from ondevice.planning.choice import choose
from ondevice.ram import available
from ondevice.ram.available import AvailableRam
from ondevice.testing import FakeEngine

#: Where the reader cannot know better, and the net that is cast around one file holds.
each_bad_file = pytest.mark.parametrize("bad", bad_models.BAD)


@pytest.fixture
def folder(home: Path) -> Path:
    """LM Studio's folder, with a sound model in it."""
    repo = home.parent / "user/.lmstudio/models/someone/Repo"
    repo.mkdir(parents=True)
    tiny_model.write(repo / "sound.gguf")
    return repo


def put(folder: Path, bad: str) -> Path:
    """The file sorts before the sound one."""
    path = folder / "bad.gguf"
    bad_models.BAD[bad](path)
    return path


@each_bad_file
def test_it_is_not_chosen_and_ends_nothing(
    folder: Path, bad: str, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(folder, bad)
    monkeypatch.setattr(
        "ondevice.cli.plan.measure_speeds", lambda: USUAL
    )  # takes a quarter of a minute
    assert run(["models", "list"]) == 0
    assert "sound" in capfd.readouterr().out
    started = time.process_time()
    assert choose(Settings()).model.name == "sound"
    with pytest.raises(ModelFileError, match=r"bad\.gguf"):
        fit.plan_of(runnable.read(path), Load(path=str(path)), Machine(available.look(), USUAL))
    assert time.process_time() - started < 3  # minutes, once
    assert run(["models", "show", str(path)]) in (0, 1)
    capfd.readouterr()
    assert run(["plan", str(path)]) == 1
    assert "bad.gguf" in capfd.readouterr().err


def test_among_all_of_them_the_sound_model_answers(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number, write in enumerate(bad_models.BAD.values()):
        write(folder / f"a{number}.gguf")
    assert run(["ask", "--max-tokens", "1", "Hello"]) == 0
    assert "Traceback" not in capfd.readouterr().err


@each_bad_file
def test_alone_it_is_named_and_not_tried(
    home: Path, bad: str, capfd: pytest.CaptureFixture[str]
) -> None:
    repo = home.parent / "user/.lmstudio/models/someone/Repo"
    repo.mkdir(parents=True)
    put(repo, bad)
    assert run(["ask", "Hello"]) == 1
    assert "bad.gguf" in capfd.readouterr().err


async def test_the_list_of_models_lives_with_all_of_them(folder: Path, chats: Chats) -> None:
    for number, write in enumerate(bad_models.BAD.values()):
        write(folder / f"a{number}.gguf")
    async with at_the_terminal(FakeEngine(), chats, folder / "sound.gguf", size=(90, 50)) as user:
        await user.is_idle()
        await user.pilot.press("ctrl+l")
        await user.sees("sound")
        await user.sees("cannot run")
        await user.sees("tok/s")
        await user.pilot.press("escape")
        await user.says("Hello")
        await user.is_idle()


def test_what_goes_wrong_with_a_file_is_said_of_the_file(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever nobody has thought of."""
    usual = planner.best_plan

    def plan(file: GGUFFile, *arguments: Any, **more: Any) -> object:
        if file.path.name == "bad.gguf":
            raise OverflowError("int too large to convert to float")
        return usual(file, *arguments, **more)

    path = folder / "bad.gguf"
    tiny_model.write(path)
    monkeypatch.setattr(planner, "best_plan", plan)
    assert choose(Settings()).model.name == "sound"
    model = next(model for model in models.installed() if model.path == path)
    machine = Machine(available.look(), USUAL)
    assert "bad.gguf cannot be used" in fit.of_installed(model, Settings(), machine).how


def test_no_architecture_is_unknown_that_llama_cpp_knows(tmp_path: Path) -> None:
    for name in ("llama", "qwen3", "gemma3", "lfm2", "rwkv7", "granitehybrid", "gpt-oss"):
        assert runnable.is_known(name), name
    for name in ("nobodys", "", "\0", "llama9"):
        assert not runnable.is_known(name)


# ------------------------------------------------------------------ many tensors


@pytest.mark.parametrize("shape", [(8,), (64, 1024)], ids=["tiny", "large"])
def test_sixty_thousand_tensors_are_planned_soon(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "many.gguf"
    bad_models.sixty_thousand_tensors(path, shape)
    file = gguf.read(path)
    for usable in (10**12, file.weights_bytes // 2 + 100_000_000, 150_000_000):
        started = time.process_time()
        chosen = plan(file, AvailableRam(usable, usable, "all RAM"), USUAL)
        assert time.process_time() - started < 3  # half a second where nothing else runs
        assert chosen.tokens_per_second < 20  # each of them takes its time, however small it is


@pytest.mark.random
def test_a_placement_knows_what_it_takes(
    rounds: Callable[[int], Iterator[Random]], default_model: Path
) -> None:
    """Bytes are worked out for all placements at once; each must be what its tensors take."""
    file = gguf.read(default_model)
    least, most = least_bytes(file), most_bytes(file)
    for random in rounds(15):
        budget = random.randint(least, most + 1_000_000)
        placed = place(file, budget)
        assert placed.pinned_bytes == sum(span.n_bytes for span, _ in spans(placed.pinned))
        assert placed.resident_bytes <= budget
        names = [t.name for part in (placed.pinned, placed.streamed) for t in part]
        assert len(names) == len(set(names))
    placements = Placements(file)
    assert placements.within(placements.least_bytes).resident_bytes == placements.least_bytes


def test_a_file_of_another_kind_is_listed_as_before(folder: Path) -> None:
    gguf_files.write(folder / "eyes.gguf", "clip", kind="mmproj")
    assert [model.name for model in models.installed()] == ["sound"]
