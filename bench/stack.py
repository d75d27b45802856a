"""Stacks against K-quants and BitStack at the same bytes: divergence, speed, resizing, packing.

Only quantized files are at hand, and a quant of the same type would be found again exactly. So an
F16 source off the grid is made first: dequantized, with even noise within half a step, seeded. The
stack, all K-quants and the blocks of BitStack are made of it, and compared with it on texts that
calibration has not seen.

``kl_vs_kquant_max``: the stack's divergence as a part of a K-quant's, at the bytes of the K-quant
or on the line in log KL between two sizes of the stack; the worst, with and without importance
matrix. ``kl_vs_bitstack_max``: the same against BitStack, at equal bytes of the linear layers.
``decode_ratio`` and ``prefill_ratio``: against the Q4_K_M in RAM, whichever of llama.cpp's two ways
of holding it is faster. ``check_pct``: what checksums add to the first reading of the blocks.
``mixture_vs_ram``: tokens a second of a mixture of experts with half of its stack in RAM, against
all of it; ``mixture_read_share``: what it reads for a token, as a part of what is not in RAM.
``mixture_cut_vs_whole``: tokens a second of a cut of the stack, a quarter of the way from its
smallest size, against all of it, both in four tenths of the RAM that all of it takes.
"""

from __future__ import annotations

import ctypes
import io
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import bitstack
import frame
import llama_cpp
import numpy as np
import numpy.typing as npt

from ondevice import gguf, llama
from ondevice.disk.reader import Arena, Reader, Span
from ondevice.gguf import writing
from ondevice.gguf.writing import TensorEntry
from ondevice.holding.stack import Block, StackFile
from ondevice.holding.stack._calibrate import (
    Usage,
    default_text,
    divergence,
    log_probabilities,
    usage_of,
)
from ondevice.holding.stack.pack import pack
from ondevice.holding.stack.stack import Stack
from ondevice.llama import Context, EvalHook, Model, dequantize
from ondevice.system.cores import default_threads

sys.path.append(str(Path(__file__).parent.parent / "tests" / "support"))
import synthetic_moe as moe

Floats = npt.NDArray[np.float32]

MODELS = {
    "135m": "smollm2-135m-instruct-q4_1.gguf",
    "05b": "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    "15b": "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
}
QUANTS = {"Q2_K": 10, "Q3_K_M": 12, "Q4_K_M": 15, "Q5_K_M": 17}  # llama.cpp's numbers
LEVELS = (2, 3, 4)  # blocks of BitStack in each linear layer
TEXTS = ("memory.txt", "readme.txt", "python.txt", "c.txt")  # in texts/: prose and code of ours
CHAT = "month.json"
F16 = 1
TEXT_TOKENS = 256  # at once
CURVE_TEXTS = 4  # on which the curve is measured
RESIZED = 100_000_000  # bytes
N_DECODE = 24
MIXTURE_TOKENS = 200
WORST: dict[str, Callable[[Iterable[float]], float]] = {
    "kl_vs_kquant_max": max,
    "kl_vs_bitstack_max": max,
    "step_mb_max": max,
    "kl_rise_max": max,
    "streamed_identical": min,
    "decode_ratio": min,
    "prefill_ratio": min,
    "resize_down_ms": max,
    "resize_up_ratio": max,
    "check_pct": max,
    "pack_minutes": max,
    "pack_rss_mb": max,
    "mixture_vs_ram": min,
    "mixture_read_share": max,
    "mixture_cut_vs_whole": min,
}


def measure(quick: bool) -> tuple[frame.Figures, frame.Runs]:
    llama.start(io.StringIO())
    names = dict(list(MODELS.items())[: 1 if quick else 3])
    runs: frame.Runs = []
    found = {path.name: path for path in frame.models(*names.values())}
    for label, name in names.items():
        if name in found:
            with tempfile.TemporaryDirectory(prefix="ondevice-bench-") as folder:
                runs.append({"model": label, **one_model(found[name], Path(folder), quick)})
            frame.say(json.dumps(runs[-1]))
    with tempfile.TemporaryDirectory(prefix="ondevice-bench-") as folder:
        runs.append({"model": "mixture", **mixture(Path(folder), 2 if quick else 4)})
    figures = {
        figure: worst(values)
        for figure, worst in WORST.items()
        if (values := [run[figure] for run in runs if figure in run])
    }
    return figures, runs


