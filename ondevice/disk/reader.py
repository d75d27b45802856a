"""Reads weights from the disk past the page cache, several large pieces at a time.

What is read once a token must not be cached by the system as well: it would displace what is used
again, and be gone before its own turn comes. So reads go past the page cache where the file system
can do that (``O_DIRECT``), and are dropped from it right away where it cannot.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ondevice.disk.identity import UnchangedFile, changed, failed
from ondevice.errors import MemoryShortError
from ondevice.text import size

PAGE = 4096  # bytes; every disk and file system of today takes direct reads at multiples of it
_SECTOR = 512  # bytes; most of them take direct reads at multiples of it, too
PIECE_BYTES = 4 << 20  # of one read
_CACHED_BYTES = 1 << 20  # of one read into the page cache
READS_IN_FLIGHT = 3


class Span(NamedTuple):
    """A range of a file for one direct read: the last one may go past the end."""

    part: int  # index of the file
    offset: int  # bytes
    n_bytes: int

    @classmethod
    def around(cls, part: int, offset: int, n_bytes: int, unit: int = PAGE) -> Span:
        """The smallest span that holds these bytes and has multiples of ``unit`` as its ends."""
        start = offset // unit * unit
        return cls(part, start, -(-(offset + n_bytes) // unit) * unit - start)


class Arena:
    """Memory for weights, taken from the system once: page-aligned, in huge pages where possible.

    Pages that are never written to take no RAM. Raises :class:`MemoryShortError`.
    """

    def __init__(self, n_bytes: int) -> None:
        self.n_bytes = n_bytes
        try:
            self._map = _private_memory(max(n_bytes, PAGE))
        except OSError as error:
            raise MemoryShortError(
                f"The system has no {size(n_bytes)} of RAM left for weights: "
                f"{error.strerror}. Try a lower --ram."
            ) from error
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # a kernel without them
                self._map.madvise(mmap.MADV_HUGEPAGE)
        self.view = memoryview(self._map)
        self.address: int = np.frombuffer(self._map, np.uint8).ctypes.data

    def use_small_pages(self, offset: int, n_bytes: int) -> None:
        """For these whole pages: a huge page stays taken while any of it is in use."""
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            with suppress(OSError):
                self._map.madvise(mmap.MADV_NOHUGEPAGE, offset, n_bytes)

    def release(self, offset: int, n_bytes: int) -> None:
        """Give whole pages back to the system, where it takes them; what they hold is lost."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, offset, n_bytes)


def _private_memory(n_bytes: int) -> mmap.mmap:
    if sys.platform == "win32":
        return mmap.mmap(-1, n_bytes)
    return mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)


