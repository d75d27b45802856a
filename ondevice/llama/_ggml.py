"""ggml's tensor struct seen from Python, and the proof at import that it is laid out so.

The layout of ``struct ggml_tensor`` is no public contract of ggml. Whoever reads or writes its
fields (:mod:`ondevice.llama._eval_hook` and what hangs on it) relies on the check below, which
compares every field with what ggml's own functions say.
"""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from functools import cache
from typing import Any

import llama_cpp
import numpy.typing as npt
from llama_cpp._ctypes_extensions import load_shared_library
from llama_cpp._ggml import libggml_base_path

from ondevice.errors import NativeError

_MAX_DIMS, _MAX_OP_PARAMS, _MAX_SRC, _MAX_NAME = 4, 64, 10, 64  # GGML_MAX_…


class Tensor(ctypes.Structure):
    """``struct ggml_tensor``: a weight, or a node of a compute graph. A view on ggml's own memory.

    Setting :attr:`data` points the tensor at other bytes; whoever sets it keeps them alive.
    """

    type: int
    buffer: int | None
    ne: ctypes.Array[ctypes.c_int64]  # elements of each dimension, the row first
    nb: ctypes.Array[ctypes.c_size_t]  # stride of each dimension, bytes
    op: int
    flags: int
    src: ctypes.Array[ctypes.c_void_p]  # addresses of the operands, None where there is none
    view_src: int | None  # address of the tensor whose data this one looks at
    view_offs: int  # bytes from the start of that data
    data: int | None  # address
    tag: int  # padding in ggml: zero in every new tensor, and nobody else's
    kept: object  # what lives as long as this view

    _fields_ = (
        ("type", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("ne", ctypes.c_int64 * _MAX_DIMS),
        ("nb", ctypes.c_size_t * _MAX_DIMS),
        ("op", ctypes.c_int),
        ("_op_params", ctypes.c_uint8 * _MAX_OP_PARAMS),
        ("flags", ctypes.c_int32),
        ("src", ctypes.c_void_p * _MAX_SRC),
        ("view_src", ctypes.c_void_p),
        ("view_offs", ctypes.c_size_t),
        ("data", ctypes.c_void_p),
        ("_name", ctypes.c_char * _MAX_NAME),
        ("extra", ctypes.c_void_p),
        ("tag", ctypes.c_uint64),
    )

    @property
    def address(self) -> int:
        return ctypes.addressof(self)

    @property
    def name(self) -> str:
        return str(self._name.decode("utf-8", "replace"))

    @property
    def op_name(self) -> str:
        """ggml's name of the operation, such as "MUL_MAT"; "NONE" for a weight or an input."""
        return _op_name(self.op)

    def copy(self) -> Tensor:
        """A tensor of its own that looks at the same data."""
        return Tensor.from_buffer_copy(self)

    @classmethod
    def of(cls, array: npt.NDArray[Any], kind: int = 0, columns: int | None = None) -> Tensor:
        """ggml's view of an array, which it keeps: float32, or of another ``kind``.

        Of a type in blocks, the array has their bytes, and a row has so many ``columns``.
        """
        tensor = cls()
        tensor.type, tensor.data = kind, array.ctypes.data
        more = _MAX_DIMS - array.ndim
        shape = (*array.shape[:-1], columns or array.shape[-1])
        tensor.ne[:] = [*reversed(shape), *[1] * more]
        tensor.nb[:] = [*reversed(array.strides), *[array.nbytes] * more]
        tensor.kept = array
        return tensor

    def operands(self) -> Iterator[Tensor]:
        """The tensors that this node reads."""
        return (Tensor.from_address(address) for address in self.src if address)

    def compute_with(self, function: int, data: int) -> None:
        """Have all threads of ggml call ``function(node, thread, threads, data)`` for this node.

        Both are addresses. The operands stay, and so do the type and shape of the result.
        """
        params = struct.pack("@PiP", function, _ALL_THREADS, data)
        self._op_params[: len(params)] = params
        self.op = OP_CUSTOM

    @property
    def has_function(self) -> bool:
        """Whether :meth:`compute_with` has been called, also if the node is skipped now."""
        return int(struct.unpack_from("@PiP", self._op_params)[1]) == _ALL_THREADS

    def compute_custom(self, thread: int = 0, n_threads: int = 1) -> None:
        """A thread's part of a node that :meth:`compute_with` has changed."""
        function, _, data = struct.unpack_from("@PiP", self._op_params)
        _CUSTOM(function)(self.address, thread, n_threads, data)

    def integers(self, first_row: int = 0) -> list[int]:
        """The elements of a two-dimensional int32 tensor on the CPU, row after row."""
        assert self.data is not None
        columns, rows = self.ne[0], self.ne[1]
        row_type = ctypes.c_int32 * columns
        return [
            element
            for row in range(first_row, rows)
            for element in row_type.from_address(self.data + row * self.nb[1])
        ]


#: For C that works with tensors: package and name of the header that it includes.
TENSOR_HEADER = ("ondevice.llama", "_tensor.h")


def tell_layout(library: Any) -> None:
    """Let a library with that header know where the fields of a tensor are."""
    fields: list[Any] = [  # descriptors of ctypes
        *(Tensor.type, Tensor.ne, Tensor.nb, Tensor.op, Tensor._op_params),
        *(Tensor.flags, Tensor.src, Tensor.view_src, Tensor.data),
    ]
    told = *(field.offset for field in fields), OP_CUSTOM
    library.tensor_start((ctypes.c_int64 * len(told))(*told))


_CUSTOM = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)
_ALL_THREADS = -1  # GGML_N_TASKS_MAX
OP_NONE = 0  #: The operation of a tensor that is not computed.

