"""Writes files whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ondevice.errors import FileError


@contextmanager
def written(path: Path, *, replace: bool) -> Iterator[BinaryIO]:
    """As :func:`replacing`, for a file that the user has named: on disk, and mode 0600.

    Raises :class:`FileError` when it cannot be written, is there and is not to be replaced, or is
    no ordinary file.
    """
    try:
        if os.path.lexists(path) and not (replace and path.is_file()):
            is_other = path.exists() and not path.is_file()
            why = "it is not an ordinary file" if is_other else "it already exists"
            raise FileError(f"{path} cannot be written: {why}.")
        try:
            os.path.realpath(path)
        except ValueError as error:  # a zero byte, say
            raise FileError(f"{path} cannot be written: {error}.") from error
        with replacing(path, new=not replace, sync=True) as file:
            yield file
    except FileExistsError:
        raise FileError(f"{path} cannot be written: it already exists.") from None
    except OSError as error:
        raise FileError(f"{path} cannot be written: {error.strerror or error}.") from error


@contextmanager
def replacing(
    path: Path, *, mode: int = 0o600, new: bool = False, sync: bool = False
) -> Iterator[BinaryIO]:
    """What is written to it becomes the file when the block ends without an error.

    On Linux it has no name until then, so a kill leaves nothing behind. With ``sync`` it is on
    disk before it takes the place of the old file. A link stays one, and its target is replaced.
    Raises :class:`OSError`: :class:`FileExistsError` if it is to be a ``new`` file and is not.
    """
    path = Path(os.path.realpath(path))
    fresh = path.with_name(f".ondevice-{os.urandom(4).hex()}")
    handle = _without_name(path.parent, mode)
    has_name = handle is None
    if handle is None:
        handle = _with_name(fresh, mode)
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            if sync:
                os.fsync(handle)
            if not has_name and not _name(handle, path if new else fresh):
                has_name = True
                _copy(handle, fresh, mode, sync=sync)
        if not new:
            fresh.replace(path)
        elif has_name:
            _put(fresh, path)
    finally:
        if has_name or not new:
            fresh.unlink(missing_ok=True)


def _with_name(path: Path, mode: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)


def _without_name(folder: Path, mode: int) -> int | None:
    """A file that gets its name later; None: this system or file system has no such thing."""
    if not hasattr(os, "O_TMPFILE"):
        return None
    with suppress(OSError):
        handle = os.open(folder, os.O_RDWR | os.O_TMPFILE, mode)
        if Path(_place(handle)).exists():
            return handle
        os.close(handle)
    return None


def _name(handle: int, path: Path) -> bool:
    """Give a file without a name one, where the file system has links."""
    # With a folder, Python follows the link, as it must here; the folder itself is not used.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.link(_place(handle), path, src_dir_fd=folder, follow_symlinks=True)
    except FileExistsError:
        raise
    except OSError:
        return False
    finally:
        os.close(folder)
    return True


def _copy(handle: int, path: Path, mode: int, *, sync: bool) -> None:
    with Path(_place(handle)).open("rb") as file, os.fdopen(_with_name(path, mode), "wb") as copy:
        shutil.copyfileobj(file, copy)
        copy.flush()
        if sync:
            os.fsync(copy.fileno())


def _place(handle: int) -> str:
    return f"/proc/self/fd/{handle}"


def _put(fresh: Path, path: Path) -> None:
    """Give a file its name, unless that is taken meanwhile."""
    try:
        os.link(fresh, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        os.close(_with_name(path, 0o600))
        fresh.replace(path)
