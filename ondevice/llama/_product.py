"""Products of matrices with columns, computed by ggml outside of llama.cpp's own graphs."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from types import TracebackType

import numpy as np
import numpy.typing as npt
from llama_cpp._ctypes_extensions import load_shared_library
from llama_cpp._ggml import libggml_base_path

from ondevice.errors import NativeError
from ondevice.llama._ggml import OP_CUSTOM, OP_MUL_MAT, OP_NONE, InitParams, Tensor, function
from ondevice.text import size

_F32, _F16, _BF16 = 0, 1, 30  # ggml's numbers of these types
_NODES = 8  # of the graph; it has one, and two leaves
_MOST_NODES = 128  # of a graph with one node for each column, leaves included

_cpu = load_shared_library("ggml-cpu", libggml_base_path)
_pointer, _int64, _size = ctypes.c_void_p, ctypes.c_int64, ctypes.c_size_t
_init = function("ggml_init", _pointer, InitParams)
_free = function("ggml_free", None, _pointer)
_new_2d = function("ggml_new_tensor_2d", _pointer, _pointer, ctypes.c_int, _int64, _int64)
_mul_mat = function("ggml_mul_mat", _pointer, _pointer, _pointer, _pointer)
_new_graph = function("ggml_new_graph_custom", _pointer, _pointer, _size, ctypes.c_bool)
_expand = function("ggml_build_forward_expand", None, _pointer, _pointer)
_row_size = function("ggml_row_size", _size, ctypes.c_int, _int64)
_graph_overhead = function("ggml_graph_overhead_custom", _size, _size, ctypes.c_bool)
_OVERHEAD: int = _graph_overhead(_NODES, False) + 4 * function("ggml_tensor_overhead", _size)()


class _ComputePlan(ctypes.Structure):
    """``struct ggml_cplan``."""

    _fields_ = (
        ("work_size", ctypes.c_size_t),
        ("work_data", ctypes.c_void_p),
        ("n_threads", ctypes.c_int),
        ("threadpool", ctypes.c_void_p),
        ("abort_callback", ctypes.c_void_p),
        ("abort_callback_data", ctypes.c_void_p),
        ("use_ref", ctypes.c_bool),
    )


_plan, _compute = _cpu.ggml_graph_plan, _cpu.ggml_graph_compute
_plan.restype, _plan.argtypes = _ComputePlan, (_pointer, ctypes.c_int, _pointer)
_compute.restype, _compute.argtypes = ctypes.c_int, (_pointer, ctypes.POINTER(_ComputePlan))


def row_bytes(tensor_type: int, columns: int) -> int:
    """Bytes of so many weights of ggml's ``tensor_type``."""
    return int(_row_size(tensor_type, columns))


class Product:
    """``weight`` (n_rows, columns) of ggml's type × ``x`` (n_tokens, columns) in float32.

    The three tensors have memory of their own if ``allocated``; else set their ``data`` first.
    Raises :class:`NativeError` when there is no room, or ggml cannot compute it.
    """

    def __init__(
        self,
        tensor_type: int,
        shape: tuple[int, int],
        n_tokens: int,
        n_threads: int,
        *,
        allocated: bool = False,
    ) -> None:
        columns, n_rows = shape
        n_bytes = _OVERHEAD
        if allocated:
            n_bytes += (
                n_rows * row_bytes(tensor_type, columns)
                + 4 * n_tokens * (columns + n_rows)
                + (1 << 10)
            )
        self._context = _init(InitParams(n_bytes, None, not allocated))
        if not self._context:
            raise NativeError(f"There is no RAM left for a matrix product ({size(n_bytes)}).")
        weight = _new_2d(self._context, tensor_type, columns, n_rows)
        x = _new_2d(self._context, _F32, columns, n_tokens)
        result = _mul_mat(self._context, weight, x)
        self.weight, self.x, self.result = map(Tensor.from_address, (weight, x, result))
        self._graph = _new_graph(self._context, _NODES, False)
        _expand(self._graph, result)
        self._plan = _plan(self._graph, n_threads, None)
        self._work = ctypes.create_string_buffer(max(1, self._plan.work_size))
        self._plan.work_data = ctypes.addressof(self._work)

    def __enter__(self) -> Product:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        _free(self._context)

    def compute(self) -> None:
        """Compute ``result`` (n_tokens, n_rows) in float32."""
        if _compute(self._graph, self._plan) != 0:
            raise NativeError("llama.cpp cannot multiply matrices on this machine.")


