"""Opens the store, migrates it, and hands out read and write transactions."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ondevice.errors import StoreError, StoreLocked, UsageError
from ondevice.paths import ensure_private
from ondevice.store._sqlite import Connection, DatabaseError, Fault, Row, connect
from ondevice.store.migrations import MIGRATIONS

_PLAIN = b"SQLite format 3\0"  # how a file without a passphrase begins; others look random
_PATIENCE_MS = 20_000  # for which a write waits for those of other processes
_BRIEFLY_MS = 2_000  # for which what needs to be alone waits for others
_LEAST_FREE = 1 << 20  # bytes of the disk; with less it is full


class Database:
    """A SQLite connection in WAL mode with ``synchronous=FULL``: what was committed survives.

    One connection, used from any thread, one transaction at a time. Several processes may have
    the store open; they write one after the other. With a ``passphrase`` the file is encrypted
    by SQLCipher.

    Where the disk is full or read-only, an existing store is opened to be read alone: then
    ``read_only`` says why, and what writes raises :class:`StoreError`.

    Raises :class:`StoreLocked` when the passphrase is missing or wrong, and :class:`StoreError`
    when the file cannot be opened, is not a store, or was written by a newer version.
    """

    def __init__(self, path: Path, passphrase: str | None = None) -> None:
        self.path = path
        self.read_only = ""
        self._lock = threading.RLock()
        self._open(passphrase or None)

    def _open(self, passphrase: str | None) -> None:
        if self.path.is_symlink() and not self.path.exists():
            raise StoreError(
                f"The store {self.path} is a link to {self.path.readlink()}, which is not there. "
                "Connect the disk that has it, or remove the link."
            )
        try:
            self._open_to_write(passphrase)
        except (OSError, *Fault) as error:
            self.read_only = _hindrance(self.path)
            if self.read_only and _is_plain(self.path) is not None:
                self._open_to_read(passphrase)
                return
            advice = (
                "If the file is damaged, rescue what can be read with “ondevice memory export "
                "--salvage FILE”, then move the store aside; or set ONDEVICE_HOME to another "
                "folder."
            )
            raise StoreError(
                f"The store {self.path} cannot be opened: {self.read_only or error}. "
                f"{'Set ONDEVICE_HOME to another folder.' if self.read_only else advice}"
            ) from error

    def _open_to_read(self, passphrase: str | None) -> None:
        """With neither a WAL index beside the file nor anything else written."""
        try:
            self._connection = open_connection(self.path, passphrase, read_only=True)
            self._passphrase = passphrase
            version = self._version()
        except Fault as error:
            raise StoreError(
                f"The store {self.path} cannot be opened: {self.read_only} ({error})."
            ) from error
        if version != len(MIGRATIONS):
            self.close()
            raise StoreError(
                f"The store {self.path} must be brought up to date, and cannot be: "
                f"{self.read_only}."
            )

    def _open_to_write(self, passphrase: str | None) -> None:
        ensure_private(self.path.parent)
        # SQLite creates its files with the mode of the database, so this one decides for all.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
        while True:
            inode = self.path.stat().st_ino
            self._connection = open_connection(self.path, passphrase)
            # Another process may have put a new file in place, for a change of passphrase.
            if self.path.stat().st_ino == inode:
                break
            self._connection.close()
        self._passphrase = passphrase
        self._migrate()
        self._remove_leftovers()
        if self._scrub_is_due() or (self.encrypted and _is_plain_file(self.backup_file)):
            try:
                self.scrub()
            except StoreError:  # of another program that is reading; next time then
                if self.encrypted and _is_plain_file(self.backup_file):
                    self.backup_file.unlink()

    def _remove_leftovers(self) -> None:
        """Remove what a process that was killed has left of its copies; they may be readable."""
        names = (
            f"{self.path.name}-mj*",
            *(
                f"{_unfinished(target).name}{suffix}"
                for target in (self.path, self.backup_file)
                for suffix in ("", "-journal", "-wal", "-shm")
            ),
        )
        leftovers = [file for name in names for file in self.path.parent.glob(name)]
        if leftovers:
            with self.write():  # so not while another process makes a copy
                for file in leftovers:
                    file.unlink(missing_ok=True)

    def _migrate(self) -> None:
        version = self._version()
        if version > len(MIGRATIONS):
            self.close()
            raise StoreError(
                f"The store {self.path} was written by a newer ondevice (format {version}, this "
                f"one knows {len(MIGRATIONS)}). Update ondevice to open it."
            )
        if 0 < version < len(MIGRATIONS):
            self.backup()
        for number, migrate in enumerate(MIGRATIONS, start=1):
            if number > version:
                with self.write() as connection:
                    # Another process may have got there first.
                    if self._version() < number:
                        migrate(connection)
                        connection.execute(f"PRAGMA user_version={number}")

    def _version(self) -> int:
        version: int = self._connection.execute("PRAGMA user_version").fetchone()[0]
        return version

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction: committed when the block ends, rolled back when it raises.

        Raises :class:`StoreError`, and :class:`UsageError` for a text that is no Unicode.
        """
        with self._lock:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                except BaseException:
                    # SQLite itself has rolled back after some errors, such as a full disk.
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
            except Fault as error:
                raise StoreError(
                    f"The store {self.path} could not be written: {self.read_only or error}. "
                    "Nothing of this change "
                    "was kept; what was there before is safe."
                ) from error
            except UnicodeEncodeError as error:
                raise _no_unicode() from error

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """The connection, for queries only."""
        with self._lock:
            try:
                yield self._connection
            except Fault as error:
                raise StoreError(f"The store {self.path} could not be read: {error}.") from error
            except UnicodeEncodeError as error:
                raise _no_unicode() from error

    @property
    def encrypted(self) -> bool:
        """Whether a passphrase is needed to open the file."""
        return self._passphrase is not None

    @property
    def backup_file(self) -> Path:
        """The copy that is made before the format changes; it has the store's passphrase."""
        return self.path.with_name(f"{self.path.stem}.backup{self.path.suffix}")

    def backup(self) -> Path:
        """Write a copy of the whole store to :attr:`backup_file`, in place of the last one."""
        with self._lock, self._copying():
            self._copy(self.backup_file, self._passphrase).replace(self.backup_file)
            _sync_folder(self.path.parent)
        return self.backup_file

    def set_passphrase(self, passphrase: str | None) -> None:
        """Encrypt the store and its backup under another passphrase; None: as plain files.

        The new file is complete and on disk before it takes the old one's name. Raises
        :class:`StoreError` when another program has the store open.
        """
        passphrase = passphrase or None
        with self._lock, self._copying():
            with self.write() as connection:  # the backup is renewed, if need be at the next start
                connection.execute("INSERT OR IGNORE INTO scrub VALUES (1)")
            # Leaving WAL mode needs to be alone, and empties the WAL, which has the old key.
            self._connection.execute(f"PRAGMA busy_timeout={_BRIEFLY_MS}")
            self._connection.execute("PRAGMA journal_mode=DELETE")
            try:
                fresh = self._copy(self.path, passphrase)
                self._connection.close()  # Windows cannot replace a file that is open
                fresh.replace(self.path)
                self._passphrase = passphrase
                _sync_folder(self.path.parent)
            finally:
                self._connection.close()
                self._open(self._passphrase)

    def scrub(self) -> None:
        """Make sure that deleted bytes are in no file of ours: empty the WAL, renew the backup.

        A transaction that deletes says so in the table ``scrub``; if the process is killed before
        it comes to this, the next one to open the store does it. Raises :class:`StoreError` when
        another program is reading and the WAL must wait.
        """
        with self._lock, self._copying():
            self._connection.execute(f"PRAGMA busy_timeout={_BRIEFLY_MS}")
            (busy, _, _) = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            self._connection.execute(f"PRAGMA busy_timeout={_PATIENCE_MS}")
            if self.backup_file.exists():
                self.backup()
            if busy:
                raise StoreError(
                    "The text is deleted, but another program is reading the store, so its "
                    f"write-ahead log {self.path}-wal may still hold it. Close that program and "
                    "run “ondevice memory check”."
                )
            if self._scrub_is_due():
                with self.write() as connection:
                    connection.execute("DELETE FROM scrub")

    def _scrub_is_due(self) -> bool:
        return self._connection.execute("SELECT 1 FROM scrub").fetchone() is not None

    def damage(self) -> list[str]:
        """What SQLite's own checks find wrong; an empty list is a sound file."""
        with self._lock:
            try:
                rows = self._connection.execute("PRAGMA integrity_check").fetchall()
                rows += self._connection.execute("PRAGMA foreign_key_check").fetchall()
                rows += self._connection.execute("PRAGMA cipher_integrity_check").fetchall()
            except Fault as error:
                return [str(error)]
        return [text for row in rows if (text := " ".join(map(str, row))) != "ok"]

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    @contextmanager
    def _copying(self) -> Iterator[None]:
        try:
            yield
        except (OSError, *Fault) as error:
            raise StoreError(
                f"The store {self.path} could not be rewritten: {error}. It is as it was; if "
                "another program has it open, close that and try again."
            ) from error

    def _copy(self, target: Path, passphrase: str | None) -> Path:
        """A copy of the store under ``passphrase``, 0600 and on disk, for ``target`` to become."""
        fresh = _unfinished(target)
        fresh.unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        connection = self._connection
        try:
            connection.execute("ATTACH ? AS copy KEY ?", (str(fresh), passphrase or ""))
            try:
                with self.write():
                    connection.execute("SELECT sqlcipher_export('copy')").fetchall()
                    connection.execute(f"PRAGMA copy.user_version={self._version()}")
            finally:
                connection.execute("DETACH copy")
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        return fresh


