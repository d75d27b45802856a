"""The store keeps what was committed, keeps it private, and says plainly what is wrong."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from ondevice.errors import StoreError, StoreLocked, StoreUnwritable
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
    with pytest.raises(StoreError, match=r"^The passphrase was not changed: another"):
        database.set_passphrase("secret")
    add(other, "still at work")
    assert titles(database) == ["written next door", "still at work"]
    assert not database.encrypted


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a file that cannot be mapped")
@pytest.mark.parametrize("passphrase", [None, "a passphrase"])
def test_a_store_needs_no_memory_that_is_shared(path: Path, passphrase: str | None) -> None:
    """As on some networks, where a folder may have been moved to."""
    here = Database(path)
    add(here, "from here")
    here.set_passphrase(passphrase)
    here.close()
    unmappable = path.with_name(f"{path.name}-shm")
    os.mkfifo(unmappable)
    one, other = Database(path, passphrase), Database(path, passphrase)
    add(one, "one")
    add(other, "other")
    assert titles(one) == titles(other) == ["from here", "one", "other"]
    one.scrub()
    assert one.read_only is None and one.damage() == []
    with pytest.raises(StoreError, match="local disk"):  # the other would write to the old file
        one.set_passphrase("another")
    one.close()
    other.close()
    unmappable.unlink()
    back = Database(path, passphrase)
    assert titles(back) == ["from here", "one", "other"]
    back.set_passphrase("another")


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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows moves no file that is open")
@pytest.mark.parametrize("is_replaced", [False, True])
def test_nothing_is_written_to_a_store_that_is_gone(path: Path, is_replaced: bool) -> None:
    store = Database(path)
    add(store, "before")
    moved = path.parent.rename(path.parent.with_name("moved"))
    if is_replaced:
        shutil.copytree(moved, path.parent)
    with pytest.raises(StoreUnwritable, match="moved, deleted or replaced"):
        add(store, "lost")
    shutil.rmtree(path.parent, ignore_errors=True)
    moved.rename(path.parent)
    add(store, "after")
    assert titles(store) == titles(Database(path)) == ["before", "after"]


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
    with pytest.raises(StoreError, match=r"written: the disk is full\. Free some space\. Nothing"):
        add(database, "too much " * 10_000)
    add(database, "small")
    assert titles(database) == ["kept", "small"]
    assert database.damage() == []


def test_a_change_that_waited_in_vain_says_for_whom(path: Path) -> None:
    database, other = Database(path), Database(path)
    with (
        other.write(),
        pytest.raises(StoreUnwritable, match="another program has been writing"),
        database.write(patience=0),
    ):
        pass


# ---------------------------------------------------------------------- what a kill leaves

SECRET = "a very private title"


def plain_files(path: Path) -> list[str]:
    """Files beside the store that can be read without a passphrase."""
    return [
        file.name
        for file in path.parent.iterdir()
        if SECRET.encode() in file.read_bytes() or file.read_bytes().startswith(b"SQLite format 3")
    ]


@pytest.mark.parametrize(
    "name", ["store.backup.db.new", "store.backup.db", "store.db.new", "store.db.new-wal"]
)
def test_plain_text_beside_an_encrypted_store_is_gone_at_the_next_start(
    path: Path, name: str
) -> None:
    database = Database(path)
    add(database, SECRET)
    database.backup()
    database.close()
    plain = path.read_bytes()
    database = Database(path)
    database.set_passphrase("secret")
    database.close()
    assert plain_files(path) == []
    path.with_name(name).write_bytes(plain)
    database = Database(path, "secret")
    assert plain_files(path) == []
    assert titles(database) == [SECRET]


def titles_of_backup(database: Database, passphrase: str | None) -> list[str]:
    backup = database.path.with_name("elsewhere.db")
    shutil.copy(database.backup_file, backup)
    try:
        return titles(Database(backup, passphrase))
    finally:
        backup.unlink()


@pytest.mark.parametrize(("before", "after"), [("old", "new"), ("old", None)])
def test_a_backup_that_another_key_opens_is_made_anew(
    path: Path, before: str | None, after: str | None
) -> None:
    database = Database(path, before)
    add(database, SECRET)
    database.backup()
    old = database.backup_file.read_bytes()
    database.set_passphrase(after)
    assert titles_of_backup(database, after) == [SECRET]
    database.close()
    database.backup_file.write_bytes(old)  # as if killed before it was renewed
    database = Database(path, after)
    assert titles_of_backup(database, after) == [SECRET]
    stamp = database.backup_file.stat().st_mtime_ns
    database.close()
    assert Database(path, after).backup_file.stat().st_mtime_ns == stamp  # once is enough


def test_litter_of_kills_is_removed_and_other_files_are_not(path: Path) -> None:
    database = Database(path)
    add(database, "kept")
    database.close()
    litter = ["store.db-mj12AB34CD9EF", "store.backup.db.new-journal", "store.db.new"]
    litter.append("store.db-journal")  # which an empty one is, for SQLite itself leaves it
    others = ["store.db.old", "notes.new", "my store.db-mj1"]
    for name in litter + others:
        path.with_name(name).touch()
    assert titles(Database(path)) == ["kept"]
    assert {file.name for file in path.parent.iterdir()}.isdisjoint(litter)
    assert all(path.with_name(name).exists() for name in others)


def test_a_copy_that_another_program_writes_is_left_alone(path: Path) -> None:
    database = Database(path)
    add(database, "kept")
    fresh = path.with_name("store.backup.db.new")
    with database._folder.alone():
        fresh.write_bytes(b"half a copy")
        opened: list[list[str]] = []
        thread = threading.Thread(target=lambda: opened.append(titles(Database(path))))
        thread.start()
        thread.join(0.2)
        assert fresh.exists()
    thread.join()
    assert opened == [["kept"]]


def test_copying_leaves_no_journal_that_others_could_read(path: Path) -> None:
    previous = os.umask(0o022)
    seen: dict[str, int] = {}
    try:
        database = Database(path)
        for number in range(60):
            add(database, f"{SECRET} {number}")
        database.backup()

        def look(*_: object) -> None:
            for file in path.parent.iterdir():
                seen[file.name] = stat.S_IMODE(file.stat().st_mode)

        database._connection.set_progress_handler(look, 100)
        database.set_passphrase("secret")
    finally:
        os.umask(previous)
    assert "store.db.new" in seen
    assert not [name for name in seen if "-mj" in name or name.endswith(".new-journal")]
    if os.name == "posix":
        assert set(seen.values()) == {0o600}


WORKER = """
import sys
from pathlib import Path
from ondevice.store import Database
database = Database(Path(sys.argv[1]), sys.argv[2] or None)
print("ready", flush=True)
for passphrase in ["one", "two", None, "three"] * 50:
    database.set_passphrase(passphrase)
    print(passphrase or "", flush=True)
    database.backup()
