"""Matrices in bit planes: the binding of ``_planes.c``, which is compiled when first wanted.

It is compiled for this very processor, like llama.cpp was when it was installed, and kept in the
cache folder. Nobody who uses no stack needs it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ondevice import paths
from ondevice.errors import NativeError
from ondevice.llama._ggml import Tensor

PLANES = 6  #: of a matrix at most
GROUP = 16  #: weights that share a nibble
WORD = 32  #: a row is a multiple of it
SPAN = 256  #: weights that share a scale
CHUNK_STEP = 4  #: rows of a chunk are a multiple of it

_FLAGS = (
    *("-O3", "-march=native", "-std=c11", "-shared", "-fPIC", "-fno-math-errno"),
    *("-ffinite-math-only", "-fno-signed-zeros", "-fno-trapping-math", "-fassociative-math"),
)

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


class _Matrix(ctypes.Structure):
    """``Matrix`` of ``_planes.c``."""

    _fields_ = (
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("chunk_rows", ctypes.c_int64),
        ("scales", ctypes.c_void_p),
        ("nibbles", ctypes.c_void_p),
        ("planes", ctypes.c_void_p),
        ("levels", ctypes.c_void_p),
    )


class Shape(NamedTuple):
    """How large the parts of a matrix are. Rows are cut into chunks, of which each has planes."""

    rows: int
    columns: int
    chunk_rows: int  # the last chunk may have fewer

    @property
    def scales_bytes(self) -> int:
        return self.rows * -(-self.columns // SPAN) * 2

    @property
    def nibbles_bytes(self) -> int:
        return self.rows * self.columns // WORD

    def chunks(self) -> list[range]:
        """The rows of each chunk."""
        return [
            range(at, min(at + self.chunk_rows, self.rows))
            for at in range(0, self.rows, self.chunk_rows)
        ]

    def plane_bytes(self, chunk: range) -> int:
        return len(chunk) * self.columns // 8


class Planes:
    """A matrix whose bytes are somewhere in memory: who makes it keeps them there."""

    def __init__(self, shape: Shape, scales: int, nibbles: int) -> None:
        """``scales`` and ``nibbles`` are addresses."""
        n_chunks = len(shape.chunks())
        self.shape = shape
        #: Address of each plane; shape (chunks, PLANES).
        self.planes = np.zeros((n_chunks, PLANES), np.uint64)
        #: Planes of each chunk that count; shape (chunks,).
        self.levels = np.zeros(n_chunks, np.int32)
        self._native = _Matrix(
            shape.rows,
            shape.columns,
            shape.chunk_rows,
            scales,
            nibbles,
            self.planes.ctypes.data,
            self.levels.ctypes.data,
        )
        self._reference = ctypes.byref(self._native)

    def multiply_node(self, node: Tensor, threads: int) -> None:
        """Compute a MUL_MAT node whose first operand is this matrix."""
        _, x = node.operands()
        n = x.ne[1]
        self._multiply(x.data, x.nb[1] // 4, node.data, node.nb[1] // 4, n, threads)

    def rows_node(self, node: Tensor) -> None:
        """Compute a GET_ROWS node whose first operand is this matrix."""
        _, ids = node.operands()
        row = np.empty(-(-self.shape.columns // SPAN) * SPAN, np.int16)
        _library().planes_rows(
            self._reference, ids.data, ids.ne[0], node.data, node.nb[1] // 4, row.ctypes.data
        )

    def multiply(self, x: Floats, threads: int = 1) -> Floats:
        """``x`` of shape (n, columns) times the matrix; shape (n, rows)."""
        x = np.ascontiguousarray(x, np.float32)
        y = np.empty((len(x), self.shape.rows), np.float32)
        self._multiply(x.ctypes.data, x.shape[1], y.ctypes.data, y.shape[1], len(x), threads)
        return y

    def rows(self, numbers: Sequence[int]) -> Floats:
        """These rows of the matrix; shape (len(numbers), columns)."""
        ids = np.array(numbers, np.int32)
        out = np.empty((len(ids), self.shape.columns), np.float32)
        row = np.empty(-(-self.shape.columns // SPAN) * SPAN, np.int16)
        _library().planes_rows(
            self._reference,
            ids.ctypes.data,
            len(ids),
            out.ctypes.data,
            self.shape.columns,
            row.ctypes.data,
        )
        return out

    def _multiply(
        self,
        x: int | None,
        x_stride: int,
        y: int | None,
        y_stride: int,
        n: int,
        threads: int,
    ) -> None:
        library = _library()
        scratch = _scratch(library.planes_scratch(self.shape.columns, n, threads))
        library.planes_multiply(self._reference, x, x_stride, y, y_stride, n, threads, scratch)


class Encoded(NamedTuple):
    """Rows of a matrix in planes."""

    scales: Bytes
    nibbles: Bytes
    planes: list[Bytes]
    errors: npt.NDArray[np.float64]  # weighted squared error left by 0 … PLANES planes


def encode(weights: Floats, importance: Floats, threads: int = 1) -> Encoded:
    """``weights`` of shape (rows, columns) in planes, errors weighted by ``importance``."""
    rows, columns = weights.shape
    shape = Shape(rows, columns, rows)
    scales = np.zeros(shape.scales_bytes, np.uint8)
    nibbles = np.zeros(shape.nibbles_bytes, np.uint8)
    planes = [np.zeros(rows * columns // 8, np.uint8) for _ in range(PLANES)]
    pointers = np.array([plane.ctypes.data for plane in planes], np.uint64)
    errors = np.zeros(PLANES + 1, np.float64)
    weights = np.ascontiguousarray(weights, np.float32)
    importance = np.ascontiguousarray(importance, np.float32)
    _library().planes_encode(
        weights.ctypes.data,
        importance.ctypes.data,
        rows,
        columns,
        scales.ctypes.data,
        nibbles.ctypes.data,
        pointers.ctypes.data,
        errors.ctypes.data,
        threads,
    )
    return Encoded(scales, nibbles, planes, errors)


def checksum(address: int, n_bytes: int) -> int:
    """Of bytes in memory: FNV-1a in 32 lanes."""
    return int(_library().planes_checksum(address, n_bytes))


def check_compiled() -> None:
    """Raises :class:`NativeError` if the code for stacks cannot be compiled here."""
    _library()


_kept_scratch: list[npt.NDArray[np.uint8]] = []


def _scratch(n_bytes: int) -> int:
    """Address of at least so many bytes; one computation uses them at a time."""
    if not _kept_scratch or len(_kept_scratch[0]) < n_bytes:
        _kept_scratch[:] = [np.empty(n_bytes, np.uint8)]
    return _kept_scratch[0].ctypes.data


@cache
def _library() -> Any:
    source = resources.files("ondevice.llama").joinpath("_planes.c").read_bytes()
    machine = f"{sys.platform} {platform.machine()} {_processor()}"
    key = hashlib.sha256(source + machine.encode() + " ".join(_FLAGS).encode()).hexdigest()[:16]
    path = paths.cache_dir() / f"planes-{key}.so"
    if not path.exists():
        _compile(source, path)
    library = ctypes.CDLL(str(path))
    address, int64, int32 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    library.planes_multiply.argtypes = (
        *(address, address, int64, address, int64, int64, int32, address),
    )
    library.planes_scratch.argtypes = (int64, int64, int32)
    library.planes_scratch.restype = int64
    library.planes_rows.argtypes = (address, address, int64, address, int64, address)
    library.planes_encode.argtypes = (
        *(address, address, int64, int64, address, address, address, address, int32),
    )
    library.planes_checksum.argtypes = (address, int64)
    library.planes_checksum.restype = ctypes.c_uint32
    library.planes_start()
    return library


def _processor() -> str:
    """What tells processors apart that ``-march=native`` treats differently."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith(("flags", "Features")):
                return line
    return platform.processor()


def _compile(source: bytes, path: Path) -> None:
    compiler = os.environ.get("CC") or next(
        (name for name in ("cc", "gcc", "clang") if shutil.which(name)), None
    )
    if compiler is None:
        raise NativeError(
            "A stack needs a C compiler once, and there is none. "
            "Install gcc or clang, or use a model file that is no stack."
        )
    paths.ensure_private(path.parent)
    own = path.with_suffix(f".{os.getpid()}")
    code = own.with_suffix(f"{own.suffix}.c")
    code.write_bytes(source)
    reason = ""
    try:
        for openmp in (["-fopenmp"], []):  # without it, one thread computes
            done = subprocess.run(
                [compiler, *_FLAGS, *openmp, str(code), "-o", str(own), "-lm"],
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode == 0:
                own.replace(path)
                return
            reason = done.stderr.strip()[:300]
    except OSError as error:
        reason = str(error)
    finally:
        code.unlink(missing_ok=True)
    raise NativeError(
        f"{compiler} could not compile what a stack needs: {reason}. "
        "Repair the compiler, or use a model file that is no stack."
    )
