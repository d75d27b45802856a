"""Stacks: the arithmetic against numpy, any prefix a working model, resizing in mid-reply."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from threading import Event
from typing import get_args

import gguf as gguf_py
import msgspec
import numpy as np
import pytest
import shapes
import tiny_model
import wide_model
from eager import Eager
from hypothesis import given, settings
from hypothesis import strategies as st
from planned import plan
from stacks import opened
from ways import ALIKE, ARMS, WAYS, compiling, for_arm

from ondevice import gguf
from ondevice.cli import run
from ondevice.engine import Engine, _sizing, running
from ondevice.engine._drafting import SmallModel
from ondevice.engine._loading import load_model
from ondevice.engine._sizing import Sizer
from ondevice.errors import FileError, MemoryShortError, ModelChanged, ModelFileError, UsageError
from ondevice.holding import speeds
from ondevice.holding.speeds import USUAL
from ondevice.holding.stack import StackFile, _planes
from ondevice.holding.stack._calibrate import divergence, log_probabilities
from ondevice.holding.stack._encoding import Encoded, encode
from ondevice.holding.stack._file import RING_BYTES, _numbers
from ondevice.holding.stack._layout import PLANES, PlanesShape
from ondevice.holding.stack._planes import Planes, Scratch
from ondevice.holding.stack.pack import PackProgress, pack
from ondevice.holding.stack.stack import Stack, _whole_pages
from ondevice.holding.stack.way import Stacked
from ondevice.llama import ChatTemplate, Context, EvalHook, Model, Sampler
from ondevice.messages import Finished, Generate, Load, Preference, Sampling, Sizing, Turn
from ondevice.planning.planner import least_ram, why
from ondevice.ram import pressure
from ondevice.ram.available import AvailableRam
from ondevice.ram.need import need
from ondevice.ram.process import ProcessRam

pytestmark = pytest.mark.skipif(
    not any(shutil.which(name) for name in ("cc", "gcc", "clang")), reason="needs a C compiler"
)

TEXT = "The museum opens at nine. In the first room there is a clock that has no hands.\n"


# ------------------------------------------------------------------------- arithmetic

_native = _planes._library


@cache
def library(way: str) -> object:
    with pytest.MonkeyPatch.context() as patch, compiling(way, _planes.SOURCE) as source:
        patch.setattr(_planes, "SOURCE", source)
        return _native.__wrapped__()


def use(way: str, patch: pytest.MonkeyPatch) -> None:
    """Compute in this way from now on."""
    patch.setattr(_planes, "_library", lambda: library(way))


def planes_of(
    weights: np.ndarray, chunk_rows: int, levels: list[int], threads: int = 1
) -> tuple[Planes, list[Encoded]]:
    """A matrix in planes, each chunk with its own number of them; and what must be kept alive."""
    rows, columns = weights.shape
    shape = PlanesShape(rows, columns, chunk_rows)
    encoded = encode(weights, np.ones(columns, np.float32))
    planes = Planes(shape, Scratch(columns, threads))
    place(planes, encoded)
    planes.levels[:] = np.resize(levels, len(planes.levels))
    return planes, [encoded]


def place(planes: Planes, encoded: Encoded) -> None:
    """Let the matrix be what was encoded."""
    parts = [encoded.scales, encoded.nibbles, *encoded.planes]
    for number, rows in enumerate(planes.shape.chunks()):
        planes.parts[number] = [
            part.ctypes.data + rows.start * (len(part) // planes.shape.rows) for part in parts
        ]


def decoded(encoded: Encoded, rows: int, columns: int, level: int) -> np.ndarray:
    """The weights as docs/design/stack-format.md defines them."""
    u = np.zeros((rows, columns), np.int64)
    for plane in range(level):
        bits = np.unpackbits(encoded.planes[plane], bitorder="little").reshape(rows, columns)
        u += np.where(bits, 64 >> plane, -(64 >> plane))
    low, high = encoded.nibbles & 15, encoded.nibbles >> 4
    nibbles = np.stack([low, high], axis=1).reshape(rows, columns // 16).repeat(16, axis=1)
    scales = (encoded.scales.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    scales = scales.reshape(rows, -1).repeat(256, axis=1)[:, :columns]
    weights: np.ndarray = (u * nibbles * scales).astype(np.float64)
    return weights


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=25)
@given(
    rows=st.integers(1, 23),
    words=st.integers(1, 20),
    n=st.sampled_from([*range(1, 10), 96, 97, 200]),
    levels=st.lists(st.integers(1, PLANES), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
    threads=st.integers(1, 2),
)
def test_products_and_rows_are_those_of_the_format(
    way: str, rows: int, words: int, n: int, levels: list[int], seed: int, threads: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        use(way, patch)
        check_products(rows, words, n, levels, seed, threads)


def check_products(
    rows: int, words: int, n: int, levels: list[int], seed: int, threads: int
) -> None:
    random = np.random.default_rng(seed)
    columns = 32 * words
    weights = random.standard_normal((rows, columns)).astype(np.float32)
    x = random.standard_normal((n, columns)).astype(np.float32)
    planes, (encoded,) = planes_of(weights, 8, levels, threads)
    expected = np.concatenate(
        [
            decoded(encoded, rows, columns, int(level))[chunk.start : chunk.stop]
            for chunk, level in zip(planes.shape.chunks(), planes.levels, strict=True)
        ]
    )
    assert np.array_equal(planes.rows(range(rows)), expected.astype(np.float32))
    products = x @ expected.T
    # Activations are rounded to the nearest of 127 parts, or more, of the largest.
    most = 0.501 * np.abs(x).max() / 127 * np.abs(expected).sum(axis=1).max()
    found = planes.multiply(x)
    assert np.abs(found - products).max() <= most
    assert np.array_equal(planes.multiply(x[-1:])[0], found[-1])  # alone it comes to the same


def some_planes(
    rows: int, columns: int, levels: list[int], threads: int = 1
) -> tuple[Planes, list[Encoded]]:
    weights = np.random.default_rng(1).standard_normal((rows, columns)).astype(np.float32)
    return planes_of(weights, 20, levels, threads)


def some_x(n: int, columns: int) -> np.ndarray:
    return np.random.default_rng(2).standard_normal((n, columns)).astype(np.float32)


@pytest.mark.parametrize("way", ALIKE)
def test_a_column_is_the_same_in_any_company_and_with_any_instructions(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for columns in (32, 96, 576, 1280):
        x = some_x(130, columns)
        for levels in ([1, 2, 3], [4, 5], [6, 7]):
            planes, _kept = some_planes(53, columns, levels)
            together = planes.multiply(x)
            use(way, monkeypatch)
            for threads in (1, 2):
                planes, _kept = some_planes(53, columns, levels, threads)
                for n in (1, 2, 5, 130):
                    assert np.array_equal(planes.multiply(x[:n]), together[:n])
            monkeypatch.undo()


@pytest.mark.parametrize("arm", ARMS)
def test_arm_gives_the_same_bits(tmp_path: Path, arm: str) -> None:
    program = for_arm(arm, _planes.SOURCE, tmp_path)
    x = some_x(6, 672)
    for level in range(1, PLANES + 1):
        planes, (encoded,) = some_planes(20, 672, [level])
        given = [encoded.scales, encoded.nibbles, *encoded.planes, x]
        done = subprocess.run(
            [*program, "20", "672", "6", str(level)],
            input=b"".join(part.tobytes() for part in given),
            stdout=subprocess.PIPE,
            check=True,
        )
        assert done.stdout == planes.multiply(x).tobytes(), level


@pytest.mark.parametrize("way", WAYS)
def test_the_largest_sums_are_right(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use(way, monkeypatch)
    weights = np.ones((8, 768), np.float32)
    planes, (encoded,) = planes_of(weights, 8, [PLANES])
    expected = decoded(encoded, 8, 768, PLANES)
    for n in (1, 5):
        for x in (3.0, -3.0):
            products = planes.multiply(np.full((n, 768), x, np.float32))
            assert np.allclose(products, x * expected.sum(axis=1), rtol=1e-5)


def test_each_plane_makes_weights_twice_as_exact() -> None:
    weights = np.random.default_rng(1).standard_normal((64, 512)).astype(np.float32)
    errors = encode(weights, np.ones(512, np.float32)).errors
    decibels = 10 * np.log10(errors[0] / errors[1:])
    assert decibels[1] > 9
    assert np.all(np.diff(decibels) > 5)


def test_important_columns_are_kept_more_exactly() -> None:
    weights = np.random.default_rng(2).standard_normal((64, 256)).astype(np.float32)
    importance = np.ones(256, np.float32)
    importance[::16] = 100
    shares = []
    for weighed in (np.ones(256, np.float32), importance):
        planes, _kept = planes_of(weights, 64, [3])
        encoded = encode(weights, weighed)
        place(planes, encoded)
        squares = (planes.rows(range(64)) - weights) ** 2
        shares.append(squares[:, ::16].mean() / squares.mean())
    assert 0.9 < shares[0] < 1.1
    assert shares[1] < 0.8 * shares[0]


# ------------------------------------------------------------------------------ files


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model.write(tmp_path_factory.mktemp("tiny") / "tiny.gguf")


@pytest.fixture(scope="module")
def packed(short: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real weights as a stack."""
    path = tmp_path_factory.mktemp("stack") / "short.stack.gguf"
    pack(short, path, calibration=TEXT)
    return path


