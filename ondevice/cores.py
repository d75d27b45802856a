"""How many cores this process may use: of the machine, or of the container around it."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from ondevice import cgroups


def default_threads(root: Path = Path("/")) -> int:
    """Threads that compute fastest: the physical cores that may be used, hyper-threads left out.

    A quota counts as well: with one core's worth of time, two threads are throttled in turn and
    wait for each other (the 0.5B wrote 15 tokens a second with two threads and 19 with one).
    ``root`` is the folder that holds ``proc`` and ``sys``.
    """
    usable = usable_cpus()
    cores = min(psutil.cpu_count(logical=False) or usable, usable)
    limit = quota(root)
    return cores if limit is None else max(1, min(cores, round(limit)))


def usable_cpus() -> int:
    """Processors, hyper-threads included, on which this process may run."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quota(root: Path = Path("/")) -> float | None:
    """The time that control groups grant, in cores, such as 1.5; None: no limit."""
    found = [
        granted
        for version, folder in cgroups.folders("cpu", root)
        if (granted := _v2(folder) if version == 2 else _v1(folder)) is not None
    ]
    return min(found, default=None)


def _v2(folder: Path) -> float | None:
    try:
        granted, period = (folder / "cpu.max").read_text().split()
        return int(granted) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # without a limit it says "max"
        return None


def _v1(folder: Path) -> float | None:
    try:
        granted = int((folder / "cpu.cfs_quota_us").read_text())
        return granted / int((folder / "cpu.cfs_period_us").read_text()) if granted > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None
