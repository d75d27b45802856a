"""Tensors with the matrices of all experts, of which only some are in RAM.

``MUL_MAT_ID`` is given two stand-ins: the slots in place of the tensor with all experts, and
numbers of slots in place of numbers of experts.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence

from ondevice.disk.reader import PAGE, Reader, Reading, Span
from ondevice.errors import NativeError
from ondevice.gguf import TensorInfo
from ondevice.holding.experts.blocks import ExpertMatrix
from ondevice.holding.experts.experts import Matrices
from ondevice.llama import OP_CUSTOM, OP_MUL_MAT_ID, Tensor


class _StandIn:
    """What takes the place of an operand in the graph; where it points changes, it does not."""

    def __init__(self, original: Tensor) -> None:
        self.original = original
        self.tensor = original.copy()
        self.address = self.tensor.address

    def show_matrices(self, address: int, stride: int, count: int) -> None:
        self.tensor.data, self.tensor.nb[2], self.tensor.ne[2] = address, stride, count

    def show_numbers(self, numbers: ctypes.Array[ctypes.c_int32], like: Tensor) -> None:
        width, n_bytes = like.ne[0], ctypes.sizeof(ctypes.c_int32)
        self.tensor.ne[0], self.tensor.ne[1] = width, like.ne[1]
        self.tensor.nb[0], self.tensor.nb[1] = n_bytes, n_bytes * width
        self.tensor.data = ctypes.addressof(numbers)


class ExpertTensor(Matrices):
    """One tensor of the file, which has one expert after the other.

    ``unit``: bytes of which the ends of a read are multiples.
    """

    def __init__(self, of: ExpertMatrix, tensor: TensorInfo, unit: int) -> None:
        super().__init__(of)
        self._tensor = tensor
        self._unit = unit
        self._shift = tensor.offset % PAGE  # bytes from the start of a slot to what the graph reads
        self._weights: _StandIn | None = None
        self._numbers: _StandIn | None = None
        self._shown: ctypes.Array[ctypes.c_int32] | None = None  # numbers of slots
        self._ids: dict[int, Tensor] = {}  # address of a node → its experts' numbers

    def take_over(self, node: Tensor) -> Tensor:
        """Raises :class:`NativeError` for a node that needs all experts."""
        if node.op not in (OP_MUL_MAT_ID, OP_CUSTOM):
            raise NativeError(
                f"{self.of.name} is used by {node.op_name}, which needs all experts in RAM: "
                "ondevice cannot stream this model. Choose a smaller one."
            )
        weights, _, ids = node.operands()
        self._weights = self._weights or _StandIn(weights)
        self._numbers = self._numbers or _StandIn(ids)
        if ids.address != self._numbers.address:  # else the graph was seen before an error
            self._ids[node.address] = ids
        node.src[0], node.src[2] = self._weights.address, self._numbers.address
        return self._ids[node.address]

    def restore(self, node: Tensor) -> Tensor:
        """Have ``node`` read the tensor with all experts again, which is returned."""
        weights, numbers = self._weights, self._numbers
        if weights is None or numbers is None or node.src[0] != weights.address:
            return next(iter(node.operands()))
        node.src[0], node.src[2] = weights.original.address, self._ids[node.address].address
        return weights.original

    def read(self, reader: Reader, expert: int, slot: memoryview, n_pieces: int) -> list[Reading]:
        offset = self._tensor.offset + expert * self.of.expert_bytes
        span = Span.around(self._tensor.part, offset, self.of.expert_bytes, self._unit)
        at = self._arrives_at(expert)
        return [reader.start(span, slot[at : at + span.n_bytes], n_pieces)]

    def arrange(self, expert: int, slot: memoryview) -> None:
        at, n_bytes = self._arrives_at(expert) + self._in_span(expert), self.of.expert_bytes
        if at != self._shift:
            slot[self._shift : self._shift + n_bytes] = slot[at : at + n_bytes]

    def show(
        self, ids: Tensor, experts: Sequence[int], address: int, places: Mapping[int, int]
    ) -> None:
        assert self._weights is not None and self._numbers is not None
        self._shown = (ctypes.c_int32 * len(experts))(*map(places.__getitem__, experts))
        self._numbers.show_numbers(self._shown, ids)
        self._weights.show_matrices(address + self._shift, self.stride, 1 + max(places.values()))

    def _in_span(self, expert: int) -> int:
        """Bytes from the start of the expert's span to the expert."""
        return (self._tensor.offset + expert * self.of.expert_bytes) % self._unit

    def _arrives_at(self, expert: int) -> int:
        """Bytes from the start of a slot to where the span of an expert is read.

        That is where the expert ends up in its place at once, if that is possible.
        """
        straight = self._shift - self._in_span(expert)
        return straight if straight % self._unit == 0 else 0
