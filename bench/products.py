"""Products of our own against llama.cpp's: speed in RAM, and replies that are the same in any way.

Both sides hold the same model in one process and compute the same tokens in turn, with a thread for
each core; a ratio is the median of ours to theirs, round by round. ``prefill_vs_llama_cpp`` is of
512 tokens, ``decode_vs_llama_cpp`` of one after the other, ``pass4_vs_1`` what a pass of four
tokens takes, all with logits, of what one token takes (of the model that does worst).

``--ik`` names a Python that has ik-llama-cpp-python. ``prefill_vs_ik`` then compares with it: with
its weights repacked or as they are, whichever reads the prompt faster. Its wheels are for AVX2.

``identical``: see ``same.py``.
"""

from __future__ import annotations

import io
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import frame
import same

from ondevice import llama
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


def measure(quick: bool, ik: Path | None) -> tuple[frame.Figures, frame.Runs]:
    llama.start(io.StringIO())
    rounds, n_decode = (3, 16) if quick else (9, 64)
    if ik is None:
        frame.say("not compared with ik_llama.cpp, for want of --ik")
    figures: frame.Figures = {}
    runs: frame.Runs = []
    found = {path.name: path for path in frame.models(*MODELS.values())}
    for label, name in MODELS.items():
        if name not in found:
            continue
        frame.say(f"{name}: speed")
        of_model = speeds(found[name], rounds, n_decode, ik)
        runs += [{"model": label, **each} for each in of_model]
        for kind in ("prefill", "decode"):
            figures[f"{kind}_vs_llama_cpp_{label}"] = frame.median(
                each[f"their_{kind}"] / each[f"our_{kind}"] for each in of_model
            )
        figures[f"pass4_vs_1_{label}"] = frame.median(
            each["our_pass"] / each["our_decode"] for each in of_model
        )
        if ik is not None:
            figures[f"prefill_vs_ik_{label}"] = frame.median(
                min(each["repacked_prefill"], each["plain_prefill"]) / each["our_prefill"]
                for each in of_model
            )
    if passes := [figures[name] for name in figures if name.startswith("pass4")]:
        figures["pass4_vs_1"] = max(passes)
    of_same, chats = same.measure(quick)
    return figures | of_same, runs + chats


def speeds(path: Path, rounds: int, n_decode: int, ik: Path | None) -> list[dict[str, float]]:
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
        others = {
            form: stack.enter_context(ik_side(python, path, threads, form))
            for python in filter(None, [ik])
            for form in ("repacked", "plain")
        }
        for number in range(rounds + 1):
            times: dict[str, float] = {}
            for side, context in sides.items():
                context.truncate(0)
                times[f"{side}_prefill"] = seconds(context, [tokens[:PROMPT]])
                context.decode(tokens[:1])
                singles = [tokens[:1]] * n_decode
                times[f"{side}_decode"] = seconds(context, singles) / n_decode
                times[f"{side}_pass"] = several(context, tokens[-SEVERAL:], n_decode // SEVERAL)
            for form, read in others.items():
                times[f"{form}_prefill"] = read(tokens[:PROMPT])
            if number:  # round 0 warms all up
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


@contextmanager
def ik_side(
    python: Path, path: Path, threads: int, form: str
) -> Iterator[Callable[[list[int]], float]]:
    """Seconds in which ik_llama.cpp reads tokens."""
    script = Path(__file__).with_name("ik.py")
    with subprocess.Popen(
        [python, script, path, str(threads), form],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        questions, answers = process.stdin, process.stdout
        assert questions and answers

        def read(tokens: list[int]) -> float:
            print(json.dumps(tokens), file=questions, flush=True)
            return float(answers.readline())

        yield read
        questions.close()


if __name__ == "__main__":
    frame.run(__doc__, measure, {"ik": "Python that has ik-llama-cpp-python"})
