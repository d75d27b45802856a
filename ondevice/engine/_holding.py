"""Holds a model in the RAM that there is: resident, through the window, or as a stack."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ondevice.engine.messages import Load
from ondevice.errors import LoadCancelled, MemoryShortError, ModelFileError
from ondevice.llama import Context, EvalHook, Model
from ondevice.models import catalogue
from ondevice.ram import available, speeds
from ondevice.ram.available import AvailableRam
from ondevice.ram.planner import Plan, plan, why
from ondevice.ram.process import of_process
from ondevice.stack import Stack, StackFile, is_stack
from ondevice.weights import gguf
from ondevice.weights.drafting import ModelDrafter, check_vocabulary
from ondevice.weights.gguf import GGUFFile
from ondevice.weights.placement import most_bytes
from ondevice.weights.window import Window

_BESIDE_WEIGHTS = 250_000_000  # bytes: what a small model needs for context, buffers and engine


@dataclass(frozen=True)
class Holding:
    """A model that is ready to decode."""

    plan: Plan
    why: str  # it is run so
    model: Model
    context: Context
    weights: Window | Stack | None  # what feeds the model; None: llama.cpp holds the weights itself
    drafter: ModelDrafter | None  # None: none was asked for, or nothing is streamed
    _open: ExitStack

    def close(self) -> None:
        """Free everything."""
        self._open.close()


def hold(request: Load, on_progress: Callable[[float], None], cancel: threading.Event) -> Holding:
    """Load what is asked for, in whatever way fits the RAM that is available.

    Raises :class:`ModelFileError`, :class:`MemoryShortError` with what would fit, and
    :class:`LoadCancelled`.
    """

    def go_on(fraction: float) -> bool:
        on_progress(fraction)
        return not cancel.is_set()

    whole = gguf.read(Path(request.path))
    stacked = StackFile.of(whole) if is_stack(whole) else None
    file = stacked.without_blocks() if stacked else whole
    ram = _ram(request)
    chosen = plan(
        file,
        ram,
        speeds.known(),
        n_ctx=request.n_ctx,
        kv_type=request.kv_type,
        drafter=_drafter_of(request, file),
        preference=request.prefer,
        instead=_smaller_model(ram),
    )
    weights: Window | Stack | None = None
    drafter: ModelDrafter | None = None
    with ExitStack() as stack:
        if stacked is not None:
            weights = _open_stack(stacked, chosen, request, ram, go_on)
            stack.callback(weights.close)
            model = weights.load_model()
        elif chosen.kind == "resident" and chosen.need.may_repack(ram.usable):
            model = Model(file.path, on_progress=go_on)
        else:
            if chosen.drafter is not None:
                drafter = ModelDrafter.open(
                    chosen.drafter,
                    file,
                    n_ctx=chosen.n_ctx,
                    kv_type=chosen.kv_type,
                    n_threads=request.n_threads,
                )
                stack.callback(drafter.close)
            # All of it takes a page more here and there than the sum of its tensors.
            whole_bytes = most_bytes(file) if chosen.kind == "resident" else 0
            weights = Window(file, max(chosen.weights_budget, whole_bytes), on_progress=go_on)
            stack.callback(weights.close)
            model = weights.load_model()
        stack.callback(model.close)
        if not model.has_decoder:
            raise ModelFileError(f"{file.path.name} cannot chat: it only encodes text.")
        context = Context(
            model,
            n_ctx=chosen.n_ctx,
            kv_type=chosen.kv_type,
            n_threads=request.n_threads,
            eval_hook=EvalHook(weights) if weights else None,
        )
        stack.callback(context.close)
        if isinstance(weights, Stack) and weights.may_draft:
            drafting = Context(
                model,
                n_ctx=chosen.n_ctx,
                kv_type=chosen.kv_type,
                n_threads=request.n_threads,
                eval_hook=EvalHook(weights.resident()),
            )
            stack.callback(drafting.close)
            drafter = ModelDrafter(drafting, model.n_vocab, partial(_may_draft, weights))
        if cancel.is_set():
            raise LoadCancelled
        reason = _how_much(weights) if isinstance(weights, Stack) else why(chosen, ram)
        return Holding(chosen, reason, model, context, weights, drafter, stack.pop_all())


def _ram(request: Load) -> AvailableRam:
    """What is available, with what this process has taken already: plans count it as well."""
    ram = available.look(request.ram)
    own = of_process(os.getpid())
    if own is None or request.ram is not None:
        return ram
    return replace(ram, available=min(ram.total, ram.available + own.resident))


def _open_stack(
    file: StackFile,
    chosen: Plan,
    request: Load,
    ram: AvailableRam,
    on_progress: Callable[[float], bool],
) -> Stack:
    """As much of the stack as fits beside everything else.

    The rest is left out, or streamed if answers are to be exact or not even the base fits.
    """
    need = chosen.need
    budget = ram.usable - (need.total - need.weights)
    base_fits = file.fitting(budget) >= file.n_base
    whole = file.fitting(budget) < len(file.gguf.tensors) and (
        request.prefer == "exact" or not base_fits
    )
    if whole and base_fits:  # the base drafts, in a context of its own
        budget = max(budget - need.kv - need.compute, file.least_whole_bytes)
    if whole and budget < file.least_whole_bytes:
        least = file.least_whole_bytes + need.total - need.weights
        raise MemoryShortError(
            f"{file.gguf.path.name} needs at least {least / 1e6:.0f} MB of RAM, even with most of "
            f"its weights read from the disk for each token, and {ram.usable / 1e6:.0f} MB can be "
            f"used ({ram.source}). {_smaller_model(ram)}"
        )
    return Stack(file.gguf, budget, whole=whole, threads=request.n_threads, on_progress=on_progress)


def _may_draft(stack: Stack) -> bool:
    return stack.may_draft


def _how_much(stack: Stack) -> str:
    """A plain sentence."""
    total = len(stack.file.blocks)
    resident, whole = stack.resident_bytes / 1e6, stack.file.gguf.file_bytes / 1e6
    if stack.streamed_bytes:
        return (
            f"{resident:.0f} of its {whole:.0f} MB are in RAM, and the others are read from the "
            "disk when they are needed. What it says is what all of it says."
        )
    return (
        f"{resident:.0f} of its {whole:.0f} MB fit: "
        f"{stack.n_blocks} of {total} steps above the smallest size."
    )


def _drafter_of(request: Load, target: GGUFFile) -> GGUFFile | None:
    if request.drafter is None:
        return None
    file = gguf.read(Path(request.drafter))
    check_vocabulary(file, target)
    return file


def _smaller_model(ram: AvailableRam) -> str:
    """A sentence that names the largest model of the catalogue that would fit."""
    fitting = [r for r in catalogue() if r.size_bytes + _BESIDE_WEIGHTS <= ram.usable]
    if not fitting:
        return "Close other programs: no model of the catalogue fits."
    largest = max(fitting, key=lambda recipe: recipe.size_bytes)
    return f"{largest.title} would fit: ondevice models pull {largest.name}"
