"""Works on a memory until it is stopped; says what it begins and what it has done.

usage: memory_worker.py STORE EXPORT SEED PASSPHRASE…  (the store has the first one; “-” is none)
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ondevice.memory import Memory
from ondevice.store import Database

Say = Callable[[dict[str, Any]], None]
TASKS = {"add": 8, "edit": 4, "forget": 4, "export": 2, "backup": 1, "rekey": 1}


def work(
    memory: Memory,
    seed: int,
    say: Say,
    *,
    tasks: dict[str, int],
    export: Path | None = None,
    passphrases: Sequence[str] = (),
) -> NoReturn:
    """Do ``tasks`` by their weights, always the same ones for a seed."""
    choose = random.Random(seed)
    known = [cube.id for cube in memory.latest(limit=-1) if cube.status != "deleted"]
    number = 0
    while True:
        number += 1
        text = f"note {seed} {number} about unique{seed}x{number}z"
        (task,) = choose.choices(list(tasks), list(tasks.values()))
        if task == "add" or len(known) < 5:
            say({"begin": "add", "text": text})
            cube = memory.add(text).cube
            known.append(cube.id)
            say({"done": "add", "id": cube.id, "text": text})
        elif task == "edit":
            cube_id = choose.choice(known)
            say({"begin": "edit", "id": cube_id, "text": text})
            memory.edit(cube_id, text)
            say({"done": "edit", "id": cube_id, "text": text})
        elif task == "forget":
            cube_id = known.pop(choose.randrange(len(known)))
            say({"begin": "forget", "id": cube_id})
            memory.forget([cube_id])
            say({"done": "forget", "id": cube_id})
        elif task == "export" and export is not None:
            fresh = export.with_suffix(".new")
            with fresh.open("wb") as file:
                memory.export(file)
            fresh.replace(export)
        elif task == "backup":
            memory.database.backup()
        else:
            passphrase = choose.choice(passphrases)
            say({"begin": "rekey", "passphrase": passphrase})
            memory.database.set_passphrase(passphrase)
            say({"done": "rekey", "passphrase": passphrase})


def _print(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    store, export, seed, *words = sys.argv[1:]
    passphrases = ["" if word == "-" else word for word in words]
    _print({"begin": "open"})
    memory = Memory(Database(Path(store), passphrases[0]))
    _print({"done": "open"})
    work(memory, int(seed), _print, tasks=TASKS, export=Path(export), passphrases=passphrases)
