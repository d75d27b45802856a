"""Products of our own: right, and the same bits in any company and on any processor."""

from __future__ import annotations

import ctypes
import mmap
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import gguf as gguf_py
import numpy as np
import pytest
import shapes
from ways import ALIKE, ARMS, WAYS, compiling, for_arm

from ondevice import gguf
from ondevice.gguf.tensor_types import TENSOR_TYPES
from ondevice.holding.window.placement import least_bytes
from ondevice.holding.window.window import Window
from ondevice.llama import (
    OP_MUL_MAT,
    OP_MUL_MAT_ID,
    Context,
    EvalHook,
    Model,
    Tensor,
    dequantize,
)
from ondevice.llama._ggml import op_number
from ondevice.llama._product import Product
from ondevice.products import ProductHandler, handlers, is_known
from ondevice.products._codebooks import codebooks
from ondevice.products._kernels import SOURCE, _loaded, prepared
from ondevice.system import compiled

KINDS = {known.name: number for number, known in TENSOR_TYPES.items()}
#: Types of what is computed, not of weights.
NOT_WEIGHTS = {"Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64"}
TYPES = tuple(name for name in KINDS if name not in NOT_WEIGHTS)
PLACES = {  # of halves in a block
    "IQ4_NL": ((0, 2),),
    "Q2_K": ((80, 82), (82, 84)),
    "Q3_K": ((108, 110),),
    "Q4_K": ((0, 2), (2, 4)),
    "Q5_K": ((0, 2), (2, 4)),
    "Q6_K": ((208, 210),),
    "IQ4_XS": ((0, 2),),
    **dict.fromkeys(("Q1_0", "Q2_0", "IQ1_S", "IQ2_XXS", "IQ2_XS", "IQ2_S"), ((0, 2),)),
    **dict.fromkeys(("IQ3_XXS", "IQ3_S"), ((0, 2),)),
    "TQ1_0": ((52, 54),),
    "TQ2_0": ((64, 66),),
    "NVFP4": (),
    "IQ1_M": (),  # a nibble of it in every other byte at the end
}
FLOATS = ("F32", "F16", "BF16")
TEXT = "the cat and the dog sat on the mat, and the cat said to the dog what it had said before. "


@cache
def library(way: str) -> Any:
    if way == "native":
        return _loaded()
    with compiling(way, SOURCE) as source:
        return prepared(compiled.library(source))


def weights_of(kind: str, rows: int, columns: int) -> np.ndarray:
    """Some weights of this type; shape (rows, bytes)."""
    random = np.random.default_rng(rows)
    if kind not in PLACES:
        numbers = random.standard_normal((rows, columns), np.float32)
        return np.ascontiguousarray(
            gguf_py.quantize(numbers, gguf_py.GGMLQuantizationType(KINDS[kind]))
        ).view(np.uint8)
    known = TENSOR_TYPES[KINDS[kind]]
    n_blocks, n_bytes = rows * columns // known.block, known.block_bytes
    data = random.integers(0, 256, (n_blocks, n_bytes), np.uint8)
    for start, end in PLACES[kind]:
        scales = random.random(n_blocks).astype(np.float16)
        data[:, start:end] = scales.view(np.uint8).reshape(-1, 2)
    return _with_a_scale(kind, data).reshape(rows, -1)


def _with_a_scale(kind: str, data: np.ndarray) -> np.ndarray:
    """Blocks of bytes, whose scale is a number also where it is not in one place."""
    if kind == "IQ1_M":
        data[:, 55] = data[:, 55] & 15 | 0x30
    return data


def columns_of(kind: str, columns: int) -> int:
    """About so many: floats are in no blocks, and need not fill vectors."""
    return columns + 13 if kind in FLOATS else columns


def before_a_forbidden_page(data: np.ndarray) -> np.ndarray:
    n_pages = -(-data.nbytes // mmap.PAGESIZE)
    pages = np.frombuffer(mmap.mmap(-1, (n_pages + 1) * mmap.PAGESIZE), np.uint8)
    if os.name == "posix":
        protect = ctypes.CDLL(None, use_errno=True).mprotect
        last = ctypes.c_void_p(pages.ctypes.data + n_pages * mmap.PAGESIZE)
        assert protect(last, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    copy = pages[: n_pages * mmap.PAGESIZE][-data.nbytes :].reshape(data.shape)
    copy[:] = data
    return copy


def some_x(n: int, columns: int) -> np.ndarray:
    random = np.random.default_rng(n)
    sizes = np.exp(random.standard_normal((n, 1))).astype(np.float32)
    return random.standard_normal((n, columns), np.float32) * sizes


def node_of(kind: str, weights: np.ndarray, x: np.ndarray, y: np.ndarray, *ids: Any) -> Tensor:
    node, matrix = Tensor.of(y), Tensor.of(weights, KINDS[kind], x.shape[-1])
    operands = [matrix, Tensor.of(x), *map(Tensor.of, ids)]
    node.op = OP_MUL_MAT_ID if ids else OP_MUL_MAT
    node.src[: len(operands)] = [operand.address for operand in operands]
    node.kept = y, operands
    return node


def product(way: str, kind: str, weights: np.ndarray, x: np.ndarray, threads: int) -> np.ndarray:
    y = np.full((len(x), len(weights)), np.nan, np.float32)
    compute(ProductHandler(threads, library(way)), node_of(kind, weights, x, y), threads)
    return y


def compute(handler: ProductHandler, node: Tensor, threads: int) -> None:
    handler.inspect(node)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda me: node.compute_custom(me, threads), range(threads)))


