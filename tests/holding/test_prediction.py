"""A model's own prediction block: it drafts, costs what is planned, and changes no reply."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import shapes
import synthetic_mtp as mtp
from eager import Eager
from gguf import GGMLQuantizationType
from planned import plan

from ondevice import gguf, llama
from ondevice.engine import Engine
from ondevice.engine._drafting import PredictionDrafter, PromptLookup, Speculation
from ondevice.gguf import GGUFFile
from ondevice.holding.speeds import USUAL
from ondevice.holding.window.placement import Placements
from ondevice.holding.window.window import Window
from ondevice.llama import Context, Predictor, Sampler
from ondevice.messages import Chunk, Finished, Generate, Load, Sampling, Statistics, Turn
from ondevice.planning.planner import why
from ondevice.products import handlers
from ondevice.ram.available import AvailableRam
from ondevice.ram.need import need

GREEDY = Sampling(temperature=0.0)
BATCH = 128


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prediction")


@pytest.fixture(scope="module")
def sure(model_folder: Path) -> GGUFFile:
    """A model whose prediction block is always right."""
    path = model_folder / "sure.gguf"
    mtp.write(path, mtp.SMALL, right=1.0)
    return gguf.read(path)


@pytest.fixture(scope="module")
def unsure(model_folder: Path) -> GGUFFile:
    """One whose prediction block is right as often as not."""
    path = model_folder / "unsure.gguf"
    mtp.write(path, mtp.SMALL, right=0.5)
    return gguf.read(path)


@pytest.fixture(scope="module")
def larger(model_folder: Path) -> GGUFFile:
    """Such a one whose weights matter in a plan."""
    path = model_folder / "larger.gguf"
    mtp.write(path, replace(mtp.SMALL, n_blocks=12, n_embd=512, n_ff=2048, n_vocab=2048), right=0.9)
    return gguf.read(path)


@contextmanager
def opened(
    file: GGUFFile, budget: int = 1 << 30, n_ctx: int = 512
) -> Iterator[tuple[Window, Context, Predictor]]:
    window = Window(file, budget, predicts=True, handlers=handlers(1))
    model = window.load_model()
    context = Context(model, n_ctx=1024, n_threads=1, eval_hook=window.hook(), keeps_state=True)
    hook = window.drafting_hook()
    assert hook is not None
    predictor = Predictor(context, hook, n_ctx=n_ctx, kv_type="f16", batch_tokens=BATCH)
    try:
        yield window, context, predictor
    finally:
        for each in (predictor, context, model, window):
            each.close()


def most_likely(context: Context) -> int:
    return int(np.argmax(context.logits()))


def foreseen(context: Context, predictor: Predictor, count: int = 3) -> list[int]:
    """What the block predicts to follow what the model finds most likely."""
    return predictor.predict([*context.tokens, most_likely(context)], count)


def followers(context: Context, count: int = 3) -> list[int]:
    """What the model finds most likely to follow that, one after the other."""
    tokens = []
    for _ in range(count):
        context.decode([most_likely(context)])
        tokens.append(most_likely(context))
    return tokens


def test_the_block_foresees_what_the_model_says_wherever_the_text_goes(sure: GGUFFile) -> None:
    text = [int(token) for token in np.random.default_rng(1).integers(300, 500, 700)]
    with opened(sure, n_ctx=256) as (_, context, predictor):
        context.decode(text[:20])
        for _ in range(3):  # it goes on
            assert foreseen(context, predictor) == followers(context)
        context.decode(text[20:50])  # with something else
        assert foreseen(context, predictor) == followers(context)
        context.truncate(0)
        context.decode(text[100:500])  # a longer text than it looks back on, and another one
        assert foreseen(context, predictor) == followers(context)
        state = context.export(0, len(context.tokens))
        known = context.tokens[:]
        context.truncate(0)
        context.decode(text[:30])
        context.restore([(known, state)])  # it has not seen these states being computed
        assert predictor.predict([*known, 400], 3) == []
        context.decode([400])
        assert foreseen(context, predictor) == followers(context)
        context.grow(2048)
        context.decode([401])
        assert foreseen(context, predictor) == followers(context)


def test_what_the_block_has_not_seen_it_does_not_predict(sure: GGUFFile) -> None:
    with opened(sure) as (_, context, predictor):
        assert predictor.predict([300, 301], 3) == []
        context.decode([300, 301, 302])
        assert predictor.predict([300, 301, 309, 303], 3) == []  # another text
        assert predictor.predict([300, 301, 302, 303, 304], 3) == []  # further than the model is
        context.decode([303])
        assert foreseen(context, predictor) == followers(context)


def test_drafts_change_no_token(unsure: GGUFFile) -> None:
    prompt = list(range(300, 350))
    with opened(unsure) as (window, context, predictor):
        drafter = PredictionDrafter(predictor, lambda: window.may_draft)
        replies = []
        for drafters in ((), (drafter,), (PromptLookup(), drafter)):
            context.truncate(0)
            context.decode(prompt)
            sampler = Sampler(context.model, Sampling(temperature=0.2), 7, None)
            tokens = [sampler.sample_from(context.logits())]
            speculation = Eager(context, *drafters)
            while len(tokens) < 120:
                tokens += speculation.decode(tokens[-1], sampler, 120 - len(tokens))
            sampler.close()
            replies.append(tokens)
            assert context.tokens == prompt + tokens[:-1]
            assert bool(drafters) == bool(speculation.accepted)
            assert bool(drafters) == (speculation.proposed > speculation.accepted)
    assert replies[0] == replies[1] == replies[2]


def answer(log: Path, load: Load) -> tuple[list[str], Statistics, bool]:
    with Engine(log=log) as engine:
        engine.load(load)
        texts = []
        for seed in range(2):
            request = Generate(
                turns=(Turn("user", "What now? " * 20),),
                sampling=Sampling(seed=seed, temperature=0.2),
                max_tokens=60,
            )
            events = list(engine.generate(request))
            texts.append("".join(e.text for e in events if isinstance(e, Chunk)))
        finished = events[-1]
        assert isinstance(finished, Finished)
        assert finished.statistics is not None
        assert engine.sizing is not None
        return texts, finished.statistics, engine.sizing.predicts


def test_the_engine_answers_the_same_with_it_and_without_streamed_or_not(
    larger: GGUFFile, tmp_path: Path
) -> None:
    load = Load(path=str(larger.path), n_ctx=512, n_threads=1)
    whole = need(larger, 512)
    replies = []
    for predicts in (True, False):
        for ram in (None, whole.total - whole.weights // 3):
            request = msgspec.structs.replace(load, predicts=predicts, ram=ram)
            texts, done, has_predicted = answer(tmp_path / "engine.log", request)
            replies.append(texts)
            assert has_predicted == predicts
            if ram is not None and predicts:
                assert done.streaming is not None
                assert done.streaming.accepted_tokens > 0
    assert all(texts == replies[0] for texts in replies)


def test_a_model_whose_block_is_not_whole_answers_without_it(tmp_path: Path) -> None:
    path = tmp_path / "part.gguf"
    mtp.write(path, mtp.SMALL, without="attn_q.weight")
    assert gguf.read(path).prediction
    texts, _, predicts = answer(tmp_path / "engine.log", Load(path=str(path), n_ctx=512))
    assert all(texts)
    assert not predicts


def test_a_plan_has_it_where_it_fits_and_is_wanted(larger: GGUFFile) -> None:
    def of(usable: int) -> tuple[bool, int]:
        ram = AvailableRam(1 << 40, usable, "all RAM of this machine", 0)
        chosen = plan(larger, ram, USUAL, n_ctx=512, kv_type="f16")
        assert chosen.peak_bytes <= usable
        assert chosen.predicts == ("prediction block drafts" in why(chosen, ram))
        return chosen.predicts, chosen.streamed_bytes

    with_it, without = need(larger, 512, predicts=True), need(larger, 512)
    assert of(with_it.total) == (True, 0)
    assert of(with_it.total - 1) == (False, 0)
    assert of(without.total) == (False, 0)
    assert of(without.total - without.weights // 4)[1] > 0


def test_a_model_that_cannot_be_drafted_for_or_has_no_whole_block_has_none(
    sure: GGUFFile,
) -> None:
    assert sure.prediction
    other = {**sure.metadata, "general.architecture": "qwen3"}
    assert not replace(sure, metadata=other).prediction
    missing = {n: t for n, t in sure.tensors.items() if not n.endswith("eh_proj.weight")}
    assert not replace(sure, tensors=missing).prediction
    two = {**sure.metadata, "qwen35.nextn_predict_layers": 2}
    assert not replace(sure, metadata=two).prediction


def test_it_takes_what_is_planned(sure: GGUFFile) -> None:
    for n_ctx in (512, 1024):
        llama.start(io.StringIO())
        more, alone = need(sure, n_ctx, predicts=True), need(sure, n_ctx)
        with opened(sure, n_ctx=n_ctx) as (_, _, predictor):
            assert more.kv - alone.kv == predictor.kv_bytes
            assert more.compute - alone.compute >= predictor.compute_bytes
            assert more.weights - alone.weights == sum(
                sure.tensors[name].n_bytes for name in sure.prediction - sure.read_by_row
            )


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_it_is_in_ram_at_every_size_and_nothing_is_read_for_it(
    sure: GGUFFile, share: float
) -> None:
    placements = Placements(sure, predicts=True)
    least, most = placements.least_bytes, placements.most_bytes
    with opened(sure, least + int(share * (most - least))) as (window, context, predictor):
        placed = window.placement
        pinned = {tensor.name for tensor in (*placed.pinned, *placed.on_file)}
        assert sure.prediction <= pinned
        context.decode(list(range(300, 310)))
        read = window.statistics().bytes_read
        if window.may_draft:
            assert foreseen(context, predictor)
        assert window.statistics().bytes_read == read
        assert window.may_draft == all(
            not tensor.name.startswith("output.weight") for tensor in placed.streamed
        )


def test_a_random_block_is_asked_seldom(tmp_path: Path) -> None:
    path = shapes.write_random(
        tmp_path, "drafting block", GGMLQuantizationType.Q8_0, np.random.default_rng(1)
    )
    with opened(gguf.read(path)) as (window, context, predictor):
        context.decode(list(range(10, 40)))
        sampler = Sampler(context.model, GREEDY, 0, None)
        speculation = Speculation(context, PredictionDrafter(predictor, lambda: window.may_draft))
        tokens = [sampler.sample_from(context.logits())]
        passes = 0
        while len(tokens) < 150:
            tokens += speculation.decode(tokens[-1], sampler, 150 - len(tokens))
            passes += 1
        assert speculation.proposed < passes / 2
        sampler.close()
