"""A disk that fails now and then."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

import pytest


@contextmanager
def failing_reads(every: int) -> Iterator[None]:
    """One of so many reads fails meanwhile; 0: none."""
    real, reads = os.preadv, count(1)

    def read(fd: int, buffers: list[memoryview], offset: int) -> int:
        if every and next(reads) % every == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(fd, buffers, offset)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "preadv", read)
        yield
