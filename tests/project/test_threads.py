"""What msgspec reads may be read by several threads at once, also for the first time."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

_SOURCES = Path(__file__).parents[2] / "ondevice"
_READS = ("msgspec.json.decode", "msgspec.toml.decode", "msgspec.convert")
#: Read by one thread only, or worked out with the messages.
_SAFE = {"PackRequest", "PullRequest", "Settings", "Statistics", "_Measured"}

_SCRIPT = """
import sys, threading
sys.setswitchinterval(1e-6)
from ondevice.memory._language import languages
from ondevice.memory._secrets import _rules
begin = threading.Barrier(4)
def read():
    begin.wait()
    languages.__wrapped__(), _rules.__wrapped__()
threads = [threading.Thread(target=read) for _ in range(4)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
"""


def read_in(source: str) -> set[str]:
    """The names of the classes that a module has msgspec read."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    reads = [call for call in calls if ast.unparse(call.func) in _READS]
    kinds = [[*call.args[1:], *(word.value for word in call.keywords)] for call in reads]
    names = {kind.id for some in kinds for kind in some if isinstance(kind, ast.Name)}
    return {name for name in names if name.lstrip("_")[0].isupper()}


def test_what_is_read_is_worked_out_when_its_module_is_imported() -> None:
    for file in _SOURCES.rglob("*.py"):
        source = file.read_text("utf-8")
        told = " ".join(re.findall(r"^work_out\((.*)\)", source, re.MULTILINE)).split(", ")
        assert not read_in(source) - {*told} - _SAFE, file


def test_two_threads_may_be_the_first_to_read_a_language() -> None:
    subprocess.run([sys.executable, "-c", _SCRIPT], check=True)
