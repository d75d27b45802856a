"""The window on a mixture of experts: the same logits, though most experts are on the disk."""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import count, groupby
from pathlib import Path
from typing import Any

import pytest
import synthetic_moe as moe
from broken_disk import failing_reads
from hypothesis import given, settings
from hypothesis import strategies as st
from windows import opened

from ondevice import gguf
from ondevice.disk import reader
from ondevice.errors import ModelFileError
from ondevice.gguf import GGUFFile
from ondevice.holding.experts.blocks import ExpertBlock, slots_bytes
from ondevice.holding.experts.cache import ExpertCache
from ondevice.holding.experts.experts import Experts
from ondevice.holding.window.placement import least_bytes, place
from ondevice.llama import Context, EvalHook, Model

SHAPE = replace(moe.SMALL, n_blocks=5)
TOKENS = moe.text(200, SHAPE)
#: A prompt that needs most experts, single tokens, a draft, and so on.
LENGTHS = [40, *[1] * 30, 5, 1, 3, *[1] * 30, 60, *[1] * 10]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> GGUFFile:
    path = tmp_path_factory.mktemp("moe") / "moe.gguf"
    moe.write(path, SHAPE)
    return gguf.read(path)


def budget(file: GGUFFile, share: float) -> int:
    least = least_bytes(file)
    return least + int(share * (file.weights_bytes - least))


def logits(context: Context) -> list[bytes]:
    tokens = iter(TOKENS)
    result = []
    for length in LENGTHS:
        context.decode([next(tokens) for _ in range(length)])
        result.append(context.logits().tobytes())
    return result


@pytest.fixture(scope="module")
def resident(file: GGUFFile) -> list[bytes]:
    model = Model(file.path, use_extra_bufts=False)
    context = Context(model, n_ctx=512, n_threads=1)
    result = logits(context)
    context.close()
    model.close()
    return result


@pytest.mark.parametrize("share", [0.0, 0.1, 0.3, 0.6, 0.9, 2.0])
def test_the_logits_are_those_of_the_resident_model(
    file: GGUFFile, resident: list[bytes], share: float
) -> None:
    with opened(file, budget(file, share)) as (_, context):
        assert logits(context) == resident


def no_slots(blocks: tuple[ExpertBlock, ...]) -> list[ExpertBlock]:
    return [replace(block, n_slots=0) for block in blocks]


def test_a_split_of_the_budget_between_what_all_tokens_need_and_experts(file: GGUFFile) -> None:
    for share in (0.0, 0.05, 0.2, 0.5, 0.95, 1.2):
        placement = place(file, budget(file, share))
        assert placement.resident_bytes <= budget(file, share)
        experts = [each.name for block in placement.experts for each in block.matrices]
        placed = [*placement.on_file, *placement.pinned, *placement.streamed]
        assert sorted([t.name for t in placed] + experts) == sorted(file.tensors)
        if placement.streamed:  # what every token needs comes first
            assert slots_bytes(placement.experts) == slots_bytes(no_slots(placement.experts))
    assert not placement.experts
    assert placement.absent_bytes == 0


def test_experts_that_recent_tokens_used_are_found_in_ram(file: GGUFFile) -> None:
    with opened(file, budget(file, 0.3)) as (window, context):
        assert 4 <= window.placement.experts[0].n_slots <= 8
        context.decode(TOKENS[:50])
        before = window.statistics()
        for token in TOKENS[50:]:
            context.decode([token])
        done = window.statistics().since(before)
    assert done.experts_used == 150 * SHAPE.n_blocks * SHAPE.n_used
    assert 0.6 < done.experts_found / done.experts_used < 1
    missed = done.experts_used - done.experts_found
    sizes = [
        sum(each.expert_bytes for each in block.matrices) for block in window.placement.experts
    ]
    assert missed * min(sizes) <= done.bytes_read <= missed * max(sizes) * 1.02