@pytest.fixture(scope="module")
def tiny_packed(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny-stack") / "tiny.stack.gguf"
    pack(tiny, path, calibration=TEXT, jobs=1)
    return path


def streaming_bytes(file: StackFile) -> int:
    """RAM with which the base is resident and all else is streamed."""
    return file.ram_bytes[file.n_base - 1] + RING_BYTES


def greedy(context: Context, n: int) -> list[int]:
    """The next ``n`` tokens."""
    tokens = []
    for _ in range(n):
        tokens.append(int(np.argmax(context.logits())))
        context.decode(tokens[-1:])
    return tokens


def logits_after(context: Context, text: str) -> np.ndarray:
    context.truncate(0)
    context.decode(context.model.tokenize(text))
    return context.logits()


def said_by(source: Path) -> tuple[list[int], np.ndarray]:
    """The text as tokens, and what the model itself expects after each of them."""
    model = Model(source, use_extra_bufts=False)
    context = Context(model, n_ctx=256, n_threads=1)
    tokens = model.tokenize(TEXT)
    wanted = log_probabilities(context, tokens)
    context.close()
    model.close()
    return tokens, wanted


def test_more_blocks_bring_the_answers_nearer_to_the_model(packed: Path, short: Path) -> None:
    tokens, wanted = said_by(short)
    divergences = []
    with opened(packed) as (stack, context):
        first, last = stack.file.base_end, stack.file.gguf.file_bytes
        for share in (0.2, 0.6, 1.0):
            stack.resize(int(first + share * (last - first)) + 4096)
            divergences.append(divergence(wanted, log_probabilities(context, tokens)))
    assert divergences[0] > 2 * divergences[1] > 4 * divergences[2]
    assert divergences[2] < 0.2


def test_resizing_in_mid_reply_keeps_the_conversation(packed: Path) -> None:
    file = StackFile.of(gguf.read(packed))
    half = (file.base_end + file.gguf.file_bytes) // 2
    with opened(packed, half) as (stack, context):
        logits_after(context, TEXT)
        before = greedy(context, 4)
        stack.resize(None)
        larger = greedy(context, 4)
        stack.resize(half)
        smaller = greedy(context, 4)
        final = context.logits()
    with opened(packed) as (stack, context):  # the same sizes at the same tokens, loaded anew
        stack.resize(half)
        logits_after(context, TEXT)
        assert greedy(context, 4) == before
    with opened(packed) as (stack, context):
        stack.resize(half)
        logits_after(context, TEXT)
        greedy(context, 4)
        stack.resize(None)
        assert greedy(context, 4) == larger
        stack.resize(half)
        assert greedy(context, 4) == smaller
        assert np.array_equal(context.logits(), final)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_what_is_streamed_gives_the_very_same_answers(packed: Path, share: float) -> None:
    file = StackFile.of(gguf.read(packed))
    least, most = streaming_bytes(file), file.ram_bytes[-1]
    with opened(packed) as (_, context):
        prompt = logits_after(context, TEXT)
        tokens, final = greedy(context, 4), context.logits()
    with opened(packed, int(least + share * (most - least)), whole=True) as (stack, context):
        assert stack.n_blocks < len(file.blocks)
        assert np.array_equal(logits_after(context, TEXT), prompt)
        assert greedy(context, 2) == tokens[:2]
        stack.resize(least)  # in mid-reply
        assert stack.resident_bytes <= least
        assert greedy(context, 2) == tokens[2:]
        assert np.array_equal(context.logits(), final)


def test_what_is_resident_can_draft_for_what_is_streamed(packed: Path) -> None:
    file = StackFile.of(gguf.read(packed))
    budget = streaming_bytes(file) + (3 << 20)
    with opened(packed, budget, whole=True) as (stack, context):
        drafting = Context(
            context.model, n_ctx=256, n_threads=1, eval_hook=EvalHook(stack._resident)
        )
        try:
            alone = logits_after(drafting, TEXT)
            blocks = stack.n_blocks
        finally:
            drafting.close()
        assert not np.array_equal(logits_after(context, TEXT), alone)
    with opened(packed) as (stack, context):
        stack.resize(stack.file.ram_bytes[stack.file.n_base + blocks - 1])
        assert np.array_equal(logits_after(context, TEXT), alone)


def test_growing_reads_what_is_added_and_no_more(tiny_packed: Path) -> None:
    with opened(tiny_packed) as (stack, _):
        stack.resize(stack.file.base_end + 8_192)
        before, resident = stack.statistics().bytes_read, stack.resident_bytes
        stack.resize(stack.file.base_end + 24_576)
        added = stack.resident_bytes - resident
        assert 8_192 <= added <= 16_384 + 4096
        assert stack.statistics().bytes_read - before <= added + 8192


def test_a_stack_never_takes_more_than_its_budget(tiny_packed: Path) -> None:
    file = StackFile.of(gguf.read(tiny_packed))
    with opened(tiny_packed) as (stack, _):
        least = file.ram_bytes[file.n_base - 1]
        for budget in range(least, file.ram_bytes[-1], 7_777):
            stack.resize(budget)
            assert budget - 3 * 4096 < stack.resident_bytes <= budget
        with pytest.raises(MemoryShortError, match="at least"):
            stack.resize(least - 1)


def test_any_gguf_tool_can_list_it(tiny_packed: Path) -> None:
    import gguf as gguf_py

    tensors = {tensor.name: tensor for tensor in gguf_py.GGUFReader(tiny_packed).tensors}
    assert tensors["blk.0.ffn_up.weight"].shape[-1] == 128
    assert "blk.0.ffn_up.weight.0.5" in tensors


# ----------------------------------------------------------------------------- damage


def flipped(path: Path, offset: int, target: Path) -> Path:
    data = bytearray(path.read_bytes())
    data[offset] ^= 4
    target.write_bytes(data)
    return target


def test_a_flipped_bit_is_found_when_its_block_is_first_loaded(
    tiny_packed: Path, tmp_path: Path
) -> None:
    file = StackFile.of(gguf.read(tiny_packed))
    number = len(file.blocks) // 2
    block = file.blocks[number]
    bad = flipped(tiny_packed, block.tensor.offset + 234, tmp_path / "bad.gguf")
    with opened(bad, file.ram_bytes[file.n_base + number - 1]) as (stack, context):
        good = logits_after(context, TEXT)
        with pytest.raises(ModelFileError, match=block.tensor.name):
            stack.resize(None)
        assert np.array_equal(logits_after(context, TEXT), good)  # it goes on as it was


def test_a_flipped_bit_in_the_base_is_refused(tiny_packed: Path, tmp_path: Path) -> None:
    matrix = StackFile.of(gguf.read(tiny_packed)).matrices["blk.1.ffn_up.weight"]
    bad = flipped(tiny_packed, matrix.base.offset + 77, tmp_path / "bad.gguf")
    with pytest.raises(ModelFileError, match=r"blk\.1\.ffn_up\.weight"):
        Stack(gguf.read(bad))


def test_a_flipped_bit_is_found_when_it_is_streamed(packed: Path, tmp_path: Path) -> None:
    file = StackFile.of(gguf.read(packed))
    bad = flipped(packed, file.blocks[-1].tensor.offset + 99, tmp_path / "bad.gguf")
    with (
        opened(bad, streaming_bytes(file), whole=True) as (_, context),
        pytest.raises(ModelFileError, match="damaged"),
    ):
        logits_after(context, TEXT)


def test_a_table_stays_on_the_disk_and_is_checked_all_the_same(tmp_path: Path) -> None:
    source = tiny_model.write(tmp_path / "untied.gguf", tied=False)
    path = tmp_path / "untied.stack.gguf"
    pack(source, path, calibration=TEXT, jobs=1)
    file = StackFile.of(gguf.read(path))
    assert file.tables == {"token_embd.weight"}
    tokens, wanted = said_by(source)
    with opened(path) as (stack, context):
        resident = log_probabilities(context, tokens)
        assert divergence(wanted, resident) < 0.01
        table = file.gguf.tensors["token_embd.weight"]
        pages = _whole_pages(table, table)
        assert pages
        assert not np.frombuffer(stack._arena.view, np.uint8)[pages.start : pages.stop].any()
    with opened(path, file.least_whole_bytes, whole=True) as (_, context):
        assert np.array_equal(log_probabilities(context, tokens), resident)
    block = next(block for block in file.blocks if block.id.matrix in file.tables)
    with pytest.raises(ModelFileError, match=block.tensor.name):
        Stack(gguf.read(flipped(path, block.tensor.offset + 5, tmp_path / "bad.gguf")))


def read_and_planned(path: Path) -> None:
    """Everything that is done with a stack before its weights are read."""
    file = gguf.read(path)
    if file.is_stack:
        StackFile.of(file).as_llama_sees_it()
    plan(file, AvailableRam(10**10, 10**10, "all RAM of this machine"), USUAL)


@pytest.mark.random
def test_a_damaged_header_is_refused(
    tiny_packed: Path, tmp_path: Path, rounds: Callable[[int], Iterator[Random]]
) -> None:
    """What the checksum finds, and what is found in files without one."""
    whole = tiny_packed.read_bytes()
    end = gguf.read(tiny_packed).parts[0].data_offset
    version = b"ondevice.stack.version"  # the tokens before it are not ours
    own = whole.index(version) + len(version)
    name = b"ondevice.stack.header_checksum"
    copy = tmp_path / "damaged.gguf"
    for random in rounds(150):
        front = bytearray(whole[:end])
        sealed = random.random() < 0.5
        if not sealed:
            front[front.rindex(name)] ^= 1  # as another key, that says nothing
        for _ in range(random.choice((1, 1, 2, 8))):
            at = random.randrange(own, end)
            if sealed and front.rindex(name) - 8 <= at < front.rindex(name) + len(name) + 8:
                continue
            front[at] = random.choice((0, 0xB2, 0xFF, 0x30, front[at] ^ 1 << random.randrange(8)))
        copy.write_bytes(front + whole[end:])
        if sealed and front != whole[:end]:
            with pytest.raises(ModelFileError):
                read_and_planned(copy)
        else:
            with suppress(ModelFileError):
                read_and_planned(copy)


def test_blocks_whose_names_are_swapped_are_refused(tiny_packed: Path, tmp_path: Path) -> None:
    stack = StackFile.of(gguf.read(tiny_packed))
    names = [f"blk.{block}.ffn_up.weight.0.2".encode() for block in range(2)]
    end = stack.gguf.parts[0].data_offset
    front = tiny_packed.read_bytes()[:end]
    swapped = front.replace(names[0], b"?" * len(names[0])).replace(names[1], names[0])
    swapped = swapped.replace(b"?" * len(names[0]), names[1])
    assert swapped != front
    copy = tmp_path / "swapped.gguf"
    copy.write_bytes(swapped + tiny_packed.read_bytes()[end:])
    with pytest.raises(ModelFileError, match="its header is not the one that was written"):
        read_and_planned(copy)


def test_a_stack_from_before_headers_had_checksums_opens(tiny_packed: Path, tmp_path: Path) -> None:
    whole = tiny_packed.read_bytes()
    copy = tmp_path / "old.gguf"
    key, other_key = b"ondevice.stack.header_checksum", b"another.key.that.says.nothing!"
    copy.write_bytes(whole.replace(key, other_key))
    read_and_planned(copy)
    with opened(copy) as (_, context), opened(tiny_packed) as (_, other):
        assert np.array_equal(logits_after(context, TEXT), logits_after(other, TEXT))


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("columns", 1 << 31, "does not fit its shape"),
        ("columns", 0, "holds no|out of place|no matrices|lies behind"),
        ("name", "²", "out of place|lies behind"),
    ],
)
def test_numbers_that_no_stack_has_are_refused(
    tiny_packed: Path, key: str, value: int | str, reason: str
) -> None:
    file = gguf.read(tiny_packed)
    metadata, tensors = dict(file.metadata), dict(file.tensors)
    metadata.pop("ondevice.stack.header_checksum")
    if key == "name":
        last = list(tensors)[-1]
        damaged = last[:-1] + str(value)
        tensors[damaged] = replace(tensors.pop(last), name=damaged)
    else:
        columns = _numbers(file, key, "<u4").tolist()
        metadata[f"ondevice.stack.{key}"] = tuple(value if c else 0 for c in columns)
    with pytest.raises(ModelFileError, match=reason):
        StackFile.of(replace(file, metadata=metadata, tensors=tensors))


