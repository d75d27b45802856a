"""Decides how a model is run in the RAM that there is, and says what to expect of it.

A plan is a pure function of the model's file, the RAM, the machine's speeds and what the user
prefers. All ways of running are worked out, and the one of the highest worth is taken; more RAM
only ever adds ways, so that it never makes a plan worse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ondevice.errors import MemoryShortError, ModelFileError
from ondevice.gguf import GGUFFile
from ondevice.gguf.quality import effective_params, quality_of
from ondevice.gguf.recurrence import can_go_back, can_verify
from ondevice.holding.window.placement import Placement, Placements
from ondevice.messages import KVType, Preference
from ondevice.planning.speeds import Speeds
from ondevice.ram.available import AvailableRam
from ondevice.ram.kv_types import check_kv_type, kv_types
from ondevice.ram.need import Need, need

#: Types and architectures of files that belong to a model and are none.
_PARTS = {
    "adapter": "an adapter (LoRA), which changes a model",
    "imatrix": "an importance matrix, which helps to quantize a model",
    "mmproj": "the part of a model that reads pictures or sound",
    "clip": "the part of a model that reads pictures or sound",
}
_CONTEXTS = (4096, 3072, 2048, 1536, 1024)  # tokens that are tried if no length is asked for
PROMPT = 512  # tokens of the prompt whose first token is foretold
_LAST = 1000.0  # by which a way is worth less that is only taken when there is no other
_ENOUGH = 30.0  # tokens a second; more is worth nothing to a reader
_READING = 5.0  # tokens a second; with less, one waits

#: What of a reply's quality is left with each type of KV cache.
KV_QUALITY: dict[KVType, float] = {"f16": 1.0, "q8_0": 0.997, "q4_0": 0.96}

# What a token takes beside the products with weights: measured on models of 135M to 1.5B.
_DECODE_FACTOR, _PREFILL_FACTOR = 1.4, 1.5
_BLOCK_SECONDS = 0.12e-3
_MOST_TENSORS = 64  # of a block; more of them take the time of more blocks
_USUAL_BLOCKS = 30
_DRAFTED, _ACCEPTED = 4, 2.4  # tokens that a drafter proposes, and that a pass then gives
_LOOKED_UP = 1.1  # tokens that a pass gives with what the conversation itself proposes
_READ_SECONDS = 0.35e-3  # of each tensor that is streamed, whatever its size
_MISSED = 0.5  # of the experts that are needed, those that the cache does not hold, at most
_DISK_FACTOR = 0.9  # of the disk's speed that streaming reaches


@dataclass(frozen=True, slots=True)
class Plan:
    """One way of running one model."""

    file: GGUFFile
    kind: Literal["resident", "window", "stack"]
    kv_type: KVType
    need: Need  # of the model with all its weights in RAM
    weights_budget: int  # bytes of RAM that weights may take
    resident_bytes: int  # weights in RAM, buffers for the streamed ones included
    streamed_bytes: int  # weights that are not in RAM, but read from the disk when needed
    drafter: GGUFFile | None
    drafter_bytes: int  # RAM that it takes
    tokens_per_second: float  # expected
    first_token_s: float  # expected after a prompt of 512 tokens
    quality: float  # of 1: what is left of the unquantized model's
    idle_drafter: GGUFFile | None = None  # was asked for, and is not used

    @property
    def n_ctx(self) -> int:
        return self.need.n_ctx

    @property
    def peak_bytes(self) -> int:
        """RAM that the engine is expected to take at most."""
        return self.need.total - self.need.weights + self.resident_bytes + self.drafter_bytes

    @property
    def effective_params(self) -> float:
        """Parameters of a dense, unquantized model that is about as good."""
        return effective_params(self.file.n_params, self.file.n_active_params, self.quality)

    def worth(self, preference: Preference) -> float:
        """By which plans are compared; one more is twice as good.

        A disk that is read all the time counts like half the speed, and what is slower than one
        reads counts twice. A stack is streamed to be exact; else what fits of it is what it is for,
        with the speed of all of it, so that less of it is never worth more.
        """
        per_second = self.tokens_per_second
        if self.kind == "stack" and not self.streamed_bytes:
            per_second *= self.resident_bytes / self.need.weights
        elif self.kind == "stack" and preference != "exact":
            return math.log2(per_second) - _LAST
        waiting = math.log2(max(1.0, _READING / per_second))
        speed = math.log2(min(per_second, _ENOUGH)) - waiting - (self.streamed_bytes > 0)
        context = math.log2(self.n_ctx)
        loss = math.log2(self.quality)
        size = math.log2(self.effective_params) - loss
        match preference:
            case "speed":
                return 2 * speed + 0.5 * context + 4 * loss + size
            case "balanced":
                return speed + 0.5 * context + 60 * loss + 2 * size
            case "exact":
                return 0.5 * speed + 0.5 * context + 1000 * loss + 3 * size


def plan(
    file: GGUFFile,
    ram: AvailableRam,
    speeds: Speeds,
    *,
    n_ctx: int | None = None,
    kv_type: KVType | None = None,
    drafter: GGUFFile | None = None,
    preference: Preference = "balanced",
    instead: Callable[[], str] = str,
) -> Plan:
    """The best way to run the model; ``n_ctx`` and ``kv_type`` None are for the planner to choose.

    ``drafter`` is a smaller model of the same vocabulary, to be used if weights are streamed and it
    fits, and if the two can do that at all. Raises :class:`MemoryShortError` if there is no way,
    with what is missing and what would do: a shorter context, else what ``instead`` says, a
    sentence that names another model; and :class:`ModelFileError` if the file is no model by
    itself, or the model cannot have ``kv_type``.
    """
    if part := _PARTS.get(file.text("general.type") or file.architecture):
        raise ModelFileError(f"{file.path} is {part}. Choose the file of the model itself.")
    if not file.n_blocks or not any(file.multiplied.values()):
        raise ModelFileError(
            f"{file.path} holds nothing to compute with: it is no language model. "
            "Choose another file."
        )
    check_kv_type(file, kv_type)
    usable = drafter if drafter and can_verify(file) and can_go_back(drafter) else None
    placements = None if file.is_stack else Placements(file)
    found = list(_ways(file, placements, ram, speeds, n_ctx, kv_type, usable))
    if not found:
        contexts = (n_ctx or _CONTEXTS[-1], *_CONTEXTS)
        least, *others = _least_ram(file, placements, contexts, kv_type)
        fitting = zip(_CONTEXTS, others, strict=True)
        shorter = next((c for c, n_bytes in fitting if n_bytes <= ram.usable), None)
        hint = f"A context of {shorter} tokens fits: --ctx {shorter}" if shorter else instead()
        raise MemoryShortError(
            f"{_called(file)} needs at least {_mb(least)} of RAM, even with most of its weights "
            f"read from the disk for each token, and {_mb(ram.usable)} can be used ({ram.source}: "
            f"{_mb(ram.total)}): {_mb(least - ram.usable)} are missing. {hint}"
        )
    wanted = [way for way in found if way.kind != "window" or way.drafter is usable]
    chosen = max(wanted or found, key=lambda way: way.worth(preference))
    return chosen if chosen.drafter is drafter else replace(chosen, idle_drafter=drafter)


def _called(file: GGUFFile) -> str:
    """What the model calls itself, and the file, which may be one of several of that name."""
    return file.name if file.name == file.path.stem else f"{file.name} ({file.path.name})"


def least_ram(file: GGUFFile, n_ctx: int | None = None, kv_type: KVType | None = None) -> int:
    """Bytes without which there is no plan."""
    placements = None if file.is_stack else Placements(file)
    return _least_ram(file, placements, (n_ctx or _CONTEXTS[-1],), kv_type)[0]


def _least_ram(
    file: GGUFFile, placements: Placements | None, contexts: Sequence[int], kv_type: KVType | None
) -> list[int]:
    """For each of these contexts; ``placements`` None: the file is a stack."""
    kv = kv_type or kv_types(file)[-1]
    if placements is None:
        from ondevice.planning.stack_ways import stack_bounds  # noqa: PLC0415

        bounds = [stack_bounds(file, n_ctx, kv) for n_ctx in contexts]
    else:
        bounds = [(placements.least_bytes, need(file, n_ctx, kv)) for n_ctx in contexts]
    return [whole.total - whole.weights + weights for weights, whole in bounds]


def most_ram(file: GGUFFile) -> int:
    """Bytes with which nothing is given up: all weights in RAM, the longest context, f16."""
    n_ctx = min(_CONTEXTS[0], file.n_ctx_train or _CONTEXTS[0])
    if file.is_stack:
        from ondevice.planning.stack_ways import stack_bounds  # noqa: PLC0415

        return stack_bounds(file, n_ctx, "f16")[1].total
    return need(file, n_ctx, "f16").total


def best(plans: Sequence[Plan], preference: Preference = "balanced") -> Plan:
    """The plan, of several models, that gives the most; ``plans`` must not be empty."""
    return max(plans, key=lambda way: way.worth(preference))


def why(chosen: Plan, ram: AvailableRam, n_ctx: int | None = None) -> str:
    """A plain sentence or a few; ``n_ctx`` is the length of context that was asked for, if any."""
    whole = chosen.need.total
    if chosen.kind == "stack" and not chosen.streamed_bytes:
        reason = (
            f"{_mb(chosen.resident_bytes)} of the {_mb(chosen.need.weights)} of its weights fit in "
            f"the {_mb(ram.usable)} that can be used: what makes it more exact is left out."
            if chosen.resident_bytes < chosen.need.weights
            else f"All of it fits in the {_mb(ram.usable)} that can be used."
        )
    elif chosen.kind == "resident":
        reason = f"All of it fits in the {_mb(ram.usable)} that can be used."
    else:
        reason = (
            f"All of it would take {_mb(whole)} and {_mb(ram.usable)} can be used, so "
            f"{_mb(chosen.streamed_bytes)} of its weights are read from the disk when they are "
            "needed: slower, and as exact as in RAM."
        )
    if chosen.kv_type != "f16":
        reason += f" The KV cache is kept in {chosen.kv_type} to save room."
    if n_ctx is None and chosen.n_ctx < min(_CONTEXTS[0], chosen.file.n_ctx_train):
        reason += (
            f" Its context has {chosen.n_ctx} tokens at first, which leaves more room for weights, "
            "and grows with the conversation."
        )
    if chosen.drafter:
        reason += f" {chosen.drafter.name} drafts for it."
    if chosen.idle_drafter:
        reason += f" {chosen.idle_drafter.name} does not draft: {_why_idle(chosen)}."
    return reason


def _why_idle(chosen: Plan) -> str:
    assert chosen.idle_drafter is not None
    for model in (chosen.file, chosen.idle_drafter):
        if not can_go_back(model):
            return f"{model.name} cannot take back what it has read, which drafts need"
    if not can_verify(chosen.file):
        return f"{chosen.file.name} cannot check several tokens at once"
    if chosen.kind == "stack" and chosen.streamed_bytes:
        return "what is in RAM of a stack does that itself"
    if chosen.streamed_bytes:
        return "there is no room for it"
    return "only a model that is read from the disk needs that"


def _ways(
    file: GGUFFile,
    placements: Placements | None,
    ram: AvailableRam,
    speeds: Speeds,
    n_ctx: int | None,
    kv_type: KVType | None,
    drafter: GGUFFile | None,
) -> Iterator[Plan]:
    trained = file.n_ctx_train or _CONTEXTS[0]
    contexts = (n_ctx,) if n_ctx else sorted({min(c, trained) for c in _CONTEXTS}, reverse=True)
    types = (kv_type,) if kv_type else kv_types(file)
    if placements is None:
        from ondevice.planning.stack_ways import stack_ways  # noqa: PLC0415

        yield from stack_ways(file, ram.usable, speeds, tuple(contexts), types)
        return
    per_pass = _LOOKED_UP if can_verify(file) else 1.0
    for kv in types:
        small_ones = (drafter, None) if drafter and kv in kv_types(drafter) else (None,)
        for context in contexts:
            wanted = need(file, context, kv)
            if wanted.total <= ram.usable:
                yield _way(file, kv, wanted, speeds)
                continue
            for small in small_ones:
                taken = _drafter_bytes(small, wanted.n_ctx, kv) if small else 0
                budget = ram.usable - (wanted.total - wanted.weights) - taken
                if budget >= placements.least_bytes:
                    placed = placements.within(budget)
                    yield _way(file, kv, wanted, speeds, budget, placed, small, per_pass)


def _way(
    file: GGUFFile,
    kv_type: KVType,
    wanted: Need,
    speeds: Speeds,
    weights_budget: int | None = None,
    placed: Placement | None = None,
    drafter: GGUFFile | None = None,
    per_pass: float = 1.0,
) -> Plan:
    """With this placement; None: all weights are in RAM.

    Without a drafter, a pass gives ``per_pass`` tokens.
    """
    absent = placed.absent_bytes if placed else 0
    computing = _decode_seconds(file, speeds)
    reading = _reading_seconds(file, placed, speeds) if placed else 0.0
    seconds = max(computing, reading) / per_pass
    if drafter:
        seconds = drafted_seconds(computing, reading, _decode_seconds(drafter, speeds))
    return Plan(
        file=file,
        kind="window" if placed else "resident",
        kv_type=kv_type,
        need=wanted,
        weights_budget=wanted.weights if weights_budget is None else weights_budget,
        resident_bytes=placed.resident_bytes if placed else wanted.weights,
        streamed_bytes=absent,
        drafter=drafter,
        drafter_bytes=_drafter_bytes(drafter, wanted.n_ctx, kv_type) if drafter else 0,
        tokens_per_second=1 / seconds,
        first_token_s=max(_prefill_seconds(file, speeds), absent / (speeds.disk * _DISK_FACTOR)),
        quality=quality_of(file.weights_bytes, file.n_params) * KV_QUALITY[kv_type],
    )


def _reading_seconds(file: GGUFFile, placed: Placement, speeds: Speeds) -> float:
    """For one token: what is streamed, and of the experts without a slot those that it needs."""
    share = file.n_experts_used / file.n_experts if file.n_experts else 0.0
    experts = placed.absent_bytes - placed.streamed_bytes
    n_bytes = placed.streamed_bytes + experts * share * _MISSED
    return streaming_seconds(n_bytes, len(placed.streamed), speeds)


def drafted_seconds(computing: float, reading: float, drafting: float) -> float:
    """For one token, from those of the model and of its drafter."""
    return (max(computing * 2, reading) + drafting * _DRAFTED) / _ACCEPTED


def streaming_seconds(n_bytes: float, n_reads: int, speeds: Speeds) -> float:
    """To read so many bytes of weights in so many tensors."""
    return n_bytes / (speeds.disk * _DISK_FACTOR) + n_reads * _READ_SECONDS


def _drafter_bytes(drafter: GGUFFile, n_ctx: int, kv_type: KVType) -> int:
    wanted = need(drafter, n_ctx, kv_type)
    return wanted.total - wanted.engine


# ------------------------------------------------------------------ speed


def _decode_seconds(file: GGUFFile, speeds: Speeds) -> float:
    """For one token, all weights in RAM."""
    products = sum(elements / speeds.decoding(name) for name, elements in _elements(file, 1))
    return _with_all_else(products, max(file.n_blocks, len(file.tensors) / _MOST_TENSORS))


def usual_decode_seconds(n_params: float, type_name: str, speeds: Speeds) -> float:
    """The same, of a model of which only so much is known."""
    return _with_all_else(n_params / speeds.decoding(type_name), _USUAL_BLOCKS)


def _with_all_else(products: float, n_blocks: float) -> float:
    """Seconds for a token, given those of its products with weights."""
    return products * _DECODE_FACTOR + n_blocks * _BLOCK_SECONDS


def _prefill_seconds(file: GGUFFile, speeds: Speeds) -> float:
    """For a prompt of 512 tokens, all weights in RAM."""
    products = sum(elements / speeds.prefilling(name) for name, elements in _elements(file, PROMPT))
    return products * _PREFILL_FACTOR


def _elements(file: GGUFFile, n_tokens: int) -> Iterator[tuple[str, float]]:
    """Type and multiply-adds of what tokens are multiplied with."""
    for name, elements in file.multiplied.items():
        yield name, elements * n_tokens
    # Of a prompt, only the last token is multiplied with the output layer.
    if file.output_layer and len(file.output_layer.shape) > 1:
        yield file.output_layer.type_name, float(math.prod(file.output_layer.shape))


def _mb(n_bytes: float) -> str:
    return f"{n_bytes / 1e6:.0f} MB"
