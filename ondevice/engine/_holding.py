"""Holds a model in the RAM that there is: resident if it fits, else through the window."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from ondevice.engine.messages import Load
from ondevice.errors import LoadCancelled, MemoryShortError, ModelFileError
from ondevice.llama import Context, EvalHook, Model
from ondevice.models import catalogue
from ondevice.ram import available
from ondevice.ram.available import AvailableRam
from ondevice.ram.need import check_fits, largest_ctx, need
from ondevice.weights import gguf
from ondevice.weights.drafting import ModelDrafter, check_vocabulary
from ondevice.weights.gguf import GGUFFile
from ondevice.weights.window import Window

_SHORT_CTX = 1024  # tokens; rather than less, weights are streamed
_BESIDE_WEIGHTS = 250_000_000  # bytes: what a small model needs for context, buffers and engine


@dataclass(frozen=True)
class Holding:
    """A model that is ready to decode."""

    file: GGUFFile
    model: Model
    context: Context
    window: Window | None  # None: all weights are in RAM
    drafter: ModelDrafter | None  # None: none was asked for, or there is no window
    _open: ExitStack

    def close(self) -> None:
        """Free everything."""
        self._open.close()


def hold(request: Load, on_progress: Callable[[float], None], cancel: threading.Event) -> Holding:
    """Load what is asked for, in whatever way fits the RAM that is available.

    A context length that was not asked for shrinks first, down to 1024 tokens; then weights are
    streamed from the disk.

    Raises :class:`ModelFileError`, :class:`MemoryShortError` with what would fit, and
    :class:`LoadCancelled`.
    """

    def go_on(fraction: float) -> bool:
        on_progress(fraction)
        return not cancel.is_set()

    file = gguf.read(Path(request.path))
    ram = available.look(request.ram)
    wanted = need(file, request.n_ctx, request.kv_type)
    if wanted.total > ram.available and request.n_ctx is None:
        fitting = largest_ctx(file, wanted.n_ctx, request.kv_type, ram.available)
        if fitting >= _SHORT_CTX:
            wanted = need(file, fitting, request.kv_type)
    window: Window | None = None
    drafter: ModelDrafter | None = None
    with ExitStack() as stack:
        if wanted.total <= ram.available:
            repack = wanted.may_repack(ram.available)
            model = Model(file.path, use_extra_bufts=repack, on_progress=go_on)
        else:
            budget = ram.available - (wanted.total - wanted.weights)
            if request.drafter is not None:
                drafter, taken = _open_drafter(request, file, wanted.n_ctx, stack)
                budget -= taken
            try:
                window = Window(file, budget, on_progress=go_on)
            except MemoryShortError:
                check_fits(file, wanted.n_ctx, request.kv_type, ram, _smaller_model(ram))
                raise
            stack.callback(window.close)
            model = window.load_model()
        stack.callback(model.close)
        if not model.has_decoder:
            raise ModelFileError(f"{file.path.name} cannot chat: it only encodes text.")
        context = Context(
            model,
            n_ctx=wanted.n_ctx,
            kv_type=request.kv_type,
            n_threads=request.n_threads,
            eval_hook=EvalHook(window) if window else None,
        )
        stack.callback(context.close)
        if cancel.is_set():
            raise LoadCancelled
        return Holding(file, model, context, window, drafter, stack.pop_all())


def _open_drafter(
    request: Load, target: GGUFFile, n_ctx: int, stack: ExitStack
) -> tuple[ModelDrafter, int]:
    """The drafter that was asked for, resident, and the bytes of RAM that it takes."""
    assert request.drafter is not None
    file = gguf.read(Path(request.drafter))
    check_vocabulary(file, target)
    wanted = need(file, n_ctx, request.kv_type)
    model = Model(file.path, use_extra_bufts=False)
    stack.callback(model.close)
    context = Context(model, n_ctx=n_ctx, kv_type=request.kv_type, n_threads=request.n_threads)
    stack.callback(context.close)
    return ModelDrafter(context, target.n_vocab), wanted.total - wanted.engine


def _smaller_model(ram: AvailableRam) -> str:
    """A sentence that names the largest model of the catalogue that would fit."""
    fitting = [r for r in catalogue() if r.size_bytes + _BESIDE_WEIGHTS <= ram.available]
    if not fitting:
        return "Close other programs: no model of the catalogue fits."
    largest = max(fitting, key=lambda recipe: recipe.size_bytes)
    return f"{largest.title} would fit: ondevice models pull {largest.name}"
