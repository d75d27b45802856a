"""RAM: what is available, what a process uses, and what a model needs."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from cgroup_files import V2_MOUNT, tree

from ondevice.errors import UsageError
from ondevice.ram import available, process
from ondevice.ram.glance import Glance

MB = 1_000_000


# ------------------------------------------------------------------ what is available


def v2(limit: str, used: int, cache: int = 0) -> dict[str, str]:
    return {
        "memory.max": limit,
        "memory.high": "max",
        "memory.current": str(used),
        "memory.stat": f"anon 5\ninactive_file {cache}\nactive_file 0\nslab 7",
    }


def v1(limit: int, used: int, cache: int = 0, above: int = 2**63) -> dict[str, str]:
    return {
        "memory.limit_in_bytes": str(limit),
        "memory.usage_in_bytes": str(used),
        "memory.stat": f"cache 1\nhierarchical_memory_limit {min(limit, above)}\n"
        f"total_inactive_file 0\ntotal_active_file {cache}",
    }


def test_without_control_groups_it_is_the_machine(tmp_path: Path) -> None:
    ram = available.look(root=tmp_path)
    assert ram.total == psutil.virtual_memory().total
    assert 0 < ram.available < ram.total
    assert "machine" in ram.source


def test_file_cache_counts_as_available(tmp_path: Path) -> None:
    root = tree(
        tmp_path, "0::/app", V2_MOUNT, {"sys/fs/cgroup/app": v2(str(500 * MB), 300 * MB, 200 * MB)}
    )
    ram = available.look(root=root)
    assert (ram.total, ram.available) == (500 * MB, 400 * MB)
    assert ram.source == "memory limit of /sys/fs/cgroup/app (cgroup v2)"


def test_the_tightest_of_nested_limits_counts(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        "0::/user/session/app",
        V2_MOUNT,
        {
            "sys/fs/cgroup": {"cgroup.procs": ""},
            "sys/fs/cgroup/user": v2(str(400 * MB), 350 * MB),
            "sys/fs/cgroup/user/session": v2("max", 300 * MB),
            "sys/fs/cgroup/user/session/app": v2(str(500 * MB), 10 * MB),
        },
    )
    ram = available.look(root=root)
    assert (ram.total, ram.available) == (400 * MB, 50 * MB)
    assert ram.source == "memory limit of /sys/fs/cgroup/user (cgroup v2)"


def test_a_soft_limit_counts_because_it_slows_everything_down(tmp_path: Path) -> None:
    group = v2("max", 100 * MB) | {"memory.high": str(300 * MB)}
    root = tree(tmp_path, "0::/app", V2_MOUNT, {"sys/fs/cgroup/app": group})
    assert available.look(root=root).total == 300 * MB


def test_the_memory_hierarchy_of_v1_counts_and_no_other(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        "9:cpu,cpuacct:/app\n4:memory:/app\n0::/other",
        "35 31 0:32 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n"
        "36 31 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
        "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
        {
            "sys/fs/cgroup/cpu/app": v1(1 * MB, 0),
            "sys/fs/cgroup/memory": v1(9223372036854771712, 3_000 * MB),
            "sys/fs/cgroup/memory/app": v1(600 * MB, 500 * MB, 450 * MB),
            "sys/fs/cgroup/unified/other": {"cgroup.procs": ""},
        },
    )
    ram = available.look(root=root)
    assert (ram.total, ram.available) == (600 * MB, 550 * MB)
    assert ram.source == "memory limit of /sys/fs/cgroup/memory/app (cgroup v1)"


def test_a_limit_above_what_a_container_sees_counts(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        "4:memory:/",
        "36 31 0:33 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
        {"sys/fs/cgroup/memory": v1(2**63 - 4096, 100 * MB, above=300 * MB)},
    )
    assert available.look(root=root).available == 200 * MB


@pytest.mark.parametrize("version", [1, 2])
def test_a_glance_sees_what_changes_what_is_available(tmp_path: Path, version: int) -> None:
    def write(limit: int, used: int, cache: int, machine: int = 900 * MB) -> None:
        group = v2(str(limit), used, cache) if version == 2 else v1(limit, used, cache)
        kind = "cgroup2 cgroup2 rw" if version == 2 else "cgroup cgroup rw,memory"
        tree(
            tmp_path,
            "0::/app" if version == 2 else "4:memory:/app",
            f"30 23 0:26 / /sys/fs/cgroup rw - {kind}",
            {"sys/fs/cgroup/app": group, "proc": {"meminfo": f"MemAvailable: {machine >> 10} kB"}},
        )

    write(500 * MB, 300 * MB, 200 * MB)
    glance = Glance(tmp_path)
    for change in (
        (500 * MB, 310 * MB, 200 * MB),  # something is taken
        (500 * MB, 300 * MB, 190 * MB),  # in place of file cache
        (490 * MB, 300 * MB, 200 * MB),
        (2**63 if version == 1 else 2**62, 300 * MB, 200 * MB),
        (500 * MB, 300 * MB, 200 * MB, 890 * MB),  # by others on the machine
    ):
        write(500 * MB, 300 * MB, 200 * MB)
        glance.remember()
        assert not glance.has_changed(1)
        write(*change)
        assert glance.has_changed(5 * MB)
    glance.close()


def test_a_glance_needs_no_files(tmp_path: Path) -> None:
    glance = Glance(tmp_path)
    assert not glance.has_changed(2**62)
    glance.close()


@pytest.mark.parametrize(
    ("membership", "mounted"),
    [
        ("/docker/abc", "/docker/abc"),  # the host's name of the group, mounted as the root
        ("/", "/docker/abc"),  # its own namespace, and the host's mount
        ("/../../elsewhere", "/"),  # outside of what is mounted
    ],
)
def test_a_container_finds_its_own_limit(tmp_path: Path, membership: str, mounted: str) -> None:
    root = tree(
        tmp_path,
        f"0::{membership}",
        V2_MOUNT.replace(" / /sys", f" {mounted} /sys"),
        {"sys/fs/cgroup": v2(str(256 * MB), 0)},
    )
    assert available.look(root=root).total == 256 * MB


def test_a_limit_of_the_user_counts_only_below_what_there_is(tmp_path: Path) -> None:
    assert available.look(200 * MB, tmp_path).available == 200 * MB
    high, none = available.look(2**60, tmp_path), available.look(None, tmp_path)
    assert (high.total, high.source) == (none.total, none.source)  # what is free may change


@pytest.fixture
def control_group() -> Iterator[tuple[Path, str]]:
    """A new control group and the name of the file that holds its limit."""
    for parent, limit in (
        ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        ("/sys/fs/cgroup", "memory.max"),
    ):
        folder = Path(parent) / f"ondevice-test-{os.getpid()}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            if (folder / limit).exists():
                yield folder, limit
                return
        finally:
            folder.rmdir()
    pytest.skip("control groups cannot be made here (it takes root)")


def test_a_real_limit_is_seen_from_inside(control_group: tuple[Path, str]) -> None:
    folder, limit = control_group
    (folder / limit).write_text(str(256 << 20))
    script = (
        "import os, sys, pathlib\n"
        "pathlib.Path(sys.argv[1], 'cgroup.procs').write_text(str(os.getpid()))\n"
        "from ondevice.ram import available\n"
        "held = bytearray(os.urandom(50_000_000))\n"
        "ram = available.look()\n"
        "print(ram.total, ram.available)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, folder], capture_output=True, text=True, check=True
    )
    total, free = map(int, done.stdout.split())
    assert total == 256 << 20
    assert 120 * MB < free < total - 50 * MB


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1.5G", 1_500_000_000),
        ("800M", 800_000_000),
        ("800 MB", 800_000_000),
        ("2gib", 2 << 30),
        ("512Ki", 512 << 10),
        ("1500000000", 1_500_000_000),
    ],
)
def test_sizes_are_read_as_people_write_them(text: str, size: int) -> None:
    assert available.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1G", "1.5.2G", "G", "1 X"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        available.parse_size(text)


# ------------------------------------------------------------------ what a process uses


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells resident from file cache")
def test_own_memory_and_file_cache_are_told_apart(tmp_path: Path) -> None:
    before = process.of_process(os.getpid())
    file = tmp_path / "weights"
    file.write_bytes(os.urandom(20 * MB))
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, prot=mmap.PROT_READ) as mapped:
        mapped[:: mmap.PAGESIZE]
        own = bytearray(os.urandom(40 * MB))
        after = process.of_process(os.getpid())
    assert before is not None
    assert after is not None
    assert len(own) * 0.9 < after.resident - before.resident < len(own) * 1.7
    assert 18 * MB < after.page_cache - before.page_cache < 25 * MB
    assert after.peak >= after.resident + after.page_cache - 5 * MB


def test_a_process_that_has_ended_uses_nothing() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert process.of_process(child.pid) is None
