"""A stack, and a context that computes with it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ondevice import gguf
from ondevice.holding.stack import StackFile
from ondevice.holding.stack.stack import Stack
from ondevice.llama import Context


@contextmanager
def opened(
    path: Path,
    budget: int | None = None,
    *,
    whole: bool = False,
    cut: StackFile | None = None,
    n_ctx: int = 256,
) -> Iterator[tuple[Stack, Context]]:
    stack = Stack(gguf.read(path), budget, whole=whole, cut=cut, threads=1)
    model = stack.load_model()
    context = Context(model, n_ctx=n_ctx, n_threads=1, eval_hook=stack.hook())
    try:
        yield stack, context
    finally:
        context.close()
        model.close()
        stack.close()
