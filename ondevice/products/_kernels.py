"""The binding of ``_products.c``."""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

from ondevice.llama import TENSOR_HEADER, Tensor, tell_layout
from ondevice.system import compiled

_SOURCE = compiled.CSource(
    name="products",
    package="ondevice.products",
    files=(
        *("_products.c", "_products_avx512.h", "_products_avx2.h", "_products_neon.h"),
        *("_products_plain.h", "_products_narrow.h"),
    ),
    headers=(TENSOR_HEADER,),
    flags=("-ffp-contract=off", "-w"),
)


class _Shared(ctypes.Structure):
    """``Products`` of ``_products.c``."""

    _fields_ = (
        ("scratch", ctypes.c_void_p),
        ("columns", ctypes.c_int64),
        ("threads", ctypes.c_int64),
        ("next", ctypes.c_int64),
        ("done", ctypes.c_int64),
    )


class Kernels:
    """What so many threads compute with, one graph at a time."""

    def __init__(self, threads: int, library: Any = None) -> None:
        self._library = library or _loaded()
        self._function = compiled.address_of(self._library.products_node)
        self._shared = _Shared(threads=threads)

    def multiply_node(self, node: Tensor) -> None:
        """Have ggml compute a MUL_MAT or MUL_MAT_ID with these.

        The weights may lie elsewhere each time that it is computed.
        """
        self._make_room(node)
        node.compute_with(self._function, ctypes.addressof(self._shared))

    def compute(self, node: Tensor, me: int = 0, threads: int = 1) -> None:
        """The part of a thread in such a node."""
        self._make_room(node)
        self._library.products_node(node.address, me, threads, ctypes.addressof(self._shared))

    def _make_room(self, node: Tensor) -> None:
        weight, *_ = node.operands()
        if (columns := weight.ne[0]) <= self._shared.columns:
            return
        self._scratch = compiled.room(
            self._shared.threads * self._library.products_scratch(columns)
        )
        self._shared.scratch, self._shared.columns = self._scratch.ctypes.data, columns


def block(tensor_type: int) -> int:
    """Weights of a block of ggml's ``tensor_type``, or 0 if it is not known.

    Rows must be whole blocks. Raises :class:`NativeError` if it cannot be compiled here.
    """
    return int(_loaded().products_block(tensor_type))


@cache
def _loaded() -> Any:
    return prepared(compiled.library(_SOURCE))


def prepared(library: Any) -> Any:
    """A library of ``_products.c`` that knows ggml's tensors."""
    address, int64, int32 = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
    library.products_scratch.argtypes, library.products_scratch.restype = (int64,), int64
    library.products_block.argtypes, library.products_block.restype = (int32,), int32
    library.products_node.argtypes = (address, int32, int32, address)
    library.products_node.restype = None
    tell_layout(library)
    return library