def _no_unicode() -> UsageError:
    """Of halves of characters, which Python makes of bytes that are not UTF-8."""
    return UsageError("The text cannot be stored or looked for: it is not UTF-8. Convert it first.")


def _unfinished(target: Path) -> Path:
    return target.with_name(f"{target.name}.new")


def _is_plain(path: Path) -> bool | None:
    """Whether the file is a SQLite file without encryption; None: it is empty."""
    with path.open("rb") as file:
        head = file.read(len(_PLAIN))
    return head == _PLAIN if head else None


def _is_plain_file(path: Path) -> bool:
    return path.exists() and _is_plain(path) is True


def _hindrance(path: Path) -> str:
    """Why nothing can be written beside the store, in a few words; empty: nothing is known."""
    folder = next((p for p in path.parents if p.is_dir()), path.parent)
    with suppress(OSError):
        if hasattr(os, "statvfs") and os.statvfs(folder).f_flag & os.ST_RDONLY:
            return "the disk is read-only"
        if shutil.disk_usage(folder).free < _LEAST_FREE:
            return "the disk is full"
        if not os.access(folder, os.W_OK):
            return f"the folder {folder} cannot be written to"
    return ""


def open_connection(
    path: Path, passphrase: str | None, *, read_only: bool = False
) -> Connection:
    plain = _is_plain(path)
    if plain is False and not passphrase:
        raise StoreLocked(f"The store {path} has a passphrase, or is not a store at all.")
    if plain and passphrase:
        raise StoreLocked(
            f"The store {path} has no passphrase yet. Open it without one; "
            "“ondevice memory passphrase” sets it."
        )
    # Where nothing at all may be written, SQLite cannot look at a WAL that is left from before.
    immutable = read_only and not os.access(path, os.W_OK)
    source = f"{path.absolute().as_uri()}{'?immutable=1' if immutable else ''}"
    connection = connect(source, uri=True, isolation_level=None, check_same_thread=False)
    try:
        if read_only:  # the index of the WAL is then in memory, and not in a file
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        if passphrase:
            connection.execute("PRAGMA cipher_log_level=NONE")  # it prints what it then raises
            connection.execute("PRAGMA key='" + passphrase.replace("'", "''") + "'")
            try:
                connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            except DatabaseError as error:
                if "not a database" not in str(error):
                    raise
                raise StoreLocked(f"The passphrase does not open the store {path}.") from error
        if read_only:
            connection.row_factory = Row
            return connection
        return prepared(connection)
    except BaseException:
        connection.close()
        raise


def prepared(connection: Connection) -> Connection:
    """The connection, set up as every one of the store is."""
    connection.row_factory = Row
    for pragma in (
        f"busy_timeout={_PATIENCE_MS}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "secure_delete=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def _sync_folder(folder: Path) -> None:
    """Put a rename on disk, where folders can be opened (not on Windows)."""
    with suppress(PermissionError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
