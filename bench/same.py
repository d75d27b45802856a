"""Whether a reply is the same however it is computed: ``identical``, which ``products.py`` prints.

Chats of two messages, some hundred tokens and a few, are answered with 64 and 32 tokens, greedily
or with a seed: first with all weights in RAM, one thread, no drafts and each message in one batch.
Then in 12 other ways (``--quick``: 6 of them): half the weights in RAM, the least, two threads,
passes of 8 and of 16 tokens with drafts, batches of 64, a restart between the messages, and random
combinations of these, of which a restart may come to another one. ``identical`` is the share of the
chats that are the same in all of them: each token was drawn from the same logits, to the last bit.

The models are random ones of six quantizations, a mixture of experts and a hybrid, and those in the
folder ONDEVICE_TEST_MODELS.
"""

from __future__ import annotations

import ctypes
import io
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import frame
import gguf as gguf_py
import llama_cpp
import numpy as np
import numpy.typing as npt

from ondevice import gguf, llama
from ondevice.engine._cache import ConversationCache
from ondevice.engine._drafting import PromptLookup
from ondevice.engine._states import States
from ondevice.holding.window.placement import least_bytes, most_bytes
from ondevice.holding.window.window import Window
from ondevice.llama import Context, Sampler
from ondevice.messages import Keep, Sampling, StateKey
from ondevice.products import handlers

sys.path.append(str(Path(__file__).parent.parent / "tests" / "support"))

import eager
import shapes

MODELS = (
    "smollm2-135m-instruct-q4_1.gguf",
    "gemma-3-270m-q4_k_m.gguf",
    "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
)
#: What llama.cpp quantizes to, by its numbers.
FTYPES = {"Q8_0": 7, "Q4_0": 2, "Q4_K_M": 15, "Q5_K_M": 17, "IQ4_XS": 30, "IQ3_S": 26}
RANDOM = {"dense": tuple(FTYPES), "experts": ("Q4_K_M",), "delta net": ("Q4_K_M",)}
TEXT = "\n".join(
    (Path(__file__).parent / "texts" / f"{name}.txt").read_text("utf-8")
    for name in ("readme", "python", "memory")
)
N_CTX = 1024
ANSWERS = 64, 32  # tokens
N_WAYS = 12  # to choose from


@dataclass(frozen=True)
class Way:
    """How replies are computed."""

    ram: str = "all"
    threads: int = 1
    together: int = 1
    """Tokens of a pass at most, drafts among them."""
    batch: int = 512


#: Of each field, the first one being that of the first way.
CHOICES: dict[str, tuple[Any, ...]] = {
    "ram": ("all", "half", "least"),
    "threads": (1, 2),
    "together": (1, 8, 16),
    "batch": (512, 64),
}


class Chat(NamedTuple):
    """Its messages are so many tokens from this one of the text on, and some others."""

    start: int
    length: int
    sampling: Sampling


class Witness(Sampler):
    """Notes each token with a checksum of the logits that it was drawn from."""

    def __init__(self, context: Context, sampling: Sampling) -> None:
        super().__init__(context.model, sampling, sampling.seed or 0)
        self.drawn: list[tuple[int, int]] = []

    def sample_from(self, logits: npt.NDArray[np.float32]) -> int:
        token = super().sample_from(logits)
        self.drawn.append((token, zlib.crc32(logits.data)))
        return token


class Answerer:
    """A model that answers in one way."""

    def __init__(self, context: Context, way: Way, keep: Keep) -> None:
        self.context, self._way = context, way
        self.cache = ConversationCache(context, States(lambda _held, _more: True))
        self.cache.begin(keep)

    def answer(self, tokens: list[int], n: int, sampling: Sampling) -> list[tuple[int, int]]:
        """So many tokens that come after these."""
        context, way = self.context, self._way
        self.cache.reuse(tokens)
        new = tokens[len(context.tokens) :]
        for at in range(0, len(new), way.batch):
            context.decode(new[at : at + way.batch])
        witness, speculation = Witness(context, sampling), eager.Eager(context, PromptLookup())
        said = [witness.sample_from(context.logits())]
        while len(said) < n:
            said += speculation.decode(said[-1], witness, min(way.together, n - len(said)))
        witness.close()
        return witness.drawn


