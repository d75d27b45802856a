"""The window on real models: the same logits as the resident model, within the budget."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import gguf as gguf_py
import numpy as np
import pytest
import shapes
from hypothesis import given, settings
from hypothesis import strategies as st

from ondevice import gguf
from ondevice.disk.ring import Ring
from ondevice.errors import LoadCancelled, MemoryShortError, ModelFileError
from ondevice.gguf import GGUFFile, TensorInfo
from ondevice.holding.window.placement import least_bytes, place
from ondevice.holding.window.window import Window
from ondevice.llama import Context, EvalHook, Model
from ondevice.ram.process import of_process

TEXT = "def quicksort(numbers):\n    if len(numbers) < 2:\n        return numbers\n"
LENGTHS = (23, 1, 1, 1, 9, 1, 1)  # tokens of the batches: prompts and single tokens by turns
FEW = (9, 1, 1, 3, 1)  # for large models


def logits(model: Model, hook: EvalHook | None, lengths: tuple[int, ...] = LENGTHS) -> list[bytes]:
    """The logits after each batch."""
    context = Context(model, n_ctx=512, n_threads=1, batch_tokens=512, eval_hook=hook)
    tokens = iter(model.tokenize(TEXT) * 20)
    result = []
    for length in lengths:
        context.decode([next(tokens) for _ in range(length)])
        result.append(context.logits().tobytes())
    context.close()
    return result


def resident_logits(path: Path, lengths: tuple[int, ...] = LENGTHS) -> list[bytes]:
    model = Model(path, use_extra_bufts=False)
    try:
        return logits(model, None, lengths)
    finally:
        model.close()


def window_logits(
    file: GGUFFile, budget_bytes: int, lengths: tuple[int, ...] = LENGTHS
) -> list[bytes]:
    window = Window(file, budget_bytes)
    model = window.load_model()
    try:
        return logits(model, EvalHook(window), lengths)
    finally:
        model.close()
        window.close()


@pytest.fixture(scope="module")
def file(short: Path) -> GGUFFile:
    return gguf.read(short)


@pytest.fixture(scope="module")
def resident(short: Path) -> list[bytes]:
    return resident_logits(short)


@pytest.mark.parametrize("share", [0.0, 0.5, 2.0])
def test_the_logits_are_those_of_the_resident_model(
    file: GGUFFile, resident: list[bytes], share: float
) -> None:
    least = least_bytes(file)
    budget = least + int(share * (file.weights_bytes - least))
    assert window_logits(file, budget) == resident


@pytest.mark.parametrize(
    "name",
    [
        "gemma-3-270m-q4_k_m.gguf",  # the output layer is the embedding
        "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",  # biases, a separate output layer
        "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
    ],
)
def test_other_models_too(big_model: Callable[[str], Path], name: str) -> None:
    path = big_model(name)
    file = gguf.read(path)
    least = least_bytes(file)
    budget = least + (file.weights_bytes - least) // 3
    assert window_logits(file, budget, FEW) == resident_logits(path, FEW)


@pytest.mark.alone
@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="asks Linux what it has cached")
def test_what_is_streamed_is_not_cached_as_well(default_model: Path, tmp_path: Path) -> None:
    # The system may take a page of what is pinned at any time. It then reads it again with up to
    # 8 MB around it, which was seen in 7 of 100 runs; so not every run has to be clean.
    for _ in range(5):
        streamed, pinned = cached_weights(default_model, tmp_path / "model.gguf")
        if all(pinned) and not any(streamed):
            return
    assert not any(streamed)
    assert all(pinned)


def cached_weights(model_file: Path, copy: Path) -> tuple[list[bool], list[bool]]:
    """Which streamed and which pinned tensors of a fresh copy are cached once it was used."""
    shutil.copyfile(model_file, copy)
    with copy.open("rb") as opened:
        os.fsync(opened.fileno())
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        # To ask for a page that is not cached has Linux read it, and without this others with it.
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
        file = gguf.read(copy)
        window = Window(file, (least_bytes(file) + file.weights_bytes) // 2)
        model = window.load_model()
        logits(model, EvalHook(window))

        def cached(tensors: Iterable[TensorInfo]) -> list[bool]:
            return [is_cached(opened.fileno(), t.offset + t.n_bytes // 2) for t in tensors]

        streamed, pinned = cached(window.placement.streamed), cached(window.placement.pinned)
        model.close()
        window.close()
    return streamed, pinned


def is_cached(fd: int, offset: int) -> bool:
    try:
        return os.preadv(fd, [bytearray(1)], offset, os.RWF_NOWAIT) == 1
    except BlockingIOError:
        return False
    except OSError:
        pytest.skip("a file system that does not tell")


def test_a_split_model(tmp_path: Path) -> None:
    kind, random = gguf_py.GGMLQuantizationType.Q8_0, np.random.default_rng(1)
    whole = gguf.read(shapes.write_random(tmp_path, "dense", kind, random))
    parts = gguf.read(split_in_three(whole, tmp_path))
    assert len(parts.parts) == 3
    budget = least_bytes(whole) + 1_000_000
    assert budget < whole.weights_bytes
    assert window_logits(parts, budget) == resident_logits(whole.path)


def split_in_three(file: GGUFFile, folder: Path) -> Path:
    """Write the model anew in three files; returns the first."""
    reader = gguf_py.GGUFReader(file.path)
    groups = [reader.tensors[0::3], reader.tensors[1::3], reader.tensors[2::3]]
    for number, tensors in enumerate(groups):
        path = folder / f"model-{number + 1:05}-of-00003.gguf"
        writer = gguf_py.GGUFWriter(path, file.architecture)
        if number == 0:
            for field in reader.fields.values():
                if field.name.startswith("GGUF.") or field.name == "general.architecture":
                    continue
                kind = field.types[0]
                sub_type = field.types[1] if kind == gguf_py.GGUFValueType.ARRAY else None
                writer.add_key_value(field.name, field.contents(), kind, sub_type)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", 3)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for tensor in tensors:
            writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return folder / "model-00001-of-00003.gguf"


@settings(max_examples=60)
@given(share=st.floats(0, 1.2))
def test_a_placement_keeps_to_the_budget_and_places_every_tensor_once(
    file: GGUFFile, share: float
) -> None:
    budget = int(file.weights_bytes * share)
    try:
        placement = place(file, budget)
    except MemoryShortError:
        assert budget < least_bytes(file)
        return
    assert budget >= least_bytes(file)
    assert placement.resident_bytes <= budget
    placed = [*placement.on_file, *placement.pinned, *placement.streamed]
    whole = {t.name.partition("[")[0] for t in placed}  # the output layer is in slices
    assert sorted(whole) == sorted(file.tensors)
    assert sum(t.n_bytes for t in placed) == file.weights_bytes
    if placement.streamed:
        slack = budget - placement.resident_bytes
        assert slack < max(tensor.n_bytes for tensor in placement.streamed) + 8192


@settings(max_examples=60)
@given(share=st.floats(0, 1.2), more=st.floats(0, 1))
def test_what_is_pinned_stays_pinned_with_more_room(
    file: GGUFFile, share: float, more: float
) -> None:
    budget = max(least_bytes(file), int(file.weights_bytes * share))
    little = place(file, budget)
    much = place(file, budget + int(file.weights_bytes * more))
    assert set(little.pinned) <= set(much.pinned)


@pytest.mark.parametrize("at_once", [True, False])
def test_a_window_changes_its_size_between_tokens_and_within_one(
    file: GGUFFile, resident: list[bytes], at_once: bool
) -> None:
    least, whole = least_bytes(file), file.weights_bytes
    window = Window(file, whole)
    model = window.load_model()
    context = Context(model, n_ctx=512, n_threads=1, batch_tokens=512, eval_hook=EvalHook(window))
    tokens = iter(model.tokenize(TEXT) * 20)
    sizes = set()
    result = []
    for length, share in zip(LENGTHS, (1.0, 0.3, 0.0, 0.6, 1.0, 0.1, 1.0), strict=True):
        (window.resize if at_once else window.aim)(least + int(share * (whole - least)))
        sizes.add(window.placement.resident_bytes)
        context.decode([next(tokens) for _ in range(length)])
        result.append(context.logits().tobytes())
    assert result == resident
    assert len(sizes) >= 3
    context.close()
    model.close()
    window.close()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells own memory from file cache")
def test_a_window_that_shrinks_gives_ram_back_at_once(file: GGUFFile) -> None:
    window = Window(file, file.weights_bytes)
    model = window.load_model()
    context = Context(model, n_ctx=512, n_threads=1, eval_hook=EvalHook(window))
    context.decode(model.tokenize(TEXT))
    before = of_process(os.getpid())
    given_up = window.placement.resident_bytes - least_bytes(file)
    window.resize(least_bytes(file))
    after = of_process(os.getpid())
    assert before is not None
    assert after is not None
    assert before.page_cache - after.page_cache > 0.9 * given_up
    context.close()
    model.close()
    window.close()


def test_what_is_streamed_is_read_once_for_each_pass(file: GGUFFile) -> None:
    window = Window(file, least_bytes(file) + 3_000_000)
    model = window.load_model()
    context = Context(model, n_ctx=512, n_threads=1, eval_hook=EvalHook(window))
    tokens = model.tokenize(TEXT)
    for _ in range(3):  # the first passes show the order of use
        context.decode(tokens[:1])
    before = window.statistics()
    for _ in range(10):
        context.decode(tokens[:1])
    context.decode(tokens)  # a batch is one pass
    done = window.statistics().since(before)
    context.close()
    model.close()
    window.close()
    # What is read ahead at the start and at the end of the measurement may differ by the ring.
    passes = done.bytes_read / window.placement.streamed_bytes
    assert passes == pytest.approx(11, abs=0.02 * 11 + 0.1)


def test_too_small_a_budget_says_what_would_do(file: GGUFFile) -> None:
    with pytest.raises(MemoryShortError, match=r"needs at least \d+ MB of RAM.*--ram"):
        Window(file, 1_000_000)


def test_opening_can_be_cancelled(file: GGUFFile) -> None:
    told: list[float] = []

    def on_progress(fraction: float) -> bool:
        told.append(fraction)
        return fraction < 0.5

    window = Window(file, file.weights_bytes, on_progress=on_progress)
    with pytest.raises(LoadCancelled):
        window.load_model()
    window.close()
    assert told[0] == 0 < told[-1]


def fail_to_read(file: GGUFFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "preadv", broken)


def touch(file: GGUFFile, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(file.path)


def cut_short(file: GGUFFile, monkeypatch: pytest.MonkeyPatch) -> None:
    os.truncate(file.path, file.file_bytes - 4_000_000)


@pytest.mark.parametrize("harm", [fail_to_read, touch, cut_short])
def test_a_disk_that_fails_is_an_error_and_not_a_token(
    file: GGUFFile,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    harm: Callable[[GGUFFile, pytest.MonkeyPatch], None],
) -> None:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(file.path.read_bytes())
    file = gguf.read(copy)
    window = Window(file, least_bytes(file) + 3_000_000)
    model = window.load_model()
    context = Context(model, n_ctx=512, n_threads=1, eval_hook=EvalHook(window))
    context.decode(model.tokenize(TEXT))
    seen = list(context.tokens)
    with monkeypatch.context() as patch:
        harm(file, patch)
        with pytest.raises(ModelFileError):
            for _ in range(3):
                context.decode(seen[:1])
    assert context.tokens[: len(seen)] == seen
    context.close()
    model.close()
    window.close()


def test_after_a_passing_error_the_window_goes_on(
    file: GGUFFile, resident: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    window = Window(file, least_bytes(file) + 3_000_000)
    model = window.load_model()
    hook = EvalHook(window)
    context = Context(model, n_ctx=512, n_threads=1, eval_hook=hook)
    with monkeypatch.context() as patch:
        fail_to_read(file, patch)
        with pytest.raises(ModelFileError):
            for _ in range(3):
                context.decode(model.tokenize(TEXT))
    context.close()
    assert logits(model, EvalHook(window)) == resident
    model.close()
    window.close()


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="needs /proc/self/io")
def test_opening_reads_the_pinned_bytes_and_little_else(
    big_model: Callable[[str], Path],
) -> None:
    path = big_model("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf")
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from ondevice.llama import start\n"
        "from ondevice import gguf\n"
        "from ondevice.holding.window.window import Window\n"
        "start(open('/dev/null', 'w'))\n"
        "def read():\n"
        "    lines = dict(l.split(': ') for l in open('/proc/self/io').read().splitlines())\n"
        "    return int(lines['read_bytes'])\n"
        "before = read()\n"
        "window = Window(gguf.read(Path(sys.argv[1])), 300_000_000)\n"
        "model = window.load_model()\n"
        "print((read() - before) / window.placement.resident_bytes)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) <= 1.1


def test_a_ring_gives_the_right_bytes_in_any_order_of_use(file: GGUFFile) -> None:
    from ondevice.disk.reader import Reader

    content = np.memmap(file.path, mode="r")
    tensors = [t for t in file.tensors.values() if t.block is not None and t.n_bytes > 100_000][:12]
    reader = Reader([file.path])
    ring = Ring(reader, tensors, 3 * 600_000)
    orders = [tensors, tensors[::-1], tensors[::-1], tensors[:5], tensors, tensors[2:3] * 3]
    for order in orders:
        for tensor in order:
            (address,) = ring.use([tensor])
            assert same_bytes(address, content[tensor.offset :][: tensor.n_bytes])
    two = ring.use([tensors[7], tensors[3]])  # a node that reads two of them
    for address, tensor in zip(two, (tensors[7], tensors[3]), strict=True):
        assert same_bytes(address, content[tensor.offset :][: tensor.n_bytes])
    ring.close()
    reader.close()


def test_a_ring_reads_a_tensor_as_often_as_a_pass_uses_it(file: GGUFFile) -> None:
    """Some models go through their blocks again and again, in turns."""
    from ondevice.disk.reader import Reader

    tensors = [t for t in file.tensors.values() if t.block is not None and t.n_bytes > 100_000][:9]
    first, second, last = tensors[:4], tensors[4:8], tensors[8:]
    reader = Reader([file.path])
    ring = Ring(reader, tensors[::-1], 3 * 600_000)
    for number in range(6):
        if number == 3:
            before = reader.bytes_read
        ring.begin_pass()
        for tensor in [*first, *first, *second, *first, *second, *last]:
            ring.use([tensor])
    uses = sum(t.n_bytes for t in [*first * 3, *second * 2, *last])
    assert reader.bytes_read - before == pytest.approx(3 * uses, rel=0.02)
    ring.close()
    reader.close()


def same_bytes(address: int, expected: np.ndarray) -> bool:
    import ctypes

    return ctypes.string_at(address, len(expected)) == expected.tobytes()
