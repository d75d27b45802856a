"""Products of our own against llama.cpp's: speed in RAM, and replies that are the same in any way.

Both sides hold the same model in one process and compute the same tokens in turn, with a thread for
each core; a ratio is the median of ours to theirs, round by round. ``prefill_vs_llama_cpp`` is of
512 tokens, ``decode_vs_llama_cpp`` of one after the other, ``pass4_vs_1`` what a pass of four
tokens takes, all with logits, of what one token takes (of the model that does worst).

``identical``: of the prompts, those whose greedy replies are the same in RAM and streamed with the
least RAM, with one thread and two, in one batch and in batches of 64 tokens.
"""

from __future__ import annotations

import io
import time
from contextlib import ExitStack
from itertools import product
from pathlib import Path

import frame

from ondevice import gguf, llama
from ondevice.holding.window.placement import least_bytes
from ondevice.holding.window.window import Window
from ondevice.llama import Context, EvalHook, Model
from ondevice.products import handlers
from ondevice.system.cores import default_threads

MODELS = {
    "135m": "smollm2-135m-instruct-q4_1.gguf",
    "05b": "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    "15b": "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
}
N_CTX, PROMPT, SEVERAL = 1024, 512, 4  # tokens
TEXT = Path(__file__).with_name("products.py").read_text("utf-8")


def measure(quick: bool) -> tuple[frame.Figures, frame.Runs]:
    llama.start(io.StringIO())
    rounds, n_decode, n_prompts = (3, 16, 2) if quick else (9, 64, 20)
    figures: frame.Figures = {}
    runs: frame.Runs = []
    same: list[bool] = []
    found = {path.name: path for path in frame.models(*MODELS.values())}
    for label, name in MODELS.items():
        if name not in found:
            continue
        frame.say(f"{name}: speed")
        of_model = speeds(found[name], rounds, n_decode)
        runs += [{"model": label, **each} for each in of_model]
        for kind in ("prefill", "decode"):
            figures[f"{kind}_vs_llama_cpp_{label}"] = frame.median(
                each[f"their_{kind}"] / each[f"our_{kind}"] for each in of_model
            )
        figures[f"pass4_vs_1_{label}"] = frame.median(
            each["our_pass"] / each["our_decode"] for each in of_model
        )
        if label != "15b" or not quick:
            frame.say(f"{name}: replies")
            same += identical(found[name], n_prompts)
    figures["pass4_vs_1"] = max(figures[name] for name in figures if name.startswith("pass4"))
    figures["identical"] = frame.mean(same)
    return figures, runs


def speeds(path: Path, rounds: int, n_decode: int) -> list[dict[str, float]]:
    """Seconds of each round: of a prompt, a token and a pass of several."""
    threads = default_threads()
    found = []
    with ExitStack() as stack:
        sides = {}
        for side, hook in (("our", EvalHook(*handlers(threads))), ("their", None)):
            model = Model(path, use_extra_bufts=hook is None)
            stack.callback(model.close)
            sides[side] = Context(model, n_ctx=N_CTX, n_threads=threads, eval_hook=hook)
            stack.callback(sides[side].close)
        tokens = sides["our"].model.tokenize(TEXT)[: PROMPT + SEVERAL]
        for number in range(rounds + 1):
            times: dict[str, float] = {}
            for side, context in sides.items():
                context.truncate(0)
                times[f"{side}_prefill"] = seconds(context, [tokens[:PROMPT]])
                context.decode(tokens[:1])
                singles = [tokens[:1]] * n_decode
                times[f"{side}_decode"] = seconds(context, singles) / n_decode
                times[f"{side}_pass"] = several(context, tokens[-SEVERAL:], n_decode // SEVERAL)
            if number:  # round 0 warms both up
                found.append(times)
    return found


def several(context: Context, tokens: list[int], n_passes: int) -> float:
    context.decode(tokens, n_outputs=len(tokens))
    return seconds(context, [tokens] * n_passes, n_outputs=len(tokens)) / n_passes


def seconds(context: Context, batches: list[list[int]], n_outputs: int = 1) -> float:
    started = time.perf_counter()
    for batch in batches:
        context.decode(batch, n_outputs=n_outputs)
    return time.perf_counter() - started


def identical(path: Path, n_prompts: int) -> list[bool]:
    """For each prompt, whether its reply is the same in all ways."""
    replies: list[set[tuple[int, ...]]] = [set() for _ in range(n_prompts)]
    for streamed, threads, batch in product((False, True), (1, 2), (PROMPT, 64)):
        with ExitStack() as stack:
            file = gguf.read(path)
            budget = least_bytes(file) if streamed else 2 * file.weights_bytes
            window = Window(file, budget, handlers=handlers(threads))
            stack.callback(window.close)
            model = window.load_model()
            stack.callback(model.close)
            context = Context(model, n_ctx=N_CTX, n_threads=threads, eval_hook=window.hook())
            stack.callback(context.close)
            tokens = model.tokenize(TEXT)
            for number, found in enumerate(replies):
                found.add(reply(context, tokens[16 * number :][: 96 + 16 * number], batch))
    return [len(found) == 1 for found in replies]


def reply(context: Context, tokens: list[int], batch: int) -> tuple[int, ...]:
    context.truncate(0)
    for at in range(0, len(tokens), batch):
        context.decode(tokens[at : at + batch])
    said = [int(context.logits().argmax())]
    while len(said) < 24:
        context.decode(said[-1:])
        said.append(int(context.logits().argmax()))
    return tuple(said)


if __name__ == "__main__":
    frame.run(__doc__, measure)
