"""How much RAM a process uses: what it holds, and what is only file cache."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ondevice.system.kernel_files import lines_of


@dataclass(frozen=True, slots=True)
class ProcessRam:
    """RAM of one process."""

    resident: int  # bytes that are its own: nothing takes them away from it
    page_cache: int  # bytes of mapped files, weights among them: they give way, and are read again
    peak: int  # bytes; the highest sum of the two so far


def of_process(pid: int) -> ProcessRam | None:
    """The RAM that process ``pid`` uses now, or None if there is no such process.

    Where the system does not tell the two apart (other than Linux), all counts as resident.
    """
    try:
        status = lines_of(Path(f"/proc/{pid}/status"))
    except OSError:
        return _by_psutil(pid)
    kilobytes = {
        name: int(value.split()[0])
        for name, _, value in (line.partition(":") for line in status)
        if name in ("RssAnon", "RssShmem", "RssFile", "VmHWM")
    }
    if not kilobytes:  # it has ended, and its parent has not looked yet
        return None
    return ProcessRam(
        resident=(kilobytes["RssAnon"] + kilobytes["RssShmem"]) * 1024,
        page_cache=kilobytes["RssFile"] * 1024,
        peak=kilobytes["VmHWM"] * 1024,
    )


def _by_psutil(pid: int) -> ProcessRam | None:
    import psutil  # noqa: PLC0415 - the app starts without

    try:
        memory = psutil.Process(pid).memory_info()
    except psutil.Error:
        return None
    return ProcessRam(
        resident=memory.rss,
        page_cache=0,
        peak=getattr(memory, "peak_wset", memory.rss),  # only Windows remembers it
    )
