"""The codebooks of IQ types, read out of llama.cpp: a block that names an entry has its weights."""

from __future__ import annotations

import ctypes
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ondevice.gguf.tensor_types import TENSOR_TYPES
from ondevice.llama import dequantize


class _Codebook(NamedTuple):
    kind: int  #: ggml's number of a type that uses it
    n_entries: int
    n_weights: int  #: of an entry: a word has four
    high: int  #: where in a block the upper bits of its first number are; the lower ones are third
    times: int  #: its weights are these parts of the scale of a block
    up: int  #: by which they are moved, so that none is negative


_CODEBOOKS = {
    "iq2_xxs": _Codebook(16, 256, 8, 3, 8, 64),
    "iq2_xs": _Codebook(17, 512, 8, 3, 8, 64),
    "iq2_s": _Codebook(22, 1024, 8, 66, 8, 64),
    "iq3_xxs": _Codebook(18, 256, 4, 3, 4, 64),
    "iq3_s": _Codebook(21, 512, 4, 66, 1, 64),
    "iq1": _Codebook(19, 2048, 8, 34, 8, 15),  # where llama.cpp adds an eighth, too
}


def put_into(library: Any) -> None:
    """Gives a library of ``_products.c`` what is in the codebooks."""
    for name, words in codebooks().items():
        place = (ctypes.c_uint32 * words.size).in_dll(library, f"products_{name}")
        ctypes.memmove(place, words.ctypes.data, words.nbytes)


def codebooks() -> dict[str, npt.NDArray[np.uint32]]:
    """The words of each codebook."""
    return {name: _words(book) for name, book in _CODEBOOKS.items()}


def _words(book: _Codebook) -> npt.NDArray[np.uint32]:
    block = TENSOR_TYPES[book.kind]
    numbers = np.arange(book.n_entries)
    data = np.zeros((book.n_entries, block.block_bytes), np.uint8)
    data[:, 2], data[:, book.high] = numbers & 255, numbers >> 8
    data[:, :2] = np.ones(1, np.float16).view(np.uint8)
    weights = dequantize(data.tobytes(), book.kind, block.block)[:, : book.n_weights]
    return (weights * book.times + book.up).astype(np.uint8).view("<u4").ravel()
