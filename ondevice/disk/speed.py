"""Measures how fast a disk gives weights: large reads past the page cache."""

from __future__ import annotations

import errno
import os
import shutil
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ondevice.disk.reader import PIECE_BYTES, READS_IN_FLIGHT, Arena, Reader, Reading, Span
from ondevice.errors import OndeviceError

_CHUNK = 8 << 20  # bytes of one write
_BUFFERS = 2 * READS_IN_FLIGHT  # so that there is always a read to begin
_SAMPLE = 256 << 20  # bytes read at most, and written where there is no model file to read
_GLANCES = 4  # reads
_GLANCE_S = 1.0


@dataclass(frozen=True, slots=True)
class DiskSpeed:
    """Of one measurement."""

    bytes_per_second: float
    n_bytes: int  # read for it
    direct: bool  # False: the page cache could not be avoided, so the figure may be too high


def measure(
    place: Path, seconds: float = 1.5, cancelled: Callable[[], bool] = lambda: False
) -> DiskSpeed:
    """Read from ``place``, a large file, for ``seconds`` at most; in a folder, write one first.

    Raises :class:`OSError` if that is not possible, and soon when ``cancelled``.
    """
    if place.is_file():
        return _measure(place, seconds, cancelled)
    if shutil.disk_usage(place).free < 4 * _SAMPLE:
        raise OSError(errno.ENOSPC, "There is too little room to write a test file")
    with _sample(place) as (sample, path):
        noise = os.urandom(_CHUNK)  # which no file system can store as less
        for _ in range(_SAMPLE // _CHUNK):
            _go_on(cancelled)
            sample.write(noise)
            sample.flush()
            os.fsync(sample.fileno())  # at the end, all of it would take long
        return _measure(path, seconds, cancelled)


@contextmanager
def _sample(folder: Path) -> Generator[tuple[IO[bytes], Path]]:
    """A file to write, and the path by which it is read.

    On Linux it has no name, so that a kill leaves nothing behind.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        nameless = Path("/proc/self/fd", str(file.fileno()))
        if nameless.exists():
            yield file, nameless
            return
    with tempfile.TemporaryDirectory(prefix="ondevice-", dir=folder) as own:
        path = Path(own, "sample")
        with path.open("wb") as file:
            yield file, path


def glance(file: Path, enough: float) -> float:
    """Bytes a second of the fastest of a few reads, one after the other, until one is ``enough``.

    Other programs make some of them slow, but hardly all. About a second is all that it takes, or
    one read if that takes longer. Raises :class:`OSError` if the file cannot be read, or is too
    small for that.
    """
    n_bytes = file.stat().st_size
    if n_bytes < _GLANCES * PIECE_BYTES:
        raise OSError(errno.EINVAL, "The file is too small to measure the disk's speed")
    best = 0.0
    with _reader(file) as reader:
        arena = Arena(PIECE_BYTES)
        arena.view[:] = bytes(arena.n_bytes)
        begun = time.perf_counter()
        for index in range(_GLANCES):
            at = n_bytes * index // _GLANCES // PIECE_BYTES * PIECE_BYTES
            started = time.perf_counter()
            reader.start(Span(0, at, PIECE_BYTES), arena.view).wait()
            best = max(best, PIECE_BYTES / (time.perf_counter() - started))
            if best >= enough or time.perf_counter() - begun > _GLANCE_S:
                break
    return best


def _go_on(cancelled: Callable[[], bool]) -> None:
    if cancelled():
        raise OSError(errno.ECANCELED, "The measurement was cancelled")


def _measure(file: Path, seconds: float, cancelled: Callable[[], bool]) -> DiskSpeed:
    """As the window reads: a few reads at once, into memory that is there."""
    with _reader(file) as reader:
        return _read(reader, file.stat().st_size, seconds, cancelled)


@contextmanager
def _reader(file: Path) -> Generator[Reader]:
    try:
        with closing(Reader([file])) as reader:
            yield reader
    except OndeviceError as error:
        raise OSError(errno.EIO, str(error)) from error


def _read(reader: Reader, size: int, seconds: float, cancelled: Callable[[], bool]) -> DiskSpeed:
    arena = Arena(_BUFFERS * PIECE_BYTES)
    arena.view[:] = bytes(arena.n_bytes)
    whole = min(size, _SAMPLE) // PIECE_BYTES
    spans = [Span(0, at * PIECE_BYTES, PIECE_BYTES) for at in range(whole)]
    under_way: deque[Reading] = deque()
    n_bytes = 0
    started = time.perf_counter()
    for index, span in enumerate(spans or [Span.around(0, 0, size)]):
        if time.perf_counter() - started > seconds:
            break
        _go_on(cancelled)
        if len(under_way) == _BUFFERS:
            under_way.popleft().wait()
        at = index % _BUFFERS * PIECE_BYTES
        under_way.append(reader.start(span, arena.view[at : at + PIECE_BYTES]))
        n_bytes += span.n_bytes
    for reading in under_way:
        reading.wait()
    took = time.perf_counter() - started
    return DiskSpeed(n_bytes / took, n_bytes, reader.direct or sys.platform == "darwin")
