"""A window whose budget changes: it takes what it says and reads what it must, at every size."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
import shapes
import synthetic_moe as moe
from gguf import GGMLQuantizationType
from windows import opened, read_by_a_pass

from ondevice import gguf
from ondevice.disk import reader, ring
from ondevice.gguf import GGUFFile
from ondevice.holding.experts import experts
from ondevice.holding.window.placement import Placements
from ondevice.holding.window.window import Window
from ondevice.llama import Context, EvalHook, Model
from ondevice.products import handlers
from ondevice.ram.need import need

LEAST, HALF, ALL = 0.0, 0.5, 1.0


def budget(file: GGUFFile, share: float) -> int:
    placements = Placements(file)
    return placements.least_bytes + int(share * (placements.most_bytes - placements.least_bytes))


def read_for_each(window: Window, context: Context, tokens: list[int]) -> float:
    """Bytes, once the first tokens have shown the order."""
    for token in tokens[:3]:
        context.decode([token])
    before = window.statistics().bytes_read
    for token in tokens:
        context.decode([token])
    return (window.statistics().bytes_read - before) / len(tokens)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> GGUFFile:
    path = tmp_path_factory.mktemp("moe") / "moe.gguf"
    moe.write(path, moe.SMALL)
    return gguf.read(path)


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Bytes that all windows hold for weights, beside pages of their files."""
    arenas: weakref.WeakSet[Counted] = weakref.WeakSet()

    class Counted(reader.Arena):
        def __init__(self, n_bytes: int) -> None:
            super().__init__(n_bytes)
            self.held = n_bytes
            arenas.add(self)

        def release(self, offset: int, n_bytes: int) -> None:
            super().release(offset, n_bytes)
            self.held -= n_bytes

    monkeypatch.setattr(experts, "Arena", Counted)
    monkeypatch.setattr(ring, "Arena", Counted)

    def held() -> int:
        gc.collect()
        return sum(arena.held for arena in arenas)

    return held


@pytest.mark.parametrize(
    ("start", "end"),
    [(LEAST, ALL), (LEAST, HALF), (HALF, ALL), (ALL, HALF), (HALF, LEAST), (0.8, 0.3)],
)
def test_a_mixture_follows_its_budget(
    mixture: GGUFFile, memory: Callable[[], int], start: float, end: float
) -> None:
    tokens = moe.text(40, moe.SMALL)
    with opened(mixture, budget(mixture, end)) as (window, context):
        read_for_each(window, context, tokens)
        expected = read_for_each(window, context, tokens)
    with opened(mixture, budget(mixture, start)) as (window, context):
        read_for_each(window, context, tokens)
        window.resize(budget(mixture, end))
        read_for_each(window, context, tokens)
        assert read_for_each(window, context, tokens) <= 1.1 * expected  # it knows more of the text
        assert (window.streamed_bytes == 0) == (end == ALL) == (expected == 0)
        assert memory() == window.placement.own_bytes


def test_the_experts_that_are_used_most_survive_a_change(mixture: GGUFFile) -> None:
    with opened(mixture, budget(mixture, 0.8)) as (window, context):
        token = moe.text(1, moe.SMALL)
        for share in (0.8, 0.5, 0.9):
            window.resize(budget(mixture, share))
            if share != 0.8:  # the same token once more: its experts are there
                before = window.statistics()
                context.decode(token)
                done = window.statistics().since(before)
                assert done.experts_found >= 0.8 * done.experts_used
            for _ in range(12):
                context.decode(token)


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_a_pass_reads_what_it_uses_and_no_more(tmp_path: Path, name: str) -> None:
    path = shapes.write_random(tmp_path, name, GGMLQuantizationType.Q8_0, np.random.default_rng(1))
    file = gguf.read(path)
    with opened(file, budget(file, LEAST)) as (window, context):
        for token in range(10, 13):  # shows the order
            context.decode([token])
        before = window.statistics()
        context.decode([13])
        placement, done = window.placement, window.statistics().since(before)
    # Of one that is missing, all its tensors are.
    expert = (
        sum(each.expert_bytes for each in placement.experts[0].matrices) if placement.experts else 0
    )
    missed = (done.experts_used - done.experts_found) * expert
    assert done.bytes_read <= 1.02 * (placement.streamed_bytes + missed)


@pytest.mark.parametrize("name", shapes.SHAPES)
def test_what_counts_as_unread_is_what_no_node_reads(tmp_path: Path, name: str) -> None:
    file = gguf.read(shapes.write(tmp_path, name))
    assert file.unread == file.tensors.keys() - read_by_a_pass(file)


