"""Works on a memory until it is stopped; says what it begins and what it has done.

usage: memory_worker.py STORE FOLDER SEED PASSPHRASE…  (the store has the first one; “-” is none)
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
EDITABLE = "note "  # how texts begin from which nothing else is made
PAGES = 3
TASKS = {
    "add": 8,
    "edit": 4,
    "forget": 4,
    "page": 2,
    "import": 1,
    "read": 2,
    "export": 2,
    "backup": 1,
    "rekey": 1,
}


def work(
    memory: Memory,
    seed: int,
    say: Say,
    *,
    tasks: dict[str, int],
    folder: Path,
    passphrases: Sequence[str] = (),
) -> NoReturn:
    """Do ``tasks`` by their weights, always the same ones for a seed; files are in ``folder``."""
    choose = random.Random(seed)
    known = {
        cube.id: cube.content
        for cube in memory.latest(limit=-1)
        if cube.status != "deleted" and cube.kind != "profile"
    }
    export = folder / "export.jsonl"

    def added(ids: Sequence[int], texts: Sequence[str]) -> None:
        known.update(zip(ids, texts, strict=True))
        say({"done": "add", "ids": ids})

    number = 0
    while True:
        number += 1
        word = f"unique{seed}x{number}"
        (task,) = choose.choices(list(tasks), list(tasks.values()))
        editable = [cube_id for cube_id, text in known.items() if text.startswith(EDITABLE)]
        if task == "add" or len(editable) < 5:
            text = f"{EDITABLE}{seed} {number} about {word}z"
            say({"begin": "add", "texts": [text]})
            added([memory.add(text).cube.id], [text])
        elif task == "edit":
            cube_id, text = choose.choice(editable), f"{EDITABLE}{seed} {number} about {word}z"
            say({"begin": "edit", "id": cube_id, "text": text})
            memory.edit(cube_id, text)
            known[cube_id] = text
            say({"done": "edit"})
        elif task == "forget":
            going = [cube.id for cube in memory.going([choose.choice(list(known))])]
            say({"begin": "forget", "ids": going})
            memory.forget(going)
            for cube_id in going:
                known.pop(cube_id, None)
            say({"done": "forget"})
        elif task == "page":
            page = folder / f"page {choose.randrange(PAGES)}.md"
            texts = [f"{'page ' * 180}{word}{part}z" for part in "abcd"]  # each fills a chunk
            page.write_text("\n\n".join(texts))
            before = memory.latest(tag=page.stem, status="active", limit=-1)
            say({"begin": "add", "texts": texts, "instead": [cube.id for cube in before]})
            added([cube.id for cube in memory.add_file(page, [page.stem])], texts)
        elif task == "import":
            if export.exists():
                memory.import_(export.read_bytes().splitlines(keepends=True))
            texts = [f"from elsewhere {word}{part}z" for part in "abcdefgh"]
            say({"begin": "add", "texts": texts})
            memory.import_(foreign(f"{seed} {number}", texts))
            ids = {cube.content: cube.id for cube in memory.latest(limit=-1)}
            added([ids[text] for text in texts], texts)
        elif task == "read":
            text = f"I bought a boat called {word}z"
            say({"begin": "add", "texts": [text]})
            added([memory.add(text).cube.id], [text])
            unread = memory.unread()
            assert unread is not None
            fact = f"About the user: bought a boat called {word}z (belonging, owns)."
            say({"begin": "add", "texts": [fact]})
            (cube,) = memory.store_reading(unread, f"belonging | me | {text[2:]}")
            added([cube.id], [fact])
        elif task == "export":
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
            say({"done": "rekey"})


def foreign(uid: str, texts: Sequence[str]) -> list[bytes]:
    """An export of another store, whose notes have the source ``uid``."""
    at = "2024-05-03T12:00:00+00:00"
    lines: list[dict[str, Any]] = [
        {"type": "ondevice-memory", "format": 1},
        {"type": "source", "uid": uid, "kind": "notes", "name": "", "digest": None},
    ]
    lines += [
        {
            "type": "cube",
            "place": [uid, place],
            "kind": "note",
            "status": "active",
            "content": text,
            "speaker": "",
            "topic": None,
            "event_at": at,
            "written_at": at,
            "version": 1,
            "versions": [],
            "tags": [],
        }
        for place, text in enumerate(texts)
    ]
    return [json.dumps(line).encode() + b"\n" for line in lines]


def _print(event: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    store, folder, seed, *words = sys.argv[1:]
    passphrases = ["" if word == "-" else word for word in words]
    _print({"begin": "open"})
    memory = Memory(Database(Path(store), passphrases[0]))
    _print({"done": "open"})
    work(memory, int(seed), _print, tasks=TASKS, folder=Path(folder), passphrases=passphrases)
