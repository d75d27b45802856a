"""Killed at any moment, or cut off from power, the memory keeps what it acknowledged.

And it brings nothing back that was forgotten. bench/memory_torture.py does this 600 times.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
import torture

posix = pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX's")


@posix
def test_kills_at_random_moments(tmp_path: Path) -> None:
    assert sum(torture.kills(tmp_path, 6), Counter()) == Counter()


@posix
def test_kills_while_an_earlier_version_is_brought_up_to_date(tmp_path: Path) -> None:
    assert sum(torture.kills_in_migration(tmp_path, 3), Counter()) == Counter()


def test_power_failures_that_drop_what_was_not_synced(tmp_path: Path) -> None:
    assert sum(torture.power_failures(tmp_path, 12), Counter()) == Counter()
