"""Files as memory."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ondevice.disk.mapped import map_file


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lists what is mapped, and how")
def test_nothing_is_shared(tmp_path: Path) -> None:
    """Some folders of networks and virtual machines refuse that: ENODEV."""
    file = tmp_path / "weights"
    file.write_bytes(b"weights")
    mapped = map_file(file)
    lines = Path("/proc/self/maps").read_text().splitlines()
    assert [line.split()[1] for line in lines if line.endswith(str(file))] == ["r--p"]
    assert mapped[:] == b"weights"
