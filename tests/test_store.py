"""The store keeps what was committed, keeps it private, and says plainly what is wrong."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from ondevice.errors import StoreError, StoreLocked
from ondevice.store import Database


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "store.db"


def add(database: Database, title: str) -> None:
    with database.write() as connection:
        connection.execute(
            "INSERT INTO conversation(title, system, created_at, updated_at) "
            "VALUES (?, '', '', '')",
            (title,),
        )


def titles(database: Database) -> list[str]:
    with database.read() as connection:
        return [row["title"] for row in connection.execute("SELECT title FROM conversation")]


def test_what_was_committed_is_there_after_reopening(path: Path) -> None:
    database = Database(path)
    add(database, "kept")
    database.close()
    assert titles(Database(path)) == ["kept"]


def test_a_transaction_that_raises_leaves_nothing_and_the_next_one_works(path: Path) -> None:
    database = Database(path)
    add(database, "before")
    with pytest.raises(ZeroDivisionError), database.write() as connection:
        connection.execute("DELETE FROM conversation")
        raise ZeroDivisionError
    add(database, "after")
    assert titles(database) == ["before", "after"]


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_folder_and_files_are_for_the_user_only(path: Path) -> None:
    previous = os.umask(0)
    try:
        database = Database(path)
        add(database, "private")
        database.backup()
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert set(modes) == {"store.db", "store.db-wal", "store.db-shm", "store.backup.db"}
    assert set(modes.values()) == {0o600}


def test_a_passphrase_hides_every_byte_and_can_be_changed_and_removed(path: Path) -> None:
    database = Database(path)
    add(database, "a very private title")
    database.backup()
    database.set_passphrase("it's a secret")
    add(database, "a second one")
    for file in path.parent.iterdir():
        assert b"private title" not in file.read_bytes(), file.name
        assert not file.read_bytes().startswith(b"SQLite format 3"), file.name
    assert database.damage() == []
    database.close()

    with pytest.raises(StoreLocked):
        Database(path)
    with pytest.raises(StoreLocked):
        Database(path, "not it")
    database = Database(path, "it's a secret")
    database.set_passphrase("another")
    database.close()
    with pytest.raises(StoreLocked):
        Database(path, "it's a secret")
    database = Database(path, "another")
    database.set_passphrase(None)
    database.close()
    with pytest.raises(StoreLocked, match="no passphrase yet"):
        Database(path, "another")
    assert titles(Database(path)) == ["a very private title", "a second one"]


def test_the_passphrase_is_not_changed_under_another_program(path: Path) -> None:
    database, other = Database(path), Database(path)
    add(other, "written next door")
    with pytest.raises(StoreError, match="another program"):
        database.set_passphrase("secret")
    add(other, "still at work")
    assert titles(database) == ["written next door", "still at work"]
    assert not database.encrypted


def test_a_passphrase_that_cannot_be_set_leaves_the_old_store(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(path)
    add(database, "kept")

    def full_disk(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(StoreError, match="No space left"):
        database.set_passphrase("secret")
    assert titles(database) == ["kept"]
    assert not database.encrypted
    database.close()
    assert titles(Database(path)) == ["kept"]
    assert [file.name for file in path.parent.glob("*.new")] == []


def test_a_copy_that_was_killed_half_way_does_not_stay(path: Path) -> None:
    path.parent.mkdir()
    leftover = path.with_name("store.db.new")
    leftover.write_bytes(b"half a copy")
    Database(path)
    assert not leftover.exists()


def test_a_store_of_an_earlier_version_is_backed_up_and_brought_up_to_date(path: Path) -> None:
    from ondevice.store.migrations import m001_conversations

    path.parent.mkdir()
    old = sqlite3.connect(path)
    m001_conversations.migrate(old)
    old.execute(
        "INSERT INTO conversation(title, system, created_at, updated_at) VALUES ('old', '', '', '')"
    )
    old.execute("PRAGMA user_version=1")
    old.commit()
    old.close()
    database = Database(path)
    assert titles(database) == ["old"]
    with database.read() as connection:
        assert connection.execute("SELECT count(*) FROM cube").fetchone()[0] == 0
    backup = sqlite3.connect(database.backup_file)
    assert backup.execute("PRAGMA user_version").fetchone() == (1,)
    assert backup.execute("SELECT title FROM conversation").fetchall() == [("old",)]
    backup.close()


def test_a_store_of_a_newer_version_is_left_alone(path: Path) -> None:
    database = Database(path)
    with database.write() as connection:
        connection.execute("PRAGMA user_version=999")
    database.close()
    with pytest.raises(StoreError, match="newer ondevice"):
        Database(path)


def test_a_file_that_is_no_store_is_refused_and_kept(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("my diary, not a database")
    with pytest.raises(StoreError):
        Database(path)
    assert path.read_text() == "my diary, not a database"


def test_damage_is_found(path: Path) -> None:
    database = Database(path)
    for number in range(200):
        add(database, f"title {number} " + "x" * 200)
    assert database.damage() == []
    database.close()
    content = bytearray(path.read_bytes())
    content[-4096:] = b"\xff" * 4096
    path.write_bytes(content)
    assert Database(path).damage() != []


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_an_error_with_advice(path: Path) -> None:
    path.parent.mkdir(mode=0o500)
    with pytest.raises(StoreError, match="ONDEVICE_HOME"):
        Database(path)


def test_a_folder_that_cannot_be_made_is_an_error_with_advice(path: Path) -> None:
    path.parent.write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="ONDEVICE_HOME"):
        Database(path)


def test_a_full_disk_loses_only_the_change_that_did_not_fit(path: Path) -> None:
    database = Database(path)
    add(database, "kept")
    with database.read() as connection:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(StoreError, match="full"):
        add(database, "too much " * 10_000)
    add(database, "small")
    assert titles(database) == ["kept", "small"]
    assert database.damage() == []


# ------------------------------------------------------------------ what killed processes leave

SECRET = "a very private title"
LEFTOVERS = (
    "store.db.new",
    "store.db.new-journal",
    "store.db.new-wal",
    "store.backup.db",
    "store.backup.db.new",
    "store.backup.db.new-journal",
    "store.db-mj0123ABCD",
)
#: Goes to and fro between passphrases, with a backup between, until it is killed.
CHANGES = """
import itertools, sys
from pathlib import Path
from ondevice.store import Database

