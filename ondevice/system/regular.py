"""Opens ordinary files only: a pipe or a device may never end, or never begin."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO

from ondevice.errors import FileError


def open_regular(path: Path) -> BinaryIO:
    """The file, to be read. Raises :class:`FileError` for what is none, and :class:`OSError`."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise FileError(f"{path} is not an ordinary file, so it is not read.")
    # It may have become a pipe since; to open one would wait for who writes to it.
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileError(f"{path} is not an ordinary file, so it is not read.")
    return os.fdopen(handle, "rb")
