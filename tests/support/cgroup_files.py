"""The files by which Linux tells of control groups."""

from __future__ import annotations

from pathlib import Path

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw"


def tree(root: Path, cgroup: str, mountinfo: str, groups: dict[str, dict[str, str]]) -> Path:
    """A ``proc`` and ``sys`` as in ``groups``: folder → file → content."""
    files = {"proc/self": {"cgroup": cgroup, "mountinfo": mountinfo}, **groups}
    for folder, contents in files.items():
        (root / folder).mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            (root / folder / name).write_text(content + "\n")
    return root
