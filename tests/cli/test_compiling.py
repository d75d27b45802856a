"""What is written in C is compiled once, and the user is told."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import ondevice
from ondevice import paths

TOLD = "Compiling ondevice for this processor"
#: A compiler that makes a library of anything, and soon.
QUICK = """while [ "$1" != -o ]; do shift; done
echo 'int x;' | exec cc -shared -fPIC -x c - -o "$2"
"""


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """The folder of an ondevice that was never run."""
    folder = Path(ondevice.__file__).parent
    for part in (folder, folder.parent / "models"):
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(part, tmp_path / part.name, ignore=ignore)
    return tmp_path


def asked(fresh: Path, compiler: str) -> subprocess.Popen[str]:
    """Asks a question that no model is there for, with a compiler that is a script of a shell."""
    script = fresh / "compiler"
    script.write_text(f"#!/bin/sh\n{compiler}\n")
    script.chmod(0o755)
    return subprocess.Popen(
        [sys.executable, "-m", "ondevice", "ask", "Why?"],
        cwd=fresh,
        env=os.environ | {"PYTHONPATH": str(fresh), "CC": str(script)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def test_it_is_compiled_before_the_first_command_that_needs_it(fresh: Path) -> None:
    _, said = (first := asked(fresh, QUICK)).communicate()
    assert said.startswith(TOLD)
    assert "is not downloaded" in said
    assert first.returncode == 1
    libraries = {path.name.split("-")[0] for path in fresh.rglob("*.so")}
    assert libraries == {"attention", "encoding", "eval_hook", "planes", "products"}
    _, said = asked(fresh, "exit 1").communicate()
    assert TOLD not in said


def test_a_compiler_that_fails_is_named_and_stops_nothing(fresh: Path) -> None:
    _, said = asked(fresh, "echo no room left >&2; exit 1").communicate()
    assert said.startswith(TOLD)
    assert "could not compile what faster computing needs: no room left" in said
    assert "is not downloaded" in said


def test_where_it_cannot_be_kept_each_start_says_so_until_it_can(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk is full, say."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # so that it would be kept in the cache
    (full := fresh / "sitecustomize.py").write_text(
        "from ondevice.system import compiled\n"
        "def replacing(*_, **__): raise OSError(28, 'No space left on device')\n"
        "compiled.replacing = replacing\n"
    )
    for _ in range(2):
        _, said = asked(fresh, QUICK).communicate()
        assert said.startswith(TOLD)
        assert f"could not be kept in {paths.cache_dir()}, so each start compiles" in said
        assert "is not downloaded" in said
    full.unlink()
    for told in (True, False):
        _, said = asked(fresh, QUICK).communicate()
        assert said.startswith(TOLD) == told
        assert "kept" not in said


def test_it_can_be_interrupted(fresh: Path) -> None:
    process = asked(fresh, f"echo >{fresh / 'begun'}; exec sleep 60")
    while not (fresh / "begun").exists() and process.poll() is None:
        pass
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate()
    assert process.returncode == 130
    assert said.endswith("Interrupted.\n")
    assert "Traceback" not in said
