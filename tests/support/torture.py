"""Kills those who work on a memory, and takes the power away; counts what that does to it.

Each function yields, round by round, the faults found afterwards: acknowledged work that is
``lost``, other work that is ``half_done``, a store or index that is ``unsound``, and forgotten
texts that are ``resurrected``.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from unittest.mock import patch

from dropping_disk import Disk
from memory_expected import Expected, files_beside
from memory_worker import work
from source_tree import ROOT

from ondevice.errors import StoreError, StoreLocked
from ondevice.memory import Memory
from ondevice.store import Database
from ondevice.store.migrations import m001_conversations

PASSPHRASES = ("", "first", "second")
WORKER = Path(__file__).with_name("memory_worker.py")
ROUNDS = 20  # with one store, which grows
OLD_CONVERSATIONS = 1000


def kills(folder: Path, count: int) -> Iterator[Counter[str]]:
    """While it works: all that there is in ``memory_worker.TASKS``."""
    for seed in range(count):
        home = folder / str(seed // ROUNDS)
        store, export = home / "data" / "store.db", home / "export.jsonl"
        if seed % ROUNDS == 0:
            expected = Expected()
            home.mkdir(parents=True)
        _run_until_killed(store, home, seed, expected)
        database = _open(store, expected)
        found = expected.faults(Memory(database), files_beside(store))
        database.close()
        files = files_beside(store)
        found["half_done"] += any(name.endswith(".new") for name in files)
        if export.exists():
            found["half_done"] += not _is_complete(export, home / f"{seed}.db")
        yield +found


def kills_in_migration(folder: Path, count: int) -> Iterator[Counter[str]]:
    """While a store of the first format is brought up to date."""
    for seed in range(count):
        store = folder / f"old {seed}" / "store.db"
        store.parent.mkdir(parents=True)
        old = sqlite3.connect(store)
        m001_conversations.migrate(old)
        old.executemany(
            "INSERT INTO conversation(title, system, created_at, updated_at) "
            "VALUES (?, '', '', '')",
            [(f"title {number}",) for number in range(OLD_CONVERSATIONS)],
        )
        old.execute("PRAGMA user_version=1")
        old.commit()
        old.close()
        worker = _start(store, store.parent, seed, [""])
        assert worker.stdout is not None
        worker.stdout.readline()  # it begins to open the store
        _kill_after(worker, 0.05 * random.Random(seed).random())
        memory = Memory(Database(store))
        found = Counter(unsound=len(memory.check()))
        with memory.database.read() as connection:
            (left,) = connection.execute("SELECT count(*) FROM conversation").fetchone()
        found["lost"] += OLD_CONVERSATIONS - left
        memory.database.close()
        yield +found


def power_failures(folder: Path, count: int) -> Iterator[Counter[str]]:
    """Whatever was not synced is dropped, or some of it, in any order."""
    disk = Disk()
    with patch("ondevice.store._database.connect", disk.connect):
        for seed in range(count):
            store = folder / f"disk {seed // ROUNDS}" / "store.db"
            if seed % ROUNDS == 0:
                expected = Expected()
            choose = random.Random(seed)
            disk.fail_after(choose.randrange(400))
            # The disk fails in the midst of opening or of some task.
            with suppress(StoreError, Disk.Error):
                work(
                    Memory(Database(store)),
                    seed,
                    expected.read,
                    tasks={"add": 3, "edit": 2, "forget": 2, "page": 1, "import": 1, "read": 1},
                    folder=folder,
                )
            disk.lose_power(choose)
            database = Database(store)
            yield expected.faults(Memory(database), disk.files())
            database.close()


def _start(store: Path, folder: Path, seed: int, passphrases: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, WORKER, store, folder, str(seed), *(w or "-" for w in passphrases)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def _run_until_killed(store: Path, folder: Path, seed: int, expected: Expected) -> None:
    words = [expected.passphrase, *(word for word in PASSPHRASES if word != expected.passphrase)]
    worker = _start(store, folder, seed, words)
    assert worker.stdout is not None
    choose = random.Random(seed)
    # A moment within some task: after so many lines, and then so much later.
    for _ in range(choose.randrange(40)):
        expected.read(json.loads(worker.stdout.readline()))
    for line in _kill_after(worker, choose.random() * 0.02).splitlines(keepends=True):
        if line.endswith("\n"):
            expected.read(json.loads(line))


def _kill_after(worker: subprocess.Popen[str], seconds: float) -> str:
    """What the worker has printed by then."""
    try:
        worker.wait(seconds)
    except subprocess.TimeoutExpired:
        worker.send_signal(signal.SIGKILL)
    printed, _ = worker.communicate()
    assert worker.returncode == -signal.SIGKILL, "the worker ended by itself"
    return printed


def _open(store: Path, expected: Expected) -> Database:
    """With the passphrase that was acknowledged, or the one that it was being changed to."""
    try:
        return Database(store, expected.passphrase)
    except StoreLocked:
        assert expected.begun is not None and expected.begun["begin"] == "rekey"
        expected.passphrase = expected.begun["passphrase"]
        return Database(store, expected.passphrase)


def _is_complete(export: Path, fresh: Path) -> bool:
    """Whether an empty store takes all of an export."""
    memory = Memory(Database(fresh))
    lines = export.read_bytes().splitlines(keepends=True)
    try:
        return memory.import_(lines) == sum(b'"type":"cube"' in line for line in lines)
    finally:
        memory.database.close()
