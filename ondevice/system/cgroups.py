"""Where the control groups around this process are, on Linux: containers set their limits there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path, PurePosixPath

from ondevice.system.kernel_files import lines_of


def folders(controller: str, root: Path = Path("/")) -> Iterator[tuple[int, Path]]:
    """Version, 1 or 2, and folder of each group that ``controller`` may rule, from inside out.

    ``root`` is the folder that holds ``proc`` and ``sys``.
    """
    try:
        memberships = lines_of(root / "proc/self/cgroup")
        mounts = lines_of(root / "proc/self/mountinfo")
    except OSError:  # not Linux
        return
    yield from _found(controller, memberships, mounts, root)


@lru_cache(maxsize=8)  # they hardly ever change, and are asked for many times a second
def _found(
    controller: str, memberships: tuple[str, ...], mounts: tuple[str, ...], root: Path
) -> tuple[tuple[int, Path], ...]:
    return tuple(_find(controller, memberships, mounts, root))


def _find(
    controller: str, memberships: Sequence[str], mounts: Sequence[str], root: Path
) -> Iterator[tuple[int, Path]]:
    for line in memberships:
        _, controllers, group = line.split(":", 2)
        if controllers == "":
            version = 2
        elif controller in controllers.split(","):
            version = 1
        else:
            continue
        for folder in _mounted(version, controller, group, mounts, root):
            yield version, folder


def _mounted(
    version: int, controller: str, group: str, mounts: Sequence[str], root: Path
) -> Iterator[Path]:
    """The folders of ``group`` and its ancestors, as far as they are mounted."""
    for mount in mounts:
        before, _, after = mount.partition(" - ")
        mounted, point = (PurePosixPath(part) for part in before.split()[3:5])
        filesystem, _, options = after.split(" ", 2)
        if filesystem != ("cgroup2" if version == 2 else "cgroup"):
            continue
        if version == 1 and controller not in options.split(","):
            continue
        # A container may see its own group mounted as the root, under the host's name or as "/".
        # A group outside of what is mounted ("/../…") leaves only the mount itself to look at.
        path = PurePosixPath(group)
        inside = path.relative_to(mounted) if path.is_relative_to(mounted) else PurePosixPath()
        if ".." in inside.parts:
            inside = PurePosixPath()
        top = root / point.relative_to("/")
        for part in (inside, *inside.parents):
            yield top / part
