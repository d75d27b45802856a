"""A model whose weights are streamed, without an engine around it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager

from ondevice.gguf import GGUFFile
from ondevice.holding.window.window import Window
from ondevice.llama import OP_NONE, Actions, Context, EvalHook, Model, Tensor


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


class WhatIsRead:
    """Notes which of these tensors the nodes of a graph read, and has none of them computed."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self.read: set[str] = set()

    def inspect(self, node: Tensor) -> Actions | None:
        if node.op_name in ("RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE"):
            return None
        for operand in node.operands():
            root = Tensor.from_address(operand.view_src) if operand.view_src else operand
            if root.op == OP_NONE and root.name in self._names:
                self.read.add(root.name)
        return Actions(before=lambda: setattr(node, "op", OP_NONE))


def read_by_a_pass(file: GGUFFile) -> set[str]:
    """Names of the tensors that a pass reads. Nothing is computed: the file may be all holes."""
    model = Model(file.path, use_extra_bufts=False, hollow=file.parts)
    handler = WhatIsRead(file.tensors.keys())
    for n_tokens in (1, 3):
        context = Context(model, n_ctx=256, n_threads=1, eval_hook=EvalHook(handler))
        context.decode(list(range(n_tokens)))
        context.close()
    model.close()
    return handler.read