def one_model(path: Path, folder: Path, quick: bool) -> dict[str, float]:
    source, target = folder / "source.gguf", folder / "stack.gguf"
    frame.say(f"{path.name}: making a source off the grid")
    off_grid(path, source)
    frame.say("packing")
    run = packing(source, target)
    stack = Stack(gguf.read(target))
    model = stack.load_model()
    context = open_context(model, stack)
    run |= speeds(context, stack, source)
    run |= resizing(stack)
    run |= checking(stack)
    texts = batches(source, 512 if quick else 4096)
    wanted = log_probabilities(context, texts[0][:32])
    run["streamed_identical"] = float(np.array_equal(streamed(target, texts[0][:32]), wanted))
    run |= divergences(context, stack, source, texts, 6 if quick else 12)
    context.close()
    model.close()
    stack.close()
    return run


def divergences(
    context: Context, stack: Stack, source: Path, texts: list[list[int]], n_points: int
) -> dict[str, float]:
    """Of the stack at ``n_points`` sizes, of K-quants and of BitStack's blocks; what they make."""
    file, folder = stack.file, source.parent
    frame.say(f"the curve, on {sum(map(len, texts))} tokens")
    reference = probabilities(source, texts)

    def divergence_of(others: Iterable[Floats]) -> float:
        return frame.mean(divergence(*pair) for pair in zip(reference, others, strict=False))

    def diverges(blocks: Sequence[Block], n_texts: int | None = None) -> float:
        stack.products.use(blocks)
        return divergence_of(log_probabilities(context, tokens) for tokens in texts[:n_texts])

    sizes = [file.base_end, *(block.end for block in file.blocks)]
    run = {"step_mb_max": float(np.max(np.diff(sizes))) / 1e6}
    counts = np.linspace(0, len(file.blocks), n_points).astype(int)
    curve = [diverges(file.blocks[:count], CURVE_TEXTS) for count in counts]
    run["kl_rise_max"] = max(b / a for a, b in pairwise(curve))
    frame.say(
        f"from {curve[0]:.4g} to {curve[-1]:.4g}, rising at most {run['kl_rise_max']:.3f} times"
    )
    run |= {f"curve_{sizes[n] // 1_000_000}mb": kl for n, kl in zip(counts, curve, strict=True)}
    usage = usage_of(gguf.read(source), default_text(), default_threads(), lambda _: None)
    ratios = []
    ours_at: dict[int, float] = {}  # bytes → the stack's divergence
    for kind, number in QUANTS.items():
        for label, importance in ((kind, None), (f"{kind}_imatrix", usage)):
            quant = folder / f"{label}.gguf"
            quantize(source, quant, number, importance)
            size = quant.stat().st_size
            theirs = divergence_of(probabilities(quant, texts))
            if size not in ours_at:
                ours_at[size] = diverges([block for block in file.blocks if block.end <= size])
            ours = ours_at[size]
            frame.say(f"{label}, {size / 1e6:.0f} MB: {theirs:.4g}, the stack: {ours:.4g}")
            run |= {f"{label}_mb": size / 1e6, f"{label}_kl": theirs, f"{label}_stack_kl": ours}
            ratios.append(ours / theirs)
            quant.unlink()
    run["kl_vs_kquant_max"] = max(ratios)
    ratios = []
    for level, n_bytes, approximated in bitstack.write(gguf.read(source), usage, LEVELS, folder):
        theirs = divergence_of(probabilities(approximated, texts))
        ours = diverges(of_linears(file, n_bytes))
        frame.say(f"{level} blocks of BitStack: {theirs:.4g}, the stack: {ours:.4g}")
        run |= {f"bitstack_{level}_kl": theirs, f"bitstack_{level}_stack_kl": ours}
        ratios.append(ours / theirs)
    run["kl_vs_bitstack_max"] = max(ratios)
    return run


