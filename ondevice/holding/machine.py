"""What plans are made for: the RAM and the speeds of this machine."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from ondevice.disk import speed as disk_speed
from ondevice.gguf import GGUFFile
from ondevice.holding import speeds
from ondevice.holding.speeds import Speeds
from ondevice.ram import available
from ondevice.ram.available import AvailableRam
from ondevice.ram.process import of_process


@dataclass(frozen=True, slots=True)
class Machine:
    """What a model has here."""

    ram: AvailableRam
    speeds: Speeds

    @classmethod
    def now(cls, limit: int | None = None, engine: int | None = None) -> Machine:
        """What there is now, at most ``limit`` bytes of RAM if the user set such a limit.

        ``engine`` is the id of an engine's process: what it holds makes way for another model.
        """
        ram = available.look()
        held = of_process(engine) if engine else None
        if held is not None:
            ram = replace(ram, available=min(ram.total, ram.available + held.resident))
        return cls(ram.at_most(limit), speeds.known())

    def reading(self, file: GGUFFile) -> Machine:
        """The same with the speed of the disk that ``file`` is on, if that is a slow one.

        Speeds are of the disk that models are downloaded to, or a guess. A memory card or a hard
        disk has a tenth of that, and a plan for it had better read less. It is looked at where the
        weights may not all fit in RAM.
        """
        if file.weights_bytes + _BESIDE < self.ram.usable:
            return self
        slow = _slow_disk(file.path, self.speeds.disk / _SLOW)
        if slow is None:
            return self
        return replace(self, speeds=msgspec.structs.replace(self.speeds, disk=slow))


_BESIDE = 1 << 30  # bytes: more than a model takes beside its weights
_SLOW = 3  # times slower than what is known: such a disk counts
_seen: dict[int, float] = {}  # a file system's number → bytes a second


def _slow_disk(path: Path, enough: float) -> float | None:
    """Bytes a second of the disk that this is on, to a power of two; None: it is fast enough.

    So rough, because the same plan gives the same reply.
    """
    try:
        number = path.stat().st_dev
        if number not in _seen:
            _seen[number] = disk_speed.glance(path, enough)
    except OSError:
        return None
    found = _seen[number]
    return 2.0 ** round(math.log2(found)) if found < enough else None
