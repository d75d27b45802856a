"""Loads a model in the best way for the RAM that there is."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

from ondevice import gguf
from ondevice.disk.identity import UnchangedFiles
from ondevice.engine._drafting import (
    Drafter,
    ModelDrafter,
    PredictionDrafter,
    SmallModel,
    context_to_draft,
)
from ondevice.errors import LoadCancelled, ModelFileError
from ondevice.gguf.runnable import blamed
from ondevice.gguf.vocabulary import check_tokens
from ondevice.holding.machine import Machine
from ondevice.holding.plan import Plan
from ondevice.holding.way import Weights
from ondevice.llama import Context, Model, Predictor, has_next_states
from ondevice.messages import Load
from ondevice.planning.planner import plan, why
from ondevice.ram.need import DRAFT_BATCH


@dataclass(frozen=True)
class HeldModel:
    """A model that is ready to decode."""

    plan: Plan
    why: str  # it is run so
    model: Model
    context: Context
    weights: Weights
    drafter: Drafter | None  # None: none was asked for, or it would be of no use
    may_grow: bool  # whether the context may, with the conversation
    files: UnchangedFiles
    _open: ExitStack

    def close(self) -> None:
        """Free everything."""
        self._open.close()


def load_model(
    request: Load, on_progress: Callable[[float], None], cancel: threading.Event
) -> HeldModel:
    """Load what is asked for, in whatever way fits the RAM that is available.

    Raises :class:`ModelFileError`, :class:`MemoryShortError` with what would fit, and
    :class:`LoadCancelled`.
    """

    def go_on(fraction: float) -> bool:
        on_progress(fraction)
        return not cancel.is_set()

    file = gguf.read(Path(request.path))
    files = UnchangedFiles(part.path for part in file.parts)
    machine = Machine.now(request.ram, os.getpid())
    chosen = plan(file, request, machine)
    with blamed(file.path):
        check_tokens(file)
    try:
        return _load(chosen, request, machine, files, go_on, cancel)
    except ModelFileError:
        if not chosen.predicts:
            raise
        # It may be the prediction block that is not whole.
        request = msgspec.structs.replace(request, predicts=False)
        return _load(plan(file, request, machine), request, machine, files, go_on, cancel)


def _load(
    chosen: Plan,
    request: Load,
    machine: Machine,
    files: UnchangedFiles,
    go_on: Callable[[float], bool],
    cancel: threading.Event,
) -> HeldModel:
    file = chosen.file
    drafter: Drafter | None = None
    with ExitStack() as stack:
        if chosen.drafter is not None:
            drafter = small = SmallModel(
                chosen.drafter, request, file.n_vocab, lambda _: not cancel.is_set()
            )
            stack.callback(small.close)
        weights = chosen.way.open(chosen, request, go_on)
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
            eval_hook=weights.hook(),
            keeps_state=True,
        )
        stack.callback(context.close)
        own = weights.drafting_hook()
        if own is not None and chosen.predicts:
            if has_next_states():
                predictor = Predictor(
                    context,
                    own,
                    n_ctx=chosen.n_ctx,
                    kv_type=chosen.kv_type,
                    batch_tokens=DRAFT_BATCH,
                )
                stack.callback(predictor.close)
                drafter = PredictionDrafter(predictor, partial(_may_draft, weights))
        elif own is not None:
            drafting = context_to_draft(model, chosen, request, own)
            stack.callback(drafting.close)
            drafter = ModelDrafter(drafting, model.n_vocab, partial(_may_draft, weights))
        if cancel.is_set():
            raise LoadCancelled
        return HeldModel(
            plan=chosen,
            why=why(chosen, machine.ram, request.n_ctx),
            model=model,
            context=context,
            weights=weights,
            drafter=drafter,
            may_grow=request.n_ctx is None,
            files=files,
            _open=stack.pop_all(),
        )


def _may_draft(weights: Weights) -> bool:
    return weights.may_draft
