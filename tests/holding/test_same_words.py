"""What is streamed and drafted says, token for token, what the same model says in RAM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import gguf as gguf_py
import numpy as np
import pytest
import shapes
from eager import Eager
from planned import plan

from ondevice import gguf
from ondevice.engine._drafting import ModelDrafter, PromptLookup, context_to_draft
from ondevice.gguf.verifying import can_verify
from ondevice.holding.speeds import USUAL
from ondevice.holding.window.placement import least_bytes
from ondevice.holding.window.window import Window
from ondevice.llama import OP_MUL_MAT, Actions, Context, EvalHook, Model, Sampler, Tensor
from ondevice.llama._columns import Columns
from ondevice.llama._ggml import op_number
from ondevice.llama._product import Product, multiply_rows
from ondevice.messages import Load, Sampling
from ondevice.products import handlers
from ondevice.ram.available import AvailableRam

KINDS = {k.name: k for k in gguf_py.GGMLQuantizationType}
TEXT = "the cat and the dog, the cat and the dog sat on the mat with the cat and the dog. "
N_TOKENS = 16


class Replies:
    """The tokens of a reply for each seed, and how many were proposed."""

    def __init__(
        self, path: Path, streamed: bool, prompt: str, seeds: range, **options: Any
    ) -> None:
        file = gguf.read(path)
        window = Window(file, least_bytes(file)) if streamed else None
        model = window.load_model() if window else Model(path, use_extra_bufts=False)
        hook = EvalHook(window) if window else None
        context = Context(model, n_ctx=1024, eval_hook=hook, keeps_state=True, **options)
        self.proposed = 0
        self.tokens = []
        start = model.tokenize(prompt)
        for seed in seeds:
            context.truncate(0)
            sampler = Sampler(model, Sampling(temperature=0.8), seed, None)
            context.decode(start)
            tokens = [sampler.sample(context)]
            speculation = Eager(context, PromptLookup())
            while len(tokens) < N_TOKENS:
                if streamed:
                    tokens += speculation.decode(tokens[-1], sampler)
                else:
                    context.decode(tokens[-1:])
                    tokens.append(sampler.sample(context))
            assert context.tokens == [*start, *tokens[:-1]]  # nothing of it was lost
            self.proposed += speculation.proposed
            self.tokens.append(tokens[:N_TOKENS])
            sampler.close()
        context.close()
        model.close()
        if window:
            window.close()


# Types that have kernels of their own for several columns, and some that have not. With more than
# 256 tokens, attention is shared out among threads.
@pytest.mark.parametrize(
    ("shape", "kind", "n_threads", "repeats"),
    [
        ("dense", "F16", 2, 4),
        ("experts", "Q8_0", 1, 1),
        ("experts", "BF16", 1, 1),
        ("sliding window", "Q8_0", 1, 1),
        ("convolution", "Q8_0", 1, 1),
        ("state space", "F16", 1, 1),
        ("delta net", "Q8_0", 1, 1),
    ],
)
def test_streamed_with_drafts_is_as_in_ram(
    tmp_path: Path, shape: str, kind: str, n_threads: int, repeats: int
) -> None:
    path = shapes.write_random(tmp_path, shape, KINDS[kind], np.random.default_rng(1))
    prompt, seeds = TEXT * repeats, range(2)
    drafted = Replies(path, True, prompt, seeds, n_threads=n_threads)
    assert drafted.tokens == Replies(path, False, prompt, seeds, n_threads=n_threads).tokens
    assert can_verify(gguf.read(path))
    assert drafted.proposed > 0


@pytest.mark.random
def test_any_shape_and_type(tmp_path: Path, rounds: Callable[[int], Iterator[Random]]) -> None:
    for random in rounds(3):
        shape = random.choice([*shapes.SHAPES])
        kind = KINDS[random.choice(["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0"])]
        seed = random.randrange(1000)
        path = shapes.write_random(tmp_path, shape, kind, np.random.default_rng(seed))
        options = {"n_threads": random.choice([1, 2]), "kv_type": random.choice(["f16", "q8_0"])}
        prompt = TEXT[: random.randrange(8, 90)] * random.choice([1, 4])
        seeds = range(seed, seed + 2)
        what = (shape, kind.name, options, len(prompt), seed)
        drafted = Replies(path, True, prompt, seeds, **options)
        assert drafted.tokens == Replies(path, False, prompt, seeds, **options).tokens, what
        path.unlink()


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0"])
def test_slices_of_an_output_layer_give_each_column_what_it_gives_alone(kind: str) -> None:
    columns, rows, n_tokens = 256, 96, 5
    random = np.random.default_rng(1)
    numbers = random.standard_normal((rows, columns), np.float32)
    weights = gguf_py.quants.quantize(numbers, KINDS[kind])
    x = random.standard_normal((n_tokens, columns), np.float32)

    def product(some: np.ndarray, slices: list[range]) -> np.ndarray:
        result = np.zeros((len(some), rows), np.float32)
        with Product(int(KINDS[kind]), (columns, rows), len(some), 1) as node:
            node.weight.data, node.x.data = weights.ctypes.data, some.ctypes.data
            node.result.data = result.ctypes.data
            for each in slices:
                address = weights[each.start].ctypes.data
                multiply_rows(node.result, address, each.start, len(each))
        return result

    together = product(x, [range(40), range(40, rows)])
    for token in range(n_tokens):
        assert (product(x[token : token + 1], [range(rows)]) == together[token]).all()


class Restless:
    """Has the graph inspected anew at each product, as a window does whose weights move."""

    def inspect(self, node: Tensor) -> Actions | None:
        return Actions(before=lambda: True) if node.op == OP_MUL_MAT else None


def test_a_draft_is_the_same_while_weights_move(tmp_path: Path) -> None:
    path = shapes.write_random(tmp_path, "dense", KINDS["F16"], np.random.default_rng(1))
    model = Model(path, use_extra_bufts=False)
    context = Context(model, n_ctx=256, n_threads=1, eval_hook=EvalHook(Restless()))
    tokens = model.tokenize(TEXT)
    context.decode(tokens[:50])
    alone = []
    for token in tokens[50:57]:
        context.decode([token])
        alone.append(context.logits())
    for _ in range(3):  # the graph is used again
        context.truncate(50)
        context.decode(tokens[50:57], n_outputs=7)
        together = [context.logits(back) for back in range(7, 0, -1)]
        assert all((a == b).all() for a, b in zip(alone, together, strict=True))
    context.close()
    model.close()


def test_passes_of_any_length_are_known(tmp_path: Path) -> None:
    """Gemma 3n has four columns for one token in some products, and so does a pass of four."""
    path = shapes.write_random(
        tmp_path, "inputs for each block", KINDS["Q8_0"], np.random.default_rng(1)
    )
    model = Model(path, use_extra_bufts=False)
    context = Context(model, n_ctx=256, n_threads=1, eval_hook=EvalHook(*handlers(1)))
    tokens = model.tokenize(TEXT)
    context.decode(tokens[:1])
    for n in range(1, context.most_verified + 1):
        context.decode(tokens[:n], n_outputs=n)
        assert context.may_verify, n
    context.close()
    model.close()


@pytest.mark.parametrize("name", ["ADD", "SET"])
def test_nothing_is_drafted_where_a_node_sets_a_part_of_a_tensor(name: str) -> None:
    """As in Chameleon, which rules out pictures after the first token of a pass alone."""
    columns, node = Columns(16), Tensor.of(np.zeros(1, np.float32))
    node.op = op_number(name)
    columns.begin(1, 1, 1)
    columns.inspect(node)
    assert columns.are_known == (name == "ADD")


@pytest.mark.parametrize("shape", ["convolution", "state space", "delta net"])
def test_a_recurrent_model_drafts(tmp_path: Path, shape: str) -> None:
    """For itself, so all is right, unless it stands for a worse one."""
    path = shapes.write_random(tmp_path, shape, KINDS["Q8_0"], np.random.default_rng(1))
    model = Model(path, use_extra_bufts=False)
    hook, own_hook = EvalHook(*handlers(1)), EvalHook(*handlers(1))
    context = Context(model, n_ctx=256, n_threads=1, eval_hook=hook, keeps_state=True)
    roomy = plan(gguf.read(path), AvailableRam(10**12, 10**12, "all RAM"), USUAL, n_ctx=256)
    own = context_to_draft(model, roomy, Load(path=str(path), n_threads=1), own_hook)
    sampler = Sampler(model, Sampling(temperature=0), 0, None)
    drafter = ModelDrafter(own, model.n_vocab)
    tokens = model.tokenize(TEXT)
    context.decode(tokens[:-1])
    context.decode(tokens[-1:])
    said = [sampler.sample_from(context.logits())]
    speculation = Eager(context, drafter)
    while len(said) < 60:
        said += speculation.decode(said[-1], sampler, 8)
    n_ends = sum(map(model.is_end, said))  # what was drafted after one is not looked at
    assert speculation.accepted >= speculation.proposed - 7 * n_ends > 30
    for wrong in (said[:20], said[:30], [*said[:25], 3, 3], said[:26]):  # what it drafted is not so
        assert drafter.propose(tokens + wrong, 4).tokens
        assert own.tokens[: len(tokens + wrong)] == tokens + wrong
    assert list(drafter.propose(tokens + said[:26], 4).tokens) == said[26:30]
    for used in (sampler, context, own, model):
        used.close()


def test_a_context_that_cannot_come_back_verifies_and_drafts_nothing(tmp_path: Path) -> None:
    kind = KINDS["Q8_0"]
    path = shapes.write_random(tmp_path, "convolution", kind, np.random.default_rng(1))
    model = Model(path)
    context = Context(model, n_ctx=256)
    tokens = model.tokenize(TEXT)
    assert ModelDrafter(context, model.n_vocab).propose(tokens, 4).tokens == ()
    context.decode(tokens)
    assert not context.may_verify
    assert context.truncate(len(tokens) - 1) == 0
    assert context.tokens == []
    context.close()
    model.close()
