"""How fast this processor multiplies weights of each type: what decode and prefill consist of."""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import numpy as np

from ondevice.errors import NativeError
from ondevice.gguf.tensor_types import TENSOR_TYPES
from ondevice.holding.stack._layout import PlanesShape
from ondevice.holding.stack._planes import Planes, Scratch, check_compiled
from ondevice.llama._ggml import Tensor, function
from ondevice.llama._product import Product, row_bytes
from ondevice.products import handlers
from ondevice.system import children
from ondevice.system.cores import ThreadTimes, default_threads

_COLUMNS = 2048  # of the weight
_DECODE_ROWS, _PREFILL_ROWS = 24 * 2048, 2 * 2048  # the first is larger than the processor's cache
_MOST_BYTES = 96 << 20  # of the weight
_LEAST_SECONDS, _LEAST_PASSES = 0.08, 5  # that a measurement takes
_LONG_S = 40.0  # after which one round must do: the machine is busy


def multiply_speed(tensor_type: int, n_tokens: int, n_threads: int) -> float:
    """Multiply-adds a second with weights of ggml's ``tensor_type``, ``n_tokens`` at once.

    The weights come from RAM and not from a cache, as those of a model do. Takes about 0.1 s and
    up to 200 MB of RAM. Raises :class:`NativeError`.
    """
    most_rows = _MOST_BYTES // row_bytes(tensor_type, _COLUMNS)
    n_rows = min(_DECODE_ROWS if n_tokens == 1 else _PREFILL_ROWS, most_rows)
    shape = _COLUMNS, n_rows
    # A single product: threads wait for each other after each, which other programs disturb.
    with Product(tensor_type, shape, n_tokens, n_threads, allocated=True) as product:
        _fill(product.weight)
        _fill(product.x)
        for handler in handlers(n_threads):  # of a type that they know, our product
            handler.inspect(product.result)
        times: list[float] = []
        while len(times) < _LEAST_PASSES or sum(times) < _LEAST_SECONDS:
            started = time.perf_counter()
            product.compute()
            times.append(time.perf_counter() - started)
    return n_rows * _COLUMNS * n_tokens / min(times)


def planes_speed(n_planes: int, n_tokens: int, n_threads: int) -> float:
    """The same with weights of which so many planes are loaded.

    Raises :class:`NativeError` where nothing can be compiled.
    """
    n_rows = _DECODE_ROWS if n_tokens == 1 else _PREFILL_ROWS
    shape = PlanesShape(n_rows, _COLUMNS, n_rows)
    sizes = shape.part_bytes(n_rows)
    scales, nibbles, plane = (np.full(n_bytes, 0x11, np.uint8) for n_bytes in sizes)
    kept = [scales, nibbles, *(plane.copy() for _ in range(n_planes))]
    planes = Planes(shape, Scratch(_COLUMNS, n_threads))
    planes.parts[0, : len(kept)] = [part.ctypes.data for part in kept]
    planes.levels[:] = n_planes
    x = np.full((n_tokens, _COLUMNS), 0.5, np.float32)
    times: list[float] = []
    while len(times) < _LEAST_PASSES or sum(times) < _LEAST_SECONDS:
        started = time.perf_counter()
        planes.multiply(x)
        times.append(time.perf_counter() - started)
    return n_rows * _COLUMNS * n_tokens / min(times)


def _fill(tensor: Tensor) -> None:
    """Give it bytes that every type takes for small ordinary numbers."""
    assert tensor.data is not None
    n_bytes = function("ggml_nbytes", ctypes.c_size_t, ctypes.c_void_p)(tensor.address)
    ctypes.memset(tensor.data, 0x11, n_bytes)


def main() -> None:
    """Print the speeds of tensor types as JSON, for one token and for several: ``N ROUNDS TYPE…``.

    The third is the share of the time in which other programs had the cores.

    A type is one of ggml's or ``planes-N``, which is left out where it cannot be compiled. A
    process of its own, since native code may abort.
    """
    children.end_with_parent()
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
    before = ThreadTimes.now()
    end = time.monotonic() + _LONG_S
    speeds: tuple[dict[str, float], dict[str, float]] = {}, {}
    for number in range(int(rounds)):
        if number and time.monotonic() > end:
            break
        for name, measure in measures.items():
            for found, count in zip(speeds, (1, int(n_tokens)), strict=True):
                speed = measure(count, default_threads())
                found[name] = max(found.get(name, 0), speed)
    json.dump((*speeds, ThreadTimes.now().waited_share(before)), sys.stdout)


if __name__ == "__main__":
    main()
