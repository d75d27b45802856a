"""A mixture of experts twice as large as the RAM limit: the window against stock llama.cpp.

The model has random weights and a router with the habits of a trained one
(`tests/support/synthetic_moe.py`). Both get the same text, a prompt and then token by token, in
processes under a memory limit that counts the page cache; runs alternate. The hit rate of the
experts is compared with the best that any cache of that size can do (Belady: evict what is used
again last), and with LRU, on the experts that the router picked. The logits are compared with those
of the model in RAM, token by token, and with those of passes over several tokens, as drafts are
verified. Then drafts are measured: a text is written again with a few tokens changed, as edits are,
and lookup proposes. All but stock computes with our products. Needs 3 GB of disk, and root or
systemd-run.

What is streamed of small random models of other families is counted as well: bytes read for those
that a pass uses, and whose logits are those of the model in RAM, one token after the other and
several at once of which some are taken back.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import frame
import numpy as np
from gguf import GGMLQuantizationType
from window import RESERVE, in_process

from ondevice import gguf, llama
from ondevice.engine._drafting import PromptLookup, Speculation
from ondevice.holding.window.placement import Placements
from ondevice.holding.window.window import Window
from ondevice.llama import Actions, Context, EvalHook, Model, Tensor
from ondevice.products import handlers
from ondevice.ram.need import need

sys.path.append(str(Path(__file__).parent.parent / "tests" / "support"))
import shapes
import synthetic_moe as moe

SHAPE = moe.LARGE
N_CTX = 2048
N_PROMPT = 512
N_WARM = 100  # tokens until the cache is filled
N_VERIFIED = 80  # tokens that are computed several at once as well
N_COPIED = 200  # tokens of a text that is written again


def child(task: dict[str, Any]) -> None:
    """Do one run and print its figures as JSON."""
    llama.start(open(os.devnull, "w"))  # noqa: SIM115, PTH123 - for the life of the process
    path = Path(task["model"])
    if task["variant"] == "family":
        print(json.dumps(family(path)))
        return
    file = gguf.read(path)
    window: Window | None = None
    routes: list[list[list[int]]] = [[] for _ in range(SHAPE.n_blocks)]
    result: dict[str, Any] = {}
    if task["variant"] == "window":
        wants = need(file, N_CTX)
        budget = task["limit"] - RESERVE - (wants.total - wants.weights)
        window = Window(file, budget, handlers=handlers(None))
        context = Context(window.load_model(), n_ctx=N_CTX, eval_hook=window.hook())
        result["slots"] = [block.n_slots for block in window.placement.experts]
        result["resident"] = window.placement.resident_bytes
    else:
        is_stock = task["variant"] == "stock"
        hook = None if is_stock else EvalHook(_Routes(routes), *handlers(None))
        context = Context(Model(path, use_extra_bufts=False), n_ctx=N_CTX, eval_hook=hook)
    text = moe.text(task["n_tokens"], SHAPE, seed=2)
    n_warm = min(N_WARM, len(text) // 2)
    counted = len(text) - n_warm
    logits = hashlib.sha256()
    first_logits = ""  # after N_VERIFIED tokens
    begun, warm = 0.0, None
    for number, token in enumerate(text):
        if number == n_warm:
            begun = time.perf_counter()
            warm = window.statistics() if window else None
        context.decode([token])
        logits.update(context.logits().tobytes())
        if number + 1 == N_VERIFIED:
            first_logits = logits.hexdigest()
    seconds = time.perf_counter() - begun
    result |= {"per_second": counted / seconds, "logits": logits.hexdigest(), "routes": routes}
    if window is not None and warm is not None:
        done = window.statistics()
        result["hit_rate"] = done.experts_found / done.experts_used  # from the first token on
        done = done.since(warm)
        result["bytes_per_token"] = done.bytes_read / counted
        result["wait_share"] = done.wait_ms / 1e3 / seconds
        result["disk_bytes_per_second"] = done.bytes_read / max(done.read_ms / 1e3, 1e-9)
    if window is not None:
        result["verified"] = _verified(context, text[:N_VERIFIED]) == first_logits
        result |= _drafted(context, window)
    if task["prompt"]:
        context.truncate(0)
        begun = time.perf_counter()
        context.decode(moe.text(N_PROMPT, SHAPE, seed=3))
        result["prompt_seconds"] = time.perf_counter() - begun
    print(json.dumps(result))


def family(path: Path) -> dict[str, Any]:
    """What a pass reads of the bytes that it uses, at the least and at half of the budget."""
    file = gguf.read(path)
    placements = Placements(file)
    tokens = list(range(5, 15))
    model = Model(path, use_extra_bufts=False)
    context = Context(model, n_ctx=256, n_threads=1, eval_hook=EvalHook(*handlers(1)))
    expected = [_logits(context, token) for token in tokens]
    context.close()
    model.close()
    ratios, same = [0.0], True
    for share in (0.0, 0.5):
        room = placements.most_bytes - placements.least_bytes
        window = Window(file, placements.least_bytes + int(share * room), handlers=handlers(1))
        model = window.load_model()
        hook = window.hook()
        context = Context(model, n_ctx=256, n_threads=1, eval_hook=hook, keeps_state=True)
        logits = [_logits(context, token) for token in tokens[:3]]  # shows the order of use
        before = window.statistics()
        logits += [_logits(context, token) for token in tokens[3:]]
        done = window.statistics().since(before)
        blocks = window.placement.experts
        experts = sum(each.expert_bytes for block in blocks for each in block.matrices)
        missed = (done.experts_used - done.experts_found) / max(1, len(blocks))
        used = (len(tokens) - 3) * window.placement.streamed_bytes + missed * experts
        ratios += [done.bytes_read / used] if used else []
        same = same and logits == expected and _taken_back(context, tokens) == expected[-7:]
        context.close()
        model.close()
        window.close()
    return {"read_ratio": max(ratios), "identical": same}


def _taken_back(context: Context, tokens: list[int]) -> list[bytes]:
    """The logits of the last 7 tokens in passes over several, as drafts of which some are wrong."""
    context.truncate(0)
    for token in tokens[:-7]:
        context.decode([token])
    if not context.may_verify:
        return [_logits(context, token) for token in tokens[-7:]]
    logits = []
    for at, right, n in ((-7, 2, 5), (-5, 1, 2), (-4, 4, 4)):
        wrong = [1] * (n - right)
        context.decode([*tokens[at:][:right], *wrong], n_outputs=n)
        logits += [context.logits(back).tobytes() for back in range(n, n - right, -1)]
        context.truncate(len(context.tokens) - len(wrong))
    return logits


def _logits(context: Context, token: int) -> bytes:
    context.decode([token])
    return context.logits().tobytes()


def _verified(context: Context, text: list[int]) -> str:
    """What the logits of ``text`` come to, several tokens at once."""
    context.truncate(0)
    logits = hashlib.sha256()
    for at in range(0, len(text), context.most_verified):
        some = text[at : at + context.most_verified]
        context.decode(some, n_outputs=len(some))
        for back in range(len(some), 0, -1):
            logits.update(context.logits(back).tobytes())
    return logits.hexdigest()


def _drafted(context: Context, window: Window) -> dict[str, float]:
    """A text is read, and written again as an edit: how fast with drafts."""
    read, written = moe.text(N_COPIED, SHAPE, seed=4), moe.edited(N_COPIED, SHAPE, seed=4)
    context.truncate(0)
    context.decode(read)
    context.decode(written[:1])  # one token alone must come before drafts
    speculation = Speculation(context, PromptLookup())
    sampler: Any = _Script(written[2:])
    before, begun = window.statistics(), time.perf_counter()
    token, done, passes = written[1], 2, 0
    while done < len(written):
        drawn = speculation.decode(token, sampler, len(written) - done)
        token, done, passes = drawn[-1], done + len(drawn), passes + 1
    seconds = time.perf_counter() - begun
    n_bytes = window.statistics().since(before).bytes_read
    counted = len(written) - 2
    return {
        "drafted_per_second": counted / seconds,
        "drafted_tokens_per_pass": counted / passes,
        "drafted_bytes_per_token": n_bytes / counted,
    }


class _Script:
    """In place of a sampler: the next token is the next one of a text, whatever the logits."""

    def __init__(self, text: list[int]) -> None:
        self._text = iter(text)

    def sample_from(self, _logits: object) -> int:
        return next(self._text)


class _Routes:
    """Notes which experts each token goes to."""

    def __init__(self, routes: list[list[list[int]]]) -> None:
        self._routes = routes

    def inspect(self, node: Tensor) -> Actions | None:
        if node.op_name != "MUL_MAT_ID":
            return None
        weights, _, ids = node.operands()
        if "ffn_up_exps" not in weights.name:
            return None
        route = self._routes[int(weights.name.split(".")[1])]
        return Actions(after=lambda: route.append(ids.integers()))


def hits(routes: list[list[int]], n_slots: int, worth: Callable[[int, int], float]) -> int:
    """How often an expert is found by a cache that evicts the one of least ``worth``.

    ``worth`` gets the number of a token and an expert that is not used at that token.
    """
    cached: set[int] = set()
    found = 0
    for number, experts in enumerate(routes):
        found += len(cached & set(experts))
        cached |= set(experts)
        while len(cached) > n_slots:
            cached.remove(min(cached - set(experts), key=lambda e: worth(number, e)))
    return found


def lru(routes: list[list[int]]) -> Callable[[int, int], float]:
    def worth(number: int, expert: int) -> float:
        return next((n for n in range(number, -1, -1) if expert in routes[n]), -1)

    return worth


def belady(routes: list[list[int]]) -> Callable[[int, int], float]:
    def worth(number: int, expert: int) -> float:
        used = next((n for n in range(number, len(routes)) if expert in routes[n]), len(routes))
        return -used

    return worth


def measure(quick: bool) -> tuple[frame.Figures, frame.Runs]:
    rounds, n_stock, n_tokens = (1, 8, 300) if quick else (3, 16, 600)
    runs: frame.Runs = []
    with tempfile.TemporaryDirectory(prefix="ondevice-") as folder:
        path = Path(folder) / "moe.gguf"
        moe.write(path, SHAPE)
        limit = path.stat().st_size // 2

        def add(variant: str, limit: int | None, n_tokens: int, prompt: bool = True) -> None:
            frame.say(f"{variant}, {limit / 1e6:.0f} MB" if limit else variant)
            task = {"variant": variant, "model": str(path), "limit": limit}
            task |= {"n_tokens": n_tokens, "prompt": prompt}
            runs.append({"variant": variant} | in_process("moe", task, limit, path))

        add("resident", None, n_tokens, prompt=False)
        for _ in range(rounds):
            add("stock", limit, n_stock)
            add("window", limit, n_tokens)
        path.unlink()
        for name in shapes.SHAPES:
            frame.say(f"family: {name}")
            kind, random = GGMLQuantizationType.Q8_0, np.random.default_rng(1)
            small = shapes.write_random(Path(folder), name, kind, random)
            task = {"variant": "family", "model": str(small)}
            runs.append({"variant": "family", "name": name} | in_process("moe", task, None))
            small.unlink()
    return figures_of(runs), runs


def figures_of(runs: frame.Runs) -> frame.Figures:
    def median(variant: str, key: str) -> float:
        return frame.median(run[key] for run in runs if run["variant"] == variant)

    resident = next(run for run in runs if run["variant"] == "resident")
    ours = [run for run in runs if run["variant"] == "window"]
    routes, slots = resident.pop("routes"), ours[0]["slots"]
    for run in runs:
        run.pop("routes", None)
    used = sum(len(experts) for block in routes for experts in block)

    def hit_rate(policy: Callable[[list[list[int]]], Callable[[int, int], float]]) -> float:
        found = [hits(block, n, policy(block)) for block, n in zip(routes, slots, strict=True)]
        return sum(found) / used

    best = hit_rate(belady)
    families = [run for run in runs if run["variant"] == "family"]
    figures = {
        "moe_vs_stock": median("window", "per_second") / median("stock", "per_second"),
        "moe_prompt_vs_stock": median("stock", "prompt_seconds")
        / median("window", "prompt_seconds"),
        "moe_drafted_vs_stock": median("window", "drafted_per_second")
        / median("stock", "per_second"),
        "moe_drafted_tokens_per_pass": median("window", "drafted_tokens_per_pass"),
        "moe_drafted_bytes_per_token": median("window", "drafted_bytes_per_token"),
        "moe_bytes_per_token": median("window", "bytes_per_token"),
        "moe_vs_resident": median("window", "per_second") / resident["per_second"],
        "moe_per_second": median("window", "per_second"),
        "moe_identical": float(all(run["logits"] == resident["logits"] for run in ours)),
        "moe_drafts_identical": float(all(run["verified"] for run in ours)),
        "moe_slots": slots[0],
        "moe_hit_rate": median("window", "hit_rate"),
        "moe_hit_vs_belady": median("window", "hit_rate") / best,
        "moe_hit_lru_vs_belady": hit_rate(lru) / best,
        "moe_wait_share": median("window", "wait_share"),
        "moe_disk_bytes_per_second": median("window", "disk_bytes_per_second"),
        "read_ratio_max": max(run["read_ratio"] for run in families),
        "identical_architectures": sum(run["identical"] for run in families),
        "architectures": len(families),
    }
    return figures


if __name__ == "__main__":
    frame.run(__doc__, measure)
