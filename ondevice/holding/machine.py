"""What plans are made for: the RAM and the speeds of this machine."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
