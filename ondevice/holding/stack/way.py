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

    def least_bytes(self, n_ctx: int, kv_type: KVType) -> int:
        stack, wanted = self._stack, self._need(n_ctx, kv_type)
        weights = min(stack.least_whole_bytes, stack.ram_bytes[stack.n_base - 1])
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
            yield plan(room, stack.ram_bytes[fitting - 1], self._quality(fitting))
            if fitting == len(stack.gguf.tensors):
                return
        if slots := stack.experts_within(room):
            absent = sum(block.absent_bytes for block in slots)
            resident = stack.beside_experts_bytes + slots_bytes(slots)
            yield plan(room, resident, streamed=absent, read=missed_bytes(self._model, absent))
            return
        may_draft = base_fits and can_verify(self._model)
        small = wanted.to_draft(self._model.n_vocab)
        for drafting in (small.kv + small.compute, 0) if may_draft else (0,):
            budget = room - drafting
            fitting = stack.fitting_whole(budget)
            if fitting >= (stack.n_base if drafting else stack.n_unpacked):
                read = all_bytes - (stack.ram_bytes[fitting - 1] if fitting else PAGE)
                resident = stack.whole_bytes[fitting]
                yield plan(budget, resident, streamed=read, read=read, drafting=drafting)

    def cells(self, sizing: Sizing) -> list[Cell]:
        stack = self._stack
        n_resident = stack.n_base + sizing.n_blocks
        absent: Absent = "left out"
        if sizing.streamed_bytes:
            n_resident, absent = stack.fitting_whole(sizing.resident_bytes), "streamed"
            if slots := stack.experts_within(sizing.resident_bytes):
                return self._cells_with_slots(slots)
        return sum_cells(
            (tensor.block, tensor.n_bytes, tensor.n_bytes if place < n_resident else 0, absent)
            for place, tensor in enumerate(stack.gguf.tensors.values())
            if tensor.name not in stack.stays_on_disk
        )

    def _cells_with_slots(self, slots: Sequence[ExpertBlock]) -> list[Cell]:
        stack = self._stack
        parts: list[CellPart] = [
            (tensor.block, tensor.n_bytes, tensor.n_bytes, "streamed")
            for tensor in stack.beside_experts
            if tensor.name not in stack.stays_on_disk
        ]
        return sum_cells(parts + [cell for block in slots for cell in block.cells()])

    def open(self, plan: Plan, load: Load, on_progress: Callable[[float], bool]) -> Stack:
        from ondevice.holding.stack.stack import Stack  # noqa: PLC0415 - needs native code
        from ondevice.products import handlers  # noqa: PLC0415

        # What was to be exact stays so when there is no longer room for all of it.
        is_all = plan.resident_bytes == self._stack.ram_bytes[-1]
        return Stack(
            self._file,
            plan.weights_budget,
            whole=plan.streamed_bytes > 0 or (is_all and load.prefer == "exact"),
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
        quality: float = 1.0,
        *,
        streamed: int = 0,
        read: float = 0.0,
        drafting: int = 0,
    ) -> Plan:
        """With so many bytes of weights in RAM; what is not streamed either is left out.

        ``read``: bytes of what is streamed that a token needs; ``drafting``: of RAM.
        """
        stack, file = self._stack, self._model
        reading = streaming_seconds(read, len(stack.matrices), speeds) if read else 0.0
        computed = stack.ram_bytes[-1] if streamed else resident
        n_weights = sum(stack.multiplied.values())
        measured = n_weights / speeds.decoding(PLANES_TYPE) * _DECODE_FACTOR
        decode = measured * (1 + computed / (stack.n_weights * _MEASURED_BYTES)) / 2
        decode += len(stack.matrices) * _PRODUCT_SECONDS
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
            # A stack is streamed to be exact; else what fits of it is what it is for.
            is_last_resort=streamed > 0,
        )

    def _quality(self, n_tensors: int) -> float:
        """Of 1, of the whole stack's; where packing did not measure it, going by bits."""
        kl = self._stack.quality_with(n_tensors).kl
        if math.isnan(kl):
            return quality_of(self._stack.ram_bytes[n_tensors - 1], self._model.n_params)
        return math.exp(-_LOSS * min(max(0.0, kl), _MOST_KL))
