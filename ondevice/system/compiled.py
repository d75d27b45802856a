"""Compiles what is written in C for this processor when it is first wanted, and keeps it."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ondevice import paths
from ondevice.errors import NativeError
from ondevice.system import children

_LINE = 64  # bytes of a cache line
#: For this processor, as compilers know it: clang has no ``-march=native`` for ARM.
_NATIVE = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
_FLAGS = (
    *("-O3", _NATIVE, "-std=gnu11", "-shared", "-fPIC"),
    *("-fno-math-errno", "-fno-trapping-math"),
)


@dataclass(frozen=True)
class CSource:
    """Files of a package, of which the first one is compiled and includes the others."""

    name: str  # of the library that it becomes
    package: str
    files: tuple[str, ...]
    headers: tuple[tuple[str, str], ...] = ()  # that they share with others: package and file
    flags: tuple[str, ...] = ()  # besides those that all have
    #: What to say where it cannot be compiled: "A stack needs", "use a file that is not a stack".
    user: str = "Faster computing"
    instead: str = "do without it"

    def texts(self) -> dict[str, bytes]:
        """What is in the files and headers, by their names."""
        files = [(self.package, name) for name in self.files] + list(self.headers)
        return {name: resources.files(at).joinpath(name).read_bytes() for at, name in files}


def library(source: CSource) -> ctypes.CDLL:
    """What ``source`` becomes. Raises :class:`NativeError` if it cannot be compiled here."""
    folder = resources.files(source.package)
    texts = source.texts()
    machine = f"{sys.platform} {platform.machine()} {_processor()}"
    told = b"".join(texts.values()) + machine.encode() + repr((_FLAGS, source.flags)).encode()
    name = f"{source.name}-{hashlib.sha256(told).hexdigest()[:16]}.so"
    # Beside what Python compiles, for all homes; else in the cache, or for this time only.
    places = [Path(str(folder), "__pycache__"), paths.cache_dir()]
    with tempfile.TemporaryDirectory() as instead:
        for place in places:
            if (place / name).exists():
                return ctypes.CDLL(str(place / name))
        path = Path(next((each for each in places if _is_writable(each)), instead), name)
        _compile(source, texts, path)
        return ctypes.CDLL(str(path))


@cache
def digest(*packages: str) -> str:
    """Of all that these packages have in C."""
    files = sorted(
        (file.name, file.read_bytes())
        for package in packages
        for file in resources.files(package).iterdir()
        if file.name.endswith((".c", ".h"))
    )
    return hashlib.sha256(b"".join(text for _, text in files)).hexdigest()


def _is_writable(place: Path) -> bool:
    try:
        if place == paths.cache_dir():
            paths.ensure_private(place)
        return os.access(place, os.W_OK)
    except OSError:
        return False


def address_of(function: Any) -> int:
    """Where a function of such a library lies."""
    return int(ctypes.cast(function, ctypes.c_void_p).value or 0)


def room(n_bytes: int) -> npt.NDArray[np.uint8]:
    """Zeros for C to work in, from a cache line on. They take no RAM until they are written to."""
    zeros = np.zeros(n_bytes + _LINE, np.uint8)
    start = -zeros.ctypes.data % _LINE
    return zeros[start : start + n_bytes]


def _processor() -> str:
    """What tells processors apart that compilers treat differently."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return platform.processor()


def _compile(source: CSource, texts: Mapping[str, bytes], path: Path) -> None:
    compiler = os.environ.get("CC") or next(
        (name for name in ("cc", "gcc", "clang") if shutil.which(name)), None
    )
    if compiler is None:
        raise NativeError(
            f"{source.user} needs a C compiler once, and there is none. "
            f"Install gcc or clang, or {source.instead}."
        )
    try:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            for name, text in texts.items():
                Path(folder, name).write_bytes(text)
            done = subprocess.run(
                [compiler, *_FLAGS, *source.flags, source.files[0], "-o", path.name, "-lm"],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                env=children.environment(),
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode == 0:
                Path(folder, path.name).replace(path)
                return
            reason = done.stderr.strip()[:300]
    except OSError as error:
        reason = str(error)
    raise NativeError(
        f"{compiler} could not compile what {source.user[0].lower()}{source.user[1:]} needs: "
        f"{reason}. Repair the compiler, or {source.instead}."
    )
