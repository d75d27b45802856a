"""A handler of the eval hook: products with weights of known types are computed by our kernels."""

from __future__ import annotations

from ondevice.errors import NativeError
from ondevice.llama import OP_MUL_MAT, OP_MUL_MAT_ID, OP_NONE, Actions, NodeHandler, Tensor
from ondevice.products._kernels import Kernels, block
from ondevice.system.cores import default_threads

_F32 = 0  # ggml's number of that type
_INPUT = 1  # GGML_TENSOR_FLAG_INPUT: no weight, and of another shape in each batch


class ProductHandler:
    """After those handlers that say where weights are."""

    def __init__(self, n_threads: int) -> None:
        self._kernels = Kernels(n_threads)

    def inspect(self, node: Tensor) -> Actions | None:
        """Take over a product whose weights are of a known type."""
        if node.op in (OP_MUL_MAT, OP_MUL_MAT_ID) and is_known(node):
            self._kernels.multiply_node(node)
        return None


def handlers(n_threads: int | None) -> list[NodeHandler]:
    """What an eval hook needs, with so many threads; nothing where it cannot be compiled."""
    try:
        return [ProductHandler(n_threads or default_threads())]
    except NativeError:
        return []


def is_known(node: Tensor) -> bool:
    """Whether a product is one of a matrix of weights that our kernels know."""
    weight, x, *_ = node.operands()
    size = block(weight.type)
    return bool(
        weight.op == OP_NONE
        and not weight.flags & _INPUT
        and not weight.view_src
        and size
        and weight.ne[0] % size == 0
        and x.type == _F32
        and x.nb[0] == 4
    )
