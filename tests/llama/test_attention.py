"""Attention of our own is what it should be, and the same however it is shared out."""

from __future__ import annotations

import ctypes
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from ways import ARMS, WAYS, checked, compiling, for_arm

from ondevice.errors import NativeError
from ondevice.llama import Context, Model, _attention, _context
from ondevice.llama._ggml import OP_CUSTOM, Tensor, op_number

try:
    _attention.Attention(1)
except NativeError as error:
    pytest.skip(str(error), allow_module_level=True)

Array = np.ndarray[Any, Any]
_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q8_0": 8, "BF16": 30}
_compute = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)


@dataclass(frozen=True)
class Case:
    """Queries that are the last of so many keys, each of which sees those before it."""

    tokens: int = 3
    keys: int = 70
    heads: int = 4
    shared: int = 2
    """Heads of keys and values."""
    size: int = 64
    out: int = 64
    kind: str = "F16"
    """Of keys and values."""
    window: int = 10**6
    cap: float = 0.0
    bias: float = 0.0
    """Of ALiBi: the mask is how far a key is, and each head multiplies it."""
    sinks: bool = False
    sequences: int = 1


CASES = [
    Case(),
    Case(tokens=1, keys=1),
    *(Case(keys=n) for n in (63, 64, 65, 511, 512, 513, 1300)),
    *(Case(tokens=n, keys=700) for n in (1, 2, 33, 200)),
    *(Case(kind=kind) for kind in ("F32", "BF16", "Q8_0", "Q4_0")),
    *(Case(size=size, out=out) for size, out in ((40, 40), (80, 96), (192, 128), (256, 256))),
    Case(heads=16, shared=1, size=576, out=512, keys=600),
    Case(heads=71, shared=1, tokens=5),
    Case(heads=6, shared=6),
    Case(window=100, tokens=40, keys=1200),
    Case(cap=30.0),
    Case(sinks=True, tokens=8, keys=600),
    *(Case(heads=heads, bias=8.0, tokens=8, keys=600) for heads in (8, 12)),
    Case(sequences=3),
]


class Node:
    """Such a node of a graph, with random operands."""

    def __init__(self, case: Case) -> None:
        random = np.random.default_rng(1)

        def some(*shape: int) -> Array:
            return random.standard_normal(shape, np.float32)

        self.case = case
        self.q = some(case.sequences, case.heads, case.tokens, case.size)
        self.k, k_bytes = _stored(some(case.sequences, case.shared, case.keys, case.size), case)
        self.v, v_bytes = _stored(some(case.sequences, case.shared, case.keys, case.out), case)
        own = np.arange(case.tokens)[:, None] + case.keys - case.tokens
        keys = np.arange(case.keys)[None]
        seen = (keys <= own) & (keys > own - case.window)
        far = np.abs(keys - own) if case.bias else 0
        self.mask = np.where(seen, -far, -np.inf).astype(np.float16)[None, None]
        self.sinks = some(case.heads) if case.sinks else None
        self._bytes = {1: k_bytes, 2: v_bytes}

    def expected(self) -> Array:
        """(sequences, tokens, heads, out), as precisely as can be."""
        case = self.case
        of_head = np.arange(case.heads) // (case.heads // case.shared)
        k, v = (x[:, of_head].astype(np.float64) for x in (self.k, self.v))
        scores = self.q.astype(np.float64) @ k.swapaxes(2, 3) / np.sqrt(case.size)
        if case.cap:
            scores = case.cap * np.tanh(scores / case.cap)
        scores = scores + self.mask * _slopes(case)[:, None, None]
        highest = scores.max(3, keepdims=True)
        weights = np.exp(scores - highest)
        total = weights.sum(3, keepdims=True)
        if self.sinks is not None:
            total = total + np.exp(self.sinks[:, None, None] - highest)
        result: Array = ((weights / total) @ v).swapaxes(1, 2)
        return result

    def computed(self, n_threads: int = 1, tokens: slice = slice(None)) -> Array:
        """What our code makes of some of the queries."""
        case = self.case
        q, mask = self.q[:, :, tokens], self.mask[:, :, tokens]
        result = np.full((case.sequences, q.shape[2], case.heads, case.out), np.nan, np.float32)
        node = Tensor.of(result)
        operands = [Tensor.of(q), *self._keys_and_values(), Tensor.of(mask, _TYPES["F16"])]
        operands += [Tensor.of(self.sinks)] if self.sinks is not None else []
        for place, operand in enumerate(operands):
            node.src[place] = operand.address
        params = struct.pack("@fff", 1 / np.sqrt(case.size), case.bias, case.cap)
        node._op_params[: len(params)] = params
        node.op = op_number("FLASH_ATTN_EXT")
        attention = _attention.Attention(n_threads)
        attention.inspect(node)
        assert node.op == OP_CUSTOM
        function, _, state = struct.unpack_from("@PiP", node._op_params)
        with ThreadPoolExecutor(n_threads) as pool:
            for _ in range(2):  # it leaves nothing behind
                calls = [
                    pool.submit(_compute(function), node.address, me, n_threads, state)
                    for me in range(n_threads)
                ]
                for call in calls:
                    call.result()
        return result

    def _keys_and_values(self) -> list[Tensor]:
        return [
            Tensor.of(self._bytes[place], _TYPES[self.case.kind], columns)
            for place, columns in ((1, self.case.size), (2, self.case.out))
        ]


