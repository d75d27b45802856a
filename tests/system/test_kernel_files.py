"""Files of Linux that tell of other files, whose names need not be text."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ondevice.system import cgroups
from ondevice.system.kernel_files import lines_of


@pytest.mark.parametrize("name", [b"caf\xe9", b"a\xc2\x85b", b"a\x0bb", b"a\xe2\x80\xa8b"])
def test_names_may_be_anything_but_newlines(tmp_path: Path, name: bytes) -> None:
    (tmp_path / "maps").write_bytes(b"7f r-xp /" + name + b"/libgomp.so\n80 rw-p /other\n")
    assert lines_of(tmp_path / "maps") == (
        f"7f r-xp /{os.fsdecode(name)}/libgomp.so",
        "80 rw-p /other",
    )
    proc = tmp_path / "proc" / "self"
    proc.mkdir(parents=True)
    (proc / "cgroup").write_bytes(b"0::/x/" + name + b"\n")
    (proc / "mountinfo").write_bytes(
        b"1 0 0:1 / /mnt/" + name + b" rw - ext4 /dev/sda rw\n"
        b"2 0 0:2 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n"
    )
    group = tmp_path / "sys" / "fs" / "cgroup" / "x" / os.fsdecode(name)
    found = [folder for _, folder in cgroups.folders("memory", tmp_path)]
    assert found[0] == group
