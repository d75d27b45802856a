"""What the first message of a process would wait for is there before it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_SCRIPT = """
import re, sys
from pathlib import Path
from ondevice import chats
from ondevice.store import Database

if "warm" in sys.argv:
    chats.warm_up()
store = chats.Chats(Database(Path(sys.argv[1]) / "store.db"))
chat, modules, compiled = store.create(), set(sys.modules), []
compile_ = re._compiler.compile
re._compiler.compile = lambda *what: compiled.append(what) or compile_(*what)
store.say(chat, "I live in Rome. Where did I live before?", recall=100)
print(len(set(sys.modules) - modules), len(compiled), len(store.headings()))
"""


def test_the_first_message_waits_for_no_imports_and_no_patterns(tmp_path: Path) -> None:
    def says(*how: str) -> list[int]:
        (folder := tmp_path / "".join(["store", *how])).mkdir()
        command = [sys.executable, "-c", _SCRIPT, str(folder), *how]
        return [*map(int, subprocess.check_output(command, text=True).split())]

    cold, warm = says(), says("warm")
    assert cold[0] > 50 and cold[1] > 200
    assert warm[0] == 0 and warm[1] < 20
    assert cold[2] == warm[2] == 1