#: Ways that differ in the last bits.
ROUNDED = [way for way in WAYS if way in ("native", "without FMA")]


@pytest.mark.parametrize("way", ROUNDED)
@pytest.mark.parametrize("kind", TYPES)
def test_a_product_is_as_exact_as_ggmls(kind: str, way: str) -> None:
    rows, columns, n = 37, 1280, 5
    weights, x = weights_of(kind, rows, columns), some_x(n, columns)
    exact = x.astype(np.float64) @ dequantize(weights.tobytes(), KINDS[kind], columns).T
    theirs = np.empty((n, rows), np.float32)
    with Product(KINDS[kind], (columns, rows), n, 1) as node:
        node.weight.data, node.x.data = weights.ctypes.data, x.ctypes.data
        node.result.data = theirs.ctypes.data
        node.compute()
    ours = product(way, kind, weights, x, 1)
    ours_off, theirs_off = (
        float(np.linalg.norm(y - exact) / np.linalg.norm(exact)) for y in (ours, theirs)
    )
    assert ours_off <= max(1.02 * theirs_off, 1e-6)  # of floats, both are sums in another order


@pytest.mark.parametrize("way", ROUNDED)
@pytest.mark.parametrize("kind", TYPES)
def test_a_column_is_the_same_in_any_company(kind: str, way: str) -> None:
    rows, columns = 53, columns_of(kind, 1280)
    weights, x = weights_of(kind, rows, columns), some_x(150, columns)
    together = product(way, kind, weights, x, 1)
    for n in (1, 2, 3, 9):
        assert (product(way, kind, weights, x[:n].copy(), 1) == together[:n]).all()
    for threads in (2, 3):
        assert (product(way, kind, weights, x, threads) == together).all()
        assert (product(way, kind, weights, x[:7].copy(), threads) == together[:7]).all()
    some = product(way, kind, weights[19:40], x[:2].copy(), 1)
    assert (some == together[:2, 19:40]).all()


@pytest.mark.parametrize("way", [way for way in ALIKE if way != "native"])
def test_other_instructions_give_the_same_bits(way: str) -> None:
    for kind in TYPES:
        columns = columns_of(kind, 16640)  # more blocks than some kernels take at once
        weights = weights_of(kind, 21, columns)
        for n in (1, 6):
            x = some_x(n, columns)
            ours = product(way, kind, weights, x, 1)
            assert (ours == product("native", kind, weights, x, 1)).all(), (kind, n)


