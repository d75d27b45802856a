"""Measures how fast this machine is: its processor with weights of each type, and its disk."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable

import msgspec

from ondevice import paths
from ondevice.disk import speed as disk_speed
from ondevice.errors import NativeError
from ondevice.holding import speeds
from ondevice.holding.speeds import PLANES_TYPE, USUAL, Speeds
from ondevice.system import children
from ondevice.text import reason

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
_PROMPT = 128  # tokens at once, from where on more of them are not faster
_ROUNDS = 3  # of which the best counts: other programs only make it slower
_PATIENCE_S = 120.0
_BUSY_SHARE = 0.1  # of the time, in which other programs had the cores: too much to measure

_Measured = tuple[dict[str, float], dict[str, float], float]


def measure(cancel: threading.Event | None = None) -> Speeds:
    """Measure and keep it: a quarter of a minute, in which nothing else should run.

    Raises :class:`NativeError` if llama.cpp fails, and within a moment when ``cancel`` is set: then
    nothing is kept. A disk that cannot be measured counts as usual.
    """
    cancel = cancel or threading.Event()
    command = [sys.executable, "-m", "ondevice.planning._kernel_speed", str(_PROMPT), str(_ROUNDS)]
    try:
        written = children.output([*command, *TYPES, PLANES_TYPE], _PATIENCE_S, cancel.is_set)
        decode, prefill, waited_share = msgspec.json.decode(written, type=_Measured)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        raise NativeError(
            f"The processor's speed cannot be measured: {reason(error)}. See: ondevice doctor"
        ) from error
    busy = waited_share > _BUSY_SHARE
    disk = _disk(cancel.is_set)
    if cancel.is_set():
        raise NativeError("Measuring was cancelled.")
    new = Speeds(speeds.machine(), decode, prefill, disk, busy, time.time())
    return speeds.keep(_faster(new, speeds.known()))


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


def _disk(cancelled: Callable[[], bool]) -> float:
    files = [file for file in paths.models_dir().rglob("*.gguf") if file.is_file()]
    largest = max(files, key=lambda file: file.stat().st_size, default=None)
    place = largest or next(p for p in paths.models_dir().parents if p.is_dir())
    try:
        return disk_speed.measure(place, cancelled=cancelled).bytes_per_second
    except OSError:
        return USUAL.disk
