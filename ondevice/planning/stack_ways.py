"""The ways of running a stack: as much of it as fits, or all of it with a part streamed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import product

from ondevice.gguf import GGUFFile
from ondevice.gguf.quality import quality_of
from ondevice.gguf.recurrence import can_verify
from ondevice.holding.stack import StackFile
from ondevice.messages import KVType
from ondevice.planning.planner import KV_QUALITY, PROMPT, Plan, drafted_seconds, streaming_seconds
from ondevice.planning.speeds import PLANES, PLANES_TYPE, Speeds
from ondevice.ram.need import Need, need

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


def stack_ways(
    whole: GGUFFile,
    usable: int,
    speeds: Speeds,
    contexts: tuple[int, ...],
    kv_types: tuple[KVType, ...],
) -> Iterator[Plan]:
    """Plans for the stack in ``whole`` within ``usable`` bytes of RAM.

    As much of it as fits, or all of it, with what does not fit streamed. What is in RAM then
    drafts if it makes a model, and one that can be drafted for.
    """
    stack = StackFile.of(whole)
    file = stack.as_a_model()
    for kv_type, n_ctx in product(kv_types, contexts):
        wanted = _need(stack, file, n_ctx, kv_type)
        beside = wanted.total - wanted.weights
        fitting = stack.fitting(usable - beside)
        base_fits = fitting >= stack.n_base
        all_fits = fitting == len(stack.gguf.tensors)
        if base_fits:
            yield _way(stack, file, wanted, kv_type, usable - beside, fitting, speeds)
            if all_fits:
                continue
        may_draft = base_fits and can_verify(file)
        for drafting in (wanted.kv + wanted.compute, 0) if may_draft else (0,):
            budget = usable - beside - drafting
            if budget >= stack.least_whole_bytes:
                fitting = stack.fitting_whole(budget)
                yield _way(stack, file, wanted, kv_type, budget, fitting, speeds, drafting)


def stack_bounds(whole: GGUFFile, n_ctx: int, kv_type: KVType) -> tuple[int, Need]:
    """The smallest budget for weights with which it runs at all, and what all of it needs."""
    stack = StackFile.of(whole)
    least = min(stack.least_whole_bytes, stack.ram_bytes[stack.n_base - 1])
    return least, _need(stack, stack.as_a_model(), n_ctx, kv_type)


def _need(stack: StackFile, file: GGUFFile, n_ctx: int, kv_type: KVType) -> Need:
    wanted = need(file, n_ctx, kv_type)
    return replace(wanted, weights=stack.ram_bytes[-1], compute=wanted.compute + _EXPANDED)


def _way(
    stack: StackFile,
    file: GGUFFile,
    wanted: Need,
    kv_type: KVType,
    budget: int,
    n_tensors: int,
    speeds: Speeds,
    drafting: int | None = None,
) -> Plan:
    """With so many tensors in RAM; ``drafting`` None: the others are left out."""
    streamed = 0
    resident = stack.ram_bytes[n_tensors - 1]
    quality = 1.0
    if drafting is None:
        quality = _quality(stack, file, n_tensors)
    else:
        streamed = stack.ram_bytes[-1] - resident
        resident = stack.whole_bytes[n_tensors]
    reading = streaming_seconds(streamed, len(stack.matrices), speeds) if streamed else 0.0
    computed = stack.ram_bytes[-1] if drafting is not None else resident
    n_weights = sum(stack.multiplied.values())
    measured = n_weights / speeds.decoding(PLANES_TYPE) * _DECODE_FACTOR
    decode = measured * (1 + computed / (n_weights * _MEASURED_BYTES)) / 2
    decode += len(stack.matrices) * _PRODUCT_SECONDS
    seconds = drafted_seconds(decode, reading, decode) if drafting else max(decode, reading)
    output = file.output_layer
    in_blocks = n_weights - (stack.multiplied.get(output.name, 0) if output else 0)
    prefill = PROMPT * in_blocks / speeds.prefilling(PLANES_TYPE) * _PREFILL_FACTOR
    return Plan(
        file=file,
        kind="stack",
        kv_type=kv_type,
        need=wanted,
        weights_budget=budget,
        resident_bytes=resident,
        streamed_bytes=streamed,
        drafter=None,
        drafter_bytes=drafting or 0,
        tokens_per_second=1 / seconds,
        first_token_s=max(prefill, reading),
        quality=quality * KV_QUALITY[kv_type],
    )


def _quality(stack: StackFile, file: GGUFFile, n_tensors: int) -> float:
    """Of 1, of the whole stack's; where packing did not measure it, going by bits."""
    kl = stack.quality_with(n_tensors).kl
    if math.isnan(kl):
        return quality_of(stack.ram_bytes[n_tensors - 1], file.n_params)
    return math.exp(-_LOSS * min(max(0.0, kl), _MOST_KL))
