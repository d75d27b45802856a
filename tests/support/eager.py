"""Drafts that are always computed, so that what is wrong in them is taken back again and again."""

from __future__ import annotations

from ondevice.engine._drafting import Speculation


class Eager(Speculation):
    """Has all that is proposed computed, whether it is worth it or not."""

    def _worthwhile(
        self, _kind: int, most: int, _propose_seconds: float = 0.0
    ) -> tuple[int, float]:
        return most, float(most > 0)
