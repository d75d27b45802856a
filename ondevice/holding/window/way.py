"""Windowed: weights are pages of the file, all of them in RAM or some read for each pass."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from functools import cache, partial
from typing import TYPE_CHECKING

from ondevice.gguf import GGUFFile
from ondevice.gguf.verifying import can_verify
from ondevice.holding.cells import Cell, CellPart, cells_in_ram, sum_cells
from ondevice.holding.costs import (
    DISK_FACTOR,
    PREDICTED,
    decode_seconds,
    drafted_seconds,
    missed_bytes,
    predicted_seconds,
    streaming_seconds,
)
from ondevice.holding.machine import Machine
from ondevice.holding.plan import Plan
from ondevice.holding.speeds import Speeds
from ondevice.holding.window.placement import Placement, Placements
from ondevice.messages import KVType, Load, Sizing
from ondevice.ram.need import need

if TYPE_CHECKING:
    from ondevice.holding.window.window import Window

_LOOKED_UP = 1.1  # tokens that a pass gives with what the conversation itself proposes


class Windowed:
    """For any model in GGUF."""

    name = "window"
    drafts_itself = False

    def __init__(self, file: GGUFFile) -> None:
        self._file = file

        self._placements = cache(partial(Placements, file))

    def least_bytes(self, n_ctx: int, kv_type: KVType, *, exact: bool = False) -> int:
        del exact  # it always is
        wanted = need(self._file, n_ctx, kv_type)
        return wanted.total - wanted.weights + self._placements(predicts=False).least_bytes

    def plans(
        self, n_ctx: int, kv_type: KVType, drafters: Collection[Plan], machine: Machine
    ) -> Iterator[Plan]:
        file, usable = self._file, machine.ram.usable
        can_predict = bool(file.prediction) and can_verify(file)
        all_in_ram = [
            replace(Plan.in_ram(self, file, kv_type, wanted, machine.speeds), predicts=predicts)
            for predicts in ((True, False) if can_predict else (False,))
            for wanted in (need(file, n_ctx, kv_type, predicts=predicts),)
        ]
        if fitting := [whole for whole in all_in_ram if whole.need.total <= usable]:
            yield from fitting
            return
        for whole in all_in_ram:
            for small in (None,) if whole.predicts else (*drafters, None):
                yield from self._streaming(whole, small, machine)

    def _streaming(self, whole: Plan, small: Plan | None, machine: Machine) -> Iterator[Plan]:
        """As a plan with all weights in RAM, but only with those that fit."""
        taken = small.peak_bytes if small else 0
        budget = machine.ram.usable - (whole.need.total - whole.need.weights) - taken
        placements = self._placements(predicts=whole.predicts)
        if budget >= placements.least_bytes:
            placed = placements.within(budget)
            yield replace(
                whole,
                weights_budget=budget,
                resident_bytes=placed.resident_bytes,
                streamed_bytes=placed.absent_bytes,
                drafter=small,
                drafter_bytes=taken,
                tokens_per_second=1 / self._seconds(placed, whole.predicts, small, machine.speeds),
                first_token_s=max(
                    whole.first_token_s,
                    placed.absent_bytes / (machine.speeds.disk * DISK_FACTOR),
                ),
            )

    def cells(self, sizing: Sizing) -> list[Cell]:
        if not sizing.absent_bytes:
            return cells_in_ram(self._file)
        # What is pinned depends on the file and the bytes alone.
        placed = self._placements(predicts=sizing.predicts).within(sizing.resident_bytes)
        parts: list[CellPart] = []
        parts += [(t.block, t.n_bytes, t.n_bytes, "streamed") for t in placed.pinned]
        parts += [(t.block, t.n_bytes, 0, "streamed") for t in placed.streamed]
        return sum_cells(parts + [cell for block in placed.experts for cell in block.cells()])

    def open(self, plan: Plan, load: Load, on_progress: Callable[[float], bool]) -> Window:
        from ondevice.holding.window.window import Window  # noqa: PLC0415 - needs native code
        from ondevice.products import handlers  # noqa: PLC0415

        # All of it takes a page more here and there than the sum of its tensors.
        placements = self._placements(predicts=plan.predicts)
        whole_bytes = 0 if plan.streamed_bytes else placements.most_bytes
        budget = max(plan.weights_budget, whole_bytes)
        return Window(
            self._file,
            budget,
            handlers=handlers(load.n_threads),
            predicts=plan.predicts,
            on_progress=on_progress,
        )

    def _seconds(
        self, placed: Placement, predicts: bool, drafter: Plan | None, speeds: Speeds
    ) -> float:
        """For one token. What is streamed is read, and experts without a slot that it needs."""
        file = self._file
        missed = missed_bytes(file, placed.experts)
        if predicts:  # each token that is checked needs experts of its own
            missed *= 1 + PREDICTED
        computing = decode_seconds(file, speeds)
        n_bytes = placed.streamed_bytes + missed
        reading = streaming_seconds(n_bytes, len(placed.streamed), speeds)
        if missed:  # the disk waits for routers
            reading += computing
        if predicts:
            return predicted_seconds(file, computing, reading, speeds)
        if drafter:
            drafting = 1 / drafter.tokens_per_second
            return drafted_seconds(computing, reading, drafting, drafter.quality)
        return max(computing, reading) / (_LOOKED_UP if can_verify(file) else 1.0)
