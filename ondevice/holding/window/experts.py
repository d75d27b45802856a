"""The experts of a model larger than RAM: read once a router has picked them, kept for a while.

``MUL_MAT_ID`` multiplies with some of a tensor's matrices, one for each expert, whose numbers
another tensor holds. The experts that are kept lie in slots, of which there are fewer than experts.
So the node is given two stand-ins: the slots in place of the tensor with all experts, and numbers
of slots in place of numbers of experts. A batch that needs more experts than there are slots, a
prompt, gets them in a stage, one tensor after the other. The stage is memory of the first blocks'
slots, which are empty after that.
"""

from __future__ import annotations

import ctypes
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from ondevice.disk.reader import PAGE, READS_IN_FLIGHT, Arena, Reader, Reading, Span
from ondevice.errors import ModelFileError, NativeError
from ondevice.gguf import TensorInfo
from ondevice.holding.window.expert_cache import ExpertCache
from ondevice.holding.window.placement import (
    N_STAGES,
    ExpertBlock,
    expert_bytes,
    slot_bytes,
    slots_bytes,
)
from ondevice.llama import OP_CUSTOM, OP_MUL_MAT_ID, Actions, Tensor

_RECENT = 32  # tokens, before which ranks count for next to nothing


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


class _Matrices:
    """One tensor of experts."""

    def __init__(self, tensor: TensorInfo, unit: int) -> None:
        self.tensor = tensor
        self._unit = unit  # bytes of which the ends of a read are multiples
        self.n_bytes = expert_bytes(tensor)
        self.start = 0  # of the first slot, bytes from the start of the arena
        self.stride = slot_bytes(tensor)  # from slot to slot
        self.shift = tensor.offset % PAGE  # bytes from the start of a slot to what the graph reads
        self.weights: _StandIn | None = None
        self.numbers: _StandIn | None = None

    def span(self, expert: int) -> Span:
        offset = self.tensor.offset + expert * self.n_bytes
        return Span.around(self.tensor.part, offset, self.n_bytes, self._unit)

    def in_span(self, expert: int) -> int:
        """Bytes from the start of the expert's span to the expert."""
        return (self.tensor.offset + expert * self.n_bytes) % self._unit

    def in_slot(self, start: int, slot: int) -> int:
        """Bytes from the start of the arena to an expert; the first slot begins at ``start``."""
        return start + slot * self.stride + self.shift

    def arrives_at(self, start: int, slot: int, expert: int) -> int:
        """Bytes from the start of the arena to where the span of an expert in a slot is read.

        That is where the expert ends up in its place at once, if that is possible.
        """
        place = self.in_slot(start, slot)
        straight = place - self.in_span(expert)
        return straight if straight % self._unit == 0 else place - self.shift


@dataclass(eq=False)
class _BlockOfExperts:
    index: int
    cache: ExpertCache
    matrices: list[_Matrices]  # in the order of use, once that is known
    start: int = 0  # of its slots, bytes from the start of the arena


@dataclass(eq=False, kw_only=True)
class _Fetch:
    """Experts of one block that are being read."""

    block: _BlockOfExperts
    missing: list[int]  # experts to read
    places: dict[int, int]  # expert → slot that it is read into, in a stage if it is staged
    admitted: dict[int, int]  # expert → slot; those that get one
    readings: dict[_Matrices, list[Reading]] = field(default_factory=dict)

    @property
    def has_arrived(self) -> bool:
        """Whether all that was asked for is there, and whole."""
        readings = [reading for each in self.readings.values() for reading in each]
        if not all(reading.done for reading in readings):
            return False
        try:
            for reading in readings:
                reading.wait()
        except ModelFileError:
            return False
        return True

    def cancel(self) -> None:
        """Nobody gets what is being read."""
        for readings in self.readings.values():
            for reading in readings:
                reading.cancel()
        self.block.cache.remove(self.admitted)


