"""Weights into bit planes: the binding of ``_encoding.c``."""

from __future__ import annotations

import ctypes
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ondevice.holding.stack._layout import PLANES, PlanesShape
from ondevice.system import compiled

SOURCE = compiled.CSource(
    name="encoding",
    package="ondevice.holding.stack",
    files=("_encoding.c", "_planes.h"),
    flags=("-ffinite-math-only", "-fno-signed-zeros", "-fassociative-math"),
    user="Packing a stack",
    instead="use a model file that is not a stack",
)

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


class Encoded(NamedTuple):
    """Rows of a matrix in planes."""

    scales: Bytes
    nibbles: Bytes
    planes: list[Bytes]
    errors: npt.NDArray[np.float64]  # weighted squared error left by 0 … PLANES planes


def encode(weights: Floats, importance: Floats, threads: int = 1) -> Encoded:
    """``weights`` of shape (rows, columns) in planes, errors weighted by ``importance``."""
    weights = np.ascontiguousarray(weights, np.float32)
    importance = np.ascontiguousarray(importance, np.float32)
    rows, columns = weights.shape
    row_bytes = PlanesShape(rows, columns, rows).part_bytes(1)
    scales, nibbles = (np.zeros((rows, n_bytes), np.uint8) for n_bytes in row_bytes[:2])
    planes = [np.zeros((rows, row_bytes[2]), np.uint8) for _ in range(PLANES)]
    library = _library()

    def encode_rows(part: slice) -> npt.NDArray[np.float64]:
        errors = np.zeros(PLANES + 1, np.float64)
        pointers = np.array([plane[part].ctypes.data for plane in planes], np.uint64)
        library.encoding_encode(
            weights[part].ctypes.data,
            importance.ctypes.data,
            len(weights[part]),
            columns,
            scales[part].ctypes.data,
            nibbles[part].ctypes.data,
            pointers.ctypes.data,
            errors.ctypes.data,
        )
        return errors

    step = -(-rows // threads)
    with ThreadPoolExecutor(threads) as pool:
        parts = [slice(at, at + step) for at in range(0, rows, step)]
        errors = sum(pool.map(encode_rows, parts), np.zeros(PLANES + 1))
    return Encoded(scales.ravel(), nibbles.ravel(), [plane.ravel() for plane in planes], errors)


@cache
def _library() -> Any:
    library = compiled.library(SOURCE)
    address, int64 = ctypes.c_void_p, ctypes.c_int64
    library.encoding_encode.argtypes = (
        *(address, address, int64, int64, address, address, address, address),
    )
    library.encoding_start()
    return library
