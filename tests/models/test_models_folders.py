"""Paths and folders of the user's own, one scale for how good models are, and speeds of replies."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import gguf_files
import pytest
import tiny_model
from hypothesis import given
from hypothesis import strategies as st

from ondevice import config, gguf, models, paths
from ondevice.cli import run
from ondevice.config import Settings
from ondevice.errors import ModelNotFound
from ondevice.gguf.quality import effective_params, params_words, quality_of
from ondevice.holding.machine import Machine
from ondevice.holding.speeds import USUAL
from ondevice.models import InstalledModel, _folders
from ondevice.planning import fit, replies
from ondevice.planning.choice import choose
from ondevice.ram import available

# ------------------------------------------------------------------ paths


def test_a_path_is_understood_however_it_is_typed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    file = tiny_model.write(tmp_path / "it's a model.gguf")
    escaped = str(file).replace(" ", "\\ ").replace("'", "\\'")
    ways = [file, f'"{file}"', f" {file} ", file.as_uri(), "~/it's a model.gguf"]
    for typed in (*ways, *([escaped] if os.name == "posix" else [])):
        assert models.find(str(typed)).path.samefile(file), typed
    for folder in (tmp_path, f"{tmp_path}/", tmp_path.as_uri(), f"'{tmp_path}'"):
        assert models.find(str(folder)).path.samefile(file), folder


def test_what_is_at_a_path_is_said_where_it_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="There is no file or folder"):
        models.find(str(tmp_path / "nothing"))
    with pytest.raises(ModelNotFound, match="contains no GGUF file"):
        models.find(str(tmp_path))
    for name in "ab":
        tiny_model.write(tmp_path / f"{name}.gguf")
    with pytest.raises(ModelNotFound, match=r"There are 2 models in .*\n.*a.gguf\n.*b.gguf"):
        models.find(str(tmp_path))


# ------------------------------------------------------------------ folders


def test_folders_of_the_settings_are_written_and_read_again(tmp_path: Path) -> None:
    one, other = tmp_path / "one: with a colon", tmp_path / "other"
    one.mkdir()
    settings = config.change(Settings(), "models_folder", str(one))
    assert config.load().folders == settings.folders == (one,)
    several = os.pathsep.join((str(tmp_path / "a"), str(other), "~/models"))
    config.change(settings, "models_folder", several)
    both = config.join_folders([str(one), str(other)])
    assert config.split_folders(both) == (str(one), str(other))
    assert config.load().folders == (tmp_path / "a", other, Path("~/models").expanduser())
    assert config.change(settings, "models_folder", "").folders == ()
    assert config.load().folders == ()


def test_a_model_among_many_files_is_found_and_too_many_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "below").mkdir()
    tiny_model.write(tmp_path / "below" / "talks.gguf")
    for number in range(6_000):
        (tmp_path / f"{number}.txt").touch()
    told: list[str] = []
    (found,) = _folders.models([tmp_path], told.append, patience_s=60)
    assert (found.name, told) == ("talks", [])
    monkeypatch.setattr(_folders, "_MOST", 5_000)
    _folders.models([tmp_path], told.append, patience_s=60)
    assert [words for words in told if "more than 5000 files" in words] == told != []


def test_models_in_folders_are_found_by_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    made_to_chat = tiny_model.write(first / "talks.gguf")
    tiny_model.write(second / "goes-on.gguf", template="")
    gguf_files.write(second / "lora.gguf", kind="adapter")
    (second / "broken.gguf").write_bytes(b"GGUF")
    folders = os.pathsep.join(map(str, (first, second, tmp_path / "gone")))
    monkeypatch.setenv("ONDEVICE_MODELS_FOLDER", folders)
    assert [m.name for m in models.installed()] == ["broken", "goes-on", "talks"]
    assert choose(config.load()).model.path == made_to_chat
    assert models.find("goes-on").path == second / "goes-on.gguf"
    assert run(["models", "list"]) == 0
    said = capfd.readouterr()
    assert "gone cannot be read: it is not there." in said.err
    lines = {line.split()[0]: line for line in said.out.splitlines()}
    assert "base model" in lines["goes-on"]
    assert "cannot be used" in lines["broken"]


def test_nobody_waits_for_a_folder_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, quick = tmp_path / "slow", tmp_path / "quick"
    quick.mkdir()
    tiny_model.write(quick / "there.gguf")
    slow.mkdir()
    answered = threading.Event()
    in_folder = _folders.in_folder

    def wait(folder: Path, on_more: Callable[[], None]) -> Iterator[InstalledModel]:
        if folder == slow:
            answered.wait()
        yield from in_folder(folder, on_more)

    monkeypatch.setattr(_folders, "in_folder", wait)
    problems: list[str] = []
    found = _folders.models((slow, quick), problems.append, patience_s=0.3)
    answered.set()
    assert [model.name for model in found] == ["there"]
    assert len(problems) == 1
    assert "is slow, so not all of it is listed" in problems[0]


@pytest.mark.parametrize(
    ("name", "template", "base"),
    [
        ("gemma-3-1b-pt-q4", "x", True),
        ("Qwen3-4B-Base", "x", True),
        ("Qwen3-4B-Instruct-from-base", "x", False),
        ("database-7b", "x", False),
        ("some-model", "", True),
        ("some-model", "x", False),
    ],
)
def test_a_base_model_is_known_by_its_template_or_its_name(
    tmp_path: Path, name: str, template: str, base: bool
) -> None:
    path = tiny_model.write(tmp_path / f"{name}.gguf", template=template)
    assert gguf.read(path).is_base is base
    settings = Settings(models_folder=str(tmp_path))
    machine = Machine(available.look(), USUAL)
    (model,) = models.installed(settings.folders)
    assert (fit.recommended([fit.of_installed(model, settings, machine)]) is None) is base


# ------------------------------------------------------------------ quality

_params = st.floats(1e6, 1e12)
_bits = st.floats(1.0, 32.0)


@given(_params, _params, _bits, _bits)
def test_more_parameters_and_more_bits_are_never_worse(
    n: float, m: float, bits: float, other: float
) -> None:
    def good(n_params: float, n_bits: float) -> float:
        return effective_params(
            n_params, n_params, quality_of(int(n_params * n_bits / 8), n_params)
        )

    (few, many), (low, high) = sorted((n, m)), sorted((bits, other))
    assert good(few, low) <= good(many, low) * 1.0001
    assert good(few, low) <= good(few, high) * 1.0001
    assert effective_params(many, few, 1.0) <= many * 1.0001  # a mixture is below a dense model


def test_the_catalogue_is_rated_on_one_scale() -> None:
    good = {recipe.name: models.good_as(recipe)[0] for recipe in models.catalogue()}
    assert good["qwen3-1.7b"] < good["bonsai-8b"] < good["qwen3-4b"], "trained at one bit"
    assert quality_of(12, 22, "MXFP4_MOE") == 1 > quality_of(12, 22, "Q4_K_M")
    assert good["smollm2-135m"] < good["qwen3-0.6b"] < good["qwen3-4b"] < good["qwen3-30b-a3b"]
    assert [params_words(n) for n in (9.24e9, 14.2e9, 134e6, 999.7e6)] == [
        "9.2B",
        "14B",
        "134M",
        "1.0B",
    ]


# ------------------------------------------------------------------ speeds


def test_speeds_are_corrected_by_what_replies_give(tmp_path: Path) -> None:
    tiny_model.write(tmp_path / "one.gguf")
    settings = Settings(models_folder=str(tmp_path))
    (model,) = models.installed(settings.folders)

    def speed() -> tuple[float, str]:
        seen = fit.of_installed(model, settings, Machine(available.look(), USUAL))
        words = fit.speed_words(seen.speed_from, seen.speed_at)
        return round(seen.tokens_per_second, 1), words

    assert speed()[1] == "estimated"
    held = replies.Held.of(model.path)
    for per_second, n_tokens, waited in [
        (12.0, 100, 0.0),
        (11.0, 100, 0.05),
        (13.0, 100, 0.0),
        (1.0, 100, 0.0),  # an odd one
        (3.0, 100, 0.5),  # on a busy machine
        (90.0, 3, 0.0),  # too short
    ]:
        replies.record(held, n_tokens, per_second, waited)
    assert speed() == (11.5, "measured in replies today")
    replies.record(held, 100, 14.0, 0.5)  # busy, and even so faster than was known
    assert speed()[0] == 12.0
    model.path.write_bytes(model.path.read_bytes() + b"\0")  # another file
    assert speed()[1] == "estimated"
    (paths.cache_dir() / "replies.json").write_bytes(b"{broken")
    assert replies.of(held) is None
