"""The binding of ``_products.c``."""

from __future__ import annotations

import ctypes
import weakref
from functools import cache
from typing import Any

from ondevice.errors import NativeError
from ondevice.llama import (
    OP_MUL_MAT,
    OP_MUL_MAT_ID,
    TENSOR_HEADER,
    NativeHandler,
    NodeHandler,
    tell_layout,
)
from ondevice.products import _codebooks
from ondevice.system import compiled
from ondevice.system.cores import default_threads

_VECTORS = ("avx512", "avx2", "ssse3", "neon", "plain", "narrow", "x86", "halves")
#: What kernels include that multiply tiles, and how they are compiled.
TILE_HEADERS = (
    *(("ondevice.products", f"_products_{name}.h") for name in _VECTORS),
    ("ondevice.products", "_tiles.h"),
    TENSOR_HEADER,
)
TILE_FLAGS = ("-ffp-contract=off", "-w")

SOURCE = compiled.CSource(
    name="products",
    package="ondevice.products",
    files=("_products.c", "_products_codebooks.h", "_products_alone.h"),
    headers=TILE_HEADERS,
    flags=TILE_FLAGS,
)


class ProductHandler(NativeHandler):
    """A handler of the eval hook: products with weights of known types are computed by our kernels.

    After those handlers that say where weights are. One context computes with it at a time.
    """

    def __init__(self, n_threads: int, library: Any = None) -> None:
        """Raises :class:`NativeError` if the kernels cannot be compiled."""
        library = library or _loaded()
        super().__init__(library.products_take, new_products(library, self, n_threads))


def handlers(n_threads: int | None) -> list[NodeHandler]:
    """What an eval hook needs, with so many threads; nothing where it cannot be compiled."""
    try:
        return [ProductHandler(n_threads or default_threads())]
    except NativeError:
        return []


def is_known(tensor_type: int, columns: int) -> bool:
    """Whether weights are of a type that our kernels know, in rows of whole blocks.

    Raises :class:`NativeError` if they cannot be compiled here.
    """
    return bool(_loaded().products_know(tensor_type, columns))


@cache
def _loaded() -> Any:
    return prepared(compiled.library(SOURCE))


def prepared(library: Any) -> Any:
    """A library of ``_products.c`` that knows ggml's tensors."""
    int64, int32 = ctypes.c_int64, ctypes.c_int32
    library.products_know.argtypes = (int32, int64)
    library.products_know.restype = ctypes.c_bool
    with_tiles(library)
    _codebooks.put_into(library)
    library.products_start(int32(OP_MUL_MAT), int32(OP_MUL_MAT_ID))
    return library


def with_tiles(library: Any) -> Any:
    """A library that includes ``_tiles.h``, which knows ggml's tensors from now on."""
    address, int64 = ctypes.c_void_p, ctypes.c_int64
    library.products_new.argtypes, library.products_new.restype = (int64,), address
    library.products_free.argtypes, library.products_free.restype = (address,), None
    library.products_make_room.argtypes = (address, int64)
    library.products_make_room.restype = ctypes.c_bool
    tell_layout(library)
    return library


def new_products(library: Any, owner: object, n_threads: int) -> int:
    """The address of what such a library computes with, which is freed with its owner.

    Raises :class:`NativeError`.
    """
    address = library.products_new(n_threads)
    if not address:
        raise NativeError("There is no memory for products.")
    weakref.finalize(owner, library.products_free, address)
    return int(address)