def test_a_model_that_computes_no_numbers_is_not_packed(tiny: Path, tmp_path: Path) -> None:
    norm = gguf.read(tiny).tensors["blk.1.ffn_norm.weight"]
    broken = tmp_path / "broken.gguf"
    data = bytearray(tiny.read_bytes())
    huge = np.full(norm.shape[0], 1e38, np.float32).tobytes()
    data[norm.offset : norm.offset + norm.n_bytes] = huge
    broken.write_bytes(data)
    with pytest.raises(ModelFileError, match=r"too large .* Pack a file of the model in BF16"):
        pack(broken, tmp_path / "stack.gguf", jobs=1)
    assert not (tmp_path / "stack.gguf").exists()


def test_what_llama_cpp_never_reads_takes_no_ram(tmp_path: Path) -> None:
    path = shapes.write_random(
        tmp_path, "drafting block", gguf_py.GGMLQuantizationType.Q8_0, np.random.default_rng(1)
    )
    pack(path, stack := tmp_path / "stack.gguf", calibration=TEXT * 40, jobs=1)
    file = StackFile.of(gguf.read(stack))
    unused = {t for t in file.gguf.tensors if t.startswith("blk.4.")}
    sizes = [file.gguf.tensors[name].n_bytes for name in unused]
    assert file.ram_bytes[-1] < file.gguf.file_bytes - 0.8 * sum(sizes)
    with opened(stack) as (_, context):
        assert np.isfinite(logits_after(context, TEXT)).all()


