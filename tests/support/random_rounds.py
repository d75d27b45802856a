"""Rounds of random tests: few with a fixed seed, or for minutes with a seed of your choice.

A test with the marker ``random`` takes the fixture ``rounds`` and loops over what it yields::

    @pytest.mark.random
    def test_damage_is_refused(rounds):
        for random in rounds(20):
            ...

``ONDEVICE_SEED=N`` moves the seeds. ``ONDEVICE_SEED_MINUTES=M`` gives all random tests that are
collected M minutes together, in place of the number of rounds that each asks for:
``ONDEVICE_SEED=7 ONDEVICE_SEED_MINUTES=5 pytest -m random``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from random import Random

FIXED_SEED = 1


def rounds(n_rounds: int, n_tests: int) -> Iterator[Random]:
    """A source of random numbers for each round; each failure names its seed.

    ``n_tests`` is how many tests share the minutes.
    """
    seed = int(os.environ.get("ONDEVICE_SEED") or FIXED_SEED)
    minutes = float(os.environ.get("ONDEVICE_SEED_MINUTES") or 0)
    end = time.monotonic() + minutes * 60 / n_tests
    index = 0
    while time.monotonic() < end if minutes else index < n_rounds:
        print(f"round {index} of seed {seed}")  # noqa: T201 - pytest shows it with a failure
        yield Random(f"{seed} {index}")
        index += 1
