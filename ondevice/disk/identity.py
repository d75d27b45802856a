"""Whether a file is still the one that it was."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ondevice.errors import ModelChanged, ModelFileError


@dataclass(frozen=True)
class FileIdentity:
    """What changes when a file is changed or replaced, and what else is changed with its inode."""

    n_bytes: int
    written_ns: int
    inode: int
    device: int
    changed_ns: int  # bytes or anything below; nobody can set it back
    n_links: int
    mode: int
    owner: tuple[int, int]  # user, group

    @classmethod
    def of(cls, status: os.stat_result) -> FileIdentity:
        return cls(
            n_bytes=status.st_size,
            written_ns=status.st_mtime_ns,
            inode=status.st_ino,
            device=status.st_dev,
            changed_ns=status.st_ctime_ns,
            n_links=status.st_nlink,
            mode=status.st_mode,
            owner=(status.st_uid, status.st_gid),
        )

    def has_bytes_of(self, earlier: FileIdentity) -> bool:
        """Whether the bytes are those of ``earlier``, as far as can be told without reading.

        Who writes to a file can set the time of the last writing back, and not that of the last
        change. That one alone may come from a new link, other permissions or another owner.
        """
        same = (self.n_bytes, self.written_ns, self.inode, self.device)
        if same != (earlier.n_bytes, earlier.written_ns, earlier.inode, earlier.device):
            return False
        beside = self.n_links, self.mode, self.owner
        explained = beside != (earlier.n_links, earlier.mode, earlier.owner)
        return explained or self.changed_ns == earlier.changed_ns


class UnchangedFile:
    """A file whose bytes are to stay what they are. ``status`` is of now."""

    def __init__(self, path: Path, status: os.stat_result) -> None:
        self._path = path
        self._known = FileIdentity.of(status)

    @property
    def n_bytes(self) -> int:
        return self._known.n_bytes

    @property
    def lasting(self) -> tuple[int, int]:
        """Bytes, and when they were last written, in ns."""
        return self._known.n_bytes, self._known.written_ns

    def check(self, status: os.stat_result) -> None:
        """Raises :class:`ModelChanged` if ``status`` is of another file, or of changed bytes."""
        now = FileIdentity.of(status)
        if not now.has_bytes_of(self._known):
            raise changed(self._path)
        self._known = now


class UnchangedFiles:
    """Files that are to stay what they are. Raises :class:`ModelFileError` for one that is gone."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._files = {path: UnchangedFile(path, _look(path)) for path in paths}

    def identities(self) -> list[tuple[str, int, int]]:
        """Name, bytes and time of the last writing of each, which a restart does not change."""
        return [(path.name, *file.lasting) for path, file in self._files.items()]

    def check(self) -> None:
        """Raises :class:`ModelChanged` if one of the paths names another file, or changed bytes."""
        for path, file in self._files.items():
            file.check(_look(path))


def _look(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError as error:
        raise failed(path, error) from error


def changed(path: Path) -> ModelChanged:
    """The error to raise for a file that is not what it was."""
    return ModelChanged(f"{path} changed while it was in use. Load the model again.")


def failed(path: Path, error: OSError) -> ModelFileError:
    """The error to raise when reading went wrong."""
    if isinstance(error, FileNotFoundError):
        return ModelFileError(
            f"{path} is gone: it was moved, renamed or deleted while it was in use. Put it back, "
            "or choose another model."
        )
    return ModelFileError(
        f"{path} could not be read: {error.strerror}. Check the disk; if it is fine, load "
        "the model again."
    )
