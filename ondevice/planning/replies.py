"""How fast models have really written here, from which their expected speed is corrected.

Of each file, and each way of holding it, the last figures are kept and the median of them counts:
a few replies that something slowed down, or that were about nothing, do not move it. What was
written while other programs had the cores is left out.
"""

from __future__ import annotations

import math
import os
import statistics
import threading
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec

from ondevice import paths
from ondevice.checking import work_out
from ondevice.holding import speeds
from ondevice.messages import Load, Sizing
from ondevice.system.cached import write_cache
from ondevice.system.cores import default_threads

_FILE = "replies.json"  # in the cache
_KEPT = 9  # figures
_MOST = 200  # ways of holding files, the oldest of which are forgotten first
_LEAST_TOKENS = 24  # of a reply whose speed means something
_BUSY_SHARE = 0.15  # of the time in which threads wanted a core, what they waited for one
_STEPS = 20  # in which the share of the weights in RAM counts

_writing = threading.Lock()


class Held(NamedTuple):
    """A file as it was at the time, and how it is held."""

    key: str
    step: int  # of its weights in RAM, in twentieths

    @classmethod
    def of(
        cls,
        path: Path,
        n_threads: int | None = None,
        drafter: Path | None = None,
        *,
        resident: int = 1,
        streamed: int = 0,
        left_out: int = 0,
    ) -> Held:
        """With so many bytes of its weights in RAM, read when they are needed, and left out.

        ``n_threads`` None: the usual number.
        """
        try:
            status = path.stat()
            file = f"{os.path.realpath(path)} {status.st_size} {status.st_mtime_ns}"
        except (OSError, ValueError):  # nothing is known of it then
            file = f"{path}"
        small = f" {os.path.realpath(drafter)}" if drafter else ""
        total = resident + streamed + left_out
        part = ""  # of a stack
        if left_out:
            used = round((resident + streamed) / total * _STEPS)
            part = f" cut {used}/{_STEPS}" if streamed else " part"
        threads = n_threads or default_threads()
        return cls(f"{file} {threads}{small}{part}", round(resident / total * _STEPS))


def held(load: Load, sizing: Sizing | None) -> Held:
    """How the engine holds a model that was loaded so."""
    drafter = Path(load.drafter) if load.drafter else None
    hold = partial(Held.of, Path(load.path), load.n_threads, drafter)
    if sizing is None or not sizing.resident_bytes:
        return hold()
    return hold(
        resident=sizing.resident_bytes,
        streamed=sizing.streamed_bytes,
        left_out=sizing.absent_bytes - sizing.streamed_bytes,
    )


class Seen(msgspec.Struct, frozen=True):
    """The last figures of one way of holding a file."""

    figures: tuple[float, ...]  # tokens a second, the latest last
    at: float  # seconds since 1970: of the latest

    @property
    def per_second(self) -> float:
        return statistics.median(self.figures)


class _Kept(msgspec.Struct, frozen=True):
    machine: str
    seen: dict[str, Seen]


def of(held: Held) -> Seen | None:
    """What is known of this way of holding this file, or one that differs by a twentieth."""
    seen = _read()
    steps = (held.step, held.step - 1, held.step + 1) if held.step < _STEPS else (held.step,)
    return next((found for s in steps if (found := seen.get(_name(held.key, s)))), None)


def record(
    held: Held,
    n_tokens: int,
    per_second: float,
    waited_share: float,
    expected: float = math.inf,
) -> None:
    """Keep what a reply of so many tokens gave, unless it says little about this machine.

    While other programs had the cores that is only known to be too low, so it counts where even
    less was ``expected``.
    """
    if n_tokens < _LEAST_TOKENS or per_second <= 0:
        return
    if waited_share > _BUSY_SHARE:
        seen_before = of(held)
        if per_second <= (seen_before.per_second if seen_before else expected):
            return
    with _writing:
        seen = _read()
        name = _name(held.key, held.step)
        before = seen.pop(name).figures if name in seen else ()
        seen[name] = Seen((*before, per_second)[-_KEPT:], time.time())
        newest = sorted(seen.items(), key=lambda item: item[1].at)[-_MOST:]
        kept = _Kept(speeds.machine(), dict(newest))
        write_cache(_FILE, msgspec.json.encode(kept))


def _name(key: str, step: int) -> str:
    return f"{key} {step}/{_STEPS}"


work_out(_Kept)


def _read() -> dict[str, Seen]:
    try:
        kept = msgspec.json.decode((paths.cache_dir() / _FILE).read_bytes(), type=_Kept)
    except (OSError, msgspec.MsgspecError):
        return {}
    sound = {name: one for name, one in kept.seen.items() if one.figures}
    return sound if kept.machine == speeds.machine() else {}
