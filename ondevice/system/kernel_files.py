"""Files in which Linux tells of processes, mounts and groups, with names in them as they are."""

from __future__ import annotations

import os
from pathlib import Path


def lines_of(file: Path) -> tuple[str, ...]:
    """The lines of ``file``. Names in them need not be text, and may hold anything but newlines.

    Raises :class:`OSError`.
    """
    return tuple(line for line in os.fsdecode(file.read_bytes()).split("\n") if line)
