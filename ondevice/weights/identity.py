"""Whether a file is still the one that it was."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ondevice.errors import ModelChanged, ModelFileError


@dataclass(frozen=True)
class FileIdentity:
    """What changes when a file is changed or replaced.

    The time of the last change of any kind is among it, since who writes to a file can set the
    time of its last writing back. It also changes with the name and the permissions of a file:
    better to load a model once too often than to go on with the weights of another.
    """

    n_bytes: int
    written_ns: int
    changed_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileIdentity:
        return cls(
            status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev
        )


class UnchangedFiles:
    """Files that are to stay what they are. Raises :class:`ModelFileError` for one that is gone."""

    def __init__(self, paths: Iterable[Path]) -> None:
        self._known = {path: _look(path) for path in paths}

    def check(self) -> None:
        """Raises :class:`ModelChanged` if one of the paths names another file, or changed bytes."""
        for path, known in self._known.items():
            if _look(path) != known:
                raise changed(path)


def _look(path: Path) -> FileIdentity:
    try:
        return FileIdentity.of(path.stat())
    except OSError as error:
        raise failed(path, error) from error


def changed(path: Path) -> ModelChanged:
    """The error to raise for a file that is not what it was."""
    return ModelChanged(f"{path} was changed while it was in use. Load the model again.")


def failed(path: Path, error: OSError) -> ModelFileError:
    """The error to raise when reading went wrong."""
    return ModelFileError(
        f"Reading {path} failed: {error.strerror}. "
        "Check the disk; if it is sound, load the model again."
    )