@pytest.mark.parametrize("way", WAYS)
def test_the_largest_sums_are_right(way: str) -> None:
    columns = 768
    for kind, places in PLACES.items():
        known = TENSOR_TYPES[KINDS[kind]]
        data = np.full((17 * columns // known.block, known.block_bytes), 255, np.uint8)
        for start, end in places:
            data[:, start:end] = np.ones(1, np.float16).view(np.uint8)
        weights = _with_a_scale(kind, data).reshape(17, -1)
        exact = dequantize(weights.tobytes(), KINDS[kind], columns).sum(axis=1)
        for n in (1, 5):
            for x in (3.0, -3.0):
                ours = product(way, kind, weights, np.full((n, columns), x, np.float32), 1)
                assert np.allclose(ours, x * exact, rtol=1e-5), (kind, n)


@pytest.mark.parametrize("arm", ARMS)
def test_arm_gives_the_same_bits(tmp_path: Path, arm: str) -> None:
    program = for_arm(arm, SOURCE, tmp_path)
    for kind in TYPES:
        weights, x = weights_of(kind, 21, 512), some_x(6, 512)
        numbers = [KINDS[kind], 21, 512, 6, weights.shape[1]]
        done = subprocess.run(
            [*program, *map(str, numbers)],
            input=b"".join(part.tobytes() for part in (*codebooks().values(), weights, x)),
            stdout=subprocess.PIPE,
            check=True,
        )
        assert done.stdout == product("native", kind, weights, x, 1).tobytes(), kind


@pytest.mark.parametrize("x_slots", [1, 2])
def test_experts_are_products_of_their_own(x_slots: int) -> None:
    n_experts, rows, columns, n_tokens, n_slots = 5, 24, 256, 9, 2
    weights = weights_of("Q4_K", n_experts * rows, columns)
    matrices = weights.reshape(n_experts, rows, -1)
    x = some_x(n_tokens * x_slots, columns).reshape(n_tokens, x_slots, columns)
    random = np.random.default_rng(1)
    ids = np.array([random.permutation(n_experts)[:n_slots] for _ in range(n_tokens)], np.int32)
    y = np.full((n_tokens, n_slots, rows), np.nan, np.float32)
    compute(ProductHandler(2), node_of("Q4_K", matrices, x, y, ids), 2)
    for token in range(n_tokens):
        for slot in range(n_slots):
            one = x[token, slot % x_slots][None].copy()
            alone = product("native", "Q4_K", matrices[ids[token, slot]], one, 1)
            assert (y[token, slot] == alone).all()


def test_matrices_beside_each_other_are_shared_by_columns() -> None:
    weights = weights_of("Q8_0", 2 * 16, 64).reshape(2, 16, -1)
    x = some_x(4 * 3, 64).reshape(4, 3, 64)
    y = np.full((4, 3, 16), np.nan, np.float32)
    compute(ProductHandler(2), node_of("Q8_0", weights, x, y), 2)
    for n in range(4):
        assert (y[n] == product("native", "Q8_0", weights[n // 2], x[n], 1)).all()


def test_a_matrix_that_was_computed_is_multiplied_as_weights_are() -> None:
    """Such as keys in the cache, where llama.cpp computes attention as products."""
    rows, columns = 53, 64
    weights, x = weights_of("F16", rows, 2 * columns), some_x(9, columns)
    y = np.full((9, rows), np.nan, np.float32)
    node = node_of("F16", weights, x, y)
    matrix, _ = node.operands()
    matrix.op, matrix.view_src = op_number("PERMUTE"), matrix.address  # half of each row
    compute(ProductHandler(2), node, 2)
    half = np.ascontiguousarray(weights[:, : 2 * columns])
    assert (y == product("native", "F16", half, x, 1)).all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["F32", "F16", "BF16"])
def test_rows_of_floats_have_any_length(kind: str, way: str) -> None:
    for columns in (1, 7, 30, 261):
        data, x = weights_of(kind, 5, columns), some_x(6, columns)
        weights = dequantize(data.tobytes(), KINDS[kind], columns).astype(np.float64)
        at_end = before_a_forbidden_page(data)  # what lies after it is not read
        assert np.allclose(product(way, kind, at_end, x, 2), x @ weights.T, atol=1e-4)


@pytest.mark.parametrize("way", WAYS)
def test_nothing_after_the_weights_is_read(way: str) -> None:
    for kind in TYPES:
        weights, x = weights_of(kind, 3, 256), some_x(6, 256)
        at_end = before_a_forbidden_page(weights)
        for n in (1, 6):
            product(way, kind, at_end, x[:n].copy(), 1)


def test_more_threads_take_hardly_more_ram() -> None:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("the system does not say what a process has allocated")

    def allocated() -> int:
        lines = status.read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmData")).split()[1]) * 1024

    weights, x = weights_of("Q8_0", 32, 8192), some_x(1, 8192)
    handler, before = ProductHandler(16), allocated()
    handler.inspect(node_of("Q8_0", weights, x, np.empty((1, 32), np.float32)))
    assert allocated() - before < 8_000_000  # with as much as two threads have for each, 42 MB


def test_types_of_weights_are_all_known() -> None:
    for kind, number in KINDS.items():
        assert is_known(number, 256) == (kind in TYPES), kind
    assert not is_known(KINDS["Q4_K"], 96)  # no whole blocks


@pytest.mark.parametrize(
    "shape",
    [
        *("dense", "experts", "with pictures"),
        *("delta net", "state space", "convolution", "time mixing"),
    ],
)
def test_a_model_says_the_same_in_any_company(tmp_path: Path, shape: str) -> None:
    path = shapes.write_random(
        tmp_path, shape, gguf_py.GGMLQuantizationType.Q4_0, np.random.default_rng(1)
    )
    file = gguf.read(path)

    def logits(streamed: bool, threads: int, batches: list[int]) -> np.ndarray:
        window = None
        if streamed:
            window = Window(file, least_bytes(file), handlers=handlers(threads))
        model = window.load_model() if window else Model(path, use_extra_bufts=False)
        hook = window.hook() if window else EvalHook(*handlers(threads))
        context = Context(model, n_ctx=256, n_threads=threads, eval_hook=hook)
        tokens = model.tokenize(TEXT)[: sum(batches)]
        for n in batches:
            context.decode(tokens[len(context.tokens) :][:n])
        found = context.logits().copy()
        context.decode(tokens[:1])
        assert context._columns is not None
        assert context._columns.are_ours  # so threads may change
        context.close()
        model.close()
        if window:
            window.close()
        return found

    first = logits(False, 1, [40])
    for others in ((False, 2, [40]), (False, 1, [1, 3, 36]), (True, 2, [32, 8])):
        assert (logits(*others) == first).all(), others
