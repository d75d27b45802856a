"""Opens the store, migrates it, and hands out read and write transactions."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ondevice.errors import StoreError, StoreLocked, StoreUnwritable, UsageError
from ondevice.paths import ensure_private, states_dir
from ondevice.store import _copies, _state_keys
from ondevice.store._readonly import connect_to_read, why_unwritable
from ondevice.store._sqlite import Connection, DatabaseError, Fault, OperationalError, Row, connect
from ondevice.store.migrations import MIGRATIONS
from ondevice.text import reason

_PATIENCE = 20.0  # seconds that a change waits for those of other programs
_SHORT_PATIENCE = 1.0  # where the answer is that another program has the store open
_SALT = 16  # bytes
#: What SQLite says, among others, where a file system has no shared memory for the index of a WAL,
#: as on some networks and in some folders that a virtual machine shares: SQLITE_IOERR.
_IO_ERROR = 10
_BUSY = 5  # the lowest byte of SQLite's code for a file that others have locked


class Database:
    """A SQLite connection in WAL mode with ``synchronous=FULL``: what was committed survives.

    It has a rollback journal where the file system has no shared memory.
    One connection, used from any thread, one transaction at a time. Several processes may have
    the store open; they write one after the other. With a ``passphrase`` the file is encrypted
    by SQLCipher.

    Raises :class:`StoreLocked` when the passphrase is missing or wrong, and :class:`StoreError`
    when the file cannot be opened, is not a store, or was written by a newer version.
    """

    _writes = 0  # that were carried out here
    _file: os.stat_result | None = None

    def __init__(self, path: str | os.PathLike[str], passphrase: str | None = None) -> None:
        self.path = _target(Path(path))
        self.read_only: str | None = None
        """Why nothing can be written: the store was opened to be read only. None: it can."""
        #: The folder for what models have computed of conversations: see :meth:`state_key`.
        self.states = states_dir(self.path)
        self._lock = threading.RLock()
        self._folder = _copies.FolderLock(self.path.parent)
        self._open(passphrase or None)

    def _open(self, passphrase: str | None) -> None:
        try:
            self._open_to_write(passphrase)
        except (OSError, *Fault) as error:
            if (why := why_unwritable(error, self.path)) is None:
                raise StoreError(
                    f"The store {self.path} cannot be opened: {reason(error)}. If the file is "
                    "damaged, rescue what can be read with “ondevice memory export --salvage "
                    "FILE”, then move the store aside; or set ONDEVICE_HOME to another folder."
                ) from error
            self._open_to_read(passphrase, why, error)

    def _open_to_write(self, passphrase: str | None) -> None:
        ensure_private(self.path.parent)
        with self._folder.opening() as alone:
            # SQLite creates its files with the mode of the database, so this one decides for all.
            if not self.path.exists():
                with suppress(FileExistsError):  # another process was faster
                    os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            os.close(os.open(self.path, os.O_RDWR))
            _copies.make_private(self.path)
            while True:
                self._file = self.path.stat()
                self._connection = open_connection(self.path, passphrase)
                # Another process may have put a new file in place, for a change of passphrase.
                if self._is_there():
                    break
                self._connection.close()
            try:
                self._passphrase = passphrase
                self._migrate()
                if alone:
                    self._clean()
                    _state_keys.sweep(self._connection, self.states)
                if self._scrub_is_due():
                    with suppress(StoreError):  # of another program that reads; next time then
                        self.scrub()
            except BaseException:
                self._connection.close()
                raise

    def _open_to_read(self, passphrase: str | None, why: str, error: Exception) -> None:
        sentence = f"The store {self.path} cannot be opened: {why}."
        try:
            self._connection = connect_to_read(
                self.path, lambda connection: _prepare(connection, self.path, passphrase)
            )
            version = self._version()
        except (OSError, *Fault):
            raise StoreError(f"{sentence} Or set ONDEVICE_HOME to another folder.") from error
        if version != len(MIGRATIONS):
            self.close()
            if not version:  # nothing was ever written to it
                raise StoreError(f"{sentence} Or set ONDEVICE_HOME to another folder.") from error
            raise StoreError(
                f"{sentence} It was written by another version of ondevice, so it cannot be read "
                "before that."
            ) from error
        self._passphrase = passphrase
        self.read_only = why

    def _clean(self) -> None:
        """Remove what a kill has left, such as a copy in plain text beside the encrypted store.

        A backup that another key opens is made anew.
        """
        _copies.remove_leftovers(self.path, self.backup_file, has_wal=self._has_wal())
        if not self.backup_file.is_file():
            return
        _copies.make_private(self.backup_file)
        if _copies.head(self.backup_file) != _copies.head(self.path):
            was_plain = _copies.is_plain(self.backup_file)
            try:
                self.backup()
            except StoreError:  # the disk is full, say
                if was_plain:
                    _copies.remove_backup(self.backup_file)

    def _is_there(self) -> bool:
        """Whether the file is the one that was opened, or none was."""
        try:
            return self._file is None or os.path.samestat(self.path.stat(), self._file)
        except OSError:
            return False

    def _has_wal(self) -> bool:
        mode: str = self._connection.execute("PRAGMA journal_mode").fetchone()[0]
        return mode == "wal"

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
        if version < len(MIGRATIONS):
            with self.write() as connection:  # all of them or none
                version = self._version()  # another process may have got there first
                for number, migrate in enumerate(MIGRATIONS, start=1):
                    if number > version:
                        migrate(connection)
                        connection.execute(f"PRAGMA user_version={number}")

    def _version(self) -> int:
        version: int = self._connection.execute("PRAGMA user_version").fetchone()[0]
        return version

    @contextmanager
    def write(self, *, patience: float | None = None) -> Iterator[Connection]:
        """A transaction: committed when the block ends, rolled back when it raises.

        ``patience`` is for how many seconds it waits for a transaction of another program, if
        not for as long as usual. Raises :class:`StoreUnwritable`, and :class:`UsageError` for a
        text that is no Unicode.
        """
        if self.read_only:
            raise StoreUnwritable(
                f"The store {self.path} can only be read: {self.read_only}, and start again. "
                "Nothing of this change was saved; everything before it is safe."
            )
        with self._lock:
            if not self._is_there():
                raise StoreUnwritable(
                    f"The store {self.path} was moved, deleted or replaced by another program. "
                    "Nothing of this change was saved. Put it back, or start again."
                )
            try:
                with self._patience(patience):
                    self._connection.execute("BEGIN IMMEDIATE")
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                    self._writes += 1
                except BaseException:
                    # SQLite itself has rolled back after some errors, such as a full disk.
                    if self._connection.in_transaction:
                        self._connection.execute("ROLLBACK")
                    raise
            except Fault as error:
                raise StoreUnwritable(
                    f"The store {self.path} could not be written: {self._why(error)}. Nothing of "
                    "this change was saved; everything before it is safe."
                ) from error
            except UnicodeEncodeError as error:
                raise _no_unicode() from error

    def _why(self, error: Exception) -> str:
        """Why a change could not be written, and what to do, where that is known."""
        if _is_busy(error):
            return "another program has been writing to it all the time. Try again"
        return why_unwritable(error, self.path) or str(error)

    @contextmanager
    def _patience(self, seconds: float | None) -> Iterator[None]:
        """How long the statements of the block wait for other programs."""
        if seconds is None:
            yield
            return
        (usual,) = self._connection.execute("PRAGMA busy_timeout").fetchone()
        self._connection.execute(f"PRAGMA busy_timeout={round(seconds * 1000)}")
        try:
            yield
        finally:
            self._connection.execute(f"PRAGMA busy_timeout={usual}")

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

    def changes(self, *, own: bool = True) -> tuple[int, int] | None:
        """Other numbers once somebody has written; None: busy, ask later.

        Without ``own``, somebody is another program. Never waits, and costs some millionths of a
        second.
        """
        if not self._lock.acquire(blocking=False):
            return None
        try:
            with self._patience(0):
                number: int = self._connection.execute("PRAGMA data_version").fetchone()[0]
                return number, self._writes if own else 0
        except Fault:
            return None
        finally:
            self._lock.release()

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
            salt = self._connection.execute("PRAGMA cipher_salt").fetchone()
            self._copy(
                self.backup_file, self._passphrase, bytes.fromhex(salt[0]) if salt else b""
            ).replace(self.backup_file)
            _copies.sync_folder(self.path.parent)
        return self.backup_file

    def set_passphrase(self, passphrase: str | None) -> None:
        """Encrypt the store and its backup under another passphrase; None: as plain files.

        The new file is complete and on disk before it takes the old one's name. The backup is
        encrypted before the store is, so that there is no moment in which the store is encrypted
        and the backup is not; opening the store puts right what a kill leaves. Raises
        :class:`StoreError` when another program has the store open, or that cannot be told.
        """
        passphrase = passphrase or None
        with self._lock, self._copying():
            if not self._has_wal():
                raise StoreError(
                    f"The passphrase cannot be changed where the store {self.path} lies: its disk "
                    "cannot tell whether another program has it open. Move the folder to a local "
                    "disk, change the passphrase there, and move it back."
                )
            self._leave_wal()
            salt = os.urandom(_SALT)
            try:
                fresh = self._copy(self.path, passphrase, salt)
                if passphrase and self.backup_file.exists():
                    self._copy(self.backup_file, passphrase, salt).replace(self.backup_file)
                    _copies.sync_folder(self.path.parent)
                self._connection.close()  # Windows cannot replace a file that is open
                fresh.replace(self.path)
                self._passphrase = passphrase
                _copies.sync_folder(self.path.parent)
            finally:
                self._connection.close()
                self._open(self._passphrase)

    def _leave_wal(self) -> None:
        """Empty the write-ahead log, which has the old key. Only who is alone can do that."""
        try:
            with self._patience(_SHORT_PATIENCE):
                self._connection.execute("PRAGMA journal_mode=DELETE")
        except OperationalError as error:
            if not _is_busy(error):
                raise
            raise StoreError(
                f"The passphrase was not changed: another window or program is using {self.path}. "
                "Close it and try again."
            ) from error

    def scrub(self) -> None:
        """Make sure that deleted bytes are in no file of ours: empty the WAL, renew the backup.

        A transaction that deletes says so in the table ``scrub``; if the process is killed before
        it comes to this, the next one to open the store does it. Raises :class:`StoreError` when
        another program is reading and the WAL must wait.
        """
        with self._lock, self._copying():
            with self._patience(5):
                busy = self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            _copies.unfinished(self.backup_file).unlink(missing_ok=True)
            if self.backup_file.exists():
                self.backup()
            if busy:
                raise StoreError(
                    "The text is deleted, but another program is reading the store, so its "
                    f"write-ahead log {self.path}-wal may still hold it. Close that program and "
                    "run “ondevice memory check”."
                )
            _state_keys.sweep(self._connection, self.states)
            if self._scrub_is_due():
                with self.write() as connection:
                    connection.execute("DELETE FROM scrub")

    def state_key(self, conversation_id: int | None) -> tuple[str, bytes] | None:
        """A folder in :attr:`states`, which is there, and the secret that encrypts what is in it.

        It is for what a model has computed of the conversation, or with None of what several begin
        with. It goes with the conversation, and once something is forgotten that it has seen. None:
        nothing may be kept, as of a store that cannot be written to.
        """
        if self.read_only:
            return None
        with suppress(OSError, StoreError):
            with self.read() as connection:
                key = _state_keys.find(connection, conversation_id)
            if key is None:
                with self.write() as connection:
                    key = _state_keys.make(connection, conversation_id)
            ensure_private(self.states / key[0])
            return key
        return None

    def delete_states(self, conversation_id: int | None = None) -> None:
        """Forget what models have computed, of one conversation or of all, and do not fail."""
        if self.read_only or not self.states.is_dir():
            return
        with suppress(StoreError), self.write() as connection:
            connection.execute(
                "DELETE FROM state_key WHERE ?1 IS NULL OR conversation_id = ?1", (conversation_id,)
            )
        _state_keys.sweep(self._connection, self.states)

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
            with self._folder.alone():
                yield
        except (OSError, *Fault) as error:
            raise StoreError(
                f"The store {self.path} could not be rewritten: {reason(error)}. It is unchanged; "
                "if another program has it open, close that program and try again."
            ) from error

    def _copy(self, target: Path, passphrase: str | None, salt: bytes) -> Path:
        """A copy of the store under ``passphrase``, 0600 and on disk, for ``target`` to become.

        Files with the same ``salt`` have the same key.
        """
        fresh = _copies.unfinished(target)
        fresh.unlink(missing_ok=True)
        os.close(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
        connection = self._connection
        try:
            connection.execute("ATTACH ? AS copy KEY ?", (str(fresh), passphrase or ""))
            try:
                if passphrase:
                    connection.execute(f"PRAGMA copy.cipher_salt=\"x'{salt.hex()}'\"")
                # A copy that was killed is removed, so it needs no journal on the disk.
                connection.execute("PRAGMA copy.journal_mode=MEMORY")
                with self.write():
                    connection.execute("SELECT sqlcipher_export('copy')").fetchall()
                    connection.execute(f"PRAGMA copy.user_version={self._version()}")
            finally:
                connection.execute("DETACH copy")
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        return fresh


def _target(path: Path) -> Path:
    """Where the store lies: a link is followed, so that all files are beside what it names."""
    if not path.is_symlink():
        return path
    if not path.exists():
        raise StoreError(
            f"The store {path} is a link to {path.readlink()}, which does not exist. "
            "Connect its disk, or remove the link to start with an empty store."
        )
    return path.resolve()


def _no_unicode() -> UsageError:
    """Of halves of characters, which Python makes of bytes that are not UTF-8."""
    return UsageError(
        "The text cannot be stored or searched for: it is not UTF-8. Convert it first."
    )


def _is_busy(error: Exception) -> bool:
    """Whether others have locked the file."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == _BUSY