def multiply_rows(
    node: Tensor, address: int, first: int, n_rows: int, op: int = OP_MUL_MAT
) -> None:
    """Compute some rows of ``node``, a product of a matrix whose rows from ``first`` on are at
    ``address``. ``op`` is its operation, also if it is skipped now.

    With one thread: for a few megabytes, several would rather wait for each other than compute.
    """
    weight, x = node.operands()
    assert node.data is not None and x.data is not None
    if op == OP_CUSTOM:
        some, rows = node.copy(), weight.copy()
        rows.data, rows.ne[1] = address, n_rows
        some.data, some.ne[0] = node.data + first * node.nb[0], n_rows
        some.src[0] = rows.address
        some.compute_custom()
        return
    n_columns = x.ne[1]
    at_once = n_columns if columns_agree(weight.type, weight.ne[0], n_rows, 1) else 1
    for column in range(0, n_columns, at_once):
        with Product(weight.type, (weight.ne[0], n_rows), at_once, n_threads=1) as product:
            product.weight.data = address
            product.x.data, product.x.nb = x.data + column * x.nb[1], x.nb
            product.result.data = node.data + first * node.nb[0] + column * node.nb[1]
            product.result.nb = node.nb
            product.compute()


def compute_nodes(nodes: Sequence[tuple[Tensor, Sequence[Tensor | None]]], n_threads: int) -> None:
    """Compute each node of its operands, which are there. Raises :class:`NativeError`.

    All are copies of the caller's, with nothing behind the operands.
    """
    params = InitParams(_graph_overhead(_MOST_NODES, False) + (1 << 10), None, True)
    context = _init(params)
    if not context:
        raise NativeError("There is no RAM left for a matrix product.")
    try:
        graph = _new_graph(context, _MOST_NODES, False)
        for node, operands in nodes:
            for place, operand in enumerate(operands):
                if operand is not None:
                    operand.op, operand.src = OP_NONE, type(operand.src)()
                    node.src[place] = operand.address
            _expand(graph, node.address)
        plan = _plan(graph, n_threads, None)
        work = ctypes.create_string_buffer(max(1, plan.work_size))
        plan.work_data = ctypes.addressof(work)
        if _compute(graph, plan) != 0:
            raise NativeError("llama.cpp cannot multiply matrices on this machine.")
    finally:
        _free(context)


# ------------------------------------------------------------- columns that agree

#: Columns up to which :func:`columns_agree` looks.
MOST_COLUMNS = 7
_TESTED_ROWS = 64  # of a larger matrix; which kernel is taken may depend on the remainder


def columns_agree(tensor_type: int, columns: int, n_rows: int, n_threads: int) -> bool:
    """Whether a product with 2 to ``MOST_COLUMNS`` columns gives each the bits that it gets alone.

    It is tried, with weights of this type and shape: that depends on the kernels that ggml has
    for this processor. Takes milliseconds, and once. Raises :class:`NativeError`.
    """
    if n_rows > 2 * _TESTED_ROWS:
        n_rows = _TESTED_ROWS + n_rows % _TESTED_ROWS
    return _agree(tensor_type, columns, n_rows, n_threads)


@cache
def _agree(tensor_type: int, columns: int, n_rows: int, n_threads: int) -> bool:
    random = np.random.default_rng(1)
    weights = _some_weights(tensor_type, columns, n_rows, random)
    x = random.standard_normal((MOST_COLUMNS, columns), np.float32)

    def product(some: npt.NDArray[np.float32]) -> bytes:
        result = np.zeros((len(some), n_rows), np.float32)
        with Product(tensor_type, (columns, n_rows), len(some), n_threads) as product:
            product.weight.data = weights.ctypes.data
            product.x.data, product.result.data = some.ctypes.data, result.ctypes.data
            product.compute()
        return result.tobytes()

    alone = [product(x[n : n + 1]) for n in range(MOST_COLUMNS)]
    return all(product(x[:n]) == b"".join(alone[:n]) for n in range(2, MOST_COLUMNS + 1))


def _some_weights(
    tensor_type: int, columns: int, n_rows: int, random: np.random.Generator
) -> npt.NDArray[np.generic]:
    if tensor_type in (_F32, _F16, _BF16):
        numbers = random.standard_normal((n_rows, columns), np.float32)
        if tensor_type == _BF16:
            return (numbers.view(np.uint32) >> 16).astype(np.uint16)
        return numbers.astype(np.float16) if tensor_type == _F16 else numbers
    # Such bytes are finite numbers, not large, whatever is a scale and what a weight.
    return random.integers(0x10, 0x40, n_rows * row_bytes(tensor_type, columns), np.uint8)
