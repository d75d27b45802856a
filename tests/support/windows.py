"""A model whose weights are streamed, without an engine around it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ondevice.gguf import GGUFFile
from ondevice.holding.window.window import Window
from ondevice.llama import Context, EvalHook


@contextmanager
def opened(file: GGUFFile, budget_bytes: int) -> Iterator[tuple[Window, Context]]:
    window = Window(file, budget_bytes)
    model = window.load_model()
    context = Context(model, n_ctx=512, n_threads=1, eval_hook=EvalHook(window))
    try:
        yield window, context
    finally:
        context.close()
        model.close()
        window.close()
