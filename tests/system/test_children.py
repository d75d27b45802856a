"""What the programs that we start see of our environment."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest
from source_tree import ROOT

from ondevice.system import children

#: Runs what its caller names, as the shell would.
OF_THE_USER = {"ondevice/ram/limit.py"}


def test_no_child_gets_a_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONDEVICE_PASSPHRASE", "a secret")
    monkeypatch.setenv("ONDEVICE_API_KEY", "a secret")
    monkeypatch.setenv("ONDEVICE_HOME", "/home")
    environment = children.environment(MORE="1")
    assert "a secret" not in environment.values()
    assert (environment["ONDEVICE_HOME"], environment["MORE"]) == ("/home", "1")


def test_numpy_starts_no_threads_in_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    code = "import numpy, psutil; print(psutil.Process().num_threads())"
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, env=children.environment()) == b"1\n"


def test_each_program_is_started_with_that_environment() -> None:
    starts = 0
    for file in [*ROOT.glob("ondevice/**/*.py"), *ROOT.glob("tui/**/*.py")]:
        name = file.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or name in OF_THE_USER:
                continue
            if not ast.unparse(node.func).startswith(("subprocess.", "os.spawn", "os.system")):
                continue
            starts += 1
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert "environment(" in given.get("env", ""), f"{name}:{node.lineno}"
    assert starts >= 5
