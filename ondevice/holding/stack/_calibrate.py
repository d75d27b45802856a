"""What a model does with a text: which weights are multiplied with what, and how it diverges."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import resources
from statistics import fmean

import numpy as np
import numpy.typing as npt

from ondevice.errors import ModelFileError
from ondevice.gguf import GGUFFile
from ondevice.holding.window.placement import least_bytes
from ondevice.holding.window.window import Window
from ondevice.llama import (
    OP_NONE,
    Actions,
    ChatTemplate,
    Context,
    EvalHook,
    Model,
    NodeHandler,
    Sampler,
    Tensor,
)
from ondevice.messages import Sampling, Turn

Floats = npt.NDArray[np.float32]

_TOKENS = 1024  # of the text that are used
_BATCH = 128
_OUTPUTS = 16  # positions of a batch that reach the output layer
_REPLY_TOKENS = 128  # of the model's own texts
_QUESTIONS = (
    "What should I see on a first visit to Lisbon?",
    "Write a Python function that finds the longest word of a file, and explain it.",
    "Tell me a short story about a lighthouse keeper.",
    "Why does bread rise, and what can go wrong?",
    "My landlord keeps the deposit. Draft a polite letter.",
    "Was ist der Unterschied zwischen Wetter und Klima?",
)
_RARE = 0.1  # of what counts: tokens that the text does not have
_RAM = 400_000_000  # bytes for the weights while a model is watched, if it can do with that


def default_text() -> str:
    """Prose, conversation and code, for models of which nothing else is known."""
    return resources.files("ondevice.holding.stack").joinpath("calibration.txt").read_text("utf-8")


def own_text(file: GGUFFile, threads: int, on_progress: Callable[[float], None]) -> str:
    """What the model itself answers to questions of many kinds; in little RAM, whatever its size.

    As in "LLM-QAT" (Liu et al., 2023), section 3.1: what a model says is what it will be used for.
    """
    replies = []
    with _watched(file, threads) as (model, context):
        template = ChatTemplate(model)
        for number, question in enumerate(_QUESTIONS):
            sampler = Sampler(model, Sampling(temperature=1.0), number, None)
            context.truncate(0)
            context.decode(template.tokenize(template.render([Turn("user", question)])))
            reply: list[int] = []
            while len(reply) < _REPLY_TOKENS:
                token = sampler.sample(context)
                if model.is_end(token):
                    break
                reply.append(token)
                context.decode([token])
                on_progress((number + len(reply) / _REPLY_TOKENS) / len(_QUESTIONS))
            sampler.close()
            replies += [question, model.text(reply)]
    return "\n\n".join(replies)


def sequences(model: Model, text: str, n_tokens: int) -> list[list[int]]:
    """``n_tokens`` of text, half of it as a conversation: what comes first in it, and tokens that
    only its form has, matter in use more than any others."""
    half = n_tokens // 2
    first, rest = text[: 2 * n_tokens], text[2 * n_tokens :]
    template = ChatTemplate(model)
    turns = [Turn(role="user", content=first), Turn(role="assistant", content=rest[: 8 * half])]
    talk = template.tokenize(template.render(turns))[:half]
    return [talk, model.tokenize(rest or first, add_special=True)[: n_tokens - len(talk)]]


class Usage:
    """Collects how each weight is used; a handler of the eval hook."""

    def __init__(self, file: GGUFFile) -> None:
        self._file = file
        self._squares: dict[str, npt.NDArray[np.float64]] = {}
        self._counts: dict[str, int] = {}
        self._looked_up: dict[str, list[int]] = {}  # numbers of rows
        self._used: set[str] = set()
        self._unfit: set[str] = set()  # used otherwise than a stack can

    def fits(self, name: str) -> bool:
        """Whether all uses of the weight are such as a stack can compute."""
        return name in self._used and name not in self._unfit

    def importance(self, name: str, columns: int) -> Floats:
        """The mean square of what each column of the weight is multiplied with."""
        if name not in self._squares:  # only looked up
            return np.ones(columns, np.float32)
        mean = self._squares[name] / self._counts[name]
        floor = 1e-3 * mean.mean() + 1e-30
        return np.asarray(mean + floor, np.float32)

    def chunk_importance(self, name: str, chunk: range, n_rows: int) -> float:
        """How much these of the ``n_rows`` rows count, 1 on average.

        All rows of a product are alike. In a table, as that of the tokens, those count that are
        looked up; the others a little, since other texts have other tokens.
        """
        numbers = self._looked_up.get(name, [])
        if not numbers or name in self._squares:
            return 1.0
        hits = sum(number in chunk for number in numbers)
        return _RARE + (1 - _RARE) * hits / len(numbers) * n_rows / len(chunk)

    def inspect(self, node: Tensor) -> Actions | None:
        for place, operand in enumerate(node.operands()):
            root = Tensor.from_address(operand.view_src) if operand.view_src else operand
            if root.op != OP_NONE or root.name not in self._file.tensors:
                continue
            self._used.add(root.name)
            x = Tensor.from_address(node.src[1]) if node.src[1] else None
            if place or operand.view_src or x is None:
                self._unfit.add(root.name)
            elif _is_product(node.op_name, x):
                return Actions(after=partial(self._add, root.name, x))
            elif node.op_name == "GET_ROWS" and x.ne[1] == 1:
                return Actions(after=partial(self._look_up, root.name, x))
            else:
                self._unfit.add(root.name)
        return None

    def _look_up(self, name: str, numbers: Tensor) -> None:
        self._looked_up.setdefault(name, []).extend(numbers.integers())

    def _add(self, name: str, x: Tensor) -> None:
        assert x.data is not None
        columns, n_slots, n_tokens = x.ne[:3]
        length = columns + (n_slots - 1) * x.nb[1] // 4 + (n_tokens - 1) * x.nb[2] // 4
        flat = (ctypes.c_float * length).from_address(x.data)
        values = np.lib.stride_tricks.as_strided(
            np.ctypeslib.as_array(flat), (n_tokens, n_slots, columns), (x.nb[2], x.nb[1], 4)
        ).astype(np.float64)
        if not np.isfinite(values).all():
            raise not_finite(self._file)
        if name not in self._squares:
            self._squares[name], self._counts[name] = np.zeros(columns), 0
        self._squares[name] += (values**2).sum((0, 1))
        self._counts[name] += n_slots * n_tokens


def not_finite(file: GGUFFile) -> ModelFileError:
    """For a model of which nothing can be measured."""
    return ModelFileError(
        f"{file.path.name} cannot be packed: on the text with which it is measured, it computes "
        f"numbers that are too large for weights in {file.quantization}. "
        "Nothing was written. Pack a file of the model in BF16 or Q8_0."
    )


def _is_product(op_name: str, x: Tensor) -> bool:
    """Whether a stack can compute it; ``x``: what the weight is multiplied with."""
    if x.type != 0 or x.ne[3] != 1:
        return False
    return op_name == "MUL_MAT_ID" or (op_name == "MUL_MAT" and x.ne[2] == 1)


def usage_of(
    file: GGUFFile, text: str, threads: int, on_progress: Callable[[float], None]
) -> Usage:
    """How the model in ``file`` uses its weights on ``text``; in little RAM, whatever its size."""
    usage = Usage(file)
    with _watched(file, threads, usage) as (model, context):
        done = 0
        for tokens in sequences(model, text, _TOKENS):
            context.truncate(0)
            for at in range(0, len(tokens), _BATCH):
                batch = tokens[at : at + _BATCH]
                context.decode(batch, n_outputs=min(_OUTPUTS, len(batch)))
                done += len(batch)
                on_progress(done / _TOKENS)
    return usage


@contextmanager
def _watched(
    file: GGUFFile, threads: int, *handlers: NodeHandler
) -> Iterator[tuple[Model, Context]]:
    """The model with most of its weights on the disk."""
    with ExitStack() as stack:
        window = Window(file, max(least_bytes(file), min(_RAM, file.weights_bytes)))
        stack.callback(window.close)
        model = window.load_model()
        stack.callback(model.close)
        if model.cannot_chat:
            raise ModelFileError(f"{file.path.name} cannot be packed: {model.cannot_chat}.")
        context = Context(
            model,
            n_ctx=_TOKENS,
            n_threads=threads,
            batch_tokens=_BATCH,
            eval_hook=EvalHook(window, *handlers),
        )
        stack.callback(context.close)
        yield model, context


def log_probabilities(context: Context, tokens: Sequence[int]) -> Floats:
    """Of every next token after each of ``tokens``; shape (len(tokens), n_vocab)."""
    context.truncate(0)
    found = np.empty((len(tokens), context.model.n_vocab), np.float32)
    for at in range(0, len(tokens), context.max_outputs):
        batch = tokens[at : at + context.max_outputs]
        context.decode(batch, n_outputs=len(batch))
        for i in range(len(batch)):
            logits = context.logits(len(batch) - i)
            logits -= np.max(logits)
            found[at + i] = logits - np.log(np.exp(logits).sum())
    return found


def perplexity(found: Floats, tokens: Sequence[int]) -> float:
    """Of ``tokens``, of which :func:`log_probabilities` has ``found`` these."""
    return float(np.exp(-found[range(len(tokens) - 1), tokens[1:]].mean()))


def divergence(reference: Floats, other: Floats) -> float:
    """Mean Kullback-Leibler divergence of ``other`` from ``reference``, nats a token."""
    return fmean(float(np.exp(p) @ (p - q)) for p, q in zip(reference, other, strict=True))
