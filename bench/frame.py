"""The frame of every benchmark: ``--quick``, and one JSON object of figures, machine and runs."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil

from ondevice import __version__
from ondevice.errors import OndeviceError

Figures = dict[str, float]
Runs = list[dict[str, Any]]


def run(
    description: str | None,
    measure: Callable[..., tuple[Figures, Runs]],
    paths: Mapping[str, str] | None = None,
) -> None:
    """Parse the command line, measure, print the JSON object on standard output.

    ``measure`` gets ``quick``, and by its name each of the ``paths`` that the command line may
    give, or None: name → help.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer runs: a minute or two")
    for name, what in (paths or {}).items():
        parser.add_argument(f"--{name}", type=Path, help=what)
    arguments = vars(parser.parse_args())
    try:
        figures, runs = measure(**arguments)
    except OndeviceError as error:
        sys.exit(str(error))
    rounded = {name: round(value, 4) for name, value in figures.items()}
    print(json.dumps({"figures": rounded, "machine": machine(), "runs": runs}, indent=1))


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "system": platform.system(),
        "processor": _processor(),
        "cores": psutil.cpu_count(logical=False),
        "ram_bytes": psutil.virtual_memory().total,
        "python": platform.python_version(),
        "ondevice": __version__,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor()


def mean(values: Iterable[float]) -> float:
    return statistics.fmean(values)


def median(values: Iterable[float]) -> float:
    return statistics.median(list(values))


def say(text: str) -> None:
    """Progress for whoever waits; standard output is for the result."""
    print(text, file=sys.stderr, flush=True)


def models(*names: str) -> list[Path]:
    """Those of the named files that are in the folder ``ONDEVICE_TEST_MODELS``."""
    folder = Path(os.environ.get("ONDEVICE_TEST_MODELS", ""))
    found = [folder / name for name in names if (folder / name).is_file()]
    if missing := [name for name in names if folder / name not in found]:
        say(f"not measured, for want of a file in ONDEVICE_TEST_MODELS: {', '.join(missing)}")
    return found
