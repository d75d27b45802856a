"""How fast this machine is: its processor with weights of each type, and its disk.

Measured once and kept in the cache folder, until the processor, llama.cpp or the disk is another.
What was measured while other programs computed is only kept for a while.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from ondevice import paths
from ondevice.disk import speed as disk_speed
from ondevice.errors import NativeError
from ondevice.system import children
from ondevice.system.cores import default_threads

#: Types that models are made of. What is not among them is taken for the slowest of these.
TYPES = (
    "F16",
    "BF16",
    "Q8_0",
    "Q6_K",
    "Q5_K",
    "Q5_0",
    "Q4_K",
    "Q4_0",
    "Q4_1",
    "IQ4_XS",
    "IQ4_NL",
    "Q3_K",
    "IQ3_S",
    "Q2_K",
    "IQ2_XXS",
    "MXFP4",
)
#: Bit planes of a stack with which its speed is measured, and what that is called.
PLANES = 4
PLANES_TYPE = f"planes-{PLANES}"
_PROMPT = 128  # tokens at once, from where on more of them are not faster
_ROUNDS = 3  # of which the best counts: other programs only make it slower
_PATIENCE_S = 120.0
_BUSY_SHARE = 0.1  # of the time, in which other programs had the cores: too much to measure
_BUSY_KEPT_S = 1800.0  # for which what was measured then will do


_Measured = tuple[dict[str, float], dict[str, float], float]


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


def known() -> Speeds:
    """What has been measured on this machine, else ``USUAL``."""
    try:
        speeds = msgspec.json.decode(_file().read_bytes(), type=Speeds)
        age = time.time() - (speeds.measured_at or _file().stat().st_mtime)
    except (OSError, msgspec.MsgspecError):
        return USUAL
    is_good = speeds.machine == machine() and not (speeds.busy and age > _BUSY_KEPT_S)
    return speeds if is_good else USUAL


def measure() -> Speeds:
    """Measure and keep it: a quarter of a minute, in which nothing else should run.

    Raises :class:`NativeError` if llama.cpp fails; a disk that cannot be measured counts as usual.
    """
    command = [sys.executable, "-m", "ondevice.planning._kernel_speed", str(_PROMPT), str(_ROUNDS)]
    try:
        done = subprocess.run(
            [*command, *TYPES, PLANES_TYPE],
            stdin=subprocess.DEVNULL,
            env=children.environment(),
            capture_output=True,
            check=True,
            timeout=_PATIENCE_S,
        )
        decode, prefill, waited_share = msgspec.json.decode(done.stdout, type=_Measured)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise NativeError(
            f"The processor's speed cannot be measured: {error}. See: ondevice doctor"
        ) from error
    busy = waited_share > _BUSY_SHARE
    speeds = _faster(Speeds(machine(), decode, prefill, _disk(), busy, time.time()), known())
    file = _file()
    with contextlib.suppress(OSError):  # where it cannot be kept, it is measured again
        paths.ensure_private(file.parent)
        fresh = file.with_suffix(f".{os.getpid()}")
        fresh.write_bytes(msgspec.json.encode(speeds))
        fresh.replace(file)
    return speeds


def _faster(new: Speeds, old: Speeds) -> Speeds:
    """The better of two measurements of a machine: other programs only make one worse."""
    if new.machine != old.machine:
        return new
    return Speeds(
        new.machine,
        {name: max(speed, old.decode.get(name, 0)) for name, speed in new.decode.items()},
        {name: max(speed, old.prefill.get(name, 0)) for name, speed in new.prefill.items()},
        max(new.disk, old.disk),
        new.busy and old.busy,
        new.measured_at if old.busy or not new.busy else old.measured_at,
    )


def _disk() -> float:
    files = [file for file in paths.models_dir().rglob("*.gguf") if file.is_file()]
    largest = max(files, key=lambda file: file.stat().st_size, default=None)
    place = largest or next(p for p in paths.models_dir().parents if p.is_dir())
    try:
        return disk_speed.measure(place).bytes_per_second
    except OSError:
        return USUAL.disk


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


def _file() -> Path:
    return paths.cache_dir() / "speeds.json"
