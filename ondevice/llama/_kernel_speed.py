"""How fast this processor multiplies weights of each type: what decode and prefill consist of."""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial

import numpy as np
from llama_cpp._ctypes_extensions import load_shared_library
from llama_cpp._ggml import libggml_base_path

from ondevice.errors import NativeError
from ondevice.llama._context import default_threads
from ondevice.llama._ggml import InitParams, Tensor, function
from ondevice.llama._planes import Planes, Shape, check_compiled, scratch
from ondevice.weights.tensor_types import TENSOR_TYPES

_COLUMNS = 2048  # of the weight
_DECODE_ROWS, _PREFILL_ROWS = 24 * 2048, 2 * 2048  # the first is larger than the processor's cache
_MOST_BYTES = 96 << 20  # of the weight
_LEAST_SECONDS, _LEAST_PASSES = 0.08, 5  # that a measurement takes

_cpu = load_shared_library("ggml-cpu", libggml_base_path)
_pointer, _int64 = ctypes.c_void_p, ctypes.c_int64
_new_2d = function("ggml_new_tensor_2d", _pointer, _pointer, ctypes.c_int, _int64, _int64)
_mul_mat = function("ggml_mul_mat", _pointer, _pointer, _pointer, _pointer)
_new_graph = function("ggml_new_graph", _pointer, _pointer)
_expand = function("ggml_build_forward_expand", None, _pointer, _pointer)


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


def multiply_speed(tensor_type: int, n_tokens: int, n_threads: int) -> float:
    """Multiply-adds a second with weights of ggml's ``tensor_type``, ``n_tokens`` at once.

    The weights come from RAM and not from a cache, as those of a model do. Takes about 0.1 s and
    up to 200 MB of RAM. Raises :class:`NativeError`.
    """
    row_bytes: int = function("ggml_row_size", ctypes.c_size_t, ctypes.c_int, _int64)(
        tensor_type, _COLUMNS
    )
    n_rows = min(_DECODE_ROWS if n_tokens == 1 else _PREFILL_ROWS, _MOST_BYTES // row_bytes)
    activations = 4 * n_tokens * (_COLUMNS + n_rows)
    with _context(n_rows * row_bytes + activations + (1 << 20)) as context:
        # A single product: threads wait for each other after each, which other programs disturb.
        weight = _filled(_new_2d(context, tensor_type, _COLUMNS, n_rows))
        x = _filled(_new_2d(context, 0, _COLUMNS, n_tokens))
        graph = _new_graph(context)
        _expand(graph, _mul_mat(context, weight, x))
        plan = _plan(graph, n_threads, None)
        work = ctypes.create_string_buffer(plan.work_size)
        plan.work_data = ctypes.addressof(work)
        times: list[float] = []
        while len(times) < _LEAST_PASSES or sum(times) < _LEAST_SECONDS:
            started = time.perf_counter()
            if _compute(graph, plan) != 0:
                raise NativeError("llama.cpp cannot multiply matrices on this machine.")
            times.append(time.perf_counter() - started)
    return n_rows * _COLUMNS * n_tokens / min(times)


def planes_speed(n_planes: int, n_tokens: int, n_threads: int) -> float:
    """The same with weights of which so many planes are loaded.

    Raises :class:`NativeError` where nothing can be compiled.
    """
    n_rows = _DECODE_ROWS if n_tokens == 1 else _PREFILL_ROWS
    shape = Shape(n_rows, _COLUMNS, n_rows)
    sizes = shape.part_bytes(n_rows)
    scales, nibbles, plane = (np.full(n_bytes, 0x11, np.uint8) for n_bytes in sizes)
    kept = [scales, nibbles, *(plane.copy() for _ in range(n_planes))]
    planes = Planes(shape, scratch(_COLUMNS, n_threads))
    planes.parts[0, : len(kept)] = [part.ctypes.data for part in kept]
    planes.levels[:] = n_planes
    x = np.full((n_tokens, _COLUMNS), 0.5, np.float32)
    times: list[float] = []
    while len(times) < _LEAST_PASSES or sum(times) < _LEAST_SECONDS:
        started = time.perf_counter()
        planes.multiply(x)
        times.append(time.perf_counter() - started)
    return n_rows * _COLUMNS * n_tokens / min(times)


@contextmanager
def _context(n_bytes: int) -> Iterator[int]:
    context = function("ggml_init", _pointer, InitParams)(InitParams(n_bytes, None, False))
    if not context:
        raise NativeError(f"There is no room for {n_bytes / 1e6:.0f} MB to measure with.")
    try:
        yield context
    finally:
        function("ggml_free", None, _pointer)(context)


def _filled(address: int) -> int:
    """The tensor, its bytes such that every type takes them for small ordinary numbers."""
    data = Tensor.from_address(address).data
    assert data is not None
    n_bytes = function("ggml_nbytes", ctypes.c_size_t, _pointer)(address)
    ctypes.memset(data, 0x11, n_bytes)
    return address


def main() -> None:
    """Print the speeds of tensor types as JSON, for one token and for several: ``N ROUNDS TYPE…``.

    A type is one of ggml's or ``planes-N``, which is left out where it cannot be compiled. A
    process of its own, since native code may abort.
    """
    n_tokens, rounds, *names = sys.argv[1:]
    numbers = {each.name: number for number, each in TENSOR_TYPES.items()}
    measures: dict[str, Callable[[int, int], float]] = {}
    for name in names:
        if name in numbers:
            measures[name] = partial(multiply_speed, numbers[name])
            continue
        with suppress(NativeError):
            check_compiled()
            measures[name] = partial(planes_speed, int(name.removeprefix("planes-")))
    speeds: tuple[dict[str, float], dict[str, float]] = {}, {}
    for _ in range(int(rounds)):
        for name, measure in measures.items():
            for found, count in zip(speeds, (1, int(n_tokens)), strict=True):
                speed = measure(count, default_threads())
                found[name] = max(found.get(name, 0), speed)
    json.dump(speeds, sys.stdout)


if __name__ == "__main__":
    main()