def test_a_prompt_reads_each_expert_at_most_once(file: GGUFFile) -> None:
    with opened(file, budget(file, 0.6)) as (window, context):
        context.decode(TOKENS[:100])
        context.truncate(0)
        before = window.statistics()
        context.decode(TOKENS[:100])
        done = window.statistics().since(before)
    assert done.experts_found > 0.3 * done.experts_used
    absent = file.n_experts * SHAPE.n_blocks - done.experts_found
    assert done.bytes_read <= absent * max(b.bytes_per_slot for b in window.placement.experts)


class AtOnce(ThreadPoolExecutor):
    """Does each job when it gets it."""

    def submit(self, job: Any, /, *args: Any, **more: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(job(*args, **more))
        except ModelFileError as error:
            done.set_exception(error)
        return done


@pytest.mark.parametrize("broken", [1, 2, 0], ids=["every read", "every other", "none"])
def test_empty_slots_are_filled_before_a_prompt_comes(
    file: GGUFFile, resident: list[bytes], monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    fill = Experts.fill

    def fill_from_such_a_disk(self: Experts) -> None:
        with failing_reads(broken):
            fill(self)

    monkeypatch.setattr(reader, "ThreadPoolExecutor", AtOnce)
    monkeypatch.setattr(Experts, "fill", fill_from_such_a_disk)
    with opened(file, budget(file, 0.8)) as (window, context):
        context.decode(list(range(200)))  # about everything, so that all experts are needed
        found = window.statistics().experts_found
        context.truncate(0)
        assert logits(context) == resident
    # The first blocks lend their slots to the prompt, and the last one computes one token only.
    slots = window.placement.experts[-2].n_slots
    assert found == 0 if broken else found >= slots


def test_all_reads_at_once_are_of_what_is_needed_first(
    file: GGUFFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, offsets = os.preadv, list[int]()

    def noted(fd: int, buffers: list[memoryview], offset: int) -> int:
        offsets.append(offset)
        return real(fd, buffers, offset)

    monkeypatch.setattr(reader, "ThreadPoolExecutor", AtOnce)
    with opened(file, budget(file, 0.3)) as (window, context):
        context.decode(TOKENS[:50])
        monkeypatch.setattr(os, "preadv", noted)
        for token in TOKENS[50:80]:
            context.decode([token])
    starts = sorted(
        file.tensors[each.name].offset
        for block in window.placement.experts
        for each in block.matrices
    )
    read = [bisect_left(starts, at + 512) for at in offsets]  # a read begins with a whole sector
    runs = [len(list(same)) for _, same in groupby(read)]
    assert runs
    assert min(runs) >= reader.READS_IN_FLIGHT


def test_a_draft_with_somewhat_too_many_experts_takes_slots_of_one_block(
    file: GGUFFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleared, clear = set[int](), ExpertCache.clear

    def noted(self: ExpertCache) -> None:
        cleared.add(id(self))
        clear(self)

    monkeypatch.setattr(ExpertCache, "clear", noted)
    fits = next(n for n in count(least_bytes(file), 4096) if slots(file, n) == 7)
    with opened(file, fits) as (_, context):
        for at in range(0, 160, 4):  # neighbours are of different topics: up to 8 experts
            context.decode(list(range(at, at + 4)))
    assert len(cleared) == 1


def slots(file: GGUFFile, n_bytes: int) -> int:
    """Of the block with the fewest."""
    return min(block.n_slots for block in place(file, n_bytes).experts)


@pytest.mark.parametrize("share", [0.05, 0.4])
def test_after_a_passing_error_no_expert_is_taken_for_another(
    file: GGUFFile, resident: list[bytes], share: float
) -> None:
    with opened(file, budget(file, share)) as (_, context):
        with failing_reads(every=7):
            for at in range(0, 60, 3):
                with pytest.raises(ModelFileError):
                    for _ in range(50):
                        context.decode(TOKENS[at : at + 3])
        context.truncate(0)
        assert logits(context) == resident


def test_a_file_that_is_changed_ends_the_reply(file: GGUFFile, tmp_path: Path) -> None:
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(file.path.read_bytes())
    with opened(gguf.read(copy), budget(file, 0.4)) as (_, context):
        context.decode(TOKENS[:10])
        os.utime(copy)
        with pytest.raises(ModelFileError, match="changed while"):
            context.decode(TOKENS[10:11])
        assert context.tokens == TOKENS[:10]


def test_a_prompt_that_is_cancelled_leaves_the_cache_in_order(
    file: GGUFFile, resident: list[bytes]
) -> None:
    with opened(file, budget(file, 0.4)) as (window, context):

        class AfterSomeReads(threading.Event):
            """Set once the second block has asked for its experts."""

            def is_set(self) -> bool:
                return window.statistics().experts_used > SHAPE.n_experts

        assert not context.decode(TOKENS[:150], AfterSomeReads())
        assert context.tokens == []
        assert logits(context) == resident


def test_two_contexts_share_the_experts(file: GGUFFile, resident: list[bytes]) -> None:
    with opened(file, budget(file, 0.4)) as (window, context):
        other = Context(context.model, n_ctx=256, n_threads=1, eval_hook=EvalHook(window))
        context.decode(TOKENS[:5])
        for token in TOKENS[:30]:
            other.decode([token])
        context.truncate(0)
        assert logits(context) == resident
        other.close()


@settings(max_examples=50)
@given(
    n_slots=st.integers(1, 8),
    tokens=st.lists(st.sets(st.integers(0, 11), min_size=1, max_size=4), max_size=60),
)
def test_a_cache_maps_each_expert_to_a_slot_of_its_own(
    n_slots: int, tokens: list[set[int]]
) -> None:
    cache = ExpertCache(12, n_slots)
    for experts in tokens:
        cache.note([sorted(experts)])
        wanted = set(sorted(experts)[:n_slots])
        missing = wanted - cache.slots.keys()
        admitted = cache.admit(sorted(missing), keep=wanted)
        assert admitted.keys() == missing
        assert wanted <= cache.slots.keys()
        assert len(set(cache.slots.values())) == len(cache.slots) <= n_slots
        assert set(cache.slots.values()) <= set(range(n_slots))


def test_the_expert_that_recent_tokens_used_least_is_evicted() -> None:
    cache = ExpertCache(8, 3)
    for token in ([0], [0], [0], [1], [1], [2]):
        cache.note([token])
    cache.admit([0, 1, 2], keep=[0, 1, 2])
    cache.note([[3]])
    cache.admit([3], keep=[3])
    assert cache.slots.keys() == {0, 1, 3}
    for _ in range(5000):  # long after, a new favourite matters
        cache.note([[3], [4]])
    cache.admit([4], keep=[4])
    assert cache.slots.keys() >= {3, 4}


def test_of_experts_that_were_used_alike_the_one_that_was_nearly_used_stays() -> None:
    cache = ExpertCache(4, 2)
    cache.note([[0, 1, 2, 3], [1, 0, 2, 3], [2, 1, 3, 0]])
    cache.admit([0, 1], keep=[0, 1])
    cache.admit([2], keep=[2])
    assert cache.slots.keys() == {1, 2}


def test_a_window_knows_how_the_router_ranks_all_experts(
    file: GGUFFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[int]] = []
    note = ExpertCache.note

    def noted(cache: ExpertCache, rankings: list[list[int]]) -> None:
        seen.extend(rankings)
        note(cache, rankings)

    monkeypatch.setattr(ExpertCache, "note", noted)
    with opened(file, budget(file, 0.4)) as (_, context):
        context.decode(TOKENS[:3])
    assert len(seen) > SHAPE.n_blocks
    assert all(sorted(experts) == list(range(SHAPE.n_experts)) for experts in seen)
