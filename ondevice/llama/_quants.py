"""ggml's own way from quantized weights back to floats."""

from __future__ import annotations

import ctypes

import numpy as np
import numpy.typing as npt

from ondevice.errors import NativeError
from ondevice.gguf.tensor_types import TENSOR_TYPES
from ondevice.llama._ggml import function

_F32 = 0


class _Traits(ctypes.Structure):
    """``struct ggml_type_traits``, as far as it is needed."""

    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)),
    )


_traits = function("ggml_get_type_traits", ctypes.POINTER(_Traits), ctypes.c_int)


def dequantize(data: bytes, kind: int, columns: int) -> npt.NDArray[np.float32]:
    """Rows of ``columns`` weights of ggml's type ``kind`` as floats; shape (rows, columns).

    Raises :class:`NativeError` for a type that ggml cannot turn into floats.
    """
    if kind == _F32:
        return np.frombuffer(data, np.float32).reshape(-1, columns)
    _, block, block_bytes = TENSOR_TYPES[kind]
    traits = _traits(kind).contents
    if not traits.to_float or (traits.blck_size, traits.type_size) != (block, block_bytes):
        raise NativeError(
            f"Weights of type {TENSOR_TYPES[kind].name} cannot be converted to floats. "
            "Use a file with another quantization."
        )
    out = np.empty((len(data) // block_bytes * block // columns, columns), np.float32)
    source = np.frombuffer(data, np.uint8)
    traits.to_float(source.ctypes.data, out.ctypes.data, out.size)
    return out
