"""A stack of a mixture of experts, of which most experts are on the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import get_args

import numpy as np
import pytest
import stacks
import synthetic_moe as moe
from broken_disk import failing_reads
from planned import plan

from ondevice import gguf
from ondevice.disk.reader import PAGE
from ondevice.errors import LoadCancelled, MemoryShortError, ModelFileError
from ondevice.holding.experts.blocks import slots_bytes
from ondevice.holding.machine import Machine
from ondevice.holding.plan import Plan
from ondevice.holding.speeds import USUAL
from ondevice.holding.stack._file import StackFile
from ondevice.holding.stack._layout import FIRST_PLANE, PLANES
from ondevice.holding.stack.pack import pack
from ondevice.holding.stack.stack import Stack
from ondevice.holding.stack.way import Stacked
from ondevice.llama import Context
from ondevice.messages import Load, Preference, Sizing
from ondevice.planning import fit, replies
from ondevice.planning.planner import least_ram
from ondevice.ram.available import AvailableRam

PAGES = Path("/proc/self/pagemap")
SHAPE = replace(moe.SMALL, n_blocks=3)
CALIBRATION = "Colours are red and blue. " * 4
TOKENS = moe.text(200, SHAPE)
#: A prompt that needs most experts, single tokens, a draft, and so on.
LENGTHS = [40, *[1] * 20, 5, 1, 3, *[1] * 10, 60, *[1] * 10]


@pytest.fixture(scope="module", params=["in one chunk", "across chunks"])
def file(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[StackFile]:
    folder = tmp_path_factory.mktemp("moe")
    moe.write(folder / "moe.gguf", SHAPE, speaks=True)
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "across chunks":  # of 376 rows, and an expert has 256
            patch.setattr("ondevice.holding.stack._layout.MOST_COLUMNS", 256 * 384)
        packed = folder / "moe.stack.gguf"
        pack(folder / "moe.gguf", packed, calibration=CALIBRATION)
        yield StackFile.of(gguf.read(packed))


def budget(file: StackFile, share: float) -> int:
    """0: no experts are kept; 1: all but one byte would fit."""
    least = file.beside_experts_bytes + slots_bytes(file.expert_blocks)
    return least + int(share * (file.ram_bytes[-1] - 1 - least))


def opened(file: StackFile, n_bytes: int | None) -> AbstractContextManager[tuple[Stack, Context]]:
    return stacks.opened(file.gguf.path, n_bytes, whole=True, n_ctx=512)


def logits(context: Context, between: Callable[[], object] = lambda: None) -> list[bytes]:
    tokens = iter(TOKENS)
    result = []
    for length in LENGTHS:
        context.decode([next(tokens) for _ in range(length)])
        result.append(context.logits().tobytes())
        between()
    return result


@pytest.fixture(scope="module")
def resident(file: StackFile) -> list[bytes]:
    with opened(file, None) as (stack, context):
        assert stack.streamed_bytes == 0
        return logits(context)


@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 1.0])
def test_the_logits_are_those_of_the_whole_stack_in_ram(
    file: StackFile, resident: list[bytes], share: float
) -> None:
    with opened(file, budget(file, share)) as (stack, context):
        assert logits(context) == resident
        assert stack.resident_bytes <= budget(file, share)
        assert stack.streamed_bytes == stack.absent_bytes > 0
        assert 0 < stack.statistics().experts_found < stack.statistics().experts_used


@pytest.mark.parametrize("blocks", [0.0, 0.3, 0.7, 0.9])
def test_the_logits_of_a_cut_are_those_of_its_blocks_in_ram(file: StackFile, blocks: float) -> None:
    cut = file.cut(file.n_base + int(blocks * len(file.blocks)))
    if cut.least_with_experts >= cut.ram_bytes[-1]:
        pytest.skip("all of it takes less than the slots of experts as small as these")
    with opened(file, None) as (stack, context):
        stack.products.use(cut.blocks)
        wanted = logits(context)
    random = Random(1)
    sizes = [budget(cut, share) for share in (0.0, 0.3, 1.0)]
    with stacks.opened(file.gguf.path, sizes[1], cut=cut, n_ctx=512) as (stack, context):
        assert logits(context, lambda: stack.resize(random.choice(sizes))) == wanted
        assert stack.resident_bytes <= sizes[2]
        assert 0 < stack.streamed_bytes < stack.absent_bytes
        stack.resize(None)
        assert stack.absent_bytes == 0
        stack.resize(sizes[0])
        context.truncate(0)
        assert logits(context) == wanted


def test_only_experts_that_are_needed_and_missing_are_read(file: StackFile) -> None:
    with opened(file, budget(file, 0.5)) as (stack, context):
        context.decode(TOKENS[:50])
        before = stack.statistics()
        for token in TOKENS[50:150]:
            context.decode([token])
        done = stack.statistics().since(before)
    assert done.experts_used == 100 * SHAPE.n_blocks * SHAPE.n_used
    missed = done.experts_used - done.experts_found
    assert 0 < missed < 0.7 * done.experts_used
    n_bytes = sum(matrix.expert_bytes for matrix in file.expert_blocks[0].matrices)
    sectors = 3 * 2 * (FIRST_PLANE + PLANES) * 2 * 512  # where the pieces begin and end
    assert missed * n_bytes <= done.bytes_read <= missed * (n_bytes + sectors)


def test_resizing_in_mid_reply_changes_no_bit(file: StackFile, resident: list[bytes]) -> None:
    random = Random(1)
    sizes = [budget(file, share) for share in (0.0, 0.1, 0.5, 1.0)]
    ring = file.whole_bytes[file.n_unpacked]  # all that no expert needs does not fit
    if ring < sizes[0]:
        sizes.append(ring)
    with opened(file, sizes[0]) as (stack, context):

        def resize() -> None:
            stack.resize(random.choice([*sizes, None]))

        assert logits(context, resize) == resident
        stack.resize(sizes[1])
        assert stack.resident_bytes <= sizes[1]


@pytest.mark.skipif(not PAGES.exists(), reason="only Linux tells which pages are in RAM")
@pytest.mark.parametrize(
    ("way", "is_cut"),
    [
        ([0.3], False),
        ([None, 0.3], False),
        ([1.0, 0.3], False),
        ([0.0, None, 0.3], False),
        ([0.0, None, 0.3], True),
    ],
)
def test_it_takes_the_ram_that_it_says(
    file: StackFile, way: list[float | None], is_cut: bool
) -> None:
    used = file.cut(file.n_base + int(0.7 * len(file.blocks))) if is_cut else file
    first, *others = [None if share is None else budget(used, share) for share in way]
    how = {"cut": used} if is_cut else {"whole": True}
    with stacks.opened(file.gguf.path, first, n_ctx=512, **how) as (stack, context):
        for size in [*others, others[-1] if others else first]:
            logits(context)
            context.truncate(0)
            stack.resize(size)
        logits(context)
        taken = in_ram(stack._arena.address, stack._arena.n_bytes)
        assert stack._experts is not None
        slots = stack._experts._slots
        taken += in_ram(slots.address, slots.n_bytes)
        assert 0.5 * stack.resident_bytes < taken <= stack.resident_bytes


def in_ram(start: int, n_bytes: int) -> int:
    """Bytes of these pages that are in RAM."""
    with PAGES.open("rb") as pages:
        pages.seek(start // PAGE * 8)
        entries = np.frombuffer(pages.read(-(-n_bytes // PAGE) * 8), np.uint64)
    return int(np.count_nonzero(entries >> np.uint64(63))) * PAGE


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_after_a_passing_error_no_expert_is_taken_for_another(
    file: StackFile, resident: list[bytes], share: float
) -> None:
    with opened(file, budget(file, share)) as (_, context):
        with failing_reads(every=50):
            for at in range(0, 30, 3):
                with pytest.raises(ModelFileError):
                    for _ in range(50):
                        context.decode(TOKENS[at : at + 3])
        context.truncate(0)
        assert logits(context) == resident


def test_growing_that_is_cancelled_leaves_what_was_there(
    file: StackFile, resident: list[bytes]
) -> None:
    with opened(file, budget(file, 0.5)) as (stack, context):
        before = stack.resident_bytes
        with pytest.raises(LoadCancelled):
            stack.resize(None, on_progress=lambda _: False)
        assert stack.resident_bytes == before
        assert logits(context) == resident


@pytest.mark.parametrize("preference", get_args(Preference))
def test_more_ram_never_plans_a_worse_stack_of_a_mixture(
    file: StackFile, preference: Preference
) -> None:
    roomy = AvailableRam(10**12, 10**12, "all RAM of this machine")
    least = least_ram(file.gguf, preference=preference)
    most = plan(file.gguf, roomy, USUAL).peak_bytes
    worths = []
    for usable in range(least, most + 200_000, (most - least) // 40):
        ram = AvailableRam(most, usable, "a limit")
        chosen = plan(file.gguf, ram, USUAL, preference=preference)
        assert chosen.peak_bytes <= usable
        worths.append(chosen.worth(preference))
    assert worths == sorted(worths)


def test_plans_that_stream_experts_are_opened_as_planned(file: StackFile) -> None:
    whole = plan(file.gguf, AvailableRam(10**12, 10**12, "all RAM"), USUAL, n_ctx=512)
    usable = whole.peak_bytes - file.ram_bytes[-1] + budget(file, 0.5)
    machine = Machine(AvailableRam(10**12, usable, "a limit"), USUAL)
    plans = Stacked(file.gguf).plans(512, "f16", (), machine)
    streaming = [each for each in plans if each.streamed_bytes]
    assert [each.left_out_bytes for each in streaming] == sorted(
        (each.left_out_bytes for each in streaming), reverse=True
    )
    assert streaming[-1].left_out_bytes == 0
    assert streaming[-1].quality == 1
    if len(file.matrices["blk.0.ffn_up_exps.weight"].shape.chunks()) == 1:
        assert len(streaming) > 2
    ways = set()  # of which the speeds are kept apart
    for chosen in streaming:
        assert chosen.first_token_s > chosen.streamed_bytes / USUAL.disk  # a prompt needs all
        load = Load(path=str(file.gguf.path), n_threads=1)
        with closing(Stacked(file.gguf).open(chosen, load, lambda _: True)) as stack:
            assert stack.resident_bytes == chosen.resident_bytes
            assert stack.streamed_bytes == chosen.streamed_bytes
            assert stack.absent_bytes == chosen.streamed_bytes + chosen.left_out_bytes
            held = Sizing(
                budget=None,
                resident_bytes=stack.resident_bytes,
                absent_bytes=stack.absent_bytes,
                streamed_bytes=stack.streamed_bytes,
                least_bytes=stack.least_bytes,
                most_bytes=stack.most_bytes,
                room_bytes=usable,
                limit_bytes=usable,
                limit_source="a limit",
            )
            told = stack.describe(held)
            cells = Stacked(file.gguf).cells(told)
        assert (told.n_blocks == told.total_blocks) == (chosen.left_out_bytes == 0)
        blocks = [cell for cell in cells if cell.block is not None]
        assert {cell.absent for cell in blocks} == {"experts"}
        absent = sum(cell.n_bytes - cell.resident_bytes for cell in cells)
        assert absent == chosen.streamed_bytes
        ways.add(replies.held(load, told))
        assert fit._held(chosen, load) in ways
    assert len(ways) == len(streaming)


def test_an_exact_plan_leaves_nothing_out(file: StackFile) -> None:
    roomy = AvailableRam(10**12, 10**12, "all RAM of this machine")
    most = plan(file.gguf, roomy, USUAL, n_ctx=512).peak_bytes
    least = {each: least_ram(file.gguf, 512, "f16", each) for each in get_args(Preference)}

    def planned(usable: int) -> Plan:
        ram = AvailableRam(10**12, usable, "a limit")
        return plan(file.gguf, ram, USUAL, n_ctx=512, kv_type="f16", preference="exact")

    for usable in range(least["exact"], most, (most - least["exact"]) // 20):
        assert not planned(usable).left_out_bytes
    assert least["balanced"] < least["exact"]
    with pytest.raises(MemoryShortError, match="A part of it fits: --prefer balanced"):
        planned(least["exact"] - 1)


def test_the_logits_do_not_depend_on_how_a_prompt_is_cut(file: StackFile) -> None:
    """Nor those of products with what is not in planes, such as the weights of a router."""
    chosen = plan(file.gguf, AvailableRam(10**12, 10**12, "all RAM"), USUAL, n_ctx=512)
    load = Load(path=str(file.gguf.path), n_threads=1)
    with closing(chosen.way.open(chosen, load, lambda _: True)) as weights:
        model = weights.load_model()
        found = set()
        for cut in (0, 1, 2, 4, 7, 8, 40):
            context = Context(model, n_ctx=512, n_threads=1, eval_hook=weights.hook())
            for part in TOKENS[: len(TOKENS) - cut], TOKENS[len(TOKENS) - cut :]:
                if part:
                    context.decode(part)
            found.add(context.logits().tobytes())
            context.close()
        model.close()
    assert len(found) == 1


def test_a_token_of_a_mixture_is_multiplied_with_the_experts_that_it_uses(file: StackFile) -> None:
    experts = [file.matrices[m.name] for block in file.expert_blocks for m in block.matrices]
    n_weights = sum(matrix.shape.n_weights for matrix in experts)
    used = n_weights * SHAPE.n_used // SHAPE.n_experts
    assert sum(file.multiplied.values()) == file.n_weights - n_weights + used


def test_packing_measures_the_same_in_little_ram(
    file: StackFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, packed = file.gguf.path.parent / "moe.gguf", tmp_path / "moe.stack.gguf"
    monkeypatch.setattr("ondevice.holding.stack._order._RAM", budget(file, 0.3))
    monkeypatch.setattr("ondevice.holding.stack._file.RING_BYTES", 100_000)
    pack(source, packed, calibration=CALIBRATION)
    assert packed.read_bytes() == file.gguf.path.read_bytes()
