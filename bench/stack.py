"""Stacks against K-quants of the same bytes: divergence, speed, resizing, packing.

Only quantized files are at hand, and a quant of the same type would be found again exactly. So an
F16 source off the grid is made first: dequantized, with even noise within half a step, seeded. The
stack and all K-quants (without importance matrix) are made of it, and compared with it on texts
that calibration has not seen. ``kl_vs_kquant_max``: at the bytes of each K-quant, the stack's
divergence as a part of its own; the worst.
"""

from __future__ import annotations

import ctypes
import io
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import frame
import llama_cpp
import numpy as np
import numpy.typing as npt

from ondevice import llama
from ondevice.llama import Context, EvalHook, Model, dequantize
from ondevice.stack import Stack, StackFile, _layout
from ondevice.stack._calibrate import divergence, log_probabilities
from ondevice.stack._layout import Entry
from ondevice.weights import gguf

MODELS = {
    "135m": "smollm2-135m-instruct-q4_1.gguf",
    "05b": "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    "15b": "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
}
QUANTS = {"Q2_K": 10, "Q3_K_M": 12, "Q4_K_M": 15, "Q5_K_M": 17}  # llama.cpp's numbers
TEXTS = ("docs/memory.md", "docs/models.md", "ondevice/weights/window.py", "README.md")
F16 = 1
TEXT_TOKENS = 256  # at once
RESIZED = 100_000_000  # bytes
N_DECODE = 24


def measure(quick: bool) -> tuple[frame.Figures, frame.Runs]:
    llama.start(io.StringIO())
    names = dict(list(MODELS.items())[: 1 if quick else 3])
    figures: frame.Figures = {}
    runs: frame.Runs = []
    found = {path.name: path for path in frame.models(*names.values())}
    for label, name in names.items():
        if name in found:
            with tempfile.TemporaryDirectory(prefix="ondevice-bench-") as folder:
                runs.append({"model": label, **one_model(found[name], Path(folder), quick)})
    for figure, worst in (
        ("kl_vs_kquant_max", max),
        ("step_mb_max", max),
        ("kl_rise_max", max),
        ("decode_ratio", min),
        ("prefill_ratio", min),
        ("resize_down_ms", max),
        ("resize_up_ratio", max),
        ("pack_minutes", max),
        ("pack_rss_mb", max),
    ):
        if values := [run[figure] for run in runs if figure in run]:
            figures[figure] = worst(values)
    return figures, runs


