"""Counts the bytes of a download; one thread writes, another reads."""

from __future__ import annotations

from ondevice.models._records import PullProgress


class Meter:
    """``done`` of ``total`` bytes; a total of 0 is not known yet."""

    def __init__(self, total: int) -> None:
        self.done = 0
        self.total = total

    def read(self) -> PullProgress:
        return PullProgress(min(self.done, self.total), self.total)
