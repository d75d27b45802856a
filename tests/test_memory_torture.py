"""Killed at any moment, the memory keeps what it acknowledged and brings nothing back.

``ONDEVICE_TORTURE`` is the number of kills; the default is a small one, so that tests stay quick.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ondevice.errors import StoreLocked
from ondevice.memory import Memory
from ondevice.store import Database
from ondevice.store.migrations import m001_conversations

KILLS = int(os.environ.get("ONDEVICE_TORTURE", "6"))
PASSPHRASES = ("", "first", "second")
WORKER = Path(__file__).with_name("memory_worker.py")


@dataclass
class Expected:
    """What the worker has acknowledged, and the one task that it had begun."""

    texts: dict[int, list[str]] = field(default_factory=dict)  # cube → its versions, oldest first
    forgotten: set[str] = field(default_factory=set)
    passphrase: str = ""
    begun: dict[str, object] | None = None

    def read(self, line: str) -> None:
        match event := json.loads(line):
            case {"begin": _}:
                self.begun = event
                return
            case {"done": "add" | "edit", "id": int(cube), "text": str(text)}:
                self.texts.setdefault(cube, []).append(text)
            case {"done": "forget", "id": int(cube)}:
                self.forgotten.update(self.texts.pop(cube))
            case {"done": "rekey", "passphrase": str(passphrase)}:
                self.passphrase = passphrase
        self.begun = None

    def settle(self, memory: Memory) -> None:
        """Find out whether the task that was begun has been done, which both is right."""
        match self.begun:
            case {"begin": "add", "text": str(text)}:
                for cube in memory.latest(limit=1):
                    if cube.content == text:
                        self.texts[cube.id] = [text]
            case {"begin": "edit", "id": int(cube_id), "text": str(text)}:
                if memory.history(cube_id).cube.content == text:
                    self.texts[cube_id].append(text)
            case {"begin": "forget", "id": int(cube_id)}:
                if memory.history(cube_id).cube.status == "deleted":
                    self.forgotten.update(self.texts.pop(cube_id))
        self.begun = None


def start(store: Path, export: Path, seed: int, passphrases: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            WORKER,
            store,
            export,
            str(seed),
            *(w or "-" for w in passphrases or [""]),
        ],
        env={**os.environ, "PYTHONPATH": str(WORKER.parents[1])},
        stdout=subprocess.PIPE,
        text=True,
    )


def run_until_killed(store: Path, export: Path, seed: int, expected: Expected) -> None:
    words = [expected.passphrase, *(word for word in PASSPHRASES if word != expected.passphrase)]
    worker = start(store, export, seed, words)
    assert worker.stdout is not None
    choose = random.Random(seed)
    # A moment within some task: after so many lines, and then so much later.
    for _ in range(choose.randrange(40)):
        expected.read(worker.stdout.readline())
    try:
        worker.wait(choose.random() * 0.02)
    except subprocess.TimeoutExpired:
        worker.send_signal(signal.SIGKILL)
    rest, _ = worker.communicate()
    assert worker.returncode == -signal.SIGKILL, "the worker ended by itself"
    for line in rest.splitlines(keepends=True):
        if line.endswith("\n"):
            expected.read(line)


def open_store(store: Path, expected: Expected) -> Database:
    """With the passphrase that was acknowledged, or the one that it was being changed to."""
    try:
        return Database(store, expected.passphrase)
    except StoreLocked:
        assert expected.begun is not None and expected.begun["begin"] == "rekey"
        expected.passphrase = str(expected.begun["passphrase"])
        return Database(store, expected.passphrase)


def unique(text: str) -> str:
    return text.rsplit(maxsplit=1)[-1]


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
@pytest.mark.timeout(3600)
def test_kills_at_random_moments(tmp_path: Path) -> None:
    store, export = tmp_path / "data" / "store.db", tmp_path / "export.jsonl"
    expected = Expected()
    for seed in range(KILLS):
        run_until_killed(store, export, seed, expected)
        database = open_store(store, expected)
        memory = Memory(database)
        expected.settle(memory)
        assert memory.check() == [], seed
        cubes = {c.id: c for c in memory.latest(limit=-1) if c.status != "deleted"}
        assert set(cubes) == set(expected.texts), seed
        for cube_id, texts in expected.texts.items():
            known = memory.history(cube_id)
            assert [*(v.content for v in known.versions), known.cube.content] == texts, seed
        for texts in list(expected.texts.values())[-5:]:
            assert unique(texts[-1]) in memory.search(unique(texts[-1])).hits[0].cube.content
        counts = memory.statistics()
        assert counts.versions == sum(len(texts) - 1 for texts in expected.texts.values())
        encrypted = database.encrypted
        database.close()
        files = {file.name: file.read_bytes() for file in store.parent.iterdir()}
        assert not [name for name in files if name.endswith(".new")], seed
        for text in expected.forgotten:
            for name, content in files.items():
                assert unique(text).encode() not in content, (seed, name, encrypted)
    other = Memory(Database(tmp_path / "other" / "store.db"))
    if export.exists():
        with export.open("rb") as file:
            assert other.import_(file) > 0  # an export is complete or not there
    other.database.close()


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
@pytest.mark.timeout(3600)
def test_kills_while_an_earlier_version_is_brought_up_to_date(tmp_path: Path) -> None:
    for seed in range(KILLS // 2):
        store = tmp_path / str(seed) / "store.db"
        store.parent.mkdir()
        old = sqlite3.connect(store)
        m001_conversations.migrate(old)
        old.executemany(
            "INSERT INTO conversation(title, system, created_at, updated_at) "
            "VALUES (?, '', '', '')",
            [(f"title {number}",) for number in range(1000)],
        )
        old.execute("PRAGMA user_version=1")
        old.commit()
        old.close()
        worker = start(store, tmp_path / "export", seed, [])
        try:
            worker.wait(0.2 + 0.2 * random.Random(seed).random())
        except subprocess.TimeoutExpired:
            worker.send_signal(signal.SIGKILL)
        worker.communicate()
        assert worker.returncode == -signal.SIGKILL
        memory = Memory(Database(store))
        assert memory.check() == []
        with memory.database.read() as connection:
            assert connection.execute("SELECT count(*) FROM conversation").fetchone()[0] == 1000
        memory.database.close()
