"""``ondevice doctor``: it finds what is broken and says how to mend it."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import pytest

from ondevice import cli
from ondevice.disk import speed as disk_speed
from ondevice.holding import kernels


@pytest.fixture(autouse=True)
def model_to_read(home: Path) -> Path:
    """A file to measure the disk with; without one the doctor writes one of 256 MB."""
    file = home / "data" / "models" / "model.gguf"
    file.parent.mkdir(mode=0o700, parents=True)
    file.parent.parent.chmod(0o700)
    with file.open("wb") as opened:
        opened.truncate(100_000_000)
    return file


def doctor(capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    code = cli.run(["doctor"])
    return code, capsys.readouterr().out


def test_a_healthy_machine_has_nothing_to_mend(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = doctor(capsys)
    assert code == 0, out
    assert "✗" not in out
    for topic in ("machine", "settings", "data", "RAM", "versions", "SQLite", "llama.cpp", "disk"):
        assert f"✓ {topic}" in out


def test_json_has_the_figures(capsys: pytest.CaptureFixture[str], model_to_read: Path) -> None:
    assert cli.run(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    findings = {finding["topic"]: finding for finding in report["findings"]}
    assert report["fine"] is True
    ram = findings["RAM"]["figures"]
    assert 0 < ram["available_bytes"] <= ram["total_bytes"]
    assert findings["disk"]["figures"]["free_bytes"] > 0
    assert findings["disk speed"]["figures"]["bytes_per_second"] > 0
    assert str(model_to_read) in findings["disk speed"]["text"]


def test_a_variable_that_is_misspelt_is_named_with_the_one_that_may_be_meant(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONDEVICE_MODLE", "x")
    monkeypatch.setenv("ONDEVICE_TEMPERATURE", "0")
    _, out = doctor(capsys)
    assert "ONDEVICE_MODLE is not a setting" in out
    assert "Did you mean ONDEVICE_MODEL?" in out
    assert "Did you mean ONDEVICE_SAMPLING_TEMPERATURE?" in out


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_folder_that_takes_no_files_is_broken_for_root_as_well(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONDEVICE_HOME", "/proc/x")
    code, out = doctor(capsys)
    assert code == 1
    assert "✗ cache      /proc/x/cache cannot be used" in out


def test_a_wrong_setting_is_named_with_its_file(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    file = home / "config" / "config.toml"
    file.parent.mkdir()
    file.write_text("ctx = 'long'")
    code, out = doctor(capsys)
    assert code == 1
    assert f"✗ settings   {file}: " in out
    assert "ctx must be a whole number" in out
    assert "→ Fix" in out


def test_a_size_that_is_none_is_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONDEVICE_RAM", "plenty")
    code, out = doctor(capsys)
    assert code == 1
    assert '"plenty" is not a size' in out


def test_a_limit_in_the_settings_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONDEVICE_RAM", "400M")
    code, out = doctor(capsys)
    assert code == 0
    assert "! RAM        400 MB available of 400 MB (the limit in your settings)" in out


def test_a_home_that_cannot_be_used_is_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    home = tmp_path / "file"
    home.touch()
    monkeypatch.setenv("ONDEVICE_HOME", str(home))
    code, out = doctor(capsys)
    assert code == 1
    assert f"✗ data       {home / 'data'} cannot be used: {home} is not a folder" in out
    assert "set ONDEVICE_HOME" in out


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_a_store_that_others_may_read_is_found(
    capsys: pytest.CaptureFixture[str], home: Path
) -> None:
    (home / "data").chmod(0o755)
    code, out = doctor(capsys)
    assert code == 0
    assert f"→ chmod go-rwx '{home / 'data'}'" in out


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
def test_on_a_disk_without_permissions_none_are_promised(
    capsys: pytest.CaptureFixture[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAT and exFAT: a change of mode does nothing there."""
    (home / "data").chmod(0o777)
    monkeypatch.setattr(Path, "chmod", lambda *_: None)
    fstat = os.fstat
    monkeypatch.setattr(os, "fstat", lambda file: os.stat_result((0o100777, *fstat(file)[1:])))
    assert cli.run(["chats", "list"]) == 0
    assert "only you can" not in capsys.readouterr().err
    code, out = doctor(capsys)
    assert code == 0
    assert "→ Its disk keeps no permissions" in out
    assert "chmod" not in out


def test_kernels_that_cannot_be_compiled_are_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    code, out = doctor(capsys)
    assert "✓ kernels    compiled for this processor" in out
    monkeypatch.setattr(kernels, "are_compiled", lambda: False)
    (broken := tmp_path / "cc").write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "sitecustomize.py").write_text(
        "from ondevice.system import compiled\ncompiled.kept = lambda *_: None\n"
    )
    code, out = doctor(capsys)
    assert code == 0
    assert re.search(r"! kernels    .*could not compile what .* Repair the compiler, or", out)


def test_a_library_that_does_not_load_is_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "llama_cpp.py").write_text("raise OSError('libllama.so: wrong ELF class')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    code, out = doctor(capsys)
    assert code == 1
    assert "✗ llama.cpp  does not load: OSError: libllama.so: wrong ELF class" in out
    assert "pip install --force-reinstall --no-deps 'llama-cpp-python" in out


def test_a_disk_is_measured_without_a_file_and_nothing_stays_behind(tmp_path: Path) -> None:
    there = {*tmp_path.iterdir()}
    before = {*there}

    def look() -> bool:
        there.update(tmp_path.iterdir())
        return False

    speed = disk_speed.measure(tmp_path, seconds=0.1, cancelled=look)
    assert speed.bytes_per_second > 1_000_000
    assert speed.n_bytes > 0
    if sys.platform == "linux":  # also if it is killed
        assert there == before
    assert {*tmp_path.iterdir()} == before


def test_a_model_that_fits_is_said_to_fit(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, default_model: Path
) -> None:
    monkeypatch.setenv("ONDEVICE_MODEL", str(default_model))
    code, out = doctor(capsys)
    assert code == 0
    assert "✓ model      Smollm2 135M 8k Lc100K Mix1 Ep2 Q4_1, 297 MB with a context of" in out


def test_a_model_that_does_not_fit_is_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, default_model: Path
) -> None:
    monkeypatch.setenv("ONDEVICE_MODEL", str(default_model))
    monkeypatch.setenv("ONDEVICE_RAM", "170M")
    code, out = doctor(capsys)
    assert code == 0  # the engine streams what does not fit
    assert "! model      Smollm2 135M 8k Lc100K Mix1 Ep2 Q4_1, 170 MB with a context of" in out
    assert "read from the disk when they are needed" in out
    assert "→ A smaller model may be faster" in out


def test_a_damaged_model_is_found(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, model_to_read: Path
) -> None:
    monkeypatch.setenv("ONDEVICE_MODEL", str(model_to_read))
    code, out = doctor(capsys)
    assert code == 1
    assert f"✗ model      {model_to_read} is not a GGUF file" in out


def test_a_model_that_is_not_there_yet_can_be_fetched(capsys: pytest.CaptureFixture[str]) -> None:
    code, out = doctor(capsys)
    assert code == 0
    assert "! model " in out
    assert "ondevice models pull" in out
