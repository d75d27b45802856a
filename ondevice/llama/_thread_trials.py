"""Finds out, while other programs want the cores, how many threads compute a token soonest.

As many as get a core is a good guess. But which number is best changes by model and by the hour:
beside two programs on two cores, two threads that sleep wrote 52 tokens a second of the 135M and
one wrote 39, and an hour later it was 42 and 54. So the other number is tried now and then, for
half a second, and ever less often while that is no faster.
"""

from __future__ import annotations

from statistics import fmean

from ondevice.llama._waiting import are_asleep, threads_now

_TRIAL_S = 0.4  # of passes over one token
_LEAST_PASSES = 3  # of a trial
_FIRST_S, _LONGEST_S = 1.5, 60.0  # of passes between two trials
_FASTER = 0.92  # of the time of a pass: what the other number must take to be taken


class ThreadTrials:
    """Of one context, whose passes over one token all compute the same."""

    def __init__(self) -> None:
        self._all = False  # whether all threads compute, or as many as get a core
        self._start_over()

    def _start_over(self) -> None:
        self._has_choice = self._tries = False
        self._between = _FIRST_S
        self._usual = 0.0  # seconds of a pass, before the trial
        self._passes: list[float] = []  # seconds, all with the same number of threads

    def threads_now(self, wanted: int) -> int:
        """How many threads should compute the next pass, of so many."""
        few = threads_now(wanted)
        # Threads that spin would wait for those without a core, and keep others from it.
        if few == wanted or not are_asleep():
            self._start_over()
            return few
        self._has_choice = True
        return wanted if self._all != self._tries else few

    def took(self, seconds: float) -> None:
        """Take note of the pass, which was over one token."""
        if not self._has_choice:
            return
        passes = self._passes
        passes.append(seconds)
        length = sum(passes)
        if len(passes) < _LEAST_PASSES or length < (_TRIAL_S if self._tries else self._between):
            return
        if self._tries:
            is_faster = fmean(passes) < _FASTER * self._usual
            self._all ^= is_faster
            self._between = _FIRST_S if is_faster else min(2 * self._between, _LONGEST_S)
        else:
            latest = max(_LEAST_PASSES, round(len(passes) * 2 * _TRIAL_S / length))
            self._usual = fmean(passes[-latest:])
        self._tries = not self._tries
        self._passes = []
