"""Decides, from what is available over time, how much RAM weights may take."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from ondevice.ram.available import AvailableRam, look
from ondevice.ram.process import ProcessRam

_CALM_S = 2.0  # for so long there must be room before any of it is taken
_STEP_S = 0.5  # between two steps of growing
_STEPS = 8  # from nothing to everything
_GRAIN = 8_000_000  # bytes; by less it is not worth to change anything
WAVERING = 4_000_000  # bytes by which room may fall short before weights are given up
_LIBRARIES = 26_000_000  # bytes of the engine that are file cache: part of what a plan counts


@dataclass(slots=True)
class Governor:
    """Shrinks at once when room is short; grows in steps, once there has been room for a while."""

    least: int  # bytes: the smallest budget of the weights
    most: int  # bytes: the largest that changes anything
    budget: int  # bytes that they may take now
    _since: float | None = None  # seconds, of the same clock as ``now``: room for a step since then
    _lowest: int = 0  # the least room since then

    @property
    def waits(self) -> bool:
        """Whether there has been room for more, but not for long enough yet."""
        return self._since is not None

    def indifferent(self, room: int) -> int:
        """Bytes by which ``room`` may change without another decision."""
        less = room - self.budget + WAVERING if self.budget > self.least else room
        more = min(self.budget + 2 * _GRAIN, self.most) - room if self.budget < self.most else less
        return max(0, min(less, more))

    def decide(self, room: int, now: float) -> int:
        """The budget, given that there is ``room`` bytes for weights ``now`` (seconds)."""
        room = max(self.least, min(room, self.most))
        if room < self.budget - WAVERING:
            # A bit further than needed, or the next moment would ask for more again.
            self.budget = room if room == self.most else max(self.least, room - _GRAIN)
            self._since = None
        elif room < min(self.budget + 2 * _GRAIN, self.most) or self.budget >= self.most:
            self._since = None
        elif self._since is None:
            self._since, self._lowest = now, room
        else:
            self._lowest = min(self._lowest, room)
            if now - self._since >= _CALM_S:
                step = max(self.most // _STEPS, 2 * _GRAIN)
                self.budget = min(self._lowest, self.budget + step)
                self._since, self._lowest = now - _CALM_S + _STEP_S, room
        return self.budget


def room_for_weights(
    used: ProcessRam, own_bytes: int, mapped_bytes: int, limit: int | None, beside: int = 0
) -> tuple[int, int, AvailableRam]:
    """Bytes that weights could take now, how many more there are but for ``limit``, and what that
    was told from.

    The process ``used`` so much. Of its weights, ``own_bytes`` are memory of its own, which nobody
    else can have, and ``mapped_bytes`` are pages of files. ``limit`` is the user's, in bytes.
    ``beside`` is what everything but weights was planned to take: buffers take it only once they
    are written to, and until then it must not be given away.
    """
    ram = look()
    held = own_bytes
    if sys.platform != "linux":  # where pages that are mapped do not count as available
        held += mapped_bytes
    beside = max(beside, used.resident - held + _LIBRARIES)
    most = ram.available + used.resident - ram.reserve - beside
    room = most if limit is None else min(most, limit - beside)
    return room, most - room, ram
