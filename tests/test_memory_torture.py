"""Killed at any moment, or cut off from power, the memory keeps what it acknowledged.

And it brings nothing back that was forgotten. ``ONDEVICE_TORTURE`` is the number of kills; the
default is a small one, so that tests stay quick.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from dropping_disk import Disk
from memory_expected import Expected, files_beside
from memory_worker import work

from ondevice.errors import StoreError, StoreLocked
from ondevice.memory import Memory
from ondevice.store import Database
from ondevice.store.migrations import m001_conversations

KILLS = int(os.environ.get("ONDEVICE_TORTURE", "6"))
PASSPHRASES = ("", "first", "second")
WORKER = Path(__file__).with_name("memory_worker.py")


def start(store: Path, export: Path, seed: int, passphrases: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, WORKER, store, export, str(seed), *(w or "-" for w in passphrases)],
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
        expected.read(json.loads(worker.stdout.readline()))
    for line in kill_after(worker, choose.random() * 0.02).splitlines(keepends=True):
        if line.endswith("\n"):
            expected.read(json.loads(line))


def kill_after(worker: subprocess.Popen[str], seconds: float) -> str:
    """What the worker has printed by then."""
    try:
        worker.wait(seconds)
    except subprocess.TimeoutExpired:
        worker.send_signal(signal.SIGKILL)
    printed, _ = worker.communicate()
    assert worker.returncode == -signal.SIGKILL, "the worker ended by itself"
    return printed


def open_store(store: Path, expected: Expected) -> Database:
    """With the passphrase that was acknowledged, or the one that it was being changed to."""
    try:
        return Database(store, expected.passphrase)
    except StoreLocked:
        assert expected.begun is not None and expected.begun["begin"] == "rekey"
        expected.passphrase = expected.begun["passphrase"]
        return Database(store, expected.passphrase)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
@pytest.mark.timeout(3600)
def test_kills_at_random_moments(tmp_path: Path) -> None:
    store, export = tmp_path / "data" / "store.db", tmp_path / "export.jsonl"
    expected = Expected()
    for seed in range(KILLS):
        run_until_killed(store, export, seed, expected)
        database = open_store(store, expected)
        expected.compare(Memory(database))
        database.close()
        files = files_beside(store)
        assert not [name for name in files if name.endswith(".new")]
        expected.assert_forgotten(files)
    other = Memory(Database(tmp_path / "other" / "store.db"))
    if export.exists():  # then it is complete
        with export.open("rb") as file:
            assert other.import_(file) > 0
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
        worker = start(store, tmp_path / "export", seed, [""])
        kill_after(worker, 0.2 + 0.2 * random.Random(seed).random())
        memory = Memory(Database(store))
        assert memory.check() == []
        with memory.database.read() as connection:
            assert connection.execute("SELECT count(*) FROM conversation").fetchone()[0] == 1000
        memory.database.close()


@pytest.mark.timeout(3600)
def test_power_failures_that_drop_what_was_not_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk()
    monkeypatch.setattr("ondevice.store._database.connect", disk.connect)
    store = tmp_path / "data" / "store.db"
    expected = Expected()
    for seed in range(2 * KILLS):
        choose = random.Random(seed)
        disk.fail_after(choose.randrange(400))
        # The disk fails in the midst of opening or of some task.
        with pytest.raises((StoreError, Disk.Error)):
            work(
                Memory(Database(store)),
                seed,
                expected.read,
                tasks={"add": 3, "edit": 2, "forget": 2},
            )
        disk.lose_power(choose)
        database = Database(store)
        expected.compare(Memory(database))
        expected.assert_forgotten(disk.files())
        database.close()
