"""A model larger than the RAM limit: the window, with and without drafts, against stock llama.cpp.

Every run is a process of its own under a memory limit that counts the page cache, and starts with
none of the model cached. Stock llama.cpp maps the file; it gets the same context, threads, prompt
and greedy sampling. All else computes with our products: "resident" is that without a window. Runs
alternate; a ratio is one of medians. The drafter is packed into a stack first, which takes some
minutes. Needs root or systemd-run.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import frame
import msgspec

from ondevice import llama
from ondevice.disk.reader import Arena
from ondevice.engine._drafting import Drafter, PromptLookup, Speculation
from ondevice.engine._loading import load_model
from ondevice.holding.stack.pack import pack
from ondevice.holding.window.window import Window
from ondevice.llama import Context, EvalHook, Model, Sampler
from ondevice.messages import Load, Sampling
from ondevice.products import handlers
from ondevice.ram.limit import limited

MODEL = "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"
DRAFTER = "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf"
LIMITS = {"600mb": 600_000_000, "800mb": 800_000_000}
N_CTX = 1024
RESERVE = 20_000_000  # bytes: files in the page cache that nobody plans

CODE = [
    "def quicksort(numbers):\n    if len(numbers) < 2:\n        return numbers\n",
    "class Stack:\n    def __init__(self):\n        self.items = []\n\n    def push(self, item):\n",
    "import csv\n\ndef read_rows(path):\n    with open(path) as file:\n",
    "def test_add():\n    assert add(1, 2) == 3\n\n\ndef test_subtract():\n",
    "SELECT name, count(*) FROM orders\nJOIN customers ON",
    "async function fetchUser(id) {\n  const response = await",
    "#include <stdio.h>\n\nint main(void) {\n",
    "def binary_search(items, wanted):\n    low, high =",
    "package main\n\nimport (\n",
    "impl Iterator for Fibonacci {\n",
]
_CHAT = [
    "Why is the sky blue?",
    "Explain to a child how a bicycle stays upright.",
    "What should I see on two days in Lisbon?",
    "Write a short letter that declines an invitation.",
    "Give me three reasons to learn a musical instrument.",
    "What is the difference between weather and climate?",
    "How do I get red wine out of a carpet?",
    "Summarise the story of Odysseus in five sentences.",
    "What makes bread rise?",
    "Suggest a name for a small bakery by the sea.",
]
CHAT = [f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n" for text in _CHAT]
LONG = "The sea was calm and the old boat lay at the quay. " * 60


# ------------------------------------------------------- in the process under the limit


def child(task: dict[str, Any]) -> None:
    """Do one run and print its figures as JSON."""
    llama.start(open(os.devnull, "w"))  # noqa: SIM115, PTH123 - for the life of the process
    path = Path(task["model"])
    with opened(task, path) as (context, window, drafters):
        names = [type(drafter).__name__ for drafter in drafters]
        result: dict[str, Any] = {"replies": [], "drafters": names}
        if window is not None:
            result["resident"] = window.placement.resident_bytes
            result["streamed"] = window.placement.streamed_bytes
        if task.get("long_prompt"):
            tokens = context.model.tokenize(LONG)[:512]
            started = time.perf_counter()
            context.decode(tokens)
            result["first_token_seconds"] = time.perf_counter() - started
            context.truncate(0)
        with nullcontext() if task["variant"] == "stock" else llama.Waiting():
            for prompt in task["prompts"]:
                said = reply(context, window, drafters, prompt, task["n_tokens"])
                result["replies"].append(said)
    print(json.dumps(result))


@contextmanager
def opened(
    task: dict[str, Any], path: Path
) -> Iterator[tuple[Context, Window | None, list[Drafter]]]:
    """The context of a variant, ready to run, and what drafts in the app."""
    if task["variant"] in ("stock", "resident"):
        hook = EvalHook(*handlers(None)) if task["variant"] == "resident" else None
        yield Context(Model(path, use_extra_bufts=False), n_ctx=N_CTX, eval_hook=hook), None, []
        return
    request = Load(path=str(path), n_ctx=N_CTX, kv_type="f16", ram=task["limit"] - RESERVE)
    drafts = task["variant"] == "drafted"
    if drafts:
        request = msgspec.structs.replace(request, drafter=task["drafter"])
    held = load_model(request, lambda _: None, threading.Event())
    assert isinstance(held.weights, Window)
    found = [PromptLookup(), held.drafter] if drafts else []
    yield held.context, held.weights, [drafter for drafter in found if drafter is not None]


def reply(
    context: Context,
    window: Window | None,
    drafters: Sequence[Drafter],
    prompt: str,
    n_tokens: int,
) -> dict[str, Any]:
    model = context.model
    sampler = Sampler(model, Sampling(temperature=0), 0, None)
    context.truncate(0)
    started = time.perf_counter()
    context.decode(model.tokenize(prompt, parse_special=True))
    tokens = [sampler.sample_from(context.logits())]
    first = time.perf_counter()
    warm_up = 2  # passes until graphs and order of use are known
    speculation = Speculation(context, *drafters) if drafters else None
    before = window.statistics() if window else None
    counted = passes = 0
    begun = first
    while len(tokens) < n_tokens:
        if passes == warm_up:
            begun, counted = time.perf_counter(), len(tokens)
            before = window.statistics() if window else None
        if speculation:
            tokens += speculation.decode(tokens[-1], sampler, n_tokens - len(tokens))
        else:
            context.decode(tokens[-1:])
            tokens.append(sampler.sample_from(context.logits()))
        passes += 1
    seconds = time.perf_counter() - begun
    sampler.close()
    result: dict[str, Any] = {
        "prompt": prompt,
        "tokens": tokens,
        "per_second": (len(tokens) - counted) / seconds,
        "prompt_seconds": first - started,
        "passes": passes - warm_up,
    }
    if window is not None and before is not None:
        done = window.statistics().since(before)
        result["bytes_per_pass"] = done.bytes_read / (passes - warm_up)
        if streamed := window.placement.streamed_bytes:
            result["bytes_read_ratio"] = result["bytes_per_pass"] / streamed
        result["disk_bytes_per_second"] = done.bytes_read / seconds
        result["wait_share"] = done.wait_ms / 1e3 / seconds
    if speculation:
        result["tokens_per_pass"] = (len(tokens) - counted) / max(passes - warm_up, 1)
    return result


# ------------------------------------------------------------------------- the parent


def run(task: dict[str, Any], limit: int | None = None) -> dict[str, Any]:
    """One run in a process of its own, with nothing of the models in the page cache."""
    answer = in_process("window", task, limit, task["model"], task["drafter"])
    return {"variant": task["variant"], "limit": task["limit"]} | answer


def in_process(
    module: str, task: dict[str, Any], limit: int | None, *files: str | Path
) -> dict[str, Any]:
    """What ``module.child(task)`` prints, run with ``limit`` bytes of RAM and without ``files``
    in the page cache."""
    for path in files:
        if hasattr(os, "posix_fadvise"):
            with Path(path).open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    script = f"import sys, json, {module}; {module}.child(json.loads(sys.argv[1]))"
    command = [sys.executable, "-c", script, json.dumps(task)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    }
    with limited(command, limit) if limit else nullcontext(command) as line:
        done = subprocess.run(line, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def disk_rate(path: Path) -> float:
    """Bytes a second of plain large direct reads into memory that is there: the best of a few."""
    return max(_disk_rate(path, *way) for way in ((1, 32 << 20), (2, 32 << 20), (3, 4 << 20)))


def _disk_rate(path: Path, n_threads: int, n_bytes: int) -> float:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    size = path.stat().st_size // n_bytes * n_bytes
    arena = Arena(n_threads * n_bytes)  # in huge pages, which makes reads twice as fast
    arena.view[:] = bytes(arena.n_bytes)
    buffers = [arena.view[at : at + n_bytes] for at in range(0, arena.n_bytes, n_bytes)]
    offsets = iter(range(0, size, n_bytes))
    lock = threading.Lock()

    def work(buffer: memoryview) -> None:
        while True:
            with lock:
                offset = next(offsets, None)
            if offset is None:
                return
            os.preadv(fd, [buffer], offset)

    threads = [threading.Thread(target=work, args=(buffer,)) for buffer in buffers]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    rate = size / (time.perf_counter() - started)
    os.close(fd)
    return rate


def measure(quick: bool) -> tuple[frame.Figures, frame.Runs]:
    found = {path.name: path for path in frame.models(MODEL, DRAFTER)}
    if len(found) < 2:
        return {}, []
    with tempfile.TemporaryDirectory(prefix="ondevice-") as folder:
        drafter = Path(folder) / "drafter.stack.gguf"
        frame.say("packing the drafter, which takes some minutes")
        pack(found[DRAFTER], drafter)
        return _measure(quick, found[MODEL], drafter)


def _measure(quick: bool, model: Path, drafter: Path) -> tuple[frame.Figures, frame.Runs]:
    rounds, n_prompts, n_stock, n_ours = (1, 2, 6, 48) if quick else (3, 5, 16, 64)
    prompts = [*CODE[:n_prompts], *CHAT[:n_prompts]]
    runs: frame.Runs = []

    def add(variant: str, limit: int | None, n_tokens: int, **more: Any) -> None:
        frame.say(f"{variant}, {limit / 1e6:.0f} MB" if limit else variant)
        task: dict[str, Any] = {"model": str(model), "drafter": str(drafter), "prompts": prompts}
        # What is to be pinned must fit, where nothing limits the process.
        task |= {"variant": variant, "limit": limit or 4 << 30, "n_tokens": n_tokens}
        runs.append(run(task | more, limit))

    for _ in range(rounds):
        for limit in LIMITS.values():
            add("stock", limit, n_stock, prompts=prompts[::n_prompts])
            before = disk_rate(model)  # the disk is shared: its rate varies
            add("plain", limit, n_ours, long_prompt=True, prompts=prompts[::n_prompts])
            runs[-1]["disk"] = (before + disk_rate(model)) / 2
            add("drafted", limit, n_ours)
        add("resident", None, n_ours, long_prompt=True)
        add("plain", None, n_ours)
    if not quick:  # twenty replies of 200 tokens
        for variant, most in (("resident", None), ("drafted", LIMITS["800mb"])):
            add(variant, most, 200, prompts=[*CODE, *CHAT])
    return figures_of(runs), runs


def figures_of(runs: frame.Runs) -> frame.Figures:
    def replies(variant: str, limit: int | None, kind: list[str] | None = None) -> frame.Runs:
        return [
            reply
            for run in runs
            if (run["variant"], run["limit"]) == (variant, limit or 4 << 30)
            for reply in run["replies"]
            if kind is None or reply["prompt"] in kind
        ]

    def median(found: frame.Runs, key: str = "per_second") -> float:
        return frame.median(reply[key] for reply in found)

    def first_token(variant: str, limit: int | None) -> float:
        return frame.median(
            run["first_token_seconds"]
            for run in runs
            if (run["variant"], run["limit"]) == (variant, limit or 4 << 30)
            and "first_token_seconds" in run
        )

    streaming = [run for run in runs if "disk" in run]
    disk = frame.median(run["disk"] for run in streaming)
    figures = {"disk_bytes_per_second": disk}
    resident = {
        (reply["prompt"], len(reply["tokens"])): reply["tokens"]
        for reply in replies("resident", None)
    }
    ours: frame.Runs = []
    plain: frame.Runs = []
    for label, limit in LIMITS.items():
        stock = median(replies("stock", limit))
        figures[f"stock_per_second_{label}"] = stock
        for variant in ("plain", "drafted"):
            found = replies(variant, limit)
            ours += found
            figures[f"{variant}_per_second_{label}"] = median(found)
            figures[f"{variant}_vs_stock_{label}"] = median(found) / stock
        for kind, texts in (("code", CODE), ("chat", CHAT)):
            found = replies("drafted", limit, texts)
            figures[f"drafted_{kind}_vs_stock_{label}"] = median(found) / stock
            figures[f"drafted_{kind}_tokens_per_pass_{label}"] = median(found, "tokens_per_pass")
        plain += replies("plain", limit)
        streamed = next(
            run["streamed"] for run in runs if (run["variant"], run["limit"]) == ("plain", limit)
        )
        floor = max(streamed / disk, first_token("resident", None))
        figures[f"ttft_ratio_{label}"] = first_token("plain", limit) / floor
    figures["disk_efficiency"] = frame.median(
        reply["disk_bytes_per_second"] / run["disk"]
        for run in streaming
        for reply in run["replies"]
    )
    figures["bytes_read_ratio"] = median(plain, "bytes_read_ratio")
    figures["wait_share"] = median(plain, "wait_share")
    figures["identical_fraction"] = statistics.mean(
        reply["tokens"] == resident[reply["prompt"], len(reply["tokens"])] for reply in ours
    )
    figures["hook_ratio"] = median(replies("plain", None)) / median(replies("resident", None))
    return figures


if __name__ == "__main__":
    frame.run(__doc__, measure)