def packing(source: Path, target: Path) -> dict[str, float]:
    program = (
        "import sys; from ondevice.cli import run; "
        "code = run(['pack', sys.argv[1], '-o', sys.argv[2], '--json']); sys.exit(code)"
    )
    started = time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    subprocess.run(
        [sys.executable, "-c", program, str(source), str(target)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    minutes = (time.perf_counter() - started) / 60
    return {"pack_minutes": minutes} | ({"pack_rss_mb": peak / 1000} if peak > before else {})


def of_linears(file: StackFile, n_bytes: int) -> list[Block]:
    """All blocks of embeddings and head, and of the linear layers as many as take so much."""
    left = n_bytes - sum(m.base.n_bytes for name, m in file.matrices.items() if is_linear(name))
    chosen = []
    for block in file.blocks:
        if is_linear(block.id.matrix):
            left -= block.tensor.n_bytes
            if left < 0:
                continue
        chosen.append(block)
    return chosen


def is_linear(name: str) -> bool:
    return name.startswith("blk.")


def streamed(path: Path, tokens: list[int]) -> Floats:
    """What the whole stack computes with as little as possible of it in RAM."""
    stack = Stack(gguf.read(path), StackFile.of(gguf.read(path)).least_whole_bytes, whole=True)
    model = stack.load_model()
    context = open_context(model, stack)
    try:
        return log_probabilities(context, tokens)
    finally:
        context.close()
        model.close()
        stack.close()


# ------------------------------------------------------------------------- the sources


def off_grid(path: Path, target: Path) -> None:
    """Write the model as F16, each weight moved at random by up to half a quantization step."""
    random = np.random.default_rng(7)
    file = gguf.read(path)
    entries = [
        TensorEntry(t.name, t.shape, F16, 2 * math.prod(t.shape))
        if len(t.shape) > 1
        else TensorEntry(t.name, t.shape, t.type, t.n_bytes)
        for t in file.tensors.values()
    ]
    n_keys, keys = writing.raw_keys(file)
    infos, _ = writing.tensor_infos(entries, 32)
    with target.open("wb") as out, path.open("rb") as source:
        out.write(writing.header(len(entries), n_keys, keys, infos, 32))
        for tensor in file.tensors.values():
            source.seek(tensor.offset)
            data = source.read(tensor.n_bytes)
            if len(tensor.shape) > 1:
                weights = dequantize(data, tensor.type, tensor.shape[0]).reshape(-1, 32)
                data = moved(weights, random).astype(np.float16).tobytes()
            out.write(data)
            out.write(bytes(-out.tell() % 32))


def moved(weights: npt.NDArray[np.float32], random: np.random.Generator) -> npt.NDArray[np.float32]:
    """Each of 32 neighbours has the same step: the least distance between two of them."""
    gaps = np.diff(np.sort(weights, axis=1), axis=1)
    least = np.abs(weights).max(axis=1, keepdims=True) * 1e-6 + 1e-12
    steps = np.where(gaps > least, gaps, np.inf).min(axis=1, keepdims=True)
    steps[~np.isfinite(steps)] = 0
    shifted: npt.NDArray[np.float32] = (
        weights + (random.random(weights.shape, np.float32) - 0.5) * steps
    )
    return shifted


def quantize(source: Path, target: Path, number: int, usage: Usage | None) -> None:
    """With the importance of the columns, if ``usage`` is given, as an importance matrix."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = number
    if usage is not None:
        importances = {
            tensor.name: usage.importance(tensor.name, tensor.shape[0])
            for tensor in gguf.read(source).tensors.values()
            if usage.fits(tensor.name)
        }
        entries = (llama_cpp.llama_model_imatrix_data * (len(importances) + 1))()
        for entry, (name, importance) in zip(entries, importances.items(), strict=False):
            entry.name, entry.size = name.encode(), len(importance)
            entry.data = importance.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        params.imatrix = entries
    status = llama_cpp.llama_model_quantize(bytes(source), bytes(target), ctypes.byref(params))
    if status:
        sys.exit(f"llama.cpp could not quantize {source} (status {status})")


def batches(source: Path, n_tokens: int) -> list[list[int]]:
    """As many tokens of a conversation as of each text of prose and code, none of them in what
    stacks are calibrated with; in pieces, of different kinds in turn."""
    root = Path(__file__).parent
    said = [text for _, text in json.loads((root / CHAT).read_text("utf-8"))["turns"]]
    chat = "".join(
        f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
        for question, answer in pairwise(said)
    )
    model = Model(source, use_extra_bufts=False)
    texts = [chat, *((root / "texts" / name).read_text("utf-8") for name in TEXTS)]
    tokens = [model.tokenize(text, parse_special=True) for text in texts]
    model.close()
    starts = range(0, n_tokens // len(texts) + TEXT_TOKENS, TEXT_TOKENS)
    pieces = [one[at : at + TEXT_TOKENS] for at in starts for one in tokens]
    return [piece for piece in pieces if len(piece) > 1][: n_tokens // TEXT_TOKENS]


def open_context(model: Model, stack: Stack | None = None) -> Context:
    """One that gives the logits of a whole text at once."""
    return Context(
        model,
        n_ctx=1024,
        max_outputs=TEXT_TOKENS,
        eval_hook=EvalHook(stack) if stack else None,
    )


def probabilities(path: Path, texts: list[list[int]]) -> list[Floats]:
    model = Model(path, use_extra_bufts=False)
    context = open_context(model)
    try:
        return [log_probabilities(context, tokens) for tokens in texts]
    finally:
        context.close()
        model.close()


# -------------------------------------------------------------------------------- speed


def speeds(context: Context, stack: Stack, source: Path) -> dict[str, float]:
    """Decode and prefill of the stack at the bytes of the Q4_K_M, as parts of its speed."""
    quant = source.with_name("speed.gguf")
    quantize(source, quant, QUANTS["Q4_K_M"], None)
    size = quant.stat().st_size
    frame.say(f"decode and prefill at {size / 1e6:.0f} MB")
    stack.products.use([block for block in stack.file.blocks if block.end <= size])
    ratios = []
    for repacked in (True, False):
        model = Model(quant, use_extra_bufts=repacked)
        theirs = Context(model, n_ctx=1024)
        ratios += [(speed(context), speed(theirs)) for _ in range(3)]
        theirs.close()
        model.close()
    quant.unlink()
    stack.products.use(stack.file.blocks)
    best = [
        max(frame.median(b[i] for _, b in ratios[at : at + 3]) for at in (0, 3)) for i in (0, 1)
    ]
    ours = [frame.median(a[i] for a, _ in ratios) for i in (0, 1)]
    return {
        "prefill_ratio": ours[0] / best[0],
        "decode_ratio": ours[1] / best[1],
        "prefill_per_second": ours[0],
        "decode_per_second": ours[1],
    }


def speed(context: Context) -> tuple[float, float]:
    """Tokens a second: of a prompt of 512, then one by one."""
    tokens = (context.model.tokenize("The sea was calm and the boat lay at the quay. ") * 60)[:512]
    context.truncate(0)
    prefill = timed(lambda: context.decode(tokens))
    context.truncate(64)
    context.decode(tokens[:1])
    context.decode(tokens[:1])
    decode = timed(lambda: [context.decode([token]) for token in tokens[:N_DECODE]])
    return 512 / prefill, N_DECODE / decode


def mixture(folder: Path, n_blocks: int) -> dict[str, float]:
    """Of random weights in the shape of a real one, of which only so many blocks are there."""
    shape = replace(moe.LARGE, n_blocks=n_blocks)
    source, target = folder / "moe.gguf", folder / "moe.stack.gguf"
    frame.say("a mixture of experts: packing")
    moe.write(source, shape, speaks=True)
    pack(source, target, calibration=default_text()[:200])
    file = StackFile.of(gguf.read(target))
    base, most = file.ram_bytes[file.n_base - 1], file.ram_bytes[-1]
    cut = file.cut(file.fitting(base + (most - base) // 4))
    ways: dict[str, tuple[int, StackFile]] = {
        "resident": (most, file),
        "half": (most // 2, file),
        "whole": (most * 4 // 10, file),
        "cut": (most * 4 // 10, cut),
    }
    speeds: dict[str, list[float]] = {name: [] for name in ways}
    read_share = 0.0
    for name, (budget, some) in [*ways.items()] * 3:
        is_whole = some is file
        stack = Stack(file.gguf, budget, whole=is_whole, cut=None if is_whole else some)
        model = stack.load_model()
        context = open_context(model, stack)
        tokens = moe.text(MIXTURE_TOKENS, shape)
        context.decode(tokens[: MIXTURE_TOKENS // 2])
        before, left = stack.statistics(), tokens[MIXTURE_TOKENS // 2 :]
        seconds = timed(partial(one_by_one, context, left))
        speeds[name].append(len(left) / seconds)
        if name == "half":
            done = stack.statistics().since(before)
            read_share = done.bytes_read / len(left) / stack.absent_bytes
        context.close()
        model.close()
        stack.close()
    medians = {name: frame.median(each) for name, each in speeds.items()}
    return {
        "mixture_vs_ram": medians["half"] / medians["resident"],
        "mixture_read_share": read_share,
        "mixture_cut_vs_whole": medians["cut"] / medians["whole"],
    }


def one_by_one(context: Context, tokens: list[int]) -> None:
    for token in tokens:
        context.decode([token])


def resizing(stack: Stack) -> dict[str, float]:
    """Milliseconds to give 100 MB back, and the time to have them again as a part of a read's."""
    file = stack.file
    most = file.ram_bytes[-1]
    if most - file.ram_bytes[file.n_base - 1] < RESIZED:
        return {}
    downs, ups = [], []
    for _ in range(5):
        downs.append(timed(lambda: stack.resize(most - RESIZED)))
        added = [b.tensor for b in file.blocks[stack.n_blocks :] if b.id.matrix not in file.tables]
        n_bytes = sum(tensor.n_bytes for tensor in added)
        up = timed(lambda: stack.resize(None))
        read = timed(partial(read_direct, file.gguf.path, file.gguf.file_bytes - n_bytes, n_bytes))
        ups.append(up / read)
    return {"resize_down_ms": frame.median(downs) * 1e3, "resize_up_ratio": frame.median(ups)}


def checking(stack: Stack) -> dict[str, float]:
    """Percent by which checksums, looked at when blocks are read first, make that slower.

    By the byte: what stays on the disk, tables, is read only to be checked.
    """
    file = stack.file
    least = file.ram_bytes[file.n_base - 1]
    n_bytes = sum(block.tensor.n_bytes for block in file.blocks)
    ratios = []
    for _ in range(9):
        stack.resize(least)
        again = timed(lambda: stack.resize(None)) / (file.ram_bytes[-1] - least)
        fresh = Stack(file.gguf, least)
        ratios.append(timed(partial(fresh.resize, None)) / n_bytes / again)
        fresh.close()
    return {"check_pct": (frame.median(ratios) - 1) * 100}


def read_direct(path: Path, start: int, n_bytes: int) -> None:
    """Read as fast as this disk allows, past the page cache."""
    reader = Reader([path])
    span = Span.around(0, start, n_bytes)
    reader.start(span, Arena(span.n_bytes).view).wait()
    reader.close()


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


if __name__ == "__main__":
    frame.run(__doc__, measure)
