"""The room on the disk for what models have computed of conversations."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from ondevice.system.whole_file import replacing

SUFFIX = ".state"
_WRITTEN = "written.json"  # day → bytes
_DAYS = 7  # that are remembered


class StateUsage(NamedTuple):
    """What there is, in bytes, and what was written today."""

    n_bytes: int
    n_files: int
    written_today: int


def usage(folder: Path) -> StateUsage:
    """Of the files below ``folder``, which need not be there."""
    sizes = [status.st_size for _, status in _files(folder)]
    return StateUsage(sum(sizes), len(sizes), _written(folder).get(_today(), 0))


def wrote(folder: Path, n_bytes: int) -> None:
    """Remember how much was written. Several engines at once may lose some of it."""
    written = _written(folder)
    today = _today()
    written[today] = written.get(today, 0) + n_bytes
    with contextlib.suppress(OSError), replacing(folder / _WRITTEN) as file:
        file.write(json.dumps(dict(sorted(written.items())[-_DAYS:])).encode())


def shrink(folder: Path, most_bytes: int) -> None:
    """Delete what was not used for longest until the files have that many bytes."""
    found = [(status.st_mtime_ns, status.st_size, path) for path, status in _files(folder)]
    left = sum(n_bytes for _, n_bytes, _ in found)
    for _, n_bytes, path in sorted(found):
        if left <= most_bytes:
            return
        with contextlib.suppress(OSError):
            path.unlink()
            left -= n_bytes


def _today() -> str:
    return datetime.now().astimezone().date().isoformat()


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for path in folder.glob("*/*"):  # those that a kill has left half written, too
        with contextlib.suppress(OSError):  # deleted meanwhile
            yield path, path.stat()


def _written(folder: Path) -> dict[str, int]:
    try:
        written = json.loads((folder / _WRITTEN).read_text("utf-8"))
        return {str(day): int(n_bytes) for day, n_bytes in written.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
