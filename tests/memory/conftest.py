"""What the tests of the memory share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ondevice.memory import Memory
from ondevice.store import Database


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    database = Database(tmp_path / "store.db")
    yield Memory(database)
    database.close()
