"""How fast this machine is: its processor with weights of each type, and its disk.

Measured once and kept in the cache folder, until the processor, llama.cpp or the disk is another.
What was measured while other programs computed is only kept for a while.
"""

from __future__ import annotations

import importlib.metadata
import platform
import time
from pathlib import Path

import msgspec

from ondevice import paths
from ondevice.checking import work_out
from ondevice.system.cached import write_cache
from ondevice.system.cores import default_threads

#: Bit planes of a stack with which its speed is measured, and what that is called.
PLANES = 4
PLANES_TYPE = f"planes-{PLANES}"
_FILE = "speeds.json"  # in the cache
_BUSY_KEPT_S = 1800.0  # for which what was measured then will do


class Speeds(msgspec.Struct, frozen=True):
    """What was measured, or ``USUAL``, a guess at a laptop of some years."""

    machine: str  # what it was measured on
    decode: dict[str, float]  # tensor type → multiply-adds a second for one token at a time
    prefill: dict[str, float]  # the same for many
    disk: float  # bytes a second of large reads
    busy: bool = False  # whether other programs computed meanwhile
    measured_at: float = 0.0  # seconds since 1970; 0: by a version that did not write it down

    def decoding(self, type_name: str) -> float:
        return self.decode.get(type_name) or min(self.decode.values())

    def prefilling(self, type_name: str) -> float:
        return self.prefill.get(type_name) or min(self.prefill.values())


USUAL = Speeds(
    "",
    {"Q4_K": 20e9, "F16": 8e9, PLANES_TYPE: 15e9},
    {"Q4_K": 60e9, "F16": 40e9, PLANES_TYPE: 50e9},
    1e9,
)


work_out(Speeds)


def known() -> Speeds:
    """What has been measured on this machine, else ``USUAL``."""
    file = paths.cache_dir() / _FILE
    try:
        speeds = msgspec.json.decode(file.read_bytes(), type=Speeds)
        age = time.time() - (speeds.measured_at or file.stat().st_mtime)
    except (OSError, msgspec.MsgspecError):
        return USUAL
    is_good = speeds.machine == machine() and not (speeds.busy and abs(age) > _BUSY_KEPT_S)
    return speeds if is_good else USUAL


def keep(speeds: Speeds) -> Speeds:
    """Write them down; where that is not possible, they are measured again another time."""
    write_cache(_FILE, msgspec.json.encode(speeds))
    return speeds


def machine() -> str:
    """What the speeds depend on."""
    folder = next(p for p in (paths.models_dir(), *paths.models_dir().parents) if p.is_dir())
    return " ".join(
        (
            processor(),
            f"{default_threads()} threads",
            f"llama-cpp-python {importlib.metadata.version('llama-cpp-python')}",
            f"disk {folder.stat().st_dev}",
        )
    )


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return " ".join(filter(None, (next(names, platform.processor()), platform.machine())))
