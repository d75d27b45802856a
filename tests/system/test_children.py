"""What the programs that we start see of our environment."""

from __future__ import annotations

import ast
import subprocess
import sys
import threading

import psutil
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
            called = ast.unparse(node.func)
            if not called.startswith(("subprocess.", "os.spawn", "os.system")):
                continue
            if called.endswith(("Error", "Expired")):
                continue
            starts += 1
            given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert "environment(" in given.get("env", ""), f"{name}:{node.lineno}"
    assert starts >= 5


#: Says that it runs, and then goes on for ever.
_ENDLESS = [
    sys.executable,
    "-c",
    "from ondevice.system import children; import time; children.end_with_parent();"
    "print('runs', flush=True); time.sleep(3600)",
]


def test_output_is_what_a_program_writes() -> None:
    command = [sys.executable, "-c", "print('x' * 1_000_000)"]
    assert children.output(command, 60).strip() == b"x" * 1_000_000
    with pytest.raises(subprocess.CalledProcessError):
        children.output([sys.executable, "-c", "raise SystemExit(3)"], 60)


@pytest.mark.parametrize("why", ["cancelled", "patience"])
def test_a_program_that_is_not_waited_for_is_ended(why: str) -> None:
    before = psutil.Process().children()
    cancel = threading.Event()
    if why == "cancelled":
        cancel.set()
    with pytest.raises(subprocess.SubprocessError):
        children.output(_ENDLESS, 0 if why == "patience" else 3600, cancel.is_set)
    assert psutil.Process().children() == before


def test_a_program_ends_with_who_started_it_even_if_that_is_killed() -> None:
    code = f"from ondevice.system import children; children.output({_ENDLESS!r}, 3600)"
    with subprocess.Popen([sys.executable, "-c", code], env=children.environment()) as parent:
        started: list[psutil.Process] = []
        while not started:
            started = psutil.Process(parent.pid).children()
        parent.kill()
    psutil.wait_procs(started, timeout=60)
    assert not started[0].is_running()
