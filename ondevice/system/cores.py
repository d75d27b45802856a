"""The cores this process may use, of the machine or its container, and who else wants them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ondevice.system import cgroups


def default_threads(root: Path = Path("/")) -> int:
    """Threads that compute fastest: the physical cores that may be used, hyper-threads left out.

    A quota counts as well: with one core's worth of time, two threads are throttled in turn and
    wait for each other (the 0.5B wrote 15 tokens a second with two threads and 19 with one).
    ``root`` is the folder that holds ``proc`` and ``sys``.
    """
    import psutil  # noqa: PLC0415 - the app starts without

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


class ThreadTimes(NamedTuple):
    """Of all threads of a process, in nanoseconds; 0 where the system does not tell."""

    ran: int
    waited: int  # for a core

    @classmethod
    def now(cls, pid: int | None = None) -> ThreadTimes:
        """Of the process with this id; None: of this one."""
        ran = waited = 0
        for file in Path(f"/proc/{pid or 'self'}/task").glob("*/schedstat"):
            with suppress(OSError):  # a thread that has ended
                times = file.read_bytes().split()
                ran += int(times[0])
                waited += int(times[1])
        return cls(ran, waited)

    def waited_share(self, before: ThreadTimes) -> float:
        """Of the time since ``before`` in which threads wanted a core, what they waited for one."""
        ran, waited = self.ran - before.ran, self.waited - before.waited
        return waited / max(1, ran + waited)


def free_seconds(cpus: Iterable[int], root: Path = Path("/")) -> float:
    """For how long, since the machine started, these processors had nothing to do, all together.

    What yields to this process is nothing: programs of lower priority. 0 where the system does not
    tell.
    """
    wanted = {f"cpu{number}" for number in cpus}
    free = (1, 3, 4) if os.nice(0) <= 0 else (3, 4)  # at low priority, idle, waiting for a disk
    with suppress(OSError):
        lines = (line.split() for line in (root / "proc/stat").read_text().splitlines())
        ticks = sum(int(times[n]) for name, *times in lines if name in wanted for n in free)
        return ticks / os.sysconf("SC_CLK_TCK")
    return 0.0
