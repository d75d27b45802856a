"""Measures how fast a disk gives weights: large reads past the page cache."""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

_CHUNK = 8 << 20  # bytes of one read, about what a block of a small model takes
_SAMPLE = 256 << 20  # bytes read at most, and written where there is no model file to read


@dataclass(frozen=True, slots=True)
class DiskSpeed:
    """Of one measurement."""

    bytes_per_second: float
    n_bytes: int  # read for it
    direct: bool  # False: the page cache could not be avoided, so the figure may be too high


def measure(place: Path, seconds: float = 1.5) -> DiskSpeed:
    """Read from ``place``, a large file, for ``seconds`` at most; in a folder, write one first.

    Raises :class:`OSError` if that is not possible.
    """
    if place.is_file():
        return _measure(place, seconds)
    if shutil.disk_usage(place).free < 4 * _SAMPLE:
        raise OSError(errno.ENOSPC, "Too little room to write a file and read it")
    with tempfile.TemporaryDirectory(prefix="ondevice-", dir=place) as folder:
        file = Path(folder) / "sample"
        noise = os.urandom(_CHUNK)  # which no file system can store as less
        with file.open("wb") as sample:
            for _ in range(_SAMPLE // _CHUNK):
                sample.write(noise)
            sample.flush()
            os.fsync(sample.fileno())
        return _measure(file, seconds)


def _measure(file: Path, seconds: float) -> DiskSpeed:
    direct_flag = getattr(os, "O_DIRECT", 0)  # Linux
    if direct_flag:
        # Some file systems refuse direct reads when opening, others when reading.
        with contextlib.suppress(OSError), _open(file, direct_flag) as opened:
            return _read(opened, seconds, direct=True)
    with _open(file, 0) as opened:
        if sys.platform == "darwin":
            import fcntl  # noqa: PLC0415 - not on Windows

            fcntl.fcntl(opened, fcntl.F_NOCACHE, 1)
        return _read(opened, seconds, direct=sys.platform == "darwin")


def _open(file: Path, flags: int) -> FileIO:
    return FileIO(os.open(file, os.O_RDONLY | getattr(os, "O_BINARY", 0) | flags), "rb")


def _read(file: FileIO, seconds: float, *, direct: bool) -> DiskSpeed:
    buffer = mmap.mmap(-1, _CHUNK)  # at the start of a page, as direct reads want it
    n_bytes = 0
    started = time.perf_counter()
    while n_bytes < _SAMPLE and time.perf_counter() - started < seconds:
        n_read = file.readinto(buffer) or 0
        n_bytes += n_read
        if n_read < _CHUNK:  # the end of the file
            break
    return DiskSpeed(n_bytes / (time.perf_counter() - started), n_bytes, direct)
