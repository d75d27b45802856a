"""How much RAM this process may use now: of the machine, or of the container around it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ondevice.errors import UsageError
from ondevice.system import cgroups

# Kept free on a machine, so that other programs go on well.
_RESERVED_SHARE, _MOST_RESERVED = 20, 500_000_000
# Kept free within a container, for what its processes take for a moment: there, too much kills.
_MARGIN_SHARE, _LEAST_MARGIN, _MOST_MARGIN = 40, 16_000_000, 200_000_000


@dataclass(frozen=True, slots=True)
class AvailableRam:
    """What there is before something is loaded. Swap is not RAM and not in here."""

    total: int  # bytes: the machine's RAM, or the lowest limit below it
    available: int  # bytes that can be used now; file cache, which gives way, is among them
    source: str  # where ``total`` comes from, such as "all RAM of this machine"
    reserve: int = 0  # bytes of ``available`` to leave alone, for what others take in a moment

    @property
    def usable(self) -> int:
        """Bytes to be planned with."""
        return max(0, self.available - self.reserve)

    def at_most(self, limit: int | None) -> AvailableRam:
        """The same within ``limit`` bytes that the user has set; None: no limit."""
        if limit is None or limit >= self.total:
            return self
        return AvailableRam(limit, min(self.usable, limit), "the limit in your settings")


def look(ram: int | None = None, root: Path = Path("/")) -> AvailableRam:
    """The RAM that is available now, at most ``ram`` bytes if the user set such a limit.

    ``root`` is the folder that holds ``proc`` and ``sys``.
    """
    import psutil  # noqa: PLC0415 - the app starts without

    machine = psutil.virtual_memory()
    reserve = min(machine.total // _RESERVED_SHARE, _MOST_RESERVED)
    own = AvailableRam(machine.total, machine.available, "all RAM of this machine", reserve)
    limits = [own, *_groups(root)]
    smallest = min(limits, key=lambda limit: limit.total)
    tightest = min(limits, key=lambda limit: limit.usable)
    found = AvailableRam(smallest.total, tightest.available, smallest.source, tightest.reserve)
    return found.at_most(ram)


def parse_size(text: str) -> int:
    """Bytes of a size such as "1.5G", "800 MB", "2GiB" or "1500000000".

    K, M, G and T are powers of 1000, as everywhere in ondevice; Ki, Mi, Gi and Ti of 1024.

    Raises :class:`UsageError` for anything else.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*(?:([KMGT])(I)?)?B?", text.strip().upper())
    if match:
        number, prefix, binary = match.groups()
        size = float(number) * (1024 if binary else 1000) ** ("KMGT".find(prefix or " ") + 1)
        if 1 <= size <= 2**60:
            return int(size)
    raise UsageError(f'"{text}" is not a size. Write it like 1.5G or 800M.')


# ------------------------------------------------------------------ control groups


def _groups(root: Path) -> Iterator[AvailableRam]:
    """What the control groups around this process leave it, from the inside out."""
    for version, folder in cgroups.folders("memory", root):
        found = _v2(folder) if version == 2 else _v1(folder)
        if found:
            limit, free = found
            source = f"memory limit of /{folder.relative_to(root)} (cgroup v{version})"
            margin = max(_LEAST_MARGIN, min(limit // _MARGIN_SHARE, _MOST_MARGIN))
            yield AvailableRam(limit, max(0, free), source, margin)


def _v2(folder: Path) -> tuple[int, int] | None:
    """Limit and free bytes; None where there is no limit."""
    # Above memory.high nothing is killed, but everything in the group is slowed down.
    limits = [
        limit
        for name in ("max", "high")
        if (limit := _number(folder / f"memory.{name}")) is not None
    ]
    used = _number(folder / "memory.current")
    if not limits or used is None:
        return None
    stat = _stat(folder)
    cache = stat.get("inactive_file", 0) + stat.get("active_file", 0)
    return min(limits), min(limits) - used + cache


def _v1(folder: Path) -> tuple[int, int] | None:
    """Limit and free bytes; without a limit the numbers are beyond any machine."""
    limit = _number(folder / "memory.limit_in_bytes")
    used = _number(folder / "memory.usage_in_bytes")
    if limit is None or used is None:
        return None
    stat = _stat(folder)
    # Ancestors that are not mounted in a container are counted here.
    limit = min(limit, stat.get("hierarchical_memory_limit", limit))
    cache = stat.get("total_inactive_file", 0) + stat.get("total_active_file", 0)
    return limit, limit - used + cache


def _number(file: Path) -> int | None:
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # "max"


def _stat(folder: Path) -> dict[str, int]:
    try:
        lines = (folder / "memory.stat").read_text().splitlines()
    except OSError:
        return {}
    return {name: int(value) for name, _, value in (line.partition(" ") for line in lines)}
