"""Tells for next to nothing whether there is more or less RAM than a moment ago.

A look at what is available (:mod:`ondevice.ram.available`) takes a third of a millisecond. Ten of
them a second are nothing beside a reply, and are most of what an engine does that waits for one.
The numbers that they come from are read in a tenth of that.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

import psutil

from ondevice.system import cgroups

_NO_LIMIT = 2**60  # bytes; version 1 gives numbers beyond it where there is none
_FILES = {
    1: (("memory.limit_in_bytes",), "memory.usage_in_bytes", "memory.stat"),
    2: (("memory.max", "memory.high"), "memory.current", "memory.stat"),
}
_AVAILABLE = re.compile(rb"^MemAvailable: *(\d+) kB", re.MULTILINE)
_CACHE = re.compile(rb"^(?:total_)?(?:in)?active_file (\d+)", re.MULTILINE)
_ABOVE = re.compile(rb"^hierarchical_memory_limit (\d+)", re.MULTILINE)
_SIZE = 16384  # bytes, more than any of these files has


class Glance:
    """Keeps the files open, of the system and of the control groups around this process.

    ``root`` is the folder that holds ``proc`` and ``sys``.
    """

    def __init__(self, root: Path = Path("/")) -> None:
        self._meminfo = _open(root / "proc/meminfo")
        self._groups = [
            _ControlGroup(folder, version) for version, folder in cgroups.folders("memory", root)
        ]
        self.remember()

    def remember(self) -> None:
        """Compare with what there is now from here on."""
        self._seen = self._now()

    def has_changed(self, by: int) -> bool:
        """Whether there may be ``by`` bytes more or less than was remembered last."""
        now = self._now()
        if len(now) != len(self._seen):  # a limit has come or gone
            return True
        return sum(abs(a - b) for a, b in zip(now, self._seen, strict=True)) >= by

    def close(self) -> None:
        for file in (self._meminfo, *(file for one in self._groups for file in one.files)):
            if file is not None:
                os.close(file)
        self._meminfo, self._groups = None, []

    def _now(self) -> list[int]:
        """Bytes."""
        meminfo = _AVAILABLE.search(_read(self._meminfo))
        found = [int(meminfo[1]) * 1024 if meminfo else psutil.virtual_memory().available]
        for group in self._groups:
            found += group.now()
        return found


class _ControlGroup:
    def __init__(self, folder: Path, version: int) -> None:
        limits, *used = _FILES[version]
        self._limits = [_open(folder / name) for name in limits]
        self._used, self._stat = (_open(folder / name) for name in used)
        self.files = (*self._limits, self._used, self._stat)
        # What is not mounted in a container has limits, too.
        above = _ABOVE.search(_read(self._stat))
        self._is_limited = above is not None and int(above[1]) < _NO_LIMIT

    def now(self) -> list[int]:
        """Bytes: its limits, and if there are any what is used and what of it gives way."""
        limits = [int(text) for file in self._limits if (text := _read(file).strip()).isdigit()]
        limits = [limit for limit in limits if limit < _NO_LIMIT]
        if not (limits or self._is_limited):
            return []
        used = _read(self._used).strip()
        cache = sum(map(int, _CACHE.findall(_read(self._stat))))
        return [*limits, int(used) if used.isdigit() else 0, cache]


def _open(path: Path) -> int | None:
    with suppress(OSError):
        return os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    return None


def _read(file: int | None) -> bytes:
    """What is in it now; nothing if it cannot be read, as where the group is gone."""
    if file is not None:
        with suppress(OSError):
            return os.pread(file, _SIZE, 0)
    return b""