class _OpenFile:
    """One open file."""

    def __init__(self, path: Path, *, cached: bool) -> None:
        self.path = path
        self._cached = cached
        self._lock = threading.Lock()
        try:
            self._fd, self.unit = (_open(path), 0) if cached else _open_past_cache(path)
            # self.unit: bytes of which the ends of a direct read are multiples; 0: none is direct
            self._unchanged = UnchangedFile(path, os.fstat(self._fd))
        except OSError as error:
            raise failed(self.path, error) from error
        self._cached_fd: int | None = None

    def close(self) -> None:
        os.close(self._fd)
        if self._cached_fd is not None:
            os.close(self._cached_fd)

    def cache(self, offset: int, n_bytes: int) -> None:
        """Have these bytes in the page cache, and none that lie beside them."""
        scratch = memoryview(bytearray(min(n_bytes, _CACHED_BYTES)))
        end = min(offset + n_bytes, self._unchanged.n_bytes)
        try:
            fd = self._open_cached()
            while offset < end:
                n_read = self._read_once(fd, offset, scratch[: end - offset])
                if n_read == 0:
                    raise changed(self.path)
                offset += n_read
            self._unchanged.check(os.fstat(self._fd))
        except OSError as error:
            raise failed(self.path, error) from error

    def read(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from ``offset`` on, up to the end of the file."""
        wanted = min(len(buffer), self._unchanged.n_bytes - offset)
        done, fd = 0, self._fd
        try:
            while done < wanted:
                n_read = self._read_once(fd, offset + done, buffer[done:])
                if n_read == 0:
                    raise changed(self.path)
                if self.unit and fd == self._fd and done + n_read < wanted and n_read % self.unit:
                    # Direct reads go on at a unit, and if less than one comes, another way.
                    n_read -= n_read % self.unit
                    if n_read == 0:
                        fd = self._open_cached()
                        self._unchanged.check(os.fstat(fd))
                done += n_read
            if not self.unit and not self._cached and hasattr(os, "posix_fadvise"):
                os.posix_fadvise(self._fd, offset, wanted, os.POSIX_FADV_DONTNEED)
            self._unchanged.check(os.fstat(self._fd))
        except OSError as error:
            raise failed(self.path, error) from error

    def check(self) -> None:
        """Raises :class:`ModelFileError` if the path names another file than at the start."""
        try:
            self._unchanged.check(self.path.stat())
        except OSError as error:
            raise failed(self.path, error) from error

    def _open_cached(self) -> int:
        with self._lock:
            if self._cached_fd is None:
                self._cached_fd = _open(self.path)
                if hasattr(os, "posix_fadvise"):  # read what is asked for, and not ahead
                    os.posix_fadvise(self._cached_fd, 0, 0, os.POSIX_FADV_RANDOM)
            return self._cached_fd

    def _read_once(self, fd: int, offset: int, buffer: memoryview) -> int:
        if hasattr(os, "preadv"):
            return os.preadv(fd, [buffer], offset)
        with self._lock:  # Windows: one position for all threads
            os.lseek(fd, offset, os.SEEK_SET)
            data = os.read(fd, len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _open(path: Path, flags: int = 0) -> int:
    binary = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
    return os.open(path, os.O_RDONLY | binary | flags)


def _open_past_cache(path: Path) -> tuple[int, int]:
    """A file descriptor, and the unit of its direct reads; 0: they are not direct."""
    if hasattr(os, "O_DIRECT"):
        try:
            fd = _open(path, os.O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        else:
            try:
                unit = next((unit for unit in (_SECTOR, PAGE) if _takes(fd, unit)), 0)
            except OSError:
                os.close(fd)
                raise
            if unit:
                return fd, unit
            os.close(fd)
    fd = _open(path)
    if sys.platform == "darwin":
        import fcntl  # noqa: PLC0415 - Unix only

        fcntl.fcntl(fd, fcntl.F_NOCACHE, 1)
    return fd, 0


def _takes(fd: int, unit: int) -> bool:
    """Whether direct reads may begin at this multiple, in the file and in memory."""
    buffer = memoryview(mmap.mmap(-1, 2 * PAGE))[unit : 2 * unit]
    try:
        os.preadv(fd, [buffer], unit)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return False
    return True


class Reader:
    """Reads spans of a model's files into memory, in the background.

    ``cached``: through the page cache after all, where there is room for all of the files.
    """

    def __init__(self, paths: Sequence[Path], *, cached: bool = False) -> None:
        """Raises :class:`ModelFileError` if a file cannot be opened."""
        self._files = [_OpenFile(path, cached=cached) for path in paths]
        self._pool = ThreadPoolExecutor(READS_IN_FLIGHT, thread_name_prefix="weights")
        self.direct = all(file.unit for file in self._files)
        #: Bytes of which the ends of a span to read into memory must be multiples.
        self.unit = max((file.unit or _SECTOR for file in self._files), default=PAGE)
        self.bytes_read = 0
        self.busy_seconds = 0.0  # time in which at least one read was under way
        self._lock = threading.Lock()
        self._under_way = 0
        self._busy_since = 0.0

    def close(self) -> None:
        """Wait for the reads under way, drop those that have not begun, close the files."""
        self._pool.shutdown(cancel_futures=True)
        for file in self._files:
            file.close()

    def start(self, span: Span, buffer: memoryview, n_pieces: int = 1) -> Reading:
        """Begin to read ``span`` into the start of ``buffer``; both begin at a unit.

        In ``n_pieces`` at least, of which some are read at the same time.
        """
        file = self._files[span.part]
        return self._start(
            span,
            lambda at, n_bytes: file.read(span.offset + at, buffer[at : at + n_bytes]),
            max(PAGE, min(PIECE_BYTES, -(-span.n_bytes // (n_pieces * PAGE)) * PAGE)),
        )

    def start_all(self, reads: Sequence[tuple[Span, memoryview]]) -> Reading:
        """Begin to read spans one after the other, each into the start of its buffer."""
        n_bytes = sum(span.n_bytes for span, _ in reads)
        self.bytes_read += n_bytes

        def read(_at: int, _n_bytes: int) -> None:
            for span, buffer in reads:
                self._files[span.part].read(span.offset, buffer[: span.n_bytes])

        return Reading([self._pool.submit(self._read, read, 0, n_bytes)])

    def start_caching(self, span: Span) -> Reading:
        """Begin to read ``span`` into the page cache, for memory that is mapped to the file."""
        file = self._files[span.part]
        return self._start(span, lambda at, n_bytes: file.cache(span.offset + at, n_bytes))

    def _start(
        self, span: Span, read: Callable[[int, int], None], piece_bytes: int = PIECE_BYTES
    ) -> Reading:
        self.bytes_read += span.n_bytes
        return Reading(
            [
                self._pool.submit(self._read, read, at, min(piece_bytes, span.n_bytes - at))
                for at in range(0, span.n_bytes, piece_bytes)
            ]
        )

    def _read(self, read: Callable[[int, int], None], at: int, n_bytes: int) -> None:
        with self._lock:
            if self._under_way == 0:
                self._busy_since = time.perf_counter()
            self._under_way += 1
        try:
            read(at, n_bytes)
        finally:
            with self._lock:
                self._under_way -= 1
                if self._under_way == 0:
                    self.busy_seconds += time.perf_counter() - self._busy_since

    def check(self) -> None:
        """Raises :class:`ModelFileError` if a file was changed or replaced."""
        for file in self._files:
            file.check()


class Reading:
    """Reads under way into one buffer."""

    def __init__(self, pieces: list[Future[None]]) -> None:
        self._pieces = pieces

    @property
    def done(self) -> bool:
        return all(piece.done() for piece in self._pieces)

    def wait(self) -> None:
        """Return when the bytes are there.

        Raises :class:`ModelFileError` for what went wrong: an error of the disk, a file that
        became shorter or was changed.
        """
        for piece in self._pieces:
            piece.result()

    def cancel(self) -> None:
        """Return when nothing is written to the buffer any more."""
        for piece in self._pieces:
            if not piece.cancel():
                piece.exception()