def open_connection(path: Path, passphrase: str | None) -> Connection:
    try:
        return _connect(path, passphrase)
    except OperationalError as error:
        if getattr(error, "sqlite_errorcode", 0) & 0xFF != _IO_ERROR:
            raise
        return _connect(path, passphrase, with_wal=False)


def _connect(path: Path, passphrase: str | None, *, with_wal: bool = True) -> Connection:
    connection = connect(path, isolation_level=None, check_same_thread=False)
    try:
        if not with_wal:  # who is alone needs no shared memory to leave WAL mode
            connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        return prepared(_prepare(connection, path, passphrase), with_wal=with_wal)
    except BaseException:
        connection.close()
        raise


def _prepare(connection: Connection, path: Path, passphrase: str | None) -> Connection:
    """The connection with its key. Raises :class:`StoreLocked` where that does not fit."""
    plain = _copies.is_plain(path)
    if plain is False and not passphrase:
        raise StoreLocked(f"The store {path} has a passphrase, or is not a store at all.")
    if plain and passphrase:
        raise StoreLocked(
            f"The store {path} has no passphrase yet. Open it without one; “ondevice "
            "memory passphrase” sets one."
        )
    if passphrase:
        connection.execute("PRAGMA cipher_log_level=NONE")  # it prints what it then raises
        connection.execute("PRAGMA key='" + passphrase.replace("'", "''") + "'")
        try:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        except OperationalError:  # the disk is full, say
            raise
        except DatabaseError as error:
            raise StoreLocked(
                f"The passphrase does not match the store {path}, or the file is damaged."
            ) from error
    connection.row_factory = Row
    return connection


def prepared(connection: Connection, *, with_wal: bool = True) -> Connection:
    """The connection, set up as every one of the store is."""
    connection.row_factory = Row
    for pragma in (
        f"busy_timeout={round(_PATIENCE * 1000)}",
        f"journal_mode={'WAL' if with_wal else 'DELETE'}",
        "locking_mode=NORMAL",
        "synchronous=FULL",
        "foreign_keys=ON",
        "secure_delete=ON",
    ):
        connection.execute(f"PRAGMA {pragma}")
    connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()  # lets others in, too
    return connection
