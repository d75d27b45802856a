"""The window: runs a model of which only a part is in RAM, with the very same results.

llama.cpp computes; the window sees to it that each weight is where the node that reads it looks
for it. Some weights are pinned, the others are read from the disk for each pass through the model,
ahead of their use ("LLM in a flash", section 3, with the block as the unit). Of a mixture of
experts, only those are read that a pass needs and that no pass has needed just before.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np

from ondevice.errors import LoadCancelled
from ondevice.llama import OP_NONE, Actions, Model, Tensor
from ondevice.weights.experts import Experts
from ondevice.weights.gguf import GGUFFile, TensorInfo
from ondevice.weights.placement import Placement, place, spans
from ondevice.weights.reader import Arena, Reader
from ondevice.weights.ring import Ring


class WindowStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What a window has done since it was opened; subtract two of them for what lies between."""

    bytes_read: int
    read_seconds: float  # in which the disk was busy for us
    wait_seconds: float  # in which the computing waited for it
    experts_used: int  # each once for a pass and block; 0: the model has none, or all are in RAM
    experts_found: int  # of these, in RAM already

    def since(self, earlier: WindowStatistics) -> WindowStatistics:
        return WindowStatistics(
            **{
                name: getattr(self, name) - getattr(earlier, name)
                for name in self.__struct_fields__
            }
        )


class _Operand(NamedTuple):
    """A tensor that a node reads: a streamed weight, or a view on one."""

    tensor: Tensor
    offset: int  # bytes from the start of the weight
    weight: TensorInfo


class Window:
    """The weights of ``file`` within ``budget_bytes`` of RAM: give it to an ``EvalHook``.

    ::

        window = Window(gguf.read(path), budget_bytes)
        model = window.load_model()
        context = Context(model, n_ctx=…, eval_hook=EvalHook(window))
        …
        context.close(); model.close(); window.close()

    A pass through the model reads what is streamed once, for one token or for a whole batch: so
    process prompts in large batches.

    ``on_progress`` gets fractions 0 … 1 while the pinned weights are read and returns False to
    cancel. Raises :class:`LoadCancelled` then, :class:`MemoryShortError` if the budget is too
    small and :class:`ModelFileError` if reading fails, later also out of ``Context.decode``.
    """

    def __init__(
        self,
        file: GGUFFile,
        budget_bytes: int,
        *,
        on_progress: Callable[[float], bool] = lambda _: True,
    ) -> None:
        self._file = file
        self.placement: Placement = place(file, budget_bytes)
        self._reader = Reader([part.path for part in file.parts])
        self._memory: list[Arena | mmap.mmap] = []  # kept alive
        self._addresses: dict[str, int] = {}  # of the weights that stay where they are
        self._ring: Ring | None = None
        self._experts: Experts | None = None
        try:
            self._map_on_file()
            self._pin(on_progress)
            if self.placement.streamed:
                self._ring = Ring(self._reader, self.placement.streamed, self.placement.ring_bytes)
            if self.placement.experts:
                self._experts = Experts(self._reader, self.placement.experts)
        except BaseException:
            self.close()
            raise

    def load_model(self) -> Model:
        """The model, for contexts that have this window in their eval hook and for no others."""
        return Model(self._file.path, use_extra_bufts=False, hollow=self._file.parts)

    def close(self) -> None:
        """Stop reading and give the memory back. The model must have been closed before."""
        if self._ring is not None:
            self._ring.close()
        if self._experts is not None:
            self._experts.close()
        self._reader.close()
        self._memory.clear()

    def statistics(self) -> WindowStatistics:
        waiting = [part.wait_seconds for part in (self._ring, self._experts) if part]
        return WindowStatistics(
            bytes_read=self._reader.bytes_read,
            read_seconds=self._reader.busy_seconds,
            wait_seconds=sum(waiting),
            experts_used=self._experts.used if self._experts else 0,
            experts_found=self._experts.found if self._experts else 0,
        )

    def inspect(self, node: Tensor) -> Actions | None:
        """Point the weights that ``node`` reads at their bytes; part of the eval hook."""
        streamed = []
        for operand in node.operands():
            root = Tensor.from_address(operand.view_src) if operand.view_src else operand
            weight = self._file.tensors.get(root.name) if root.op == OP_NONE else None
            if weight is None:
                continue
            if address := self._addresses.get(weight.name):
                root.data = address
                operand.data = address + operand.view_offs
            elif self._experts and weight.name in self._experts:
                return self._experts.inspect(node, weight)
            else:
                streamed.append(_Operand(operand, operand.view_offs, weight))
        return Actions(before=partial(self._fetch, streamed)) if streamed else None

    def _fetch(self, operands: list[_Operand]) -> None:
        assert self._ring is not None
        addresses = self._ring.use([operand.weight for operand in operands])
        for operand, address in zip(operands, addresses, strict=True):
            operand.tensor.data = address + operand.offset

    def _map_on_file(self) -> None:
        parts = {tensor.part for tensor in self.placement.on_file}
        starts = {part: self._map(self._file.parts[part].path) for part in parts}
        for tensor in self.placement.on_file:
            self._addresses[tensor.name] = starts[tensor.part] + tensor.offset

    def _map(self, path: Path) -> int:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_RANDOM"):
            mapped.madvise(mmap.MADV_RANDOM)  # single rows: reading ahead would only displace
        self._memory.append(mapped)
        return int(np.frombuffer(mapped, np.uint8).ctypes.data)

    def _pin(self, on_progress: Callable[[float], bool]) -> None:
        groups = spans(self.placement.pinned)
        arena = Arena(sum(span.n_bytes for span, _ in groups))
        self._memory.append(arena)
        readings = []
        start = 0
        for span, tensors in groups:
            view = arena.view[start : start + span.n_bytes]
            readings.append((start, self._reader.start(span, view)))
            for tensor in tensors:
                self._addresses[tensor.name] = arena.address + start + tensor.offset - span.offset
            start += span.n_bytes
        for start, reading in readings:
            reading.wait()
            if not on_progress(start / arena.n_bytes):
                raise LoadCancelled