"""


@pytest.mark.random
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")
def test_kills_leave_no_plain_text_beside_an_encrypted_store(
    path: Path, rounds: Callable[[int], Iterator[Random]]
) -> None:
    database = Database(path)
    for number in range(100):
        add(database, f"{SECRET} {number}")
    database.backup()
    database.close()
    passphrases = [None, "one", "two", "three"]
    now: str | None = None
    for random in rounds(5):
        worker = subprocess.Popen(
            [sys.executable, "-c", WORKER, path, now or ""], stdout=subprocess.PIPE, text=True
        )
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(random.random() * 0.6)
        worker.send_signal(signal.SIGKILL)
        worker.communicate()
        for passphrase in passphrases:
            try:
                database = Database(path, passphrase)
            except StoreLocked:
                continue
            now = passphrase
        assert len(titles(database)) == 100
        assert titles_of_backup(database, now) == titles(database)
        database.close()
        assert {file.name for file in path.parent.iterdir()} == {"store.db", "store.backup.db"}
        if now:
            assert plain_files(path) == []


# ---------------------------------------------------------------------- places


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_a_link_that_leads_nowhere_is_not_followed(path: Path, tmp_path: Path) -> None:
    path.parent.mkdir()
    path.symlink_to(tmp_path / "elsewhere.db")
    with pytest.raises(StoreError):
        Database(path)
    assert not (tmp_path / "elsewhere.db").exists()


@pytest.mark.skipif(os.name != "posix", reason="links need rights on Windows")
def test_a_store_behind_a_link_is_encrypted_where_it_lies(path: Path, tmp_path: Path) -> None:
    there = tmp_path / "disk" / "real.db"
    database = Database(there)
    add(database, SECRET)
    database.close()
    path.parent.mkdir()
    path.symlink_to(there)
    database = Database(path)
    database.set_passphrase("secret")
    assert path.is_symlink()
    assert plain_files(there) == []
    database.close()
    assert titles(Database(path, "secret")) == [SECRET]


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
def test_a_store_that_others_could_read_is_made_private(path: Path) -> None:
    database = Database(path)
    database.backup()
    database.close()
    for file in path.parent.iterdir():
        file.chmod(0o644)
    database = Database(path)
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}
    database.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of a megabyte or two, where tests may mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("tests cannot mount a disk here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("passphrase", [None, "secret"])
@pytest.mark.parametrize("killed", [False, True])
@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_a_disk_that_cannot_be_written_lets_the_store_be_read(
    disk: Path, passphrase: str | None, killed: bool, trouble: str
) -> None:
    path = disk / "data" / "store.db"
    program = (
        "import os, sys; from pathlib import Path; from ondevice.store import Database\n"
        "database = Database(Path(sys.argv[1]), sys.argv[2] or None)\n"
        "with database.write() as connection:\n"
        '    connection.execute("INSERT INTO conversation(title, system, created_at, '
        "updated_at) VALUES ('kept', '', '', '')\")\n"
        "os._exit(0) if sys.argv[3] else database.close()\n"
    )
    subprocess.run(
        [sys.executable, "-c", program, path, passphrase or "", "x" if killed else ""], check=True
    )
    if trouble == "full":
        with pytest.raises(OSError, match="No space"), (disk / "filler").open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
    else:
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    database = Database(path, passphrase)
    assert titles(database) == ["kept"]
    if database.read_only is None:  # it had left itself enough room
        assert trouble == "full" and killed
    else:
        with pytest.raises(StoreUnwritable, match=trouble):
            add(database, "more")
    database.close()
    if passphrase:
        with pytest.raises(StoreLocked):
            Database(path)
    with pytest.raises(StoreError, match=trouble) as raised:
        Database(disk / "new" / "store.db")
    assert not re.search("damaged|version", str(raised.value))
