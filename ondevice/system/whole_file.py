"""Writes files whole or not at all, for the user only."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ondevice.errors import UsageError


@contextmanager
def written(path: Path, *, replace: bool) -> Iterator[BinaryIO]:
    """What is written to it becomes the file, mode 0600, when the block ends without an error.

    Raises :class:`UsageError` when it cannot be written, is there and is not to be replaced, or is
    no ordinary file.
    """
    try:
        if os.path.lexists(path) and not (replace and path.is_file()):
            is_other = path.exists() and not path.is_file()
            why = "it is not an ordinary file" if is_other else "it already exists"
            raise UsageError(f"{path} cannot be written: {why}.")
        fresh = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex[:8]}")
        try:
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except ValueError as error:
            raise UsageError(f"{path} cannot be written: {error}.") from error
        try:
            with os.fdopen(handle, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if replace:
                fresh.replace(path)
            else:
                _put(fresh, path)
        finally:
            fresh.unlink(missing_ok=True)
    except FileExistsError:
        raise UsageError(f"{path} cannot be written: it already exists.") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror or error}.") from error


def _put(fresh: Path, path: Path) -> None:
    """Give a file its name, unless that is taken meanwhile."""
    try:
        os.link(fresh, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without links
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        fresh.replace(path)
