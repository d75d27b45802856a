"""The files of a model as memory: weights that the system may drop and bring back by itself.

Weights that stay in RAM are pages of their file and not a copy of it. They count as file cache: if
another program suddenly needs room, the system takes theirs, at once and without killing anyone,
and what is used again is read again. That gives the window the time to notice and to give up
weights in good order.
"""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from ondevice.disk.reader import Span
from ondevice.gguf import TensorInfo


class MappedFiles:
    """The files of a model, mapped for reading. Raises :class:`OSError`."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._maps = [map_file(path) for path in paths]
        self._fds = [os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)) for path in paths]
        self._starts = [int(np.frombuffer(each, np.uint8).ctypes.data) for each in self._maps]

    def address(self, tensor: TensorInfo) -> int:
        """Where the tensor's bytes are for as long as the files are mapped, in RAM or not."""
        return self._starts[tensor.part] + tensor.offset

    def expect_rows(self, tensors: Iterable[TensorInfo]) -> None:
        """Single rows of these are used: reading ahead would only displace something else."""
        if hasattr(mmap, "MADV_RANDOM"):
            for tensor in tensors:
                span = Span.around(tensor.part, tensor.offset, tensor.n_bytes)
                self._advise(mmap.MADV_RANDOM, span)

    def release(self, spans: Iterable[Span]) -> None:
        """Take these out of RAM. They can still be used, but each page is then read by itself."""
        for span in spans:
            if hasattr(mmap, "MADV_DONTNEED"):
                self._advise(mmap.MADV_DONTNEED, span)
            if hasattr(os, "posix_fadvise"):
                fd = self._fds[span.part]
                os.posix_fadvise(fd, span.offset, span.n_bytes, os.POSIX_FADV_DONTNEED)

    def close(self) -> None:
        """Nothing may be using the weights any more."""
        for fd in self._fds:
            os.close(fd)
        self._maps.clear()
        self._fds.clear()

    def _advise(self, advice: int, span: Span) -> None:
        mapped = self._maps[span.part]
        n_bytes = min(span.n_bytes, len(mapped) - span.offset)
        with suppress(OSError):  # it is only advice
            mapped.madvise(advice, span.offset, n_bytes)


def map_file(path: Path) -> mmap.mmap:
    """All of a file, to be read. Raises :class:`OSError`.

    Privately: some folders of networks and virtual machines can share nothing.
    """
    with path.open("rb") as file:
        if sys.platform == "win32":
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ)