def one_model(path: Path, folder: Path, quick: bool) -> dict[str, float]:
    n_tokens = 256 if quick else 4096
    source = folder / "source.gguf"
    frame.say(f"{path.name}: making a source off the grid")
    off_grid(path, source)
    frame.say("packing")
    run: dict[str, float] = {}
    target = folder / "stack.gguf"
    program = (
        "import sys; from ondevice.cli import run; "
        "code = run(['pack', sys.argv[1], '-o', sys.argv[2], '--json']); sys.exit(code)"
    )
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", program, str(source), str(target)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    run["pack_minutes"] = (time.perf_counter() - started) / 60
    run["pack_rss_mb"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
    texts = batches(source, n_tokens)
    reference = [probabilities(source, tokens) for tokens in texts]
    file = StackFile.of(gguf.read(target))
    sizes = [file.base_end, *(block.end for block in file.blocks)]
    run["step_mb_max"] = float(np.diff(sizes).max()) / 1e6
    stack = Stack(file.gguf)
    model = stack.load_model()
    context = Context(model, n_ctx=1024, eval_hook=EvalHook(stack))

    def diverges(budget: int | None) -> float:
        stack.resize(budget)
        return float(
            np.mean(
                [
                    divergence(wanted, log_probabilities(context, tokens))
                    for wanted, tokens in zip(reference, texts, strict=True)
                ]
            )
        )

    ratios = []
    for kind, number in QUANTS.items():
        quant = folder / f"{kind}.gguf"
        quantize(source, quant, number)
        size = quant.stat().st_size
        frame.say(f"comparing with {kind}, {size / 1e6:.0f} MB")
        theirs = float(
            np.mean(
                [
                    divergence(wanted, probabilities(quant, tokens))
                    for wanted, tokens in zip(reference, texts, strict=True)
                ]
            )
        )
        ours = diverges(min(size, file.gguf.file_bytes))
        run |= {f"{kind}_mb": size / 1e6, f"{kind}_kl": theirs, f"{kind}_stack_kl": ours}
        ratios.append(ours / theirs)
        if kind == "Q4_K_M":
            run |= speeds(context, quant)
        quant.unlink()
    run["kl_vs_kquant_max"] = max(ratios)
    points = np.linspace(file.base_end + 4096, file.gguf.file_bytes, 6 if quick else 16).astype(int)
    curve = [diverges(int(point)) for point in points]
    run["kl_rise_max"] = max(b / a for a, b in pairwise(curve))
    run |= {f"curve_{size // 1_000_000}mb": kl for size, kl in zip(points, curve, strict=True)}
    run |= resizing(stack)
    context.close()
    model.close()
    stack.close()
    return run


# ------------------------------------------------------------------------- the sources


def off_grid(path: Path, target: Path) -> None:
    """Write the model as F16, each weight moved at random by up to half a quantization step."""
    random = np.random.default_rng(7)
    file = gguf.read(path)
    entries = [
        Entry(t.name, t.shape, F16, 2 * math.prod(t.shape))
        if len(t.shape) > 1
        else Entry(t.name, t.shape, t.type, t.n_bytes)
        for t in file.tensors.values()
    ]
    n_keys, keys = _layout.raw_keys(file)
    infos, _ = _layout.tensor_infos(entries, 32)
    with target.open("wb") as out, path.open("rb") as source:
        out.write(_layout.header(len(entries), n_keys, keys, infos, 32))
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
    return weights + (random.random(weights.shape, np.float32) - 0.5) * steps


def quantize(source: Path, target: Path, number: int) -> None:
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = number
    status = llama_cpp.llama_model_quantize(bytes(source), bytes(target), ctypes.byref(params))
    if status:
        sys.exit(f"llama.cpp could not quantize {source} (status {status})")


def batches(source: Path, n_tokens: int) -> list[list[int]]:
    """Prose and code that calibration has not seen, and a conversation made of it."""
    root = Path(__file__).parents[1]
    text = "\n".join((root / name).read_text("utf-8") for name in TEXTS)
    model = Model(source, use_extra_bufts=False)
    chat = f"<|im_start|>user\nWhat is this?\n{text[:2000]}<|im_end|>\n<|im_start|>assistant\n"
    tokens = model.tokenize(chat + text, parse_special=True)[:n_tokens]
    model.close()
    return [tokens[at : at + TEXT_TOKENS] for at in range(0, len(tokens), TEXT_TOKENS)]


def probabilities(path: Path, tokens: list[int]) -> npt.NDArray[np.float32]:
    model = Model(path, use_extra_bufts=False)
    context = Context(model, n_ctx=TEXT_TOKENS)
    try:
        return log_probabilities(context, tokens)
    finally:
        context.close()
        model.close()


# -------------------------------------------------------------------------------- speed


def speeds(context: Context, quant: Path) -> dict[str, float]:
    """Decode and prefill of the stack as it is, as parts of those of the K-quant."""
    model = Model(quant)
    theirs = Context(model, n_ctx=1024)
    pairs = [(speed(context), speed(theirs)) for _ in range(3)]
    theirs.close()
    model.close()
    return {
        "prefill_ratio": frame.median(a[0] / b[0] for a, b in pairs),
        "decode_ratio": frame.median(a[1] / b[1] for a, b in pairs),
        "prefill_per_second": frame.median(a[0] for a, _ in pairs),
        "decode_per_second": frame.median(a[1] for a, _ in pairs),
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


def resizing(stack: Stack) -> dict[str, float]:
    """Milliseconds to give 100 MB back, and the time to have them again as a part of a read's."""
    whole = stack.file.gguf.file_bytes
    if whole - stack.file.base_end < RESIZED + 8192:
        return {}
    stack.resize(None)
    down = timed(lambda: stack.resize(whole - RESIZED))
    up = timed(lambda: stack.resize(None))
    read = timed(lambda: read_direct(stack.file.gguf.path, whole - RESIZED))
    return {"resize_down_ms": down * 1e3, "resize_up_ratio": up / read}


def read_direct(path: Path, start: int) -> None:
    """Read to the end as fast as a single thread can, past the page cache."""
    from ondevice.weights.reader import Arena, Reader, Span  # noqa: PLC0415

    reader = Reader([path])
    span = Span.around(0, start, os.path.getsize(path) - start)  # noqa: PTH202
    reader.start(span, Arena(span.n_bytes).view).wait()
    reader.close()


def timed(action: Callable[[], object]) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


if __name__ == "__main__":
    frame.run(__doc__, measure)