@dataclass(eq=False, kw_only=True)
class _Step(_Fetch):
    """What one block does for one batch."""

    ids: Tensor  # the experts' numbers
    staged: bool
    numbers: ctypes.Array[ctypes.c_int32]  # what the graph is to see of them
    present: dict[int, int]  # expert → slot; the others that are needed
    pending: list[_Matrices]  # not computed with yet, in the order of use


class Experts:
    """Sees to it that nodes find the experts they need; part of the window.

    ``blocks`` are those of the model; :meth:`place` says how many of their experts to keep.
    """

    def __init__(self, reader: Reader, blocks: Sequence[ExpertBlock]) -> None:
        self._reader = reader
        self._tensors: dict[str, tuple[_BlockOfExperts, _Matrices]] = {}
        self._blocks: list[_BlockOfExperts] = []
        for index, placed in enumerate(blocks):
            matrices = [_Matrices(tensor, reader.unit) for tensor in placed.tensors]
            block = _BlockOfExperts(index, ExpertCache(placed.tensors[0].shape[2], 0), matrices)
            self._blocks.append(block)
            self._tensors |= {each.tensor.name: (block, each) for each in matrices}
        self._slots = Arena(0)
        self._ids: dict[int, Tensor] = {}  # address of a node → its experts' numbers
        self._step: _Step | None = None
        self._filling: list[_Fetch] = []
        self._last_block = 0
        self.used = 0  # experts that were needed, each once for a batch and block
        self.found = 0  # of these, in RAM already
        self.wait_seconds = 0.0  # time in which the computing waited for the disk

    def __contains__(self, tensor_name: str) -> bool:
        return tensor_name in self._tensors

    def place(self, placed: Sequence[ExpertBlock]) -> None:
        """Have as many slots as these say, with the experts that are worth most.

        Empty: all experts are in RAM, so that there is nothing to keep. Not while a node is being
        computed. Raises :class:`MemoryShortError`.
        """
        self._end_step()
        counts = [each.n_slots for each in placed] or [0] * len(self._blocks)
        n_bytes = slots_bytes(placed)
        if n_bytes == self._slots.n_bytes and counts == [b.cache.n_slots for b in self._blocks]:
            return
        before, self._slots = self._slots, Arena(n_bytes)
        start = 0
        for block, count in zip(self._blocks, counts, strict=True):
            n_before = block.cache.n_slots
            moved = block.cache.resize(count)
            block.start = start
            for matrices in block.matrices:
                stride, old = matrices.stride, matrices.start
                for source, target in moved.items():
                    at, to = old + source * stride, start + target * stride
                    self._slots.view[to : to + stride] = before.view[at : at + stride]
                if n_before:  # one after the other, so that both are never there as a whole
                    before.release(old, n_before * stride)
                matrices.start = start
                start += count * stride

    def fill(self) -> None:
        """Begin to read experts into the slots that are empty, until a node needs experts.

        What is there then, a prompt need not read. Which ones are read matters little: a prompt
        needs most of them, and chooses anew which ones to keep. Slots that it may take for its
        stage stay empty.
        """
        lent = max(_stages_bytes(block, block.cache.n_experts) for block in self._blocks)
        for block in self._blocks:
            cache = block.cache
            if block.start < lent:
                continue
            absent = [e for e in range(cache.n_experts) if e not in cache.slots]
            admitted = cache.admit(absent[: cache.n_slots - len(cache.slots)], keep=())
            fetch = _Fetch(block=block, missing=list(admitted), places=admitted, admitted=admitted)
            for matrices in block.matrices:
                self._read(fetch, matrices, matrices.start)
            self._filling.append(fetch)

    def restore(self, node: Tensor, tensor: TensorInfo) -> Tensor:
        """Have ``node`` read all of ``tensor`` again, which is returned."""
        _, matrices = self._tensors[tensor.name]
        weights, numbers = matrices.weights, matrices.numbers
        if weights is None or numbers is None or node.src[0] != weights.address:
            return next(iter(node.operands()))
        node.src[0], node.src[2] = weights.original.address, self._ids[node.address].address
        return weights.original

    def close(self) -> None:
        """Return when nothing is written to the memory any more."""
        self._end_step()

    def inspect(self, node: Tensor, tensor: TensorInfo) -> Actions:
        """What to do at ``node``, which reads ``tensor``. Raises :class:`NativeError`."""
        if node.op not in (OP_MUL_MAT_ID, OP_CUSTOM):
            raise NativeError(
                f"{tensor.name} is used by {node.op_name}, which needs all experts in RAM: "
                "ondevice cannot stream this model. Choose a smaller one."
            )
        weights, _, ids = node.operands()
        block, matrices = self._tensors[tensor.name]
        matrices.weights = matrices.weights or _StandIn(weights)
        matrices.numbers = matrices.numbers or _StandIn(ids)
        if ids.address != matrices.numbers.address:  # else the graph was seen before an error
            self._ids[node.address] = ids
        node.src[0], node.src[2] = matrices.weights.address, matrices.numbers.address
        return Actions(before=partial(self._prepare, block, matrices, self._ids[node.address]))

    def _prepare(self, block: _BlockOfExperts, matrices: _Matrices, ids: Tensor) -> None:
        """Have the experts that ``ids`` names where the node looks for them."""
        step = self._step
        if step is None or step.ids.address != ids.address or matrices not in step.pending:
            step = self._begin(block, ids)
        if step.pending[0] is not matrices:
            self._put_first(step, matrices)
        self._wait(step.readings[matrices])
        assert matrices.weights is not None and matrices.numbers is not None
        start = self._start_of(step, matrices)
        self._put_in_place(step, matrices, start)
        if step.staged:
            self._exchange(step, matrices, start)
        matrices.numbers.show_numbers(step.numbers, ids)
        count = len(step.places) if step.staged else block.cache.n_slots
        address = self._slots.address + matrices.in_slot(start, 0)
        matrices.weights.show_matrices(address, matrices.stride, count)
        del step.pending[0]
        if step.staged and step.pending:
            self._read_next(step)

    def _begin(self, block: _BlockOfExperts, ids: Tensor) -> _Step:
        """Decide what to read and what to keep, and start to read."""
        self._end_step()
        if block.index <= self._last_block:
            self._reader.check()
        self._last_block = block.index
        experts, cache = ids.integers(), block.cache
        cache.note(_rankings(ids))
        needed = set(experts)
        staged = len(needed) > cache.n_slots
        lent = _stages_bytes(block, len(needed)) if staged else 0
        for each in self._blocks:
            if each.start < lent:
                each.cache.clear()
        present = {expert: slot for expert, slot in cache.slots.items() if expert in needed}
        missing = sorted(needed - present.keys())
        self.used += len(needed)
        self.found += len(present)
        admitted: dict[int, int] = {}
        if not staged:
            admitted = cache.admit(missing, keep=needed)
            places = present | admitted
        else:
            places = {expert: place for place, expert in enumerate(sorted(needed))}
            if block.start >= lent:
                kept = cache.most_worth(needed | cache.slots.keys())
                admitted = cache.admit([e for e in kept if e not in cache.slots], keep=kept)
        self._step = step = _Step(
            block=block,
            missing=missing,
            places=places,
            admitted=admitted,
            ids=ids,
            staged=staged,
            numbers=(ctypes.c_int32 * len(experts))(*map(places.__getitem__, experts)),
            present=present,
            pending=list(block.matrices),
        )
        if staged:
            self._read_next(step)
        else:
            for matrices in step.pending:
                self._read(step, matrices, matrices.start)
        return step

    def _wait(self, readings: Sequence[Reading]) -> None:
        started = time.perf_counter()
        try:
            for reading in readings:
                reading.wait()
        except BaseException:
            self._end_step()
            raise
        self.wait_seconds += time.perf_counter() - started

    def _end_step(self) -> None:
        """Forget the last step; if it was broken off, also what it has not read to the end."""
        step, self._step = self._step, None
        if step is not None and step.pending:
            step.cancel()
        while self._filling:
            fetch = self._filling.pop()  # the last one first, so that no other one begins meanwhile
            if not fetch.has_arrived:
                fetch.cancel()
                continue
            for matrices in fetch.block.matrices:
                self._put_in_place(fetch, matrices, matrices.start)

    def _put_first(self, step: _Step, matrices: _Matrices) -> None:
        """Learn that these are used next."""
        order = step.block.matrices
        order.remove(matrices)
        order.insert(len(order) + 1 - len(step.pending), matrices)
        step.pending.remove(matrices)
        step.pending.insert(0, matrices)
        if step.staged:  # something else is being read into the stage
            for reading in step.readings.pop(step.pending[1]):
                reading.cancel()
            self._read_next(step)

    def _read_next(self, step: _Step) -> None:
        """Start to read what is computed with next into its stage."""
        matrices = step.pending[0]
        self._read(step, matrices, self._start_of(step, matrices))

    def _read(self, fetch: _Fetch, matrices: _Matrices, start: int) -> None:
        """Start to read the missing experts into slots, of which the first is at ``start``."""
        readings = fetch.readings[matrices] = []
        # What is needed first is there first if all reads at once are of the same tensor.
        n_pieces = READS_IN_FLIGHT if len(fetch.missing) < READS_IN_FLIGHT else 1
        for expert in fetch.missing:
            at = matrices.arrives_at(start, fetch.places[expert], expert)
            span = matrices.span(expert)
            place = self._slots.view[at : at + span.n_bytes]
            readings.append(self._reader.start(span, place, n_pieces))

    def _put_in_place(self, fetch: _Fetch, matrices: _Matrices, start: int) -> None:
        """Move to its place what could not be read into it."""
        for expert in fetch.missing:
            slot = fetch.places[expert]
            arrived = matrices.arrives_at(start, slot, expert) + matrices.in_span(expert)
            self._copy(matrices, arrived, matrices.in_slot(start, slot))

    def _exchange(self, step: _Step, matrices: _Matrices, stage: int) -> None:
        """Copy experts from slots to the stage, and from the stage to slots."""
        for expert, slot in step.present.items():
            at = matrices.in_slot(matrices.start, slot)
            self._copy(matrices, at, matrices.in_slot(stage, step.places[expert]))
        for expert, slot in step.admitted.items():
            at = matrices.in_slot(stage, step.places[expert])
            self._copy(matrices, at, matrices.in_slot(matrices.start, slot))

    def _copy(self, matrices: _Matrices, at: int, to: int) -> None:
        if at != to:
            view, n_bytes = self._slots.view, matrices.n_bytes
            view[to : to + n_bytes] = view[at : at + n_bytes]

    def _start_of(self, step: _Step, matrices: _Matrices) -> int:
        """Bytes from the start of the arena to the first slot, or to the stage."""
        if not step.staged:
            return matrices.start
        every = step.block.matrices
        before = [every[n::N_STAGES] for n in range(every.index(matrices) % N_STAGES)]
        return len(step.places) * sum(max(m.stride for m in stage) for stage in before)


def _rankings(ids: Tensor) -> list[list[int]]:
    """For each of the last tokens, experts in the order in which the router prefers them.

    All of them if ``ids``, those to be used, is the beginning of such an order, as it usually is.
    """
    if ids.view_src and not ids.view_offs:
        order = Tensor.from_address(ids.view_src)
        if order.op_name == "ARGSORT" and order.ne[1:] == ids.ne[1:]:
            ids = order
    numbers, width = ids.integers(max(0, ids.ne[1] - _RECENT)), ids.ne[0]
    return [numbers[at : at + width] for at in range(0, len(numbers), width)]


def _stages_bytes(block: _BlockOfExperts, n_experts: int) -> int:
    """What the stages of a block take for so many, at most: its largest tensors, in any order."""
    return n_experts * sum(sorted(matrices.stride for matrices in block.matrices)[-N_STAGES:])
