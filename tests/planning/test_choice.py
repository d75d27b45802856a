"""What is loaded when the user names nothing: the best that is on disk for the RAM there is."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import tiny_model
from headers import dense

from ondevice import gguf, paths
from ondevice.cli import run
from ondevice.config import Settings
from ondevice.errors import MemoryShortError, ModelNotFound
from ondevice.holding import speeds
from ondevice.holding.speeds import USUAL
from ondevice.planning import choice
from ondevice.planning.choice import choose, drafters_for
from ondevice.planning.suggestion import instead
from ondevice.ram.available import AvailableRam

SMALL = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
LARGE = "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"


def install(path: Path, name: str) -> Path:
    target = paths.ensure_private(paths.models_dir() / name) / f"{name}.gguf"
    try:
        os.link(path, target)
    except OSError:  # on another disk
        target.symlink_to(path)
    return target


def test_without_a_model_it_says_how_to_get_one() -> None:
    with pytest.raises(ModelNotFound, match="ondevice models pull smollm2-135m"):
        choose(Settings())


def test_a_single_model_needs_no_choice(default_model: Path) -> None:
    path = install(default_model, "only")
    only = choose(Settings())
    assert (only.model.path, only.request.path, only.why) == (path, str(path), "")


def test_a_file_that_is_no_model_is_not_chosen(default_model: Path) -> None:
    install(default_model, "sound")
    broken = paths.ensure_private(paths.models_dir() / "broken") / "broken.gguf"
    broken.write_bytes(b"nothing")
    assert choose(Settings()).model.name == "sound"


def test_a_model_without_a_chat_template_is_not_chosen_by_itself(default_model: Path) -> None:
    folder = paths.ensure_private(paths.models_dir() / "base")
    base = tiny_model.write(folder / "base.gguf", template="")
    with pytest.raises(ModelNotFound, match=r"base has no chat template.* -m base"):
        choose(Settings())
    assert choose(Settings(), "base").model.path == base
    install(default_model, "made-to-chat")
    assert choose(Settings()).model.name == "made-to-chat"


def test_the_largest_that_suits_the_ram_is_chosen(
    default_model: Path, big_model: Callable[[str], Path]
) -> None:
    install(default_model, "tiny")
    install(big_model(SMALL), "small")
    install(big_model(LARGE), "large")
    assert choose(Settings(ram="2G")).model.name == "large"
    assert choose(Settings(ram="700M")).model.name == "small"
    assert choose(Settings(ram="230M")).model.name == "tiny"
    large = choose(Settings(ram="2G"))
    assert "large is the best" in large.why
    assert "tokens a second" in large.why
    assert large.request.drafter is None  # nothing is streamed


def test_a_smaller_model_of_the_family_may_draft(
    default_model: Path, big_model: Callable[[str], Path]
) -> None:
    install(default_model, "other-family")
    large = install(big_model(LARGE), "large")
    assert list(drafters_for(gguf.read(large))) == []
    small = install(big_model(SMALL), "small")
    assert [file.path for file in drafters_for(gguf.read(large))] == [small]
    # Half as large as its model, it would take more from the weights than it gives.
    assert choose(Settings(ram="1G", ctx=1024), "large").request.drafter is None


def test_a_drafter_that_is_worth_its_ram_is_taken(
    default_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(default_model, "model")
    small = dense(n_blocks=1)
    monkeypatch.setattr(choice, "drafters_for", lambda _: [small])
    monkeypatch.setattr(speeds, "known", lambda: msgspec.structs.replace(USUAL, disk=1e7))
    assert choose(Settings(ram="170M", ctx=512), "model").request.drafter == str(small.path)
    assert choose(Settings(ram="400M", ctx=512), "model").request.drafter is None
    assert choose(Settings(ram="170M", draft="none"), "model").request.drafter is None


def test_what_is_missing_is_said_when_nothing_fits(
    default_model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    install(default_model, "one")
    install(default_model, "two")
    with pytest.raises(MemoryShortError, match=r"It needs \d+ MB more"):
        choose(Settings(ram="100M"))
    assert run(["ask", "--ram", "100M", "Hello"]) == 1
    assert "MB more" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("usable", "words"),
    [
        (20_000, "ondevice models pull qwen3-30b"),
        (700, "ondevice models pull smollm2-360m"),
        (200, "SmolLM2 135M Instruct runs, with a part of it read from the disk"),
        (100, "needs about 20 MB more"),
    ],
)
def test_another_model_is_named_that_would_do(usable: int, words: str) -> None:
    ram = AvailableRam(64_000_000_000, usable * 1_000_000, "all RAM of this machine")
    assert words in instead(ram)