@pytest.mark.parametrize("name", ["drafting block", "shared keys"])
@pytest.mark.parametrize("share", [LEAST, 0.3])
def test_what_llama_cpp_never_reads_costs_nothing(tmp_path: Path, name: str, share: float) -> None:
    path = shapes.write_random(tmp_path, name, GGMLQuantizationType.F16, np.random.default_rng(1))
    file = gguf.read(path)
    never = file.unread
    assert never
    with opened(file, budget(file, share)) as (window, context):
        per_pass = read_for_each(window, context, list(range(10, 18)))
        placement = window.placement
    placed = {t.name for t in (*placement.on_file, *placement.pinned, *placement.streamed)}
    assert not placed & never
    assert per_pass == pytest.approx(placement.streamed_bytes, rel=0.05)
    unused = sum(file.tensors[each].n_bytes for each in never)
    assert need(file).weights == file.weights_bytes - unused


def test_the_order_is_learnt_though_some_tensors_are_never_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where nothing in the file tells that."""
    for name in ("drafting block", "shared keys"):
        kind = GGMLQuantizationType.F16
        path = shapes.write_random(tmp_path, name, kind, np.random.default_rng(1))
        file = gguf.read(path)
        never = file.unread
        monkeypatch.setitem(file.__dict__, "unread", frozenset())
        with opened(file, budget(file, LEAST)) as (window, context):
            per_pass = read_for_each(window, context, list(range(10, 18)))
            streamed = window.placement.streamed
        used = sum(t.n_bytes for t in streamed if t.name not in never)
        assert per_pass == pytest.approx(used, rel=0.05)


@pytest.mark.random
def test_the_logits_stay_the_same_while_the_budget_changes(
    tmp_path: Path, rounds: Callable[[int], Iterator[Random]]
) -> None:
    for random in rounds(4):
        name = random.choice(list(shapes.SHAPES))
        kind = random.choice([GGMLQuantizationType.F16, GGMLQuantizationType.Q8_0])
        values = np.random.default_rng(random.randrange(1 << 32))
        file = gguf.read(path := shapes.write_random(tmp_path, name, kind, values))
        batches = [
            [random.randrange(3, 259) for _ in range(random.choice((1, 1, 1, 4, 30)))]
            for _ in range(12)
        ]
        model = Model(path, use_extra_bufts=False)
        context = Context(model, n_ctx=512, n_threads=1)
        expected = []
        for batch in batches:
            context.decode(batch)
            expected.append(context.logits().tobytes())
        context.close()
        model.close()
        with opened(file, budget(file, random.random())) as (window, context):
            for batch, logits in zip(batches, expected, strict=True):
                if random.random() < 0.7:
                    change = random.choice((window.resize, window.aim))
                    change(budget(file, random.choice((LEAST, ALL, random.random()))))
                context.decode(batch)
                assert context.logits().tobytes() == logits, (name, kind.name)
        path.unlink()


def test_all_in_ram_costs_nothing_at_nodes_and_can_still_shrink(
    short: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not handlers(1):
        pytest.skip("nothing can be compiled here")
    asked: list[bool] = []
    on_node = EvalHook._on_node

    def count(hook: EvalHook, address: int, ask: bool, data: int | None) -> bool:
        asked.append(ask)
        return on_node(hook, address, ask, data)

    monkeypatch.setattr(EvalHook, "_on_node", count)
    file = gguf.read(short)
    window = Window(file, budget(file, ALL), handlers=handlers(1))
    model = window.load_model()
    context = Context(model, n_ctx=512, n_threads=1, eval_hook=window.hook())
    tokens = model.tokenize("The quick brown fox jumps over the lazy dog, and then it sleeps.")

    def logits(n: int) -> list[np.ndarray]:
        context.decode(tokens[:n], n_outputs=n)
        found = [context.logits(back) for back in range(n, 0, -1)]
        context.truncate(len(context.tokens) - n)
        return found

    context.decode(tokens)
    alone, few = logits(1), logits(5)
    for again in (logits(3), logits(5)):
        assert all((a == b).all() for a, b in zip(again, few, strict=False))
    asked.clear()
    assert (logits(1)[0] == alone[0]).all()
    assert not any(asked)
    for share, is_read in ((LEAST, True), (ALL, False)):
        window.resize(budget(file, share))
        logits(1)
        before = window.statistics().bytes_read
        assert all((a == b).all() for a, b in zip(logits(5), few, strict=True))
        assert (logits(1)[0] == alone[0]).all()
        assert (window.statistics().bytes_read > before) == is_read
    asked.clear()
    logits(4)
    assert not any(asked)
    context.close()
    model.close()
    window.close()
