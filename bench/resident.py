"""Decode and prefill of a model that fits in RAM, against llama-cpp-python's own ``Llama``.

Both sides hold the same model, use the same threads, process the same prompt of about 500 tokens
and generate greedily. Ours drafts, and the text repeats itself, so ``decode_ratio`` is that of such
a text; ``bench/products.py`` compares tokens one by one. Runs alternate; a ratio is the median of
ours to theirs run by run, so that a machine that gets slower meanwhile does not show in it.

``drafted_…`` compares tokens a second of ours with drafts and without, reply by reply, which are
the same words: of ``edit``, a function in a file of code is renamed and the file written again; of
``chat``, questions are answered with the usual sampling.
"""

from __future__ import annotations

import io
import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

import frame

from ondevice import llama
from ondevice.engine import Engine
from ondevice.engine._drafting import Drafter, PromptLookup, Proposal, Speculation
from ondevice.llama import ChatTemplate, Context, EvalHook, Model, Sampler
from ondevice.messages import Finished, Generate, Load, Sampling, Turn
from ondevice.products import handlers
from ondevice.system.cores import default_threads

EDITS = ("insert", "find", "remove")  # functions of the file
QUESTIONS = (
    "Why is the sky blue?",
    "Explain to a child how a bicycle stays upright.",
    "What should I see on two days in Lisbon?",
    "Give me three reasons to learn a musical instrument.",
    "Write a short letter that declines an invitation.",
    "How do I make a simple tomato soup?",
)
CODE = """class Tree:
    def __init__(self):
        self.root = None
        self.size = 0

    def insert(self, key, value):
        parent, node = None, self.root
        while node is not None:
            parent = node
            if key == node.key:
                node.value = value
                return
            node = node.left if key < node.key else node.right
        node = Node(key, value)
        if parent is None:
            self.root = node
        elif key < parent.key:
            parent.left = node
        else:
            parent.right = node
        self.size += 1

    def find(self, key):
        node = self.root
        while node is not None and node.key != key:
            node = node.left if key < node.key else node.right
        return None if node is None else node.value

    def remove(self, key):
        if self.find(key) is None:
            return False
        self.root = without(self.root, key)
        self.size -= 1
        return True
"""
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
        for kind, asked in drafted_requests(quick).items():
            ratios = []
            for request in asked:
                frame.say(f"{name}: {request.turns[-1].content[:60]!r}")
                speeds = reply_speeds(found[name], request)
                runs.append({"model": label, "kind": kind, **speeds})
                ratios.append(speeds["drafted"] / speeds["plain"])
            figures[f"drafted_{kind}_{label}"] = frame.median(ratios)
    return figures, runs


def drafted_requests(quick: bool) -> dict[str, list[Generate]]:
    """The kind of a request → some of it."""
    greedy = Sampling(temperature=0)
    edits = [
        f"Rename the method {name} to {name}_item and write the whole class again.\n\n{CODE}"
        for name in EDITS
    ]
    few, length = (slice(0, 2), 100) if quick else (slice(None), 300)
    return {
        "edit": [
            Generate(turns=(Turn("user", text),), sampling=greedy, max_tokens=length)
            for text in edits[few]
        ],
        "chat": [
            Generate(turns=(Turn("user", text),), sampling=Sampling(seed=1), max_tokens=length // 2)
            for text in QUESTIONS[few]
        ],
    }


def reply_speeds(path: Path, request: Generate) -> dict[str, float]:
    """Tokens a second of a reply with drafts and without: the median of three each, in turn."""
    sides: dict[str, Drafter] = {"plain": Nothing(), "drafted": PromptLookup()}
    model = Model(path, use_extra_bufts=False)
    prompt = ChatTemplate(model)
    tokens = prompt.tokenize(prompt.render(request.turns))
    said: dict[str, list[int]] = {}
    speeds: dict[str, list[float]] = {side: [] for side in sides}
    for _ in range(3):
        for side, drafter in sides.items():
            hook = EvalHook(*handlers(None))
            context = Context(model, n_ctx=N_CTX, eval_hook=hook)
            sampler = Sampler(model, request.sampling, request.sampling.seed or 0, None)
            context.decode(tokens)
            drawn = [sampler.sample_from(context.logits())]
            speculation = Speculation(context, drafter)
            started = time.perf_counter()
            while len(drawn) < (request.max_tokens or 0) and not model.is_end(drawn[-1]):
                drawn += speculation.decode(drawn[-1], sampler)
            speeds[side].append(len(drawn) / (time.perf_counter() - started))
            said[side] = drawn[: request.max_tokens]
            sampler.close()
            context.close()
    model.close()
    assert said["plain"] == said["drafted"]
    return {side: frame.median(each) for side, each in speeds.items()}


class Nothing:
    """Proposes nothing."""

    is_free = helps_in_ram = is_ready = True

    def propose(self, tokens: Sequence[int], count: int) -> Proposal:
        return Proposal(())


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
