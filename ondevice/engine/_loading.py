"""Holds a model in the RAM that there is: resident, through the window, or as a stack."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from ondevice import gguf
from ondevice.disk.identity import UnchangedFiles
from ondevice.engine._drafting import ModelDrafter
from ondevice.errors import LoadCancelled, MemoryShortError, ModelFileError
from ondevice.gguf import GGUFFile
from ondevice.gguf.runnable import blamed
from ondevice.gguf.vocabulary import check_tokens, check_vocabulary
from ondevice.holding.stack.stack import Stack
from ondevice.holding.window.placement import most_bytes
from ondevice.holding.window.window import Window
from ondevice.llama import Context, EvalHook, Model
from ondevice.messages import Load
from ondevice.holding import speeds
from ondevice.planning.planner import Plan, plan, why
from ondevice.ram import available
from ondevice.ram.available import AvailableRam
from ondevice.ram.need import need
from ondevice.ram.process import of_process

_GROWTH = 2  # times: a context that grows does so by that, where there is room


@dataclass(frozen=True)
class Holding:
    """A model that is ready to decode."""

    plan: Plan
    why: str  # it is run so
    model: Model
    context: Context
    weights: Window | Stack | None  # what feeds the model; None: llama.cpp holds the weights itself
    drafter: ModelDrafter | None  # None: none was asked for, or nothing is streamed
    may_grow: bool  # whether the context may, with the conversation
    files: UnchangedFiles
    _open: ExitStack

    def grow(self, n_tokens: int, claim: Callable[[int], bool]) -> None:
        """Have the context hold so many tokens, and some more, at the cost of weights in RAM.

        ``claim`` makes room for so many bytes, if it can; if it cannot, nothing changes. There
        are never more tokens than the model was trained on.
        """
        context, kv_type, file = self.context, self.plan.kv_type, self.plan.file
        least = min(n_tokens, file.n_ctx_train)
        if not self.may_grow or least <= context.n_ctx:
            return
        before = need(file, context.n_ctx, kv_type)
        for n_ctx in (min(file.n_ctx_train, max(least, context.n_ctx * _GROWTH)), least):
            after = need(file, n_ctx, kv_type)
            more = after.kv + after.compute - before.kv - before.compute
            if claim(more + before.kv):  # for a moment it is there twice
                try:
                    context.grow(after.n_ctx)
                    claim(-before.kv)
                except MemoryShortError:
                    claim(-more - before.kv)
                return

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

    file = gguf.read(Path(request.path))
    files = UnchangedFiles(part.path for part in file.parts)
    ram = _ram(request)
    small = _drafter_of(request, file)
    with blamed(file.path):
        chosen = plan(
            file,
            ram,
            speeds.known(),
            n_ctx=request.n_ctx,
            kv_type=request.kv_type,
            drafter=small,
            preference=request.prefer,
            instead=partial(_instead, ram),
        )
        check_tokens(file)
    weights: Window | Stack | None = None
    drafter: ModelDrafter | None = None
    with ExitStack() as stack:
        if chosen.kind == "stack":
            weights = Stack(
                file,
                chosen.weights_budget,
                whole=chosen.streamed_bytes > 0,
                threads=request.n_threads,
                on_progress=go_on,
            )
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
        if model.cannot_chat and not model.embeds:
            raise ModelFileError(
                f"{file.path.name} cannot chat: {model.cannot_chat}. Choose a chat model."
            )
        context = Context(
            model,
            n_ctx=chosen.n_ctx,
            kv_type=chosen.kv_type,
            n_threads=request.n_threads,
            eval_hook=EvalHook(weights) if weights else None,
        )
        stack.callback(context.close)
        if isinstance(weights, Stack) and weights.may_draft and chosen.drafter_bytes:
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
        return Holding(
            plan=chosen,
            why=why(chosen, ram, request.n_ctx),
            model=model,
            context=context,
            weights=weights,
            drafter=drafter,
            may_grow=request.n_ctx is None,
            files=files,
            _open=stack.pop_all(),
        )


def _ram(request: Load) -> AvailableRam:
    """What is available, with what this process has taken already: plans count it as well."""
    ram = available.look(request.ram)
    own = of_process(os.getpid())
    if own is None or request.ram is not None:
        return ram
    return replace(ram, available=min(ram.total, ram.available + own.resident))


def _may_draft(stack: Stack) -> bool:
    return stack.may_draft


def _drafter_of(request: Load, target: GGUFFile) -> GGUFFile | None:
    if request.drafter is None:
        return None
    file = gguf.read(Path(request.drafter))
    check_vocabulary(file, target)
    return file


def _instead(ram: AvailableRam) -> str:
    # Only now: models and catalogue would take 5 MB of the engine for nothing.
    from ondevice.planning.suggestion import instead  # noqa: PLC0415

    return instead(ram)
