"""Attention that is ours: the binding of ``_attention.c``, which is compiled when first wanted.

ggml's own is several times slower for a few tokens after many, and its sums depend on how many
threads there are and on how a prompt is cut into batches; with ours, a token gets the same bits
however it is computed. Where nothing can be compiled, ggml's own is used.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ondevice.errors import NativeError
from ondevice.llama._eval_hook import NativeHandler
from ondevice.llama._ggml import TENSOR_HEADER, op_number, tell_layout
from ondevice.system import compiled

SOURCE = compiled.CSource(
    name="attention",
    package="ondevice.llama",
    files=("_attention.c",),
    headers=(TENSOR_HEADER,),
)
_LINE = 64  # bytes of a cache line


class Attention(NativeHandler):
    """A handler of the eval hook: has ggml compute attention with our code, on ``n_threads``.

    One context computes with it at a time.
    """

    def __init__(self, n_threads: int) -> None:
        """Raises :class:`NativeError` if the code cannot be compiled."""
        library = _library()
        sizes = (
            library.attention_size(),
            n_threads * library.attention_scratch(),
            4 * library.attention_shared(),
        )
        self._room = _room(sum(sizes))  # most of it for the largest heads
        super().__init__(library.attention_take, self._room.ctypes.data)
        scratch = self.state + sizes[0]
        library.attention_init(self.state, n_threads, scratch, scratch + sizes[1])


@cache
def _library() -> Any:
    return _loaded(SOURCE)


def _loaded(source: compiled.CSource) -> Any:
    library = compiled.library(source)
    address, int32, int64 = ctypes.c_void_p, ctypes.c_int32, ctypes.c_int64
    for name in ("size", "scratch", "shared"):
        function = getattr(library, f"attention_{name}")
        function.argtypes, function.restype = (), int64
    library.attention_init.argtypes = (address, int64, address, address)
    library.attention_init.restype = None
    tell_layout(library)
    library.attention_start(int32(op_number("FLASH_ATTN_EXT")))
    return library


def _room(n_bytes: int) -> npt.NDArray[np.uint8]:
    """Zeros for C to work in, from a cache line on. They take no RAM until they are written to."""
    zeros = np.zeros(n_bytes + _LINE, np.uint8)
    start = -zeros.ctypes.data % _LINE
    return zeros[start : start + n_bytes]


def attention_for(n_threads: int) -> Attention | None:
    """None where our code cannot be compiled."""
    try:
        return Attention(n_threads)
    except NativeError:
        return None
