"""``make`` on machines that lack something: one sentence, before anything is made."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from source_tree import ROOT

NEEDED = ("sh", "bash", "touch", "ls", "grep", "echo")

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="needs make")


def make(tmp_path: Path, tools: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """``make chat`` of a checkout, with these tools as shell scripts and nothing else."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(ROOT / name, checkout)
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in NEEDED:
        if found := shutil.which(name):
            (programs / name).symlink_to(found)
    for name, script in tools.items():
        program = programs / name
        program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
        program.chmod(0o755)
    found = shutil.which("make")
    assert found is not None
    of_a_make_around = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "PYTHON", "VENV")
    unwanted = ("CC", "CXX", *of_a_make_around)
    clean = {name: value for name, value in os.environ.items() if name not in unwanted}
    done = subprocess.run(
        [found, "chat"],
        check=False,
        cwd=checkout,
        env={**clean, "PATH": str(programs)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert not (checkout / ".venv").exists()
    return done


GOOD = f'exec {shlex.quote(sys.executable)} "$@"'


def python(version: str) -> str:
    """One that says that it is of another version."""
    given = version.replace(".", ", ")
    code = f"import sys; sys.version_info = ({given}); exec(sys.argv[1])"
    return f"""case "$1" in --version) echo Python {version};; esac
exec {shlex.quote(sys.executable)} -c "{code}" "$2"
"""


@pytest.mark.parametrize(
    ("tools", "words"),
    [
        ({}, ["no Python", "apt", "dnf", "pacman", "brew"]),
        ({"python3": "echo 'pyenv: python3: command not found' >&2; exit 127"}, ["pyenv"]),
        ({"python3": python("3.10.2")}, ["3.11 to 3.14", "PYTHON="]),
        ({"python3": python("3.15.0")}, ["3.11 to 3.14", "PYTHON="]),
        (
            {"python3": f'case "$2" in *venv*) exit 1;; esac; {GOOD}'},
            ["venv", "apt install python3-venv"],
        ),
        ({"python3": GOOD}, ["compiler", "build-essential", "gcc-c++", "base-devel", "xcode"]),
        ({"python3": GOOD, "gcc": "exit 0"}, ["compiler"]),
        ({"python3": GOOD, "cc": "exit 1", "c++": "exit 1"}, ["compiler"]),  # Apple's placeholders
    ],
)
def test_what_is_missing_is_said_at_once(
    tmp_path: Path, tools: dict[str, str], words: list[str]
) -> None:
    done = make(tmp_path, tools)
    assert done.returncode != 0
    said = [line for line in done.stderr.splitlines() if not line.startswith("make")]
    assert len(said) == 1, said
    assert said[0].startswith("ondevice cannot be installed yet")
    for word in words:
        assert word in said[0]
    assert done.stdout == ""


def test_every_bench_is_run_by_make_bench() -> None:
    named = re.search(r"^BENCHES := ((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert named
    benches = {
        file.stem for file in (ROOT / "bench").glob("*.py") if "__main__" in file.read_text("utf-8")
    }
    assert set(named[1].replace("\\", "").split()) == benches
