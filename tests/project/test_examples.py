"""Each example runs as it stands, with the smallest model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
QUESTION = "Name the capital of France."
#: Example → its arguments after the model, and what it prints with that model.
RUNS = {
    "ask": ([QUESTION], ["Paris"]),
    "stream": ([QUESTION], ["Paris"]),
    "memory": ([], ["Found: The spare key", "Biscuit", "Left: My dog is called Biscuit.\n"]),
    "plan": (["20", "600"], ["20 MB: ", "at least", "600 MB: ", "tokens/s"]),
    "low_ram": (["170"], ["from the disk"]),
}


def run(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


def test_no_example_is_left_out() -> None:
    assert {file.stem for file in EXAMPLES.glob("*.py")} == set(RUNS)


@pytest.mark.parametrize("name", RUNS)
def test_an_example_runs(name: str, default_model: Path) -> None:
    arguments, words = RUNS[name]
    done = run(name, str(default_model), *arguments)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stdout, done.stdout


def test_a_wrong_path_is_a_sentence() -> None:
    done = run("ask", "nowhere.gguf", QUESTION)
    assert done.returncode == 1
    assert done.stderr.startswith("nowhere.gguf")
    assert "Traceback" not in done.stderr
