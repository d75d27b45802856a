"""What the engines of this user hold in RAM now: written by each, to be read by other programs."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import msgspec

from ondevice import paths
from ondevice.checking import work_out
from ondevice.messages import Sizing
from ondevice.system.whole_file import replacing


class Running(msgspec.Struct, frozen=True, kw_only=True):
    """An engine with a model."""

    pid: int
    path: str  # of the model
    sizing: Sizing


def tell(path: str, sizing: Sizing) -> None:
    """Write down what this process holds; what those have left that ended goes."""
    file = paths.ensure_private(_folder()) / f"{os.getpid()}.json"
    if not file.exists():
        running()
    with replacing(file) as record:
        record.write(msgspec.json.encode(Running(pid=os.getpid(), path=path, sizing=sizing)))


work_out(Running)


def running() -> list[Running]:
    """The engines that live. What others have left behind is removed."""
    found = []
    for file in _folder().glob("*.json"):
        with contextlib.suppress(OSError, msgspec.DecodeError):
            if _is_of_living(file):
                found.append(msgspec.json.decode(file.read_bytes(), type=Running))
            else:
                file.unlink()
    return found


def _is_of_living(file: Path) -> bool:
    """Whether the process that wrote the file lives, and no other of the same number."""
    import psutil  # noqa: PLC0415 - the app starts without

    try:
        return psutil.Process(int(file.stem)).create_time() <= file.stat().st_mtime
    except (psutil.Error, ValueError):
        return False


def _folder() -> Path:
    return paths.cache_dir() / "engines"