def test_a_file_cut_short_is_refused(tiny_packed: Path, tmp_path: Path) -> None:
    short = tmp_path / "short.gguf"
    short.write_bytes(tiny_packed.read_bytes()[:-1_000])
    with pytest.raises(ModelFileError, match="cut short"):
        gguf.read(short)


# ---------------------------------------------------------------------------- packing


@pytest.mark.parametrize("cut", ['{"name": "a line that was being wri', "\0\0\0", "{}\n"])
@pytest.mark.parametrize("stage", ["encoding", "measuring"])
def test_a_packing_that_was_killed_goes_on(
    stage: str, cut: str, tiny: Path, tmp_path: Path
) -> None:
    whole, resumed = tmp_path / "whole.gguf", tmp_path / "resumed.gguf"
    pack(tiny, whole, calibration=TEXT, jobs=1)
    program = (
        "import os, sys; from pathlib import Path; from ondevice.holding.stack.pack import pack\n"
        "def at(progress):\n"
        "    if progress.stage == sys.argv[4] and progress.done > 0.5: os._exit(9)\n"
        "pack(Path(sys.argv[1]), Path(sys.argv[2]), "
        "calibration=sys.argv[3], jobs=1, on_progress=at)"
    )
    command = [sys.executable, "-c", program, str(tiny), str(resumed), TEXT, stage]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 9
    assert not resumed.exists()
    journal = resumed.with_name("resumed.gguf.journal")
    first_lines = journal.read_text()
    assert ('"kl"' in first_lines) == (stage == "measuring")
    with journal.open("a") as file:
        file.write(cut)
    seen: list[str] = []
    pack(
        tiny,
        resumed,
        calibration=TEXT,
        jobs=1,
        on_progress=lambda p: seen.append(journal.read_text()) if p.stage == "measuring" else None,
    )
    assert seen[0].startswith(first_lines)  # what was done was not done again
    assert resumed.read_bytes() == whole.read_bytes()
    left = {path.name for path in tmp_path.iterdir()} - {"home"}
    assert left == {"resumed.gguf", "whole.gguf"}


