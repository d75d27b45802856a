"""Decode and prefill of a model that fits in RAM, against llama-cpp-python's own ``Llama``.

Both sides hold the same model, use the same threads, process the same prompt of about 500 tokens
and generate greedily. Runs alternate; a ratio is the median of ours to theirs run by run, so that
a machine that gets slower meanwhile does not show in it.
"""

from __future__ import annotations

import io
import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import frame

from ondevice import llama
from ondevice.engine import Engine
from ondevice.llama import ChatTemplate, Model
from ondevice.messages import Finished, Generate, Load, Sampling, Turn
from ondevice.system.cores import default_threads

MODELS = {
    "135m": "smollm2-135m-instruct-q4_1.gguf",
    "05b": "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    "15b": "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
}
N_CTX = 2048
Once = Callable[[int], dict[str, float]]


def turns(number: int) -> tuple[Turn, ...]:
    """A prompt that differs from that of every other round from its beginning on."""
    text = "The sea was calm and the old boat lay at the quay. " * 40
    return Turn("system", f"Round {number}."), Turn("user", f"{text} Go on.")


def measure(quick: bool) -> tuple[frame.Figures, frame.Runs]:
    rounds, n_decode = (5, 32) if quick else (11, 128)
    figures: frame.Figures = {}
    runs: frame.Runs = []
    found = {path.name: path for path in frame.models(*MODELS.values())}
    for label, name in MODELS.items():
        if name not in found:
            continue
        with our_side(found[name], n_decode) as ours, their_side(found[name], n_decode) as theirs:
            for number in range(rounds + 1):
                frame.say(f"{name}: round {number} of {rounds}")
                pair = {"model": label, "ours": ours(number), "theirs": theirs(number)}
                if number:  # round 0 warms both up
                    runs.append(pair)
        for kind in ("decode", "prefill"):
            pairs = [(r["ours"][kind], r["theirs"][kind]) for r in runs if r["model"] == label]
            figures[f"{kind}_ratio_{label}"] = frame.median(a / b for a, b in pairs)
            figures[f"{kind}_per_second_{label}"] = frame.median(ours for ours, _ in pairs)
    return figures, runs


@contextmanager
def our_side(path: Path, n_decode: int) -> Iterator[Once]:
    with Engine() as engine:
        engine.load(Load(path=str(path), n_ctx=N_CTX))

        def once(number: int) -> dict[str, float]:
            greedy = Sampling(temperature=0)
            request = Generate(turns=turns(number), sampling=greedy, max_tokens=n_decode)
            *_, finished = engine.generate(request)
            assert isinstance(finished, Finished)
            s = finished.statistics
            return {"decode": s.generated_per_second, "prefill": s.prompt_per_second}

        yield once


@contextmanager
def their_side(path: Path, n_decode: int) -> Iterator[Once]:
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=their_process, args=(theirs, path, n_decode))
    process.start()

    def once(number: int) -> dict[str, float]:
        ours.send(number)
        answer: dict[str, float] = ours.recv()
        return answer

    yield once
    ours.send(None)
    process.join()


def their_process(pipe: Connection, path: Path, n_decode: int) -> None:
    from llama_cpp import Llama  # noqa: PLC0415 - only this process needs it

    llama.start(io.StringIO())
    template = ChatTemplate(Model(path))
    threads = default_threads()
    model = Llama(str(path), n_ctx=N_CTX, n_threads=threads, n_threads_batch=threads, verbose=False)
    while (number := pipe.recv()) is not None:
        tokens = template.tokenize(template.render(turns(number)))
        model.reset()
        started = time.perf_counter()
        reply = model.generate(tokens, temp=0.0, reset=False)
        next(reply)
        first = time.perf_counter()
        for _ in range(n_decode - 1):
            next(reply)
        done = time.perf_counter()
        pipe.send(
            {"decode": (n_decode - 1) / (done - first), "prefill": len(tokens) / (first - started)}
        )


if __name__ == "__main__":
    frame.run(__doc__, measure)