database = Database(Path(sys.argv[1]))
print("ready", flush=True)
for passphrase in itertools.cycle(["first", None, "second"]):
    database.backup()
    database.set_passphrase(passphrase)
"""


def files_with_the_secret(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir() if SECRET.encode() in file.read_bytes()]


@pytest.mark.parametrize("name", LEFTOVERS)
def test_no_plain_copy_stays_beside_an_encrypted_store(path: Path, name: str) -> None:
    database = Database(path)
    add(database, SECRET)
    database.backup()
    plain = database.backup_file.read_bytes()
    database.set_passphrase("secret")
    database.close()
    path.with_name(name).write_bytes(plain)
    assert files_with_the_secret(path.parent) == [name]
    database = Database(path, "secret")
    assert files_with_the_secret(path.parent) == []
    assert titles(database) == [SECRET]
    database.close()
    assert titles(Database(database.backup_file, "secret")) == [SECRET]


def test_a_backup_under_an_older_passphrase_does_not_stay(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = Database(path)
    add(database, "kept")
    database.backup()
    database.set_passphrase("old")

    def killed(self: Database) -> Path:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Database, "backup", killed)
        database.set_passphrase("new")
    database.close()
    Database(path, "new").close()
    assert titles(Database(database.backup_file, "new")) == ["kept"]


@pytest.mark.random
def test_a_process_that_is_killed_leaves_nothing_readable(
    tmp_path: Path, rounds: Callable[[int], Iterator[Random]]
) -> None:
    for number, random in enumerate(rounds(4)):
        path = tmp_path / str(number) / "store.db"
        database = Database(path)
        add(database, SECRET)
        database.close()
        command = [sys.executable, "-c", CHANGES, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(random.uniform(0, 1.5))
            process.kill()
        for passphrase in (None, "first", "second"):
            with suppress(StoreLocked):
                database = Database(path, passphrase)
        assert titles(database) == [SECRET]
        if database.encrypted:
            assert files_with_the_secret(path.parent) == []
        names = {file.name for file in path.parent.iterdir()}
        assert names <= {"store.db", "store.db-wal", "store.db-shm", "store.backup.db"}
        database.close()


# ------------------------------------------------------------------ where nothing can be written


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a disk")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(disk: Path) -> None:
    with suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 1000)


@pytest.mark.parametrize("passphrase", [None, "secret"])
@pytest.mark.parametrize(
    ("hindrance", "was_closed"), [("full", True), ("full", False), ("read-only", True)]
)
def test_a_store_can_be_read_where_nothing_can_be_written(
    small_disk: Path, passphrase: str | None, hindrance: str, was_closed: bool
) -> None:
    path = small_disk / "store.db"
    database = Database(path)
    database.set_passphrase(passphrase)
    add(database, "kept")
    if was_closed:
        database.close()
    else:  # as of a process that was killed: its write-ahead log stays
        kept = path.with_name("store.db-wal").read_bytes()
        database.close()
        path.with_name("store.db-wal").write_bytes(kept)
    fill(small_disk)
    if hindrance == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    database = Database(path, passphrase)
    assert titles(database) == ["kept"]
    if database.read_only:
        assert hindrance in database.read_only
        with pytest.raises(StoreError, match=hindrance):
            add(database, "new")
    assert titles(database) == ["kept"]
    database.close()


def test_a_link_to_a_disk_that_is_gone_makes_no_store_there(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(tmp_path / "gone")
    with pytest.raises(StoreError, match="not there"):
        Database(path)
    assert not (tmp_path / "gone").exists()
