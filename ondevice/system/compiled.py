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
from collections.abc import Generator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ondevice import paths
from ondevice.errors import NativeError
from ondevice.system import children
from ondevice.system.whole_file import replacing
from ondevice.text import reason

#: For this processor, as compilers know it: clang has no ``-march=native`` for ARM.
_NATIVE = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
_FLAGS = (
    *("-O3", _NATIVE, "-std=gnu11", "-shared", "-fPIC"),
    *("-fno-math-errno", "-fno-trapping-math"),
)
_PATIENCE_S = 300.0  # with another process that compiles the same


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
        return {name: (_folder(at) / name).read_bytes() for at, name in files}


def library(source: CSource) -> ctypes.CDLL:
    """What ``source`` becomes. Raises :class:`NativeError` if it cannot be had here."""
    texts = source.texts()
    name = _name(source, texts)
    if (library := _load_kept(source, name)) is not None:
        return library
    place = place_to_keep(source.package)
    with _folder_to_compile_in(source) as folder, _alone(place and place / name):
        if (library := _load_kept(source, name)) is not None:  # another has just compiled it
            return library
        path = Path(folder, name)
        _compile(source, texts, path)
        if place is not None:
            with suppress(OSError):  # its disk is full, say: next time it is compiled again
                # Others may use it, as umask says.
                with replacing(place / name, mode=0o777) as file:
                    file.write(path.read_bytes())
                path = place / name
        try:
            return _load(path)
        except OSError as error:
            raise NativeError(
                f"{source.user} needs code that is compiled here, and this system does not load "
                f"it: {reason(error)}. Set TMPDIR to a folder from which programs may be run, or "
                f"{source.instead}."
            ) from error


def is_kept(source: CSource) -> bool:
    """Whether what it becomes need not be compiled again."""
    return kept(source.package, _name(source, source.texts())) is not None


def _name(source: CSource, texts: Mapping[str, bytes]) -> str:
    """The name of the library for this machine."""
    told = b"".join(texts.values()) + repr((_FLAGS, source.flags)).encode()
    return for_this_machine(source.name, told) + ".so"


def _folder_to_compile_in(source: CSource) -> tempfile.TemporaryDirectory[str]:
    try:
        return tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    except OSError as error:
        raise NativeError(
            f"{source.user} needs code that is compiled here, and there is no room for that: "
            f"{reason(error)}. Set TMPDIR to another folder, or {source.instead}."
        ) from error


def _load_kept(source: CSource, name: str) -> ctypes.CDLL | None:
    if (path := kept(source.package, name)) is not None:
        with suppress(OSError):  # damaged: it is compiled again
            return _load(path)
    return None


@contextmanager
def _alone(path: Path | None) -> Generator[None]:
    """Of all processes, such as several windows at their first start, one compiles ``path``.

    Each does it where nothing can be kept or locked, or where the one takes too long.
    """
    from filelock import FileLock  # noqa: PLC0415 - asyncio comes with it

    with ExitStack() as stack:
        if path is not None:
            with suppress(OSError):
                stack.enter_context(FileLock(f"{path}.lock", timeout=_PATIENCE_S))
        yield


def _load(path: Path) -> ctypes.CDLL:
    """From a copy where its own folder is on a file system from which nothing may be run."""
    try:
        return ctypes.CDLL(str(path))
    except OSError:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as elsewhere:
            return ctypes.CDLL(shutil.copy(path, elsewhere))


def for_this_machine(name: str, told: bytes) -> str:
    """The name of what is made of ``told`` on this machine."""
    machine = f"{sys.platform} {platform.machine()} {_processor()}"
    return f"{name}-{hashlib.sha256(told + machine.encode()).hexdigest()[:16]}"


def kept(package: str, name: str) -> Path | None:
    """The file of this name that was kept for a package; None: there is none."""
    return next((at / name for at in _places(package) if (at / name).exists()), None)


def place_to_keep(package: str) -> Path | None:
    """Where files for a package may be kept; None: nowhere."""
    return next((at for at in _places(package) if _is_writable(at)), None)


def _places(package: str) -> tuple[Path, ...]:
    """Beside what Python compiles, for all homes; else in the cache."""
    return _folder(package) / "__pycache__", paths.cache_dir()


def _folder(package: str) -> Path:
    """Where a package is, which is not imported: that of llama.cpp takes long."""
    spec = find_spec(package)
    assert spec is not None and spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0])


@cache
def digest(*packages: str) -> str:
    """Of all that these packages have in C."""
    files = sorted(
        (file.name, file.read_bytes())
        for package in packages
        for file in _folder(package).iterdir()
        if file.suffix in (".c", ".h")
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


def find_compiler() -> str | None:
    """The C compiler of this machine; None: there is none."""
    found = (name for name in ("cc", "gcc", "clang") if shutil.which(name))
    return os.environ.get("CC") or next(found, None)


def _processor() -> str:
    """What tells processors apart that compilers treat differently."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return platform.processor()


def _compile(source: CSource, texts: Mapping[str, bytes], path: Path) -> None:
    """Make ``path``, in a folder of its own, where the sources are put as well."""
    if (compiler := find_compiler()) is None:
        raise NativeError(
            f"{source.user} needs a C compiler once, and there is none. "
            f"Install gcc or clang, or {source.instead}."
        )
    try:
        for name, text in texts.items():
            path.with_name(name).write_bytes(text)
        done = subprocess.run(
            [compiler, *_FLAGS, *source.flags, source.files[0], "-o", path.name, "-lm"],
            cwd=path.parent,
            stdin=subprocess.DEVNULL,
            env=children.environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return
        why = done.stderr.strip()[:300]
    except OSError as error:
        why = reason(error)
    raise NativeError(
        f"{compiler} could not compile what {source.user[0].lower()}{source.user[1:]} needs: "
        f"{why}. Repair the compiler, or {source.instead}."
    )
