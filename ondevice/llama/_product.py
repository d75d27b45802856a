"""One product of a matrix with columns, computed by ggml outside of llama.cpp's own graphs."""

from __future__ import annotations

import ctypes
from types import TracebackType

from llama_cpp._ctypes_extensions import load_shared_library
from llama_cpp._ggml import libggml_base_path

from ondevice.errors import NativeError
from ondevice.llama._ggml import InitParams, Tensor, function

_F32 = 0  # ggml's number of that type
_NODES = 8  # of the graph; it has one, and two leaves

_cpu = load_shared_library("ggml-cpu", libggml_base_path)
_pointer, _int64, _size = ctypes.c_void_p, ctypes.c_int64, ctypes.c_size_t
_init = function("ggml_init", _pointer, InitParams)
_free = function("ggml_free", None, _pointer)
_new_2d = function("ggml_new_tensor_2d", _pointer, _pointer, ctypes.c_int, _int64, _int64)
_mul_mat = function("ggml_mul_mat", _pointer, _pointer, _pointer, _pointer)
_new_graph = function("ggml_new_graph_custom", _pointer, _pointer, _size, ctypes.c_bool)
_expand = function("ggml_build_forward_expand", None, _pointer, _pointer)
_row_size = function("ggml_row_size", _size, ctypes.c_int, _int64)
_OVERHEAD: int = (
    function("ggml_graph_overhead_custom", _size, _size, ctypes.c_bool)(_NODES, False)
    + 4 * function("ggml_tensor_overhead", _size)()
)


class _Plan(ctypes.Structure):
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
_plan.restype, _plan.argtypes = _Plan, (_pointer, ctypes.c_int, _pointer)
_compute.restype, _compute.argtypes = ctypes.c_int, (_pointer, ctypes.POINTER(_Plan))


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
            raise NativeError(f"There is no room for {n_bytes / 1e6:.0f} MB to multiply in.")
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


def multiply_rows(node: Tensor, address: int, first: int, n_rows: int) -> None:
    """Compute some rows of ``node``, a product of a matrix whose rows from ``first`` on are at
    ``address``.

    With one thread: for a few megabytes, several would rather wait for each other than compute.
    """
    weight, x = node.operands()
    with Product(weight.type, (weight.ne[0], n_rows), x.ne[1], n_threads=1) as product:
        product.weight.data = address
        product.x.data, product.x.nb = x.data, x.nb
        assert node.data is not None
        product.result.data, product.result.nb = node.data + first * node.nb[0], node.nb
        product.compute()
