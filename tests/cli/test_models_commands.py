"""``ondevice models`` as a shell sees it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf_files
import pytest
import tiny_model

from ondevice import models
from ondevice.cli import run


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return tiny_model.write(tmp_path / "tiny.gguf")


def printed(capfd: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What a command that succeeds prints on standard output."""
    assert run(["models", *arguments]) == 0
    return capfd.readouterr().out


def as_json(capfd: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(printed(capfd, *arguments, "--json"))


_NOT_THERE = ["Apache-2.0", "not", "downloaded"]


def test_the_list_shows_what_is_on_disk_and_what_can_be_had(
    tiny: Path, home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    repo = home.parent / "user/.lmstudio/models/someone/Repo"
    gguf_files.write(repo / "other.gguf", license="mit")
    gguf_files.write_split(repo, "big", 2)[0].unlink()
    models.import_file(tiny)
    lines = printed(capfd, "list").splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["big", "other", "tiny"]
    assert "1 part is missing" in lines[0]
    assert all(word in lines[1] for word in ("mit", "LM Studio"))
    assert lines[2].endswith("ondevice")
    (default,) = (line for line in lines if line.startswith("smollm2-135m"))
    assert default.split() == ["smollm2-135m", "98", "MB", "≈134M", *_NOT_THERE]
    listed = {each["name"]: each for each in as_json(capfd, "list")}
    assert listed["tiny"]["place"] == "ondevice"
    assert listed["tiny"]["size_bytes"] == tiny.stat().st_size
    assert listed["smollm2-135m"]["place"] is None
    assert listed["smollm2-135m"]["context_tokens"] == 8192


def test_show_says_what_is_known(tiny: Path, capfd: pytest.CaptureFixture[str]) -> None:
    models.import_file(tiny)
    text = printed(capfd, "show", "tiny")
    for words in ("Q8_0", "llama, 2 blocks", "256 tokens", "chat template  yes", "KV cache"):
        assert words in text
    facts = as_json(capfd, "show", str(tiny))
    assert facts["need"]["n_ctx"] == 256
    assert facts["need"]["weights_bytes"] > 0
    assert facts["context_tokens"] == 256
    assert facts["chat_template"] is True
    assert "pull smollm2-135m" in printed(capfd, "show", "smollm2-135m")
    assert as_json(capfd, "show", "smollm2-135m")["license"] == "Apache-2.0"


def test_where_prints_a_path_for_scripts(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = models.import_file(tiny)
    assert printed(capfd, "where", "tiny") == f"{model.path}\n"
    parts = [str(part) for part in gguf_files.write_split(tmp_path, "big", 2)]
    assert as_json(capfd, "where", parts[0]) == {"path": parts[0], "parts": parts}


def test_import_and_remove(
    tiny: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = as_json(capfd, "import", str(tiny), "--name", "mine", "--move")
    assert (model["name"], tiny.exists()) == ("mine", False)
    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    assert run(["models", "rm", "mine"]) == 130
    assert "Remove mine" in capfd.readouterr().err
    assert models.find("mine")
    assert as_json(capfd, "rm", "mine", "--yes") == {
        "removed": "mine",
        "bytes": model["size_bytes"],
    }
    assert models.installed() == []


def test_without_a_name_the_smallest_model_is_fetched_unless_it_is_there(
    tiny: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fetched = []

    def pull(wanted: str, _show: object, **_: object) -> models.InstalledModel:
        fetched.append(wanted)
        return models.import_file(tiny, wanted)

    monkeypatch.setattr(models, "pull", pull)
    models.import_file(tiny_model.write(tmp_path / "base.gguf", template=""), "base")
    for _ in range(2):
        printed(capfd, "pull", "--if-missing")
    assert fetched == ["smollm2-135m"], "a base model does not chat"
    models.remove("smollm2-135m")
    models.import_file(tiny, "mine")
    printed(capfd, "pull", "--if-missing")
    assert fetched == ["smollm2-135m"], "a user who has a model may be offline"
    printed(capfd, "pull", "--if-missing", "qwen3-0.6b")
    assert fetched == ["smollm2-135m", "qwen3-0.6b"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["rm", "nothing"], 1, "There is no model named nothing"),
        (["rm", "smollm2-135m"], 1, "is not downloaded"),
        (["show", "smolm2-135m"], 1, "Did you mean smollm2-135m"),
        (["show", "granite"], 1, "Did you mean granite-4.0-h-1b, granite-4.0-h-micro or "),
        (["where", "nowhere.gguf"], 1, "There is no file nowhere.gguf"),
        (["show", "http://localhost:1/v1#x"], 1, "runs on a server"),
        (["where", "http://localhost:1/v1#x"], 1, "runs on a server"),
        (["rm", "http://localhost:1/v1#x"], 1, "runs on a server"),
        (["pull", "nothing"], 1, "There is no model named nothing"),
        (["import", "nowhere.gguf"], 1, "nowhere.gguf cannot be read"),
        (["import", "a.gguf", "--move", "--link"], 2, "not both"),
        (["list", "--jsn"], 2, "No such option"),
    ],
)
def test_what_fails_says_why_and_what_to_do(
    arguments: list[str], code: int, words: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["models", *arguments]) == code
    captured = capfd.readouterr()
    assert words in captured.err
    assert captured.out == ""


def test_a_model_is_used_by_the_name_it_has_in_another_app(default_model: Path, home: Path) -> None:
    repo = home.parent / "user/.lmstudio/models/someone/Repo"
    repo.mkdir(parents=True)
    (repo / "Smol-Q4_1.gguf").symlink_to(default_model)
    command = ["ask", "-m", "smol-q4_1", "--ctx", "512", "--temperature", "0", "--max-tokens", "9"]
    done = subprocess.run(
        [sys.executable, "-m", "ondevice", *command, "Name the capital of France."],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=True,
    )
    assert done.stdout.strip()


def test_names_of_models_are_completed(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models.import_file(tiny)
    monkeypatch.setenv("_ONDEVICE_COMPLETE", "bash_complete")
    for words, completed in (("models show ti", "tiny"), ("models pull smol", "smollm2-135m")):
        monkeypatch.setenv("COMP_WORDS", f"ondevice {words}")
        monkeypatch.setenv("COMP_CWORD", "3")
        done = subprocess.run(
            [sys.executable, "-m", "ondevice"], capture_output=True, text=True, check=False
        )
        assert completed in done.stdout