def measure(quick: bool) -> tuple[frame.Figures, frame.Runs]:
    llama.start(io.StringIO())
    runs: frame.Runs = []
    with TemporaryDirectory(prefix="ondevice-bench-") as folder:
        chats = [(path, 1 if quick else 20) for path in random_models(Path(folder))]
        chats += [(path, 1 if quick else 5) for path in frame.models(*MODELS[: 1 if quick else 3])]
        for path, n_chats in chats:
            for number in range(n_chats):
                frame.say(f"{path.name}: chat {number}")
                found = others(path, number, 6 if quick else 12)
                runs.append({"model": path.name, "chat": number, "others": found})
    return {"identical": frame.mean(not run["others"] for run in runs)}, runs


def random_models(folder: Path) -> Iterator[Path]:
    for shape, kinds in RANDOM.items():
        random, half = np.random.default_rng(1), gguf_py.GGMLQuantizationType.F16
        source = shapes.write_random(folder, shape, half, random)
        for kind in kinds:
            target = folder / f"{shape} {kind}.gguf"
            params = llama_cpp.llama_model_quantize_default_params()
            params.ftype, params.nthread = FTYPES[kind], 1
            if llama_cpp.llama_model_quantize(bytes(source), bytes(target), ctypes.byref(params)):
                raise RuntimeError(f"llama.cpp cannot quantize {source.name} to {kind}.")
            yield target


def others(path: Path, number: int, n_ways: int) -> list[str]:
    """In which of so many ways a chat with this model is another one than at first."""
    random = Random(number)
    sampling = Sampling(temperature=0) if number % 2 else Sampling(seed=number)
    chat = Chat(random.randrange(2000), random.randrange(100, 700), sampling)
    first = replies(path, chat, [Way()])
    some = random.sample(combinations(random), n_ways)
    return [str(ways) for ways in some if replies(path, chat, ways) != first]


def combinations(random: Random) -> list[list[Way]]:
    """Of one way, or of two with a restart between them."""
    base = Way()
    found = [
        [replace(base, **{name: value})] for name, values in CHOICES.items() for value in values[1:]
    ]
    found.append([base, base])
    while len(found) < N_WAYS:
        some = [{name: random.choice(values) for name, values in CHOICES.items()} for _ in ANSWERS]
        found.append([Way(**each) for each in some[: random.choice((1, 2))]])
    return found


def replies(path: Path, chat: Chat, ways: Sequence[Way]) -> list[tuple[int, int]]:
    """Both answers; with a second way, there is a restart before the second message."""
    tokens: list[int] = []
    drawn: list[tuple[int, int]] = []
    turns = [(chat.start, chat.length, ANSWERS[0]), (0, 24, ANSWERS[1])]
    with TemporaryDirectory(prefix="ondevice-bench-") as folder:
        keep = kept_in(Path(folder))
        for way in ways:
            with opened(path, way, keep) as answerer:
                text = answerer.context.model.tokenize(TEXT)
                for _ in range(len(ANSWERS) // len(ways)):
                    start, length, n = turns.pop(0)
                    tokens += text[start : start + length]
                    answer = answerer.answer(tokens, n, chat.sampling)
                    tokens += [token for token, _ in answer]
                    drawn += answer
                answerer.cache.settle()
    return drawn


def kept_in(folder: Path) -> Keep:
    keys = [StateKey(name, name.encode() * 8) for name in ("mine", "ours")]
    for key in keys:
        (folder / key.name).mkdir()
    return Keep(folder=str(folder), own=keys[0], shared=keys[1], most_bytes=10**9)


@contextmanager
def opened(path: Path, way: Way, keep: Keep) -> Iterator[Answerer]:
    file = gguf.read(path)
    least, most = least_bytes(file), most_bytes(file)
    budget = {"all": most, "half": (least + most) // 2, "least": least}[way.ram]
    with ExitStack() as stack:
        window = Window(file, budget, handlers=handlers(way.threads))
        stack.callback(window.close)
        model = window.load_model()
        stack.callback(model.close)
        context = Context(
            model, n_ctx=N_CTX, n_threads=way.threads, eval_hook=window.hook(), keeps_state=True
        )
        stack.callback(context.close)
        yield Answerer(context, way, keep)
