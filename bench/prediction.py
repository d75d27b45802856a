"""A model whose own prediction block drafts (MTP), with it and without: in RAM and half in RAM.

No trained model is needed for what drafts cost and save: the model has the shape of Qwen3.5-2B,
computes all of it, and its block foresees 0.7 of the tokens (`tests/support/synthetic_mtp.py`);
in a second one 0.4, in a third none. Runs with and without drafts alternate, each in a process of
its own, half in RAM under a memory limit that counts the page cache. Nothing else drafts. The
replies must be the same. Needs 4 GB of disk, and root or systemd-run.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import frame
from window import RESERVE, in_process, reply

from ondevice import llama
from ondevice.engine._loading import load_model
from ondevice.holding.window.window import Window
from ondevice.messages import Load

sys.path.append(str(Path(__file__).parent.parent / "tests" / "support"))
import synthetic_mtp as mtp

N_CTX = 1024
RIGHT = (0.7, 0.4, 0.0)
PROMPTS = [f"Number {number}: " * 20 for number in ("one", "two", "three", "four")]


def child(task: dict[str, Any]) -> None:
    """Do one run and print its figures as JSON."""
    llama.start(open(os.devnull, "w"))  # noqa: SIM115, PTH123 - for the life of the process
    limit = task["limit"]
    request = Load(
        path=task["model"],
        n_ctx=N_CTX,
        kv_type="f16",
        ram=limit - RESERVE if limit else None,
        predicts=task["predicts"],
    )
    held = load_model(request, lambda _: None, threading.Event())
    assert isinstance(held.weights, Window)
    drafters = [held.drafter] if held.drafter else []
    result = {
        "drafts": bool(drafters),
        "resident": held.weights.resident_bytes,
        "streamed": held.weights.streamed_bytes,
    }
    with llama.Waiting():
        replies = [
            reply(held.context, held.weights, drafters, prompt, task["n_tokens"])
            for prompt in task["prompts"]
        ]
    print(json.dumps(result | {"replies": replies}))


def measure(quick: bool) -> tuple[frame.Figures, frame.Runs]:
    rounds, n_prompts, n_tokens = (1, 2, 60) if quick else (3, 4, 120)
    runs: frame.Runs = []
    with tempfile.TemporaryDirectory(prefix="ondevice-") as folder:
        for right in RIGHT:
            path = Path(folder) / "model.gguf"
            frame.say(f"a model whose block is right {right:.0%} of the time")
            mtp.write(path, mtp.LARGE, right)
            for limit in (None, path.stat().st_size // 2):
                for predicts in (False, True) * rounds:
                    frame.say(f"{'with' if predicts else 'without'} it{', half' if limit else ''}")
                    task = {"model": str(path), "limit": limit, "predicts": predicts}
                    more = {"prompts": PROMPTS[:n_prompts], "n_tokens": n_tokens}
                    done = in_process("prediction", task | more, limit, path)
                    assert done["drafts"] == predicts
                    where = "half" if limit else "ram"
                    runs.append({"right": right, "where": where, "predicts": predicts} | done)
            path.unlink()
    return figures_of(runs), runs


def figures_of(runs: frame.Runs) -> frame.Figures:
    figures: frame.Figures = {}
    same = []
    for right in RIGHT:
        for where in ("ram", "half"):
            with_it, without = (
                [
                    reply
                    for run in runs
                    if (run["right"], run["where"], run["predicts"]) == (right, where, predicts)
                    for reply in run["replies"]
                ]
                for predicts in (True, False)
            )
            per_second, plain = (
                frame.median(reply["per_second"] for reply in replies)
                for replies in (with_it, without)
            )
            label = f"{where}_{right:.0%}".rstrip("%")
            figures[f"predicted_vs_plain_{label}"] = per_second / plain
            figures[f"tokens_per_pass_{label}"] = frame.median(
                reply["tokens_per_pass"] for reply in with_it
            )
            figures[f"plain_per_second_{label}"] = plain
            same += [a["tokens"] == b["tokens"] for a, b in zip(with_it, without, strict=True)]
    figures["identical"] = sum(same) / len(same)
    return figures


if __name__ == "__main__":
    frame.run(__doc__, measure)