def test_one_file_is_packed_by_one_program_at_a_time(tiny: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.gguf"
    refused = []

    def again(progress: PackProgress) -> None:
        with pytest.raises(FileError, match=r"being packed already\. Wait"):
            pack(tiny, target, calibration=TEXT, jobs=1)
        refused.append(progress.stage)

    pack(tiny, target, calibration=TEXT, jobs=1, on_progress=again)
    assert {"encoding", "measuring", "writing"} <= {*refused}
    assert {path.name for path in tmp_path.iterdir()} - {"home"} == {target.name}


def test_a_model_that_is_replaced_meanwhile_becomes_no_stack(tiny: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "source.gguf", tmp_path / "target.gguf"
    shutil.copy(tiny, source)
    other = tmp_path / "other.gguf"
    shutil.copy(tiny, other)

    def change(progress: PackProgress) -> None:
        if progress.stage == "encoding" and other.exists():
            other.replace(source)

    with pytest.raises(ModelChanged):
        pack(source, target, calibration=TEXT, jobs=1, on_progress=change)
    assert not target.exists()


def test_a_stack_that_cannot_be_written_is_told_before_the_work(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["pack", str(tiny), "-o", str(tmp_path / "nowhere" / "out.gguf")]) == 1
    assert "There is no folder" in capfd.readouterr().err
    (tmp_path / "out.gguf.journal").mkdir()
    assert run(["pack", str(tiny), "-o", str(tmp_path / "out.gguf")]) == 1
    assert "could not be packed" in capfd.readouterr().err


def test_the_model_may_write_its_calibration_itself(tiny: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.gguf", tmp_path / "second.gguf"
    stages = []
    for target in (first, second):
        pack(
            tiny, target, own_calibration=True, jobs=1, on_progress=lambda p: stages.append(p.stage)
        )
    assert "generating" in stages
    assert first.read_bytes() == second.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} - {"home"} == {first.name, second.name}


def test_a_stack_is_not_packed_again(tiny: Path, tmp_path: Path) -> None:
    pack(tiny, tmp_path / "tiny.stack.gguf")
    with pytest.raises(UsageError, match="is a stack already"):
        pack(tmp_path / "tiny.stack.gguf", tmp_path / "again.gguf")


def test_pack_and_show_commands(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.gguf"
    text = tmp_path / "text.txt"
    text.write_text(TEXT)
    options = ["--calibration", str(text), "--jobs", "1", "--json"]
    assert run(["pack", str(tiny), "-o", str(target), *options]) == 0
    assert json.loads(capfd.readouterr().out)["blocks"] > 0
    assert gguf.read(target).is_stack
    assert run(["stack", "show", str(target), "--svg", str(tmp_path / "curve.svg")]) == 0
    assert "divergence" in capfd.readouterr().out
    assert "<polyline" in (tmp_path / "curve.svg").read_text()
    assert run(["stack", "show", str(target), "--json"]) == 0
    shown = json.loads(capfd.readouterr().out)
    steps = shown["steps"]
    assert shown["loaded"] == []
    assert steps[-1]["kl"] < steps[0]["kl"]
    assert steps[-1]["perplexity"] > 1
    assert steps[0]["name"] == "base"
    assert steps == sorted(steps, key=lambda step: step["bytes"])
    assert run(["stack", "show", str(tiny)]) == 1
    before = target.stat().st_mtime_ns
    assert run(["pack", str(tiny), "-o", str(target), *options]) == 1
    assert "--force" in capfd.readouterr().err
    assert target.stat().st_mtime_ns == before


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_ends_a_packing_whatever_it_computes(short: Path, tmp_path: Path) -> None:
    """llama.cpp calls us at each node, and an exception that comes there is lost."""
    for moment in range(4):
        target = tmp_path / f"{moment}.gguf"
        process = subprocess.Popen(
            [sys.executable, "-m", "ondevice", "pack", str(short), "-o", str(target)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        while process.poll() is None and not Path(f"{target}.journal").exists():
            time.sleep(0.01)
        time.sleep(moment / 10)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 128 + signal.SIGINT
        assert said.endswith("\nInterrupted.\n")
        assert "Traceback" not in said
        assert not target.exists()


# ----------------------------------------------------------------------------- engine


def test_the_engine_holds_as_much_of_a_stack_as_fits(packed: Path, tmp_path: Path) -> None:
    question = Turn("user", "Name the capital of France.")
    with opened(packed) as (_, context):
        template = ChatTemplate(context.model)
        context.decode(template.tokenize(template.render([question])))
        expected = context.model.text(greedy(context, 12))
    with Engine(log=tmp_path / "engine.log") as engine:
        engine.load(Load(path=str(packed), n_ctx=512, n_threads=1))
        events = list(
            engine.generate(
                Generate(turns=(question,), sampling=Sampling(temperature=0), max_tokens=24)
            )
        )
        assert isinstance(events[-1], Finished)
        text = "".join(getattr(event, "text", "") for event in events)
        assert text[:12] == expected[:12]
        assert len(engine.embed(["a text"]).vectors[0]) == 576
        (now,) = running()
        assert Path(now.path) == packed
        assert now.sizing.n_blocks == len(StackFile.of(gguf.read(packed)).blocks)
    assert running() == []


def test_what_is_in_ram_drafts_where_the_disk_is_slow(
    packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = msgspec.structs.replace(USUAL, disk=1e7)
    monkeypatch.setattr(speeds, "known", lambda: slow)
    file = gguf.read(packed)

    def drafts(ram: int) -> bool:
        usable = AvailableRam(10**12, ram, "a limit")
        chosen = plan(file, usable, slow, n_ctx=512, kv_type="f16", preference="exact")
        return chosen.drafter_bytes > 0

    least = least_ram(file, 512, "f16", "exact")
    ram = next(ram for ram in range(least, 2 * least, 1_000_000) if drafts(ram))
    asked = Load(path=str(packed), n_ctx=512, kv_type="f16", prefer="exact", n_threads=1, ram=ram)
    held = load_model(asked, lambda _: None, Event())
    try:
        assert held.drafter is not None
        context = held.context
        speculation = Eager(context, held.drafter)  # the real disk is fast
        sampler = Sampler(context.model, Sampling(temperature=0), 0, None)
        context.decode(context.model.tokenize(TEXT))
        tokens = [sampler.sample_from(context.logits())]
        while len(tokens) < 24:
            tokens += speculation.decode(tokens[-1], sampler, 24 - len(tokens))
        sampler.close()
    finally:
        held.close()
    with opened(packed) as (_, context):
        context.decode(context.model.tokenize(TEXT))
        assert greedy(context, 24) == tokens
    assert speculation.accepted > 3


def sizing_of(engine: Engine) -> Sizing:
    assert engine.sizing is not None
    return engine.sizing


def test_the_engine_streams_what_must_be_exact(packed: Path, tmp_path: Path) -> None:
    request = Generate(
        turns=(Turn("user", "Name some colours."),),
        sampling=Sampling(temperature=0),
        max_tokens=24,
    )
    file = StackFile.of(gguf.read(packed))
    replies, loads = [], []
    for short_of in (None, 20_000_000):  # bytes of RAM
        beside = 0
        with Engine(log=tmp_path / "engine.log") as engine:
            if short_of is not None:
                needed = need(file.as_a_model(), 512)
                beside = needed.total - needed.weights + needed.kv + needed.compute
            ram = beside + file.ram_bytes[-1] - short_of if short_of else None
            load = Load(path=str(packed), n_ctx=512, prefer="exact", ram=ram)
            loads.append(engine.load(load))
            for number in range(2):
                sizing = sizing_of(engine)
                if number:  # a part of it has to go
                    engine.resize(sizing.least_bytes)
                    while sizing.resident_bytes > sizing.least_bytes:
                        time.sleep(0.05)
                        sizing = sizing_of(engine)
                *events, end = engine.generate(request)
                assert isinstance(end, Finished)
                replies.append("".join(getattr(event, "text", "") for event in events))
                streaming = end.statistics.streaming
        assert streaming is not None
        assert streaming.bytes_read > 0
        assert 0 < sizing.streamed_bytes == sizing.absent_bytes
        cells = Stacked(gguf.read(packed)).cells(sizing)
        assert {cell.absent for cell in cells} == {"streamed"}
        assert min(cell.share for cell in cells) < 0.9
    assert loads[0].streamed_bytes == 0 < loads[1].streamed_bytes
    assert len(set(replies)) == 1


@pytest.mark.parametrize("preference", get_args(Preference))
def test_more_ram_never_plans_a_worse_stack(packed: Path, preference: Preference) -> None:
    file = gguf.read(packed)
    roomy = AvailableRam(10**12, 10**12, "all RAM of this machine")
    least = least_ram(file, preference=preference)
    most = plan(file, roomy, USUAL).peak_bytes
    worths, qualities = [], []
    for usable in range(least, most + 2_000_000, (most - least) // 40):
        ram = AvailableRam(most, usable, "a limit")
        chosen = plan(file, ram, USUAL, preference=preference)
        assert chosen.peak_bytes <= usable
        assert chosen == plan(file, ram, USUAL, preference=preference)
        worths.append(chosen.worth(preference))
        qualities.append(chosen.quality)
    assert worths == sorted(worths)
    assert 0 < qualities[0] < qualities[-1] <= 1
    with pytest.raises(MemoryShortError, match=r"needs .* more"):
        plan(file, AvailableRam(most, least - 1, "a limit"), USUAL, preference=preference)


def test_as_much_of_a_stack_drafts_as_gives_the_most(
    packed: Path, short: Path, tmp_path: Path
) -> None:
    file = gguf.read(wide_model.write(short, tmp_path / "wide.gguf"))
    stack, least, step = gguf.read(packed), least_ram(file, 512, "f16"), 4_000_000
    plans = []
    for usable in range(least, least + 25 * step, step):
        ram = AvailableRam(10**12, usable, "a limit")
        plans.append(plan(file, ram, USUAL, n_ctx=512, kv_type="f16", drafter=stack))
        assert plans[-1].peak_bytes <= usable
    worths = [each.worth("balanced") for each in plans]
    assert worths == sorted(worths)
    drafters = {each.drafter.resident_bytes for each in plans if each.drafter}
    assert len(drafters) > 2
    assert min(drafters) < StackFile.of(stack).ram_bytes[-1]
    assert not plans[-1].streamed_bytes
    assert not plans[-1].drafter

    *_, roomy = (each for each in plans if each.drafter)  # so that it need not give anything back
    assert re.search(r"\d MB of .* drafts for it", why(roomy, ram))
    plain = Load(path=str(file.path), n_ctx=512, kv_type="f16", n_threads=1)
    replies = []
    for request in (
        plain,
        msgspec.structs.replace(plain, ram=roomy.peak_bytes, drafter=str(packed)),
    ):
        with Engine() as engine:
            engine.load(request)
            asked = Generate(turns=(Turn("user", TEXT),), sampling=Sampling(seed=3), max_tokens=24)
            events = list(engine.generate(asked))
        assert isinstance(events[-1], Finished)
        replies.append("".join(getattr(event, "text", "") for event in events))
        streaming = events[-1].statistics.streaming
    assert replies[0] == replies[1]
    assert streaming is not None
    assert streaming.accepted_tokens > 3


def test_a_stack_that_drafts_makes_room_when_weights_cannot(
    packed: Path, short: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pressure, "_GRAIN", 100_000)  # of a model so small
    file = gguf.read(wide_model.write(short, tmp_path / "wide.gguf"))
    asked = Load(path=str(file.path), n_ctx=512, kv_type="f16", n_threads=1, drafter=str(packed))
    limit = least_ram(file, 512, "f16") + 45_000_000
    held = load_model(msgspec.structs.replace(asked, ram=limit), lambda _: None, Event())
    drafter, weights = held.drafter, held.weights
    assert isinstance(drafter, SmallModel)
    called = Event()
    beside = held.plan.peak_bytes - held.plan.resident_bytes
    # What other tests have left in this process is none of its concern: all is as planned.
    monkeypatch.setattr(_sizing, "of_process", lambda _: ProcessRam(0, 0, 0))
    sizer = Sizer(weights, 10**9, beside, lambda _: None, called.set, drafter)

    def settle_with(room: int, reached: Callable[[], bool]) -> None:
        sizer._limit = beside + room
        end = time.monotonic() + 60
        while not reached():
            assert time.monotonic() < end, (drafter.resident_bytes, weights.resident_bytes)
            called.wait(0.1)
            sizer.settle()
            held.context.truncate(0)
            held.context.decode([1, 2])
            drafter.propose([1, 2, 3], 3)

    try:
        most = drafter.resident_bytes
        settle_with(weights.least_bytes - 5_000_000, lambda: 0 < drafter.resident_bytes < most)
        assert weights.resident_bytes == weights.least_bytes
        assert len(drafter.propose([1, 2, 3], 3).tokens) == 3
        settle_with(weights.most_bytes + most, lambda: drafter.resident_bytes == most)
        settle_with(weights.least_bytes - most, lambda: not drafter.is_ready)
        assert drafter.propose([1, 2, 3], 3).tokens == ()
    finally:
        sizer.close()
        held.close()


# ----------------------------------------------------------------------- experts


@settings(max_examples=25)
@given(
    rows=st.integers(1, 23),
    n_experts=st.integers(1, 5),
    n_slots=st.integers(1, 3),
    n_tokens=st.sampled_from([1, 2, 7, 110]),
    shared=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    threads=st.integers(1, 2),
)
def test_each_token_is_multiplied_with_its_experts(
    rows: int, n_experts: int, n_slots: int, n_tokens: int, shared: bool, seed: int, threads: int
) -> None:
    random = np.random.default_rng(seed)
    columns = 96
    weights = random.standard_normal((rows * n_experts, columns)).astype(np.float32)
    x = random.standard_normal((n_tokens, 1 if shared else n_slots, columns)).astype(np.float32)
    ids = random.integers(0, n_experts, (n_tokens, n_slots), np.int32)
    planes, _kept = planes_of(weights, 8, [3, 7], threads)
    y = planes.multiply_experts(x, ids, rows)
    for token in range(n_tokens):
        for slot in range(n_slots):
            alone = planes.multiply(x[token, 0 if shared else slot][None])[0]
            first = ids[token, slot] * rows
            assert np.array_equal(y[token, slot], alone[first : first + rows])


def test_experts_are_packed_and_streamed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ondevice.holding.stack._file.RING_BYTES", 100_000)
    source = tiny_model.write(tmp_path / "experts.gguf", n_experts=4)
    path = tmp_path / "experts.stack.gguf"
    pack(source, path, calibration=TEXT, jobs=1)
    file = StackFile.of(gguf.read(path))
    assert file.gguf.tensors["blk.0.ffn_up_exps.weight"].shape[1:] == (128, 4)
    tokens, wanted = said_by(source)
    with opened(path) as (_, context):
        resident = log_probabilities(context, tokens)
    with opened(path, file.least_whole_bytes, whole=True) as (stack, context):
        assert stack.streamed_bytes > 0
        assert np.array_equal(log_probabilities(context, tokens), resident)
    with opened(path, file.ram_bytes[file.n_base - 1]) as (_, context):
        least = divergence(wanted, log_probabilities(context, tokens))
    assert divergence(wanted, resident) < least / 20
