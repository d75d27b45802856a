"""Decides how a model is run in the RAM that there is, and says what to expect of it.

All ways of holding a model say what they offer, and the plan of the highest worth is taken. A plan
is a pure function of the model's file, what is asked for, and the machine; more RAM only ever adds
plans, so that it never makes one worse.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from ondevice import gguf
from ondevice.errors import MemoryShortError, ModelFileError
from ondevice.gguf import GGUFFile
from ondevice.gguf.runnable import blamed
from ondevice.gguf.verifying import can_verify
from ondevice.gguf.vocabulary import check_vocabulary
from ondevice.holding.machine import Machine
from ondevice.holding.plan import Plan
from ondevice.holding.way import Way
from ondevice.holding.ways import way_of
from ondevice.messages import KVType, Load, Preference
from ondevice.ram.available import AvailableRam
from ondevice.ram.kv_types import check_kv_type, kv_types
from ondevice.text import size

#: Types and architectures of files that belong to a model and are none.
_PARTS = {
    "adapter": "an adapter (LoRA), which changes a model",
    "imatrix": "an importance matrix, which helps to quantize a model",
    "mmproj": "the part of a model that reads pictures or sound",
    "clip": "the part of a model that reads pictures or sound",
}
_READING_AGAIN = 0.5  # worth: what another type of KV cache must give, since chats are read again
_SIZES = 16  # of a stack that drafts
_CONTEXTS = (4096, 3072, 2048, 1536, 1024)  # tokens that are tried if no length is asked for


def plan(file: GGUFFile, load: Load, machine: Machine) -> Plan:
    """The best way to run the model in ``file`` as ``load`` asks for.

    Raises what :func:`best_plan` raises, with a model of the catalogue that would run if there is
    no way, and :class:`ModelFileError` for a drafter that cannot be read or has another vocabulary.
    """
    drafter = None
    if load.drafter is not None:
        drafter = gguf.read(Path(load.drafter))
        check_vocabulary(drafter, file)
    with blamed(file.path):
        machine = machine.reading(file)
        return best_plan(file, load, machine, drafter, lambda: _suggestion(machine.ram))


def best_plan(
    file: GGUFFile,
    load: Load,
    machine: Machine,
    drafter: GGUFFile | None = None,
    suggest: Callable[[], str] = str,
) -> Plan:
    """As :func:`plan`, with the smaller model that may draft; it reads nothing.

    Context and type of the KV cache are for the planner to choose where ``load`` names none. The
    drafter is used if weights are streamed and it fits, and if the two can do that at all. Raises
    :class:`MemoryShortError` if there is no way, with what is missing and what would do: a shorter
    context, else what ``suggest`` says; and :class:`ModelFileError` if the file is no model by
    itself, or the model cannot have such a KV cache.
    """
    if part := _PARTS.get(file.text("general.type") or file.architecture):
        raise ModelFileError(f"{file.path} is {part}. Choose the file of the model itself.")
    if not file.n_blocks or not any(file.multiplied.values()):
        raise ModelFileError(
            f"{file.path} has nothing to compute with: it is not a language model. "
            "Choose another file."
        )
    check_kv_type(file, load.kv_type)
    ram, way = machine.ram, way_of(file)
    usable = drafter if drafter and can_verify(file) else None
    offered = _plans(file, way, load, machine, usable)
    exact = load.prefer == "exact"
    found = [
        each
        for each in offered
        if (load.predicts or not each.predicts) and not (exact and each.left_out_bytes)
    ]
    if not found:
        least = _least_ram(file, way, load.n_ctx or _CONTEXTS[-1], load.kv_type, exact)
        shorter = next(
            (c for c in _CONTEXTS if _least_ram(file, way, c, load.kv_type, exact) <= ram.usable),
            None,
        )
        if shorter:
            hint = f"A context of {shorter} tokens fits: --ctx {shorter}"
        elif exact and _least_ram(file, way, _CONTEXTS[-1], load.kv_type, False) <= ram.usable:
            hint = "A part of it fits: --prefer balanced"
        else:
            hint = suggest()
        raise MemoryShortError(
            f"{_called(file)} needs at least {size(least)} of RAM, even with most of its weights "
            f"read from the disk for each token, and only {size(ram.usable)} is available "
            f"({ram.source}: {size(ram.total)}). It needs {size(least - ram.usable)} more. {hint}"
        )
    wanted = [
        each
        for each in found
        if not each.streamed_bytes
        or each.way.drafts_itself
        or (each.drafter is None) == (usable is None)
    ] or found
    chosen = best(wanted, load.prefer)
    if chosen.resident_bytes < chosen.need.weights:
        same = [each for each in wanted if each.kv_type == load.kv_type_before]
        again = best(same, load.prefer) if same else chosen
        if again.worth(load.prefer) > chosen.worth(load.prefer) - _READING_AGAIN:
            chosen = again
    return chosen if chosen.drafter else replace(chosen, idle_drafter=drafter)


def best(plans: Sequence[Plan], preference: Preference = "balanced") -> Plan:
    """The plan, of one or several models, that gives the most; ``plans`` must not be empty."""
    return max(plans, key=lambda each: each.worth(preference))


def least_ram(
    file: GGUFFile,
    n_ctx: int | None = None,
    kv_type: KVType | None = None,
    preference: Preference = "balanced",
) -> int:
    """Bytes without which there is no plan."""
    n_ctx = n_ctx or _CONTEXTS[-1]
    return _least_ram(file, way_of(file), n_ctx, kv_type, preference == "exact")


def _least_ram(file: GGUFFile, way: Way, n_ctx: int, kv_type: KVType | None, exact: bool) -> int:
    return way.least_bytes(n_ctx, kv_type or kv_types(file)[-1], exact=exact)


def _plans(
    file: GGUFFile, way: Way, load: Load, machine: Machine, drafter: GGUFFile | None
) -> Iterator[Plan]:
    trained = file.n_ctx_train or _CONTEXTS[0]
    contexts = {min(c, trained) for c in _CONTEXTS} if load.n_ctx is None else {load.n_ctx}
    way_to_draft = way_of(drafter) if drafter else None
    for kv_type in (load.kv_type,) if load.kv_type else kv_types(file):
        for n_ctx in sorted(contexts, reverse=True):
            small: Collection[Plan] = ()
            if drafter and way_to_draft and kv_type in kv_types(drafter):
                small = _drafters(drafter, way_to_draft, n_ctx, kv_type, machine)
            yield from way.plans(n_ctx, kv_type, small, machine)


def _drafters(
    file: GGUFFile, way: Way, n_ctx: int, kv_type: KVType, machine: Machine
) -> Collection[Plan]:
    """Ways to have a drafter in RAM: whole, or of a stack any of a few sizes."""
    usable, rooms = machine.ram.usable, [machine.ram.usable]
    if file.is_stack:
        least = way.least_bytes(n_ctx, kv_type)
        rooms = [least + file.weights_bytes * n // _SIZES for n in range(_SIZES + 1)]
    found = {}
    for room in (room for room in rooms if room <= usable):
        limited = replace(machine, ram=machine.ram.at_most(room))
        for each in way.plans(n_ctx, kv_type, (), limited):
            if not (each.streamed_bytes or each.predicts):
                small = each.need.to_draft(each.file.n_vocab)
                found[each.resident_bytes] = replace(each, need=small)
    return found.values()


def why(chosen: Plan, ram: AvailableRam, n_ctx: int | None = None) -> str:
    """A plain sentence or a few; ``n_ctx`` is the length of context that was asked for, if any."""
    whole = chosen.need
    if chosen.streamed_bytes and chosen.left_out_bytes:
        reason = (
            f"All of it would take {size(whole.total)} and {size(ram.usable)} is available, so "
            f"{size(chosen.left_out_bytes)} of its weights, which refine it, are left out, and "
            f"{size(chosen.streamed_bytes)} are read from the disk when they are needed."
        )
    elif chosen.streamed_bytes:
        reason = (
            f"All of it would take {size(whole.total)} and {size(ram.usable)} is available, so "
            f"{size(chosen.streamed_bytes)} of its weights are read from the disk when they are "
            "needed: slower, but with the same output."
        )
    elif chosen.resident_bytes < whole.weights:
        reason = (
            f"{size(chosen.resident_bytes)} of the {size(whole.weights)} of its weights fit in "
            f"the {size(ram.usable)} that is available: the parts that refine it are left out."
        )
    else:
        reason = f"All of it fits in the {size(ram.usable)} that is available."
    if (seconds := round(1 / chosen.tokens_per_second)) > 1:
        reason += f" Expect a token every {seconds} seconds."
    if chosen.kv_type != "f16":
        reason += f" The KV cache is {chosen.kv_type} to save RAM."
    if n_ctx is None and chosen.n_ctx < min(_CONTEXTS[0], chosen.file.n_ctx_train):
        reason += (
            f" Its context starts at {chosen.n_ctx} tokens, which leaves more room for weights, "
            "and grows with the conversation."
        )
    if n_ctx is not None and chosen.n_ctx < n_ctx:
        reason += f" Its context has {chosen.n_ctx} tokens: the model takes no more."
    if chosen.predicts:
        reason += " The model's own prediction block drafts."
    if chosen.drafter:
        reason += f" {_drafter_words(chosen.drafter)} drafts for it."
    if chosen.idle_drafter:
        reason += f" {chosen.idle_drafter.name} does not draft: {_why_idle(chosen)}."
    return reason


def _drafter_words(drafter: Plan) -> str:
    left_out = drafter.resident_bytes < drafter.need.weights
    part = f"{size(drafter.resident_bytes)} of " if left_out else ""
    return part + drafter.file.name


def _why_idle(chosen: Plan) -> str:
    assert chosen.idle_drafter is not None
    if not can_verify(chosen.file):
        return f"{chosen.file.name} cannot check several tokens at once"
    if not chosen.streamed_bytes:
        return "only a model that is read from the disk needs that"
    if chosen.way.drafts_itself:
        return "what is in RAM of a stack does that itself"
    if chosen.idle_drafter.is_stack:
        return "there is no room for it"
    return "there is no room for it, but there may be for a part of it, packed into a stack"


def _called(file: GGUFFile) -> str:
    """What the model calls itself, and the file, which may be one of several of that name."""
    return file.name if file.name == file.path.stem else f"{file.name} ({file.path.name})"


def _suggestion(ram: AvailableRam) -> str:
    # Only now: models and catalogue would take 5 MB of the engine for nothing.
    from ondevice.planning.suggestion import instead  # noqa: PLC0415

    return instead(ram)
