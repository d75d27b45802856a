"""Attention of our own against ggml's: a model in RAM, with much said before.

Both sides are the same model with the same threads; they take turns, and a figure is the median of
ggml's time to ours, round by round. After 3,000 tokens:

- ``decode``: one token.
- ``message``: one of 30 tokens.
- ``prompt``: the 3,000 tokens themselves, in batches of 500.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import frame
import numpy as np

from ondevice import llama
from ondevice.llama import Context, Model

MODELS = {
    "05b": "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    "15b": "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
}
BEFORE, BATCH, MESSAGE, DECODED = 3000, 500, 30, 16


def measure(quick: bool) -> tuple[frame.Figures, frame.Runs]:
    figures: frame.Figures = {}
    runs: frame.Runs = []
    found = {path.name: path for path in frame.models(*MODELS.values())}
    llama.start(io.StringIO())
    for label, name in list(MODELS.items())[: 1 if quick else 2]:
        if name not in found:
            continue
        with sides(found[name]) as (ours, ggmls):
            for number in range(2 if quick else 5):
                frame.say(f"{name}: round {number + 1}")
                pair = {"model": label, "ours": times(ours), "ggml": times(ggmls)}
                runs.append(pair)
        of_model = [run for run in runs if run["model"] == label]
        for kind in ("decode", "message", "prompt"):
            ratios = (run["ggml"][kind] / run["ours"][kind] for run in of_model)
            figures[f"{kind}_{label}"] = frame.median(ratios)
            figures[f"{kind}_ms_{label}"] = frame.median(run["ours"][kind] for run in of_model)
    return figures, runs


@contextmanager
def sides(path: Path) -> Iterator[tuple[Context, Context]]:
    """Two contexts of one model: with our attention, and with ggml's."""
    model = Model(path)
    ours = Context(model, n_ctx=BEFORE + BATCH)
    with patch("ondevice.llama._context.attention_for", return_value=None):
        ggmls = Context(model, n_ctx=BEFORE + BATCH)
    yield ours, ggmls
    ours.close()
    ggmls.close()
    model.close()


def times(context: Context) -> dict[str, float]:
    """In milliseconds."""
    tokens = [int(token) for token in np.random.default_rng(0).integers(100, 5000, BEFORE)]

    def took(batches: list[list[int]], keep: int) -> float:
        context.truncate(keep)
        started = time.perf_counter()
        for batch in batches:
            context.decode(batch)
        return (time.perf_counter() - started) * 1e3

    return {
        "prompt": took([tokens[at : at + BATCH] for at in range(0, BEFORE, BATCH)], 0),
        "message": took([tokens[:MESSAGE]], BEFORE),
        "decode": took([[token] for token in tokens[:DECODED]], BEFORE) / DECODED,
    }


if __name__ == "__main__":
    frame.run(__doc__, measure)
