"""Works on a memory until it is killed; prints what it begins and what it has done.

usage: memory_worker.py STORE EXPORT SEED PASSPHRASE…  (the store has the first one; “-” is none)
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path

from ondevice.memory import Memory
from ondevice.store import Database


def say(**what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def main() -> None:
    store, export, seed, *passphrases = sys.argv[1:]
    choose = random.Random(seed)
    passphrases = ["" if word == "-" else word for word in passphrases]
    memory = Memory(Database(Path(store), passphrases[0]))
    say(done="open")
    known = [cube.id for cube in memory.latest(limit=-1) if cube.status != "deleted"]
    number = 0
    while True:
        number += 1
        text = f"note {seed} {number} about unique{seed}x{number}z"
        (task,) = choose.choices(
            ["add", "edit", "forget", "export", "backup", "rekey"], [8, 4, 4, 2, 1, 1]
        )
        if task == "add" or len(known) < 5:
            say(begin="add", text=text)
            cube = memory.add(text).cube
            known.append(cube.id)
            say(done="add", id=cube.id, text=text)
        elif task == "edit":
            cube_id = choose.choice(known)
            say(begin="edit", id=cube_id, text=text)
            memory.edit(cube_id, text)
            say(done="edit", id=cube_id, text=text)
        elif task == "forget":
            cube_id = known.pop(choose.randrange(len(known)))
            say(begin="forget", id=cube_id)
            memory.forget([cube_id])
            say(done="forget", id=cube_id)
        elif task == "export":
            fresh = Path(f"{export}.new")
            with fresh.open("wb") as file:
                memory.export(file)
            fresh.replace(export)
            say(done="export")
        elif task == "backup":
            memory.database.backup()
            say(done="backup")
        else:
            passphrase = choose.choice(passphrases)
            say(begin="rekey", passphrase=passphrase)
            memory.database.set_passphrase(passphrase)
            say(done="rekey", passphrase=passphrase)


if __name__ == "__main__":
    main()
