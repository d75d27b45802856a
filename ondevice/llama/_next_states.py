"""The states from which a prediction block goes on, as llama.cpp gives them.

The functions are C++ without a name in C, so they are looked up by the names that compilers give
them. Where one is missing, nothing is predicted.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any, NamedTuple

import llama_cpp
import numpy as np
import numpy.typing as npt


class _Functions(NamedTuple):
    set_embeddings: Any  # void (llama_context *, bool value, bool masked)
    get_embeddings_ith: Any  # float * (llama_context *, int32_t)


_NAMES = (  # of GCC and Clang, of MSVC
    (
        "_Z26llama_set_embeddings_nextnP13llama_contextbb",
        "_Z30llama_get_embeddings_nextn_ithP13llama_contexti",
    ),
    (
        "?llama_set_embeddings_nextn@@YAXPEAUllama_context@@_N1@Z",
        "?llama_get_embeddings_nextn_ith@@YAPEAMPEAUllama_context@@H@Z",
    ),
)


@cache
def _functions() -> _Functions | None:
    library = llama_cpp.llama_cpp._lib
    for names in _NAMES:
        try:
            found = _Functions(*(getattr(library, name) for name in names))
        except AttributeError:
            continue
        found.set_embeddings.argtypes = (ctypes.c_void_p, ctypes.c_bool, ctypes.c_bool)
        found.set_embeddings.restype = None
        found.get_embeddings_ith.argtypes = (ctypes.c_void_p, ctypes.c_int32)
        found.get_embeddings_ith.restype = ctypes.POINTER(ctypes.c_float)
        return found
    return None


def has_next_states() -> bool:
    """Whether this build of llama.cpp gives them."""
    return _functions() is not None


def keep_next_states(context: int, *, of_all: bool) -> None:
    """Have a ``llama_context *`` keep them from now on, of all tokens or of those with logits."""
    functions = _functions()
    assert functions is not None
    functions.set_embeddings(context, True, not of_all)


def next_states(context: int, first: int, n_rows: int, n_embd: int) -> npt.NDArray[np.float32]:
    """A copy of those of the last pass, shape (``n_rows``, ``n_embd``).

    They begin with that of its token ``first``; -1: of the last one with logits.
    """
    functions = _functions()
    assert functions is not None
    return np.ctypeslib.as_array(
        functions.get_embeddings_ith(context, first), (n_rows, n_embd)
    ).copy()
