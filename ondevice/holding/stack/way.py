"""Stacked: as much of a stack as fits, or all of it with a part read for each pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

from ondevice.disk.reader import PAGE
from ondevice.gguf import GGUFFile
from ondevice.gguf.quality import quality_of
from ondevice.gguf.verifying import can_verify
from ondevice.holding.cells import Absent, Cell, CellPart, sum_cells
from ondevice.holding.costs import PROMPT, drafted_seconds, missed_bytes, streaming_seconds
from ondevice.holding.experts.blocks import ExpertBlock, slots_bytes
from ondevice.holding.machine import Machine
from ondevice.holding.plan import KV_QUALITY, Plan
from ondevice.holding.speeds import PLANES, PLANES_TYPE, Speeds
from ondevice.holding.stack._file import StackFile
from ondevice.messages import KVType, Load, Sizing
from ondevice.ram.need import Need, need

if TYPE_CHECKING:
    from ondevice.holding.stack.stack import Stack

#: What of a reply's quality is left: the logarithm, for each nat that a token's distribution
#: diverges. K-quants of 2.6 to 4.8 bits keep 0.6 to 0.97 of it and diverge by 0.26 to 0.02.
_LOSS = 2.0

_MOST_KL = 50.0  # nats; nothing is left then

# Half of the time of a product goes by its weights, half by their bytes; these are the bytes of a
# weight with as many planes as were measured, scales included. For prompts, planes hardly matter.
_MEASURED_BYTES = (PLANES + 5 / 16) / 8
# What a token takes beside, as a part of the products; and each product by itself.
_DECODE_FACTOR, _PREFILL_FACTOR = 1.1, 1.3
_PRODUCT_SECONDS = 5e-6

_CUTS = 8  # of a mixture of experts, at which some of these may be on the disk
_EXPANDED = 5_000_000  # bytes: rows that are being computed with, and pages of the file


class Stacked:
    """For a stack. What is in RAM drafts, if it makes a model, and one that can be drafted for."""

    name = "stack"
    drafts_itself = True

    def __init__(self, file: GGUFFile) -> None:
        self._file = file

    @cached_property
    def _stack(self) -> StackFile:
        return StackFile.of(self._file)

    @cached_property
    def _model(self) -> GGUFFile:
        return self._stack.as_a_model()

    @cached_property
    def _of_experts(self) -> Sequence[StackFile]:
        """The stacks of which experts may be read when they are needed: parts of it, then all."""
        stack = self._stack
        if not stack.expert_blocks:
            return ()
        least, most = stack.ram_bytes[stack.n_base - 1], stack.ram_bytes[-1]
        sizes = (least + (most - least) * n // _CUTS for n in range(_CUTS))
        return [*(stack.cut(stack.fitting(size)) for size in sizes), stack]

    def least_bytes(self, n_ctx: int, kv_type: KVType, *, exact: bool = False) -> int:
        stack, wanted = self._stack, self._need(n_ctx, kv_type)
        weights = stack.least_whole_bytes
        if not exact:
            by_expert = (some.least_with_experts for some in self._of_experts)
            weights = min(weights, stack.ram_bytes[stack.n_base - 1], *by_expert)
        return wanted.total - wanted.weights + weights

    def plans(
        self, n_ctx: int, kv_type: KVType, drafters: Collection[Plan], machine: Machine
    ) -> Iterator[Plan]:
        stack, speeds = self._stack, machine.speeds
        wanted = self._need(n_ctx, kv_type)
        room = machine.ram.usable - (wanted.total - wanted.weights)
        fitting, all_bytes = stack.fitting(room), stack.ram_bytes[-1]
        plan = partial(self._plan, wanted, kv_type, speeds)
        if base_fits := fitting >= stack.n_base:
            resident = stack.ram_bytes[fitting - 1]
            yield plan(room, resident, resident, quality=self._quality(resident))
            if fitting == len(stack.gguf.tensors):
                return
        slots: Sequence[ExpertBlock] = ()
        for some in self._of_experts:
            if slots := some.experts_within(room):
                absent, used = sum(block.absent_bytes for block in slots), some.ram_bytes[-1]
                resident = some.beside_experts_bytes + slots_bytes(slots)
                yield plan(
                    room,
                    resident,
                    used,
                    quality=self._quality(used),
                    streamed=absent,
                    read=missed_bytes(self._model, slots),
                    by_expert=True,
                )
        if slots:  # those of all of it
            return
        may_draft = base_fits and can_verify(self._model)
        small = wanted.to_draft(self._model.n_vocab)
        for drafting in (small.kv + small.compute, 0) if may_draft else (0,):
            budget = room - drafting
            fitting = stack.fitting_whole(budget)
            if fitting >= (stack.n_base if drafting else stack.n_unpacked):
                read = all_bytes - (stack.ram_bytes[fitting - 1] if fitting else PAGE)
                resident = stack.whole_bytes[fitting]
                yield plan(budget, resident, all_bytes, streamed=read, read=read, drafting=drafting)

    def cells(self, sizing: Sizing) -> list[Cell]:
        stack = self._stack
        n_resident = stack.n_base + sizing.n_blocks
        absent: Absent = "left out"
        if sizing.streamed_bytes:
            n_resident, absent = stack.fitting_whole(sizing.resident_bytes), "streamed"
            used = self._leaving_out(sizing.absent_bytes - sizing.streamed_bytes)
            if slots := used and used.experts_within(sizing.resident_bytes):
                return self._cells_with_slots(used, slots)
        return sum_cells(
            (tensor.block, tensor.n_bytes, tensor.n_bytes if place < n_resident else 0, absent)
            for place, tensor in enumerate(stack.gguf.tensors.values())
            if tensor.name not in stack.stays_on_disk
        )

    def _leaving_out(self, n_bytes: int) -> StackFile | None:
        """That of which experts may be on the disk, and which so much more does not fit into."""
        most = self._stack.ram_bytes[-1]
        return next((s for s in self._of_experts if most - s.ram_bytes[-1] == n_bytes), None)

    def _cells_with_slots(self, used: StackFile, slots: Sequence[ExpertBlock]) -> list[Cell]:
        parts: list[CellPart] = [
            (tensor.block, tensor.n_bytes, tensor.n_bytes, "streamed")
            for tensor in used.beside_experts
            if tensor.name not in used.stays_on_disk
        ]
        return sum_cells(parts + [cell for block in slots for cell in block.cells()])

    def open(self, plan: Plan, load: Load, on_progress: Callable[[float], bool]) -> Stack:
        from ondevice.holding.stack.stack import Stack  # noqa: PLC0415 - needs native code
        from ondevice.products import handlers  # noqa: PLC0415

        # What was to be exact stays so when there is no longer room for all of it.
        is_whole = plan.streamed_bytes > 0 or load.prefer == "exact"
        return Stack(
            self._file,
            plan.weights_budget,
            whole=is_whole and not plan.left_out_bytes,
            cut=self._leaving_out(plan.left_out_bytes) if plan.streamed_bytes else None,
            drafts=plan.drafter_bytes > 0,
            threads=load.n_threads,
            handlers=handlers(load.n_threads),
            on_progress=on_progress,
        )

    def _need(self, n_ctx: int, kv_type: KVType) -> Need:
        wanted = need(self._model, n_ctx, kv_type)
        return replace(
            wanted, weights=self._stack.ram_bytes[-1], compute=wanted.compute + _EXPANDED
        )

    def _plan(
        self,
        wanted: Need,
        kv_type: KVType,
        speeds: Speeds,
        budget: int,
        resident: int,
        used: int,
        *,
        quality: float = 1.0,
        streamed: int = 0,
        read: float = 0.0,
        by_expert: bool = False,
        drafting: int = 0,
    ) -> Plan:
        """With so many bytes of weights in RAM, and so many ``used``; the others are left out.

        ``read``: bytes of what is streamed that a token needs; ``by_expert``: only once a router
        has picked them; ``drafting``: of RAM.
        """
        stack, file = self._stack, self._model
        n_weights = sum(stack.multiplied.values())
        measured = n_weights / speeds.decoding(PLANES_TYPE) * _DECODE_FACTOR
        decode = measured * (1 + used / (stack.n_weights * _MEASURED_BYTES)) / 2
        decode += len(stack.matrices) * _PRODUCT_SECONDS
        n_reads = 0 if by_expert else len(stack.matrices)
        reading = streaming_seconds(read, n_reads, speeds) if streamed else 0.0
        if by_expert:  # the disk waits for routers
            reading += decode
        seconds = drafted_seconds(decode, reading, decode) if drafting else max(decode, reading)
        output = file.output_layer
        in_blocks = n_weights - (stack.multiplied.get(output.name, 0) if output else 0)
        prefill = PROMPT * in_blocks / speeds.prefilling(PLANES_TYPE) * _PREFILL_FACTOR
        return Plan(
            file=file,
            way=self,
            kv_type=kv_type,
            need=wanted,
            weights_budget=budget,
            resident_bytes=resident,
            streamed_bytes=streamed,
            drafter=None,
            drafter_bytes=drafting,
            tokens_per_second=1 / seconds,
            first_token_s=max(prefill, streaming_seconds(streamed, 0, speeds)),
            quality=quality * KV_QUALITY[kv_type],
            left_out_bytes=stack.ram_bytes[-1] - used,
            # What is read for each pass is slow: that is for exactness alone.
            is_last_resort=streamed > 0 and not by_expert,
        )

    def _quality(self, n_bytes: int) -> float:
        """Of 1, of the whole stack's; where packing did not measure it, going by bits."""
        stack = self._stack
        if n_bytes == stack.ram_bytes[-1]:
            return 1.0
        kl = stack.quality_with(stack.fitting(n_bytes)).kl
        if math.isnan(kl):
            return quality_of(n_bytes, self._model.n_params)
        return math.exp(-_LOSS * min(max(0.0, kl), _MOST_KL))
