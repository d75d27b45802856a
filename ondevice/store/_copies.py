"""The files beside the store: copies under way, the backup, and what a kill has left of them.

A copy is written beside the file that it replaces, and by one program at a time, who has the
folder's lock. So whoever gets the lock knows that such files are nobody's any more.
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ondevice.errors import StoreError

_PLAIN = b"SQLite format 3\0"  # how a file without a passphrase begins; others with their salt
_WAIT = 30.0  # seconds for another program that copies the store
_POLL = 0.02


def head(path: Path) -> bytes:
    """The first 16 bytes: the same for files that the same key opens; empty of an empty file."""
    with path.open("rb") as file:
        return file.read(len(_PLAIN))


def is_plain(path: Path) -> bool | None:
    """Whether the file is a SQLite file without encryption; None: it is empty."""
    start = head(path)
    return start == _PLAIN if start else None


def unfinished(target: Path) -> Path:
    """Where a copy is written that is to take the place of ``target``."""
    return target.with_name(f"{target.name}.new")


def with_journals(file: Path) -> list[Path]:
    """The file and those that SQLite may have written beside it."""
    return [file, *(file.with_name(file.name + end) for end in ("-journal", "-wal", "-shm"))]


def remove_leftovers(store: Path, backup: Path, *, has_wal: bool) -> None:
    """Remove copies that were killed, and journals that nobody needs.

    The store must have been opened before, which plays its journal back if that is still to be
    done; the files of several journals say so. With a WAL (``has_wal``), what stands in a journal
    after that was not finished when it was killed.
    """
    if has_wal:
        _remove(store.with_name(f"{store.name}-journal"))
    for target in (store, backup):
        for file in with_journals(unfinished(target)):
            _remove(file)
        for file in store.parent.glob(f"{glob.escape(target.name)}-mj*"):
            _remove(file)


def remove_backup(backup: Path) -> None:
    for file in with_journals(backup):
        _remove(file)


def _remove(file: Path) -> None:
    with suppress(OSError):  # it is not there; on Windows: another program has it open
        file.unlink()


def make_private(file: Path) -> None:
    """Take what a file grants to others from them, where a file system has modes and lets us."""
    with suppress(OSError):
        mode = file.stat().st_mode
        if os.name == "posix" and mode & 0o077:
            file.chmod(mode & 0o700)


def sync_folder(folder: Path) -> None:
    """Put a rename on disk, where folders can be opened (not on Windows)."""
    with suppress(PermissionError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class FolderLock:
    """Who copies the store has the lock of its folder; it ends with the process, however it ends.

    On Windows, and on disks that know no locks, nobody is kept out. Windows itself lets nobody
    remove a file that is open.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held = False

    @contextmanager
    def alone(self) -> Iterator[None]:
        """For a block that writes copies. Raises :class:`StoreError` if it has to wait too long."""
        if self._held:
            yield
            return
        with self._locked(shared=False):
            self._held = True
            try:
                yield
            finally:
                self._held = False

    @contextmanager
    def opening(self) -> Iterator[bool]:
        """For a block that opens the store while nobody replaces it.

        Yields whether no other program opens or copies it.
        """
        if self._held:
            yield True
            return
        with self._locked(shared=True) as alone:
            self._held = alone
            try:
                yield alone
            finally:
                self._held = False

    @contextmanager
    def _locked(self, *, shared: bool) -> Iterator[bool]:
        try:
            import fcntl  # noqa: PLC0415 - Windows has none

            handle = os.open(self._folder, os.O_RDONLY)
        except (ImportError, OSError):
            yield True
            return
        try:
            until = time.monotonic() + _WAIT
            alone = True
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    pass
                except OSError:  # this disk knows no locks
                    break
                if shared:
                    with suppress(BlockingIOError):
                        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
                        alone = False
                        break
                if time.monotonic() > until:
                    raise StoreError(
                        f"Another program is copying the store in {self._folder} or "
                        "changing its passphrase. Wait until it is done, or end it, and "
                        "try again."
                    )
                time.sleep(_POLL)
            yield alone
        finally:
            os.close(handle)
