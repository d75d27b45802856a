"""Matrices in bit planes: the binding of ``_planes.c``, which is compiled when first wanted.

Nobody who uses no stack needs it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ondevice.holding.stack._layout import FIRST_PLANE, PLANES, PlanesShape
from ondevice.llama import TENSOR_HEADER, Tensor, tell_layout
from ondevice.system import compiled

_SOURCE = compiled.CSource(
    name="planes",
    package="ondevice.holding.stack",
    files=("_planes.c", "_planes_avx512.h", "_planes_avx2.h", "_planes_plain.h"),
    headers=(TENSOR_HEADER,),
    flags=("-ffinite-math-only", "-fno-signed-zeros", "-fassociative-math"),
    user="A stack",
    instead="use a model file that is not a stack",
)

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]


class _NativeMatrix(ctypes.Structure):
    """``Matrix`` of ``_planes.c``."""

    _fields_ = (
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("chunk_rows", ctypes.c_int64),
        ("parts", ctypes.c_void_p),
        ("levels", ctypes.c_void_p),
        ("scratch", ctypes.c_void_p),
        ("threads", ctypes.c_int64),
        ("next", ctypes.c_int64),
        ("done", ctypes.c_int64),
    )


class Planes:
    """A matrix whose bytes are somewhere in memory: who says where keeps them there."""

    def __init__(self, shape: PlanesShape, scratch: Bytes) -> None:
        """``scratch`` is what :func:`scratch` made for this many columns or more; one matrix
        computes with it at a time."""
        n_chunks = len(shape.chunks())
        self.shape = shape
        #: Addresses of scales, nibbles and planes; shape (chunks, 2 + PLANES).
        self.parts = np.zeros((n_chunks, FIRST_PLANE + PLANES), np.uint64)
        #: Planes of each chunk that count; shape (chunks,).
        self.levels = np.zeros(n_chunks, np.int32)
        self._native = _NativeMatrix(
            shape.rows,
            shape.columns,
            shape.chunk_rows,
            self.parts.ctypes.data,
            self.levels.ctypes.data,
            scratch.ctypes.data,
            len(scratch),
        )
        self._scratch = scratch
        self._address = ctypes.addressof(self._native)

    def multiply_node(self, node: Tensor) -> None:
        """Have ggml compute a node whose first operand is this matrix with our own code.

        It is MUL_MAT, or MUL_MAT_ID, of which the matrix has the rows of all experts.

        The matrix must stay until ggml is done; what it holds may change in between.
        """
        node.compute_with(compiled.address_of(_library().planes_multiply_node), self._address)

    def look_up_node(self, node: Tensor) -> None:
        """The same for GET_ROWS."""
        node.compute_with(compiled.address_of(_library().planes_rows_node), self._address)

    def multiply_rows(self, node: Tensor, rows: range, pool: ThreadPoolExecutor) -> None:
        """Compute these rows of such a node.

        ``pool`` has as many threads as there is scratch for.
        """
        threads = len(self._scratch)
        multiply = partial(_library().planes_multiply, node.address)
        calls = [
            pool.submit(multiply, me, threads, self._address, rows.start, rows.stop)
            for me in range(threads)
        ]
        for call in calls:
            call.result()

    def multiply(self, x: Floats) -> Floats:
        """``x`` of shape (n, columns) times the matrix, on all threads; shape (n, rows)."""
        x = np.ascontiguousarray(x, np.float32)
        y = np.empty((len(x), self.shape.rows), np.float32)
        with ThreadPoolExecutor(len(self._scratch)) as pool:
            self.multiply_rows(_node_of(x, y), range(self.shape.rows), pool)
        return y

    def multiply_experts(self, x: Floats, ids: npt.NDArray[np.int32], n_rows: int) -> Floats:
        """The products of a mixture of experts, whose rows the matrix has one after the other.

        ``ids`` of shape (tokens, slots) are the experts that each token wants, ``x`` has the shape
        (tokens, slots or 1, columns); shape of the result: (tokens, slots, ``n_rows``), which are
        those of an expert.
        """
        y = np.empty((*ids.shape, n_rows), np.float32)
        node, wanted = _node_of(np.ascontiguousarray(x, np.float32), y), Tensor.of(ids)
        node.src[2] = wanted.address
        with ThreadPoolExecutor(len(self._scratch)) as pool:
            self.multiply_rows(node, range(self.shape.rows), pool)
        return y

    def rows(self, numbers: Sequence[int]) -> Floats:
        """These rows of the matrix; shape (len(numbers), columns)."""
        ids = np.array(numbers, np.int32)
        y = np.empty((len(ids), self.shape.columns), np.float32)
        _library().planes_rows_node(_node_of(ids, y).address, 0, 1, self._address)
        return y


def _node_of(operand: npt.NDArray[Any], result: Floats) -> Tensor:
    """A node of a graph that has the matrix as its first operand, and these arrays."""
    node, second = Tensor.of(result), Tensor.of(operand)
    node.src[1] = second.address
    node.kept = result, second
    return node


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
        library.planes_encode(
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


def scratch(columns: int, threads: int) -> Bytes:
    """What computing with matrices of at most so many columns takes, on so many threads."""
    size = threads * _library().planes_scratch(columns)
    return compiled.room(size).reshape(threads, -1)


def checksum(address: int, n_bytes: int) -> int:
    """Of bytes in memory: FNV-1a in 32 lanes."""
    return int(_library().planes_checksum(address, n_bytes))


def check_compiled() -> None:
    """Raises :class:`NativeError` if the code for stacks cannot be compiled here."""
    _library()


@cache
def _library() -> Any:
    library = compiled.library(_SOURCE)
    address, int64, int32 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    library.planes_scratch.argtypes = (int64,)
    library.planes_scratch.restype = int64
    library.planes_encode.argtypes = (
        *(address, address, int64, int64, address, address, address, address),
    )
    library.planes_checksum.argtypes = (address, int64)
    library.planes_checksum.restype = ctypes.c_uint32
    for function in (library.planes_multiply_node, library.planes_rows_node):
        function.argtypes = (address, int32, int32, address)
        function.restype = None
    library.planes_multiply.argtypes = (address, int32, int32, address, int64, int64)
    library.planes_multiply.restype = None
    tell_layout(library)
    library.planes_start()
    return library
