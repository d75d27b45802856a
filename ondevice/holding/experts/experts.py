"""The experts of a model larger than RAM: read once a router has picked them, kept for a while.

``MUL_MAT_ID`` multiplies with some of a weight's matrices, one for each expert, whose numbers
another tensor holds. The experts that are kept lie in slots, of which there are fewer than experts,
and the node is told in which ones. A batch that needs more experts than there are slots, a prompt,
gets them in a stage, one weight after the other. The stage is memory of the first blocks' slots,
which are empty after that.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from ondevice.disk.reader import READS_IN_FLIGHT, Arena, Reader, Reading
from ondevice.errors import ModelFileError
from ondevice.holding.experts.blocks import N_STAGES, ExpertBlock, ExpertMatrix, slots_bytes
from ondevice.holding.experts.cache import ExpertCache
from ondevice.llama import Actions, Tensor

_RECENT = 32  # tokens, before which ranks count for next to nothing


class Matrices(ABC):
    """The matrices of a weight with experts: how they are read, and how a node finds them."""

    def __init__(self, of: ExpertMatrix) -> None:
        self.of = of
        self.start = 0  # of the first slot, bytes from the start of the arena

    @property
    def stride(self) -> int:
        """Bytes from slot to slot."""
        return self.of.slot_bytes

    @abstractmethod
    def take_over(self, node: Tensor) -> Tensor:
        """Have ``node`` look where :meth:`show` says; the numbers of the experts it needs."""

    @abstractmethod
    def read(self, reader: Reader, expert: int, slot: memoryview, n_pieces: int) -> list[Reading]:
        """Begin to read an expert into a slot, in ``n_pieces`` at least."""

    @abstractmethod
    def arrange(self, expert: int, slot: memoryview) -> None:
        """Move to its place in the slot what could not be read into it."""

    @abstractmethod
    def show(
        self, ids: Tensor, experts: Sequence[int], address: int, places: Mapping[int, int]
    ) -> None:
        """Have the nodes find ``experts``, the numbers in ``ids``: expert → slot.

        ``address`` is that of the first slot.
        """


@dataclass(eq=False)
class _BlockOfExperts:
    index: int
    cache: ExpertCache
    matrices: list[Matrices]  # in the order of use, once that is known
    start: int = 0  # of its slots, bytes from the start of the arena


@dataclass(eq=False, kw_only=True)
class _Fetch:
    """Experts of one block that are being read."""

    block: _BlockOfExperts
    missing: list[int]  # experts to read
    places: dict[int, int]  # expert → slot that it is read into, in a stage if it is staged
    admitted: dict[int, int]  # expert → slot; those that get one
    readings: dict[Matrices, list[Reading]] = field(default_factory=dict)

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
    experts: list[int]  # what is in it
    staged: bool
    present: dict[int, int]  # expert → slot; the others that are needed
    pending: list[Matrices]  # not computed with yet, in the order of use


class Experts:
    """Sees to it that nodes find the experts they need.

    ``blocks`` are those of the model, and ``matrices`` their weights by name; :meth:`place` says
    how many experts to keep.
    """

    def __init__(
        self, reader: Reader, blocks: Sequence[ExpertBlock], matrices: Mapping[str, Matrices]
    ) -> None:
        self._reader = reader
        self._weights: dict[str, tuple[_BlockOfExperts, Matrices]] = {}
        self._blocks: list[_BlockOfExperts] = []
        for index, placed in enumerate(blocks):
            of_block = [matrices[each.name] for each in placed.matrices]
            block = _BlockOfExperts(index, ExpertCache(placed.n_experts, 0), of_block)
            self._blocks.append(block)
            self._weights |= {each.of.name: (block, each) for each in of_block}
        self._slots = Arena(0)
        self._step: _Step | None = None
        self._filling: list[_Fetch] = []
        self._last_block = 0
        self.used = 0  # experts that were needed, each once for a batch and block
        self.found = 0  # of these, in RAM already
        self.wait_seconds = 0.0  # time in which the computing waited for the disk

    def __contains__(self, name: str) -> bool:
        return name in self._weights

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

    def close(self) -> None:
        """Return when nothing is written to the memory any more."""
        self._end_step()

    def inspect(self, node: Tensor, name: str) -> Actions:
        """What to do at ``node``, which multiplies with the experts of this weight."""
        block, matrices = self._weights[name]
        return Actions(before=partial(self._prepare, block, matrices, matrices.take_over(node)))

    def _prepare(self, block: _BlockOfExperts, matrices: Matrices, ids: Tensor) -> None:
        """Have the experts that ``ids`` names where the node looks for them."""
        step = self._step
        if step is None or step.ids.address != ids.address or matrices not in step.pending:
            step = self._begin(block, ids)
        if step.pending[0] is not matrices:
            self._put_first(step, matrices)
        self._wait(step.readings[matrices])
        start = self._start_of(step, matrices)
        self._arrange(step, matrices, start)
        if step.staged:
            self._exchange(step, matrices, start)
        matrices.show(ids, step.experts, self._slots.address + start, step.places)
        del step.pending[0]
        if step.staged and step.pending:
            self._read_next(step)

    def _begin(self, block: _BlockOfExperts, ids: Tensor) -> _Step:
        """Decide what to read and what to keep, and start to read."""
        self._end_step()
        if block.index <= self._last_block:
            self._reader.check()
        self._last_block = block.index
        cache = block.cache
        cache.note(_rankings(ids))
        experts = ids.integers()
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
            experts=experts,
            staged=staged,
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
                self._arrange(fetch, matrices, matrices.start)

    def _put_first(self, step: _Step, matrices: Matrices) -> None:
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

    def _read(self, fetch: _Fetch, matrices: Matrices, start: int) -> None:
        """Start to read the missing experts into slots, of which the first is at ``start``."""
        readings = fetch.readings[matrices] = []
        # What is needed first is there first if all reads at once are of the same tensor.
        n_pieces = READS_IN_FLIGHT if len(fetch.missing) < READS_IN_FLIGHT else 1
        for expert in fetch.missing:
            slot = self._slot(matrices, start, fetch.places[expert])
            readings += matrices.read(self._reader, expert, slot, n_pieces)

    def _arrange(self, fetch: _Fetch, matrices: Matrices, start: int) -> None:
        for expert in fetch.missing:
            matrices.arrange(expert, self._slot(matrices, start, fetch.places[expert]))

    def _exchange(self, step: _Step, matrices: Matrices, stage: int) -> None:
        """Copy experts from slots to the stage, and from the stage to slots."""
        slot = partial(self._slot, matrices)
        for expert, number in step.present.items():
            slot(stage, step.places[expert])[:] = slot(matrices.start, number)
        for expert, number in step.admitted.items():
            slot(matrices.start, number)[:] = slot(stage, step.places[expert])

    def _slot(self, matrices: Matrices, start: int, number: int) -> memoryview:
        """A slot; the first one begins at ``start``, bytes from the start of the arena."""
        at = start + number * matrices.stride
        return self._slots.view[at : at + matrices.stride]

    def _start_of(self, step: _Step, matrices: Matrices) -> int:
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