#: Where a tensor's tag lies, bytes from its address.
TAG_OFFSET: int = Tensor.tag.offset  # type: ignore[attr-defined]  # on the class, a descriptor


class InitParams(ctypes.Structure):
    """``struct ggml_init_params``."""

    _fields_ = (
        ("mem_size", ctypes.c_size_t),
        ("mem_buffer", ctypes.c_void_p),
        ("no_alloc", ctypes.c_bool),
    )


_lib = load_shared_library("ggml-base", libggml_base_path)


def function(name: str, result: Any, *arguments: Any) -> Any:
    """A function of ggml with its types."""
    function = getattr(_lib, name)
    function.restype, function.argtypes = result, arguments
    return function


_op_name_of = function("ggml_op_name", ctypes.c_char_p, ctypes.c_int)


@cache
def _op_name(op: int) -> str:
    return str(_op_name_of(op).decode())


def op_number(name: str) -> int:
    """ggml's number of the operation with this name."""
    return next(op for op in range(256) if _op_name(op) == name)


#: The operation of a tensor that is computed by a function in its ``op_params``.
OP_CUSTOM = op_number("CUSTOM")
OP_MUL_MAT = op_number("MUL_MAT")  #: A product of a matrix with columns.
OP_MUL_MAT_ID = op_number("MUL_MAT_ID")  #: Of several, each column wants its own.


def _check_layout() -> None:
    """Raises :class:`NativeError` unless :class:`Tensor` is ggml's own struct, field by field."""
    pointer, size, int64 = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64
    new_2d = function("ggml_new_tensor_2d", pointer, pointer, ctypes.c_int, int64, int64)
    view_2d = function("ggml_view_2d", pointer, pointer, pointer, int64, int64, size, size)
    mul_mat = function("ggml_mul_mat", pointer, pointer, pointer, pointer)
    set_name = function("ggml_set_name", pointer, pointer, ctypes.c_char_p)
    set_input = function("ggml_set_input", None, pointer)
    get_data = function("ggml_get_data", pointer, pointer)
    get_name = function("ggml_get_name", ctypes.c_char_p, pointer)
    nbytes = function("ggml_nbytes", size, pointer)
    overhead = function("ggml_tensor_overhead", size)
    context = function("ggml_init", pointer, InitParams)(InitParams(16 * overhead(), None, True))
    try:
        rows, columns, f32, object_bytes = 3, 8, 0, 4 * ctypes.sizeof(pointer)
        weight_at = new_2d(context, f32, columns, rows)
        view_at = view_2d(context, weight_at, columns, 2, 4 * columns, 4 * columns)
        product_at = mul_mat(context, weight_at, view_at)
        weight, view, product = (
            Tensor.from_address(address) for address in (weight_at, view_at, product_at)
        )
        set_name(weight_at, b"blk.0.weight")
        set_input(weight_at)
        weight.data = 0x123456789ABC
        same = (
            overhead() == object_bytes + ctypes.sizeof(Tensor)
            and (weight.type, weight.op) == (f32, OP_NONE)
            and tuple(weight.ne) == (columns, rows, 1, 1)
            and tuple(weight.nb) == (4, 4 * columns, nbytes(weight_at), nbytes(weight_at))
            and (weight.op_name, view.op_name, product.op_name) == ("NONE", "VIEW", "MUL_MAT")
            and weight.flags == 1
            and get_data(weight_at) == weight.data
            and (weight.name, get_name(weight_at)) == ("blk.0.weight", b"blk.0.weight")
            and (view.view_src, view.view_offs) == (weight_at, 4 * columns)
            and view.src[0] == weight_at
            and [operand.address for operand in product.operands()] == [weight_at, view_at]
            and not any(t.buffer or t.extra or t.tag for t in (weight, view, product))
        )
    finally:
        function("ggml_free", None, pointer)(context)
    if not same:
        ggml = function("ggml_version", ctypes.c_char_p)().decode()
        raise NativeError(
            f"The tensors of ggml {ggml} (llama-cpp-python {llama_cpp.__version__}) have "
            "a memory layout that ondevice does not know. Install the llama-cpp-python "
            "version that ondevice requires."
        )


_check_layout()
