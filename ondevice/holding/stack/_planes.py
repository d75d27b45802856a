"""Matrices in bit planes: the binding of ``_planes.c``."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from ondevice.errors import NativeError
from ondevice.holding.stack._layout import FIRST_PLANE, PLANES, PlanesShape
from ondevice.llama import Tensor
from ondevice.products import TILE_FLAGS, TILE_HEADERS, new_products, with_tiles
from ondevice.system import compiled

SOURCE = compiled.CSource(
    name="planes",
    package="ondevice.holding.stack",
    files=("_planes.c", "_planes.h", "_planes_alone.h"),
    headers=TILE_HEADERS,
    flags=TILE_FLAGS,
    user="A stack",
    instead="use a model file that is not a stack",
)

Floats = npt.NDArray[np.float32]


class _NativeMatrix(ctypes.Structure):
    """``Planes`` of ``_planes.c``."""

    _fields_ = (
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("chunk_rows", ctypes.c_int64),
        ("parts", ctypes.c_void_p),
        ("levels", ctypes.c_void_p),
        ("products", ctypes.c_void_p),
    )


class Scratch:
    """What computing with matrices of at most so many columns takes, on so many threads."""

    def __init__(self, columns: int, threads: int) -> None:
        """Raises :class:`NativeError`."""
        library = _library()
        self.threads = threads
        self.address = new_products(library, self, threads)
        if not library.products_make_room(self.address, columns):
            raise NativeError("There is no memory for products.")


class Planes:
    """A matrix whose bytes are somewhere in memory: who says where keeps them there."""

    def __init__(self, shape: PlanesShape, scratch: Scratch) -> None:
        """``scratch`` is for this many columns or more; one matrix computes with it at a time."""
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
            scratch.address,
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
        threads = self._scratch.threads
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
        with ThreadPoolExecutor(self._scratch.threads) as pool:
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
        with ThreadPoolExecutor(self._scratch.threads) as pool:
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


def checksum(address: int, n_bytes: int) -> int:
    """Of bytes in memory: FNV-1a in 32 lanes."""
    return int(_library().planes_checksum(address, n_bytes))


def check_compiled() -> None:
    """Raises :class:`NativeError` if the code for stacks cannot be compiled here."""
    _library()


@cache
def _library() -> Any:
    library = with_tiles(compiled.library(SOURCE))
    address, int64, int32 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    library.planes_checksum.argtypes = (address, int64)
    library.planes_checksum.restype = ctypes.c_uint32
    for function in (library.planes_multiply_node, library.planes_rows_node):
        function.argtypes = (address, int32, int32, address)
        function.restype = None
    library.planes_multiply.argtypes = (address, int32, int32, address, int64, int64)
    library.planes_multiply.restype = None
    return library
