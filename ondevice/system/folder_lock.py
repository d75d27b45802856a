"""One program at a time changes what is in a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_WAIT = 2.0  # seconds, after which whoever holds it must have been stopped
_POLL = 0.005


@contextmanager
def folder_locked(folder: Path) -> Iterator[None]:
    """For a block that takes milliseconds; the lock ends with the process, however it ends.

    On Windows, and on disks that know no locks, nobody is kept out.
    """
    try:
        import fcntl  # noqa: PLC0415 - Windows has none

        handle = os.open(folder, os.O_RDONLY)
    except (ImportError, OSError):
        yield
        return
    try:
        until = time.monotonic() + _WAIT
        while time.monotonic() < until:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(_POLL)
            except OSError:  # this disk knows no locks
                break
        yield
    finally:
        os.close(handle)
