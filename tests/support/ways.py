"""Ways to compile our C: for less of a processor, for another one, with another compiler."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pytest

from ondevice.system.compiled import _NATIVE, CSource, _processor

#: Instructions that the code is to do without, or another compiler.
WAYS = {
    "native": (),
    "AVX2": ("-mno-avx512vnni",),
    "SSSE3": ("-march=x86-64-v2", "-mfma"),
    "without FMA": ("-march=x86-64-v2",),
    "plain": ("-DPRODUCTS_PLAIN",),
    "clang": ("-DCLANG",),
}
if platform.machine() not in ("x86_64", "AMD64"):
    WAYS = {way: WAYS[way] for way in ("native", "plain", "clang")}
elif "fma" not in _processor().split():
    del WAYS["SSSE3"]
#: Those that come to the same bits: without FMA, floats are rounded twice.
ALIKE = [way for way in WAYS if way != "without FMA"]
#: Compilers for ARM, and what it is to have.
ARMS = {
    "no dotprod": ("aarch64-linux-gnu-gcc", "-march=armv8-a"),
    "dotprod": ("aarch64-linux-gnu-gcc", "-march=armv8.2-a+dotprod+fp16"),
    "clang": ("clang", "--target=aarch64-linux-gnu", "-march=armv8.2-a+dotprod+fp16"),
}
#: Takes a third of the time that -O1 takes, or less, and comes to the same bits: gcc makes one
#: instruction of a product and a sum from -O2 on, and clang before it optimizes.
_QUICKLY = {"gcc": "-Og", "clang": "-O0"}
_CHECKS = ("-std=gnu11", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined")


@contextmanager
def compiling(way: str, source: CSource) -> Iterator[CSource]:
    """``source`` to be compiled in one of the :data:`WAYS`, or the test is skipped."""
    with pytest.MonkeyPatch.context() as patch:
        if way == "clang":
            if not shutil.which("clang"):
                pytest.skip("needs clang")
            patch.setenv("CC", "clang")
        quickly = (_QUICKLY["clang" if way == "clang" else "gcc"],) if WAYS[way] else ()
        yield replace(source, flags=(*source.flags, *WAYS[way], *quickly))


def for_arm(arm: str, source: CSource, folder: Path) -> list[str]:
    """The command that runs ``source`` as a program for one of the :data:`ARMS`, or it is skipped.

    Its ``main`` is beside this file, in ``NAME_main.c``; it is made in ``folder`` and then kept
    where libraries are that are made of ``source``.
    """
    runner = shutil.which("qemu-aarch64")
    needed = "aarch64-linux-gnu-gcc", ARMS[arm][0]  # clang has no C library of its own
    if not runner or not all(map(shutil.which, needed)):
        pytest.skip(f"needs qemu-aarch64 and {' and '.join(sorted({*needed}))}")
    quickly = _QUICKLY["clang" if arm == "clang" else "gcc"]
    command = [*ARMS[arm], *source.flags, "-static", quickly]
    return [runner, str(_program(command, source, folder, "arm"))]


def checked(source: CSource, folder: Path) -> list[str]:
    """The same for this processor: it ends where C says nothing of what comes out, or where it
    reads or writes what is not its own."""
    if not shutil.which("gcc") or sys.platform != "linux":
        pytest.skip("needs gcc with its sanitizers")
    command = ["gcc", _NATIVE, *source.flags, _QUICKLY["gcc"], *_CHECKS]
    program = _program(command, source, folder, "checked")
    return ["env", "ASAN_OPTIONS=detect_leaks=0", str(program)]  # it frees nothing before it ends


def _program(command: list[str], source: CSource, folder: Path, kind: str) -> Path:
    """What ``command`` makes of ``source`` and its ``main``, kept where its libraries are."""
    main = Path(__file__).with_name(f"{source.name}_main.c")
    texts = [*source.texts().values(), *(each.read_bytes() for each in _mains())]
    told = b"".join(texts) + repr(command).encode()
    kept = Path(str(resources.files(source.package)), "__pycache__")
    kept /= f"{source.name}-{kind}-{hashlib.sha256(told).hexdigest()[:16]}"
    if not kept.exists():
        for name, text in source.texts().items():
            (folder / name).write_bytes(text)
        program = folder / "program"
        command += [f"-I{folder}", str(main), "-o", str(program), "-lm"]
        subprocess.run(command, check=True)
        made = kept.with_suffix(f".{os.getpid()}")
        shutil.copy(program, made)
        made.replace(kept)
    return kept


def _mains() -> list[Path]:
    """What is written for ARM only."""
    return sorted(file for kind in ("c", "h") for file in Path(__file__).parent.glob(f"*.{kind}"))