def _slopes(case: Case) -> Array:
    """Of each head, after "Train Short, Test Long", section 3, and its code."""
    if not case.bias:
        return np.ones(case.heads)
    power = 1 << (case.heads.bit_length() - 1)
    of_power = 2.0 ** (-case.bias * np.arange(1, power + 1) / power)
    between = 2.0 ** (-case.bias * np.arange(1, 2 * power, 2) / (2 * power))
    return np.concatenate([of_power, between])[: case.heads]


def _stored(x: Array, case: Case) -> tuple[Array, Array]:
    """The numbers that the cache can hold, and how it does."""
    if case.kind == "F32":
        return x, x
    if case.kind == "F16":
        return x.astype(np.float16).astype(np.float32), x.astype(np.float16)
    kind = gguf.GGMLQuantizationType[case.kind]
    packed = gguf.quants.quantize(x, kind)
    return gguf.quants.dequantize(packed, kind).reshape(x.shape), packed


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_is_softmax_of_scores_times_values(case: Case) -> None:
    node = Node(case)
    expected = node.expected()
    np.testing.assert_allclose(node.computed(), expected, rtol=0, atol=3e-6 * case.size**0.5)


@pytest.mark.parametrize("way", [way for way in WAYS if way not in ("native", "plain")])
def test_so_it_is_on_other_processors(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with compiling(way, _attention.SOURCE) as source:
        library = _attention._loaded(source)
    monkeypatch.setattr(_attention, "_library", lambda: library)
    for case in CASES:
        test_it_is_softmax_of_scores_times_values(case)


@pytest.mark.parametrize("arm", ARMS)
def test_so_it_is_on_arm(tmp_path: Path, arm: str) -> None:
    check_program(for_arm(arm, _attention.SOURCE, tmp_path))


def test_it_computes_nothing_that_c_leaves_open(tmp_path: Path) -> None:
    """Neither with scores that are far apart."""
    program = checked(_attention.SOURCE, tmp_path)
    for times in (1, 100):
        check_program(program, times)


def check_program(program: list[str], times: int = 1) -> None:
    """``times``: what the queries are multiplied with."""
    for kind, number in _TYPES.items():
        case = Case(tokens=7, keys=600, heads=6, size=96, out=64, kind=kind)
        node = Node(case)
        node.q *= times
        k, v = node._bytes[1], node._bytes[2]
        rows = k.nbytes // (case.shared * case.keys), v.nbytes // (case.shared * case.keys)
        numbers = case.tokens, case.keys, case.heads, case.shared, case.size, case.out
        done = subprocess.run(
            [*program, *map(str, (*numbers, number, *rows))],
            input=b"".join(part.tobytes() for part in (node.q, k, v, node.mask)),
            stdout=subprocess.PIPE,
            check=True,
        )
        result = np.frombuffer(done.stdout, np.float32).reshape(1, case.tokens, case.heads, -1)
        np.testing.assert_allclose(result, node.expected(), rtol=0, atol=3e-5 * times, err_msg=kind)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_token_gets_the_same_bits_alone_in_a_batch_and_on_any_threads(case: Case) -> None:
    node = Node(case)
    one = node.computed()
    assert all(np.array_equal(node.computed(n), one) for n in (2, 3, 4))
    for at in {0, case.tokens // 2, case.tokens - 1}:
        assert np.array_equal(node.computed(2, slice(at, at + 1)), one[:, at : at + 1])


def test_keys_that_nobody_sees_change_nothing() -> None:
    """The cache has more cells than are in use."""
    node = Node(Case(tokens=5, keys=300))
    more = Node(replace(node.case, keys=1024))
    for mine, theirs in ((node._bytes[1], more._bytes[1]), (node._bytes[2], more._bytes[2])):
        theirs[:, :, :300] = mine
    more.q = node.q
    more.mask = np.full((1, 1, 5, 1024), -np.inf, np.float16)
    more.mask[..., :300] = node.mask
    assert np.array_equal(more.computed(), node.computed())


class Watched:
    """Attention, and the operations that nodes have after it has seen them."""

    def __init__(self, attention: _attention.Attention | None) -> None:
        self._attention = attention
        self.operations: set[str] = set()

    def inspect(self, node: Tensor) -> None:
        if self._attention is not None:
            self._attention.inspect(node)
        self.operations.add(node.op_name)


def test_a_context_computes_with_it(short: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what ggml's own attention gives is near."""
    model = Model(short)
    tokens = [int(token) for token in np.random.default_rng(2).integers(100, 5000, 100)]

    def logits(watched: Watched) -> Array:
        monkeypatch.setattr(_context, "attention_for", lambda n_threads: watched)
        context = Context(model, n_ctx=512, n_threads=2)
        context.decode(tokens)
        try:
            return np.array(context.logits())
        finally:
            context.close()

    ours = Watched(_attention.attention_for(2))
    difference = np.abs(logits(ours) - logits(ggmls := Watched(None)))
    model.close()
    assert "CUSTOM" in ours.operations and "FLASH_ATTN_EXT" not in ours.operations
    assert "FLASH_ATTN_EXT" in ggmls.operations
    assert difference.max() < 1
