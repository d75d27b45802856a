"""The window: runs a model of which only a part is in RAM, with the very same results.

llama.cpp computes; the window sees to it that each weight is where the node that reads it looks
for it. Some weights are pinned, the others are read from the disk for each pass through the model,
ahead of their use ("LLM in a flash", section 3, with the block as the unit). Of a mixture of
experts, only those are read that a pass needs and that no pass has needed just before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import msgspec

from ondevice.disk.mapped import MappedFiles
from ondevice.disk.reader import PAGE, Reader, Reading, Span
from ondevice.disk.ring import Ring
from ondevice.errors import LoadCancelled
from ondevice.gguf import GGUFFile, TensorInfo
from ondevice.holding.experts.experts import Experts
from ondevice.holding.window.expert_tensors import ExpertTensor
from ondevice.holding.window.placement import Placement, Placements, spans
from ondevice.llama import (
    OP_CUSTOM,
    OP_MUL_MAT,
    OP_NONE,
    Actions,
    EvalHook,
    Model,
    NativeHandler,
    NodeHandler,
    Tensor,
    idle_handler,
    multiply_rows,
)
from ondevice.messages import Sizing, Streaming

#: Between so many of them, a change of the budget is taken up.
_BLOCKS_PER_CHECK = 4
_VIEWS = ("RESHAPE", "VIEW", "PERMUTE", "TRANSPOSE")
_PORTION = 32 << 20  # bytes between two reports of progress
_FEW = 64  # tokens, over which a pass is short: a change of the budget can wait for the next one


class _Operand(NamedTuple):
    """A tensor that a node reads: a streamed weight, or a view on one."""

    tensor: Tensor
    offset: int  # bytes from the start of the weight
    weight: TensorInfo


class Window:
    """The weights of ``file`` within ``budget_bytes`` of RAM.

    ::

        window = Window(gguf.read(path), budget_bytes)
        model = window.load_model()
        context = Context(model, n_ctx=…, eval_hook=window.hook())
        …
        context.close(); model.close(); window.close()

    A pass through the model reads what is streamed once, for one token or for a whole batch: so
    process prompts in large batches.

    ``handlers`` see each node after the window has. ``predicts`` keeps the model's prediction block
    in RAM, so that it can draft (:meth:`drafting_hook`).
    ``on_progress`` gets fractions 0 … 1 in :meth:`load_model`, while the pinned weights are read,
    and returns False to cancel, which raises :class:`LoadCancelled`. Raises
    :class:`MemoryShortError` if the budget is too small, and :class:`ModelFileError` if reading
    fails, later also out of ``Context.decode``.
    """

    only_at_weights = True

    def __init__(
        self,
        file: GGUFFile,
        budget_bytes: int,
        *,
        handlers: Sequence[NodeHandler] = (),
        predicts: bool = False,
        on_progress: Callable[[float], bool] = lambda _: True,
    ) -> None:
        self._file = file
        self._handlers = handlers
        self._predicts = predicts
        self._on_progress = on_progress
        self._pinning: list[Reading] = []  # what is pinned, while it is read
        self._output_op = OP_MUL_MAT  # of the node that computes the logits
        self._placements = Placements(file, predicts=predicts)
        self.least_bytes = self._placements.least_bytes  # the smallest budget
        self.most_bytes = self._placements.most_bytes  # the one that holds all weights
        #: Where each tensor is.
        self.placement: Placement = self._placements.within(budget_bytes)
        self._reader = Reader([part.path for part in file.parts])
        self._mapped = MappedFiles([part.path for part in file.parts])
        self._ring: Ring | None = None
        self._experts: Experts | None = None
        self._expert_tensors: dict[str, ExpertTensor] = {}
        self._wanted = self.placement
        self._growing: tuple[Placement, list[Reading]] | None = None
        self._generation = 0  # of the placement: what was inspected under another is out of date
        self._inspected_block: int | None = -1  # of the last weight that was inspected
        self._begun = self._placed = -1  # generations: in which a graph was last inspected from its
        # first weight on, and up to its last one
        self._idle = idle_handler()
        try:
            self._mapped.expect_rows(self.placement.on_file)
            self._pinning = self._start_pinning()
            if self._placements.experts:
                self._expert_tensors = {
                    each.name: ExpertTensor(each, file.tensors[each.name], self._reader.unit)
                    for block in self._placements.experts
                    for each in block.matrices
                }
                self._experts = Experts(
                    self._reader, self._placements.experts, self._expert_tensors
                )
            self._take(self.placement)
            if self._experts:
                self._experts.fill()
        except BaseException:
            self.close()
            raise

    def load_model(self, *, with_vocabulary: bool = True) -> Model:
        """The model, for contexts that have this window in their eval hook and for no others.

        Its vocabulary is read while what is pinned is, which takes about as long.
        """
        file = self._file
        self._report(0.0)
        model = Model(
            file.path,
            use_extra_bufts=False,
            hollow=file.parts,
            without_vocabulary=None if with_vocabulary else file,
            predicts=self._predicts,
        )
        try:
            self._finish_pinning()
        except BaseException:
            model.close()
            raise
        return model

    def close(self) -> None:
        """Stop reading and give the memory back. The model must have been closed before."""
        if self._ring is not None:
            self._ring.close()
        if self._experts is not None:
            self._experts.close()
        self._reader.close()
        self._mapped.close()

    def aim(self, budget_bytes: int) -> None:
        """Have the placement of another budget soon: during the next pass, or with :meth:`settle`.

        Any thread may call this at any time. What is given up is given up within a few blocks;
        what is to be pinned is read in the background first.
        """
        wanted = self._placements.within(max(budget_bytes, self.least_bytes))
        if wanted != self._wanted:
            self._wanted = wanted

    def settle(self) -> bool:
        """Take what was aimed at as far as it is there; True: all of it.

        Not while a pass is under way. Raises :class:`ModelFileError` if reading fails.
        """
        self._adapt()
        return self._wanted is self.placement

    def resize(self, budget_bytes: int) -> None:
        """Have the placement of another budget now: :meth:`aim` and :meth:`settle`."""
        self.aim(budget_bytes)
        while not self.settle():
            assert self._growing is not None
            for reading in self._growing[1]:
                reading.wait()

    @property
    def resident_bytes(self) -> int:
        """RAM that weights take, buffers for the streamed ones included."""
        return self.placement.resident_bytes

    @property
    def own_bytes(self) -> int:
        """Of these, those that are no pages of the file."""
        return self.placement.own_bytes

    @property
    def absent_bytes(self) -> int:
        """Weights that are not in RAM: all of them are streamed."""
        return self.placement.absent_bytes

    @property
    def streamed_bytes(self) -> int:
        """Weights that are read from the disk when they are needed."""
        return self.placement.absent_bytes

    def hook(self) -> EvalHook:
        """What feeds a context of the model."""
        return EvalHook(self, *self._handlers)

    @property
    def may_draft(self) -> bool:
        """Whether all that the prediction block computes with is in RAM: the output layer, too."""
        slices = self._placements.output_slices
        return self._predicts and not (slices and slices[-1].name in self._streamed)

    def drafting_hook(self) -> EvalHook | None:
        """What feeds the context of the prediction block. None: no such context was asked for."""
        in_ram = _InRam(self._file, self._mapped)
        return EvalHook(in_ram, *self._handlers) if self._predicts else None

    def describe(self, sizing: Sizing) -> Sizing:
        """Add how many of the experts that were needed were in RAM."""
        done = self.statistics()
        return msgspec.structs.replace(
            sizing,
            experts_used=done.experts_used,
            experts_found=done.experts_found,
            predicts=self._predicts,
        )

    def statistics(self) -> Streaming:
        """What was read from the disk so far, the loading included."""
        waiting = [part.wait_seconds for part in (self._ring, self._experts) if part]
        return Streaming(
            bytes_read=self._reader.bytes_read,
            read_ms=self._reader.busy_seconds * 1e3,
            wait_ms=sum(waiting) * 1e3,
            resident_bytes=self.resident_bytes,
            experts_used=self._experts.used if self._experts else 0,
            experts_found=self._experts.found if self._experts else 0,
        )

    def in_c(self, n_tokens: int) -> NativeHandler | None:
        """Nothing is to be done while all weights are in RAM, where llama.cpp found them."""
        here = self.placement
        if here.streamed or here.experts or here is not self._wanted or n_tokens > _FEW:
            return None
        return self._idle if self._begun == self._placed == self._generation else None

    def inspect(self, node: Tensor) -> Actions | None:
        """Point the weights that ``node`` reads at their bytes; part of the eval hook."""
        if node.op_name in _VIEWS:  # they compute nothing, so what they show is not read yet
            return None
        operands = []
        for operand, root, weight in _weights_of(node, self._file):
            if experts := self._expert_tensors.get(weight.name):
                if self._experts and self.placement.experts:
                    return self._experts.inspect(node, weight.name)
                experts.restore(node).data = self._mapped.address(weight)
                continue
            root.data = self._mapped.address(weight)
            operand.data = root.data + operand.view_offs
            operands.append(_Operand(operand, operand.view_offs, weight))
        if not operands:
            return None
        if node.op_name == "GET_ROWS" and operands[0].weight.name == "token_embd.weight":
            self._begun = self._generation
        elif operands[0].weight is self._file.output_layer:
            self._placed = self._generation
        block, before = operands[0].weight.block, self._inspected_block
        self._inspected_block = block
        if self._is_sliced(node, operands[0].weight):
            return Actions(
                before=partial(self._adapt_and_multiply, node, operands, self._generation)
            )
        if node.op_name == "GET_ROWS" and operands[0].weight.name == "token_embd.weight":
            return Actions(before=partial(self._begin_pass, operands, self._generation))
        if block is None or (block != before and block % _BLOCKS_PER_CHECK == 0):
            return Actions(before=partial(self._adapt_and_fetch, operands, self._generation))
        if any(operand.weight.name in self._streamed for operand in operands):
            return Actions(before=partial(self._fetch, operands))
        return None

    def _is_sliced(self, node: Tensor, weight: TensorInfo) -> bool:
        """Whether ``node`` computes the logits and its weights are a tensor for each slice."""
        return (
            bool(self._placements.output_slices)
            and weight is self._file.output_layer
            and node.op in (OP_MUL_MAT, OP_CUSTOM, OP_NONE)
        )

    def _begin_pass(self, operands: list[_Operand], generation: int) -> bool:
        """Tokens come in."""
        if self._ring is not None:
            self._ring.begin_pass()
        return self._adapt_and_fetch(operands, generation)

    def _adapt_and_multiply(self, node: Tensor, operands: list[_Operand], generation: int) -> bool:
        stale = self._adapt_and_fetch(operands, generation)
        slices = self._placements.output_slices
        if node.op != OP_NONE:
            self._output_op = node.op
        if slices[-1].name not in self._streamed:  # the first one to be given up
            node.op = self._output_op
            return stale
        node.op = OP_NONE  # llama.cpp skips it: what it reads is there already, so we compute it
        first = 0
        for rows in slices:
            if rows.name in self._streamed:
                assert self._ring is not None
                (address,) = self._ring.use([rows])
            else:
                address = self._mapped.address(rows)
            multiply_rows(node, address, first, rows.shape[1], self._output_op)
            first += rows.shape[1]
        return stale

    def _adapt_and_fetch(self, operands: list[_Operand], generation: int) -> bool:
        """True if the graph was inspected for another placement."""
        if operands[0].weight.block is None:
            self._reader.check()
        self._adapt()
        self._fetch(operands)
        return self._generation != generation

    def _fetch(self, operands: list[_Operand]) -> None:
        streamed = [operand for operand in operands if operand.weight.name in self._streamed]
        for operand in operands:  # it may have been pinned since it was inspected
            operand.tensor.data = self._mapped.address(operand.weight) + operand.offset
        if streamed:
            assert self._ring is not None
            addresses = self._ring.use([operand.weight for operand in streamed])
            for operand, address in zip(streamed, addresses, strict=True):
                operand.tensor.data = address + operand.offset

    def _adapt(self) -> None:
        """Go towards the placement that is wanted."""
        wanted = self._wanted
        if self._growing is not None:
            placement, readings = self._growing
            if placement is not wanted:
                for reading in readings:
                    reading.cancel()
            elif all(reading.done for reading in readings):
                for reading in readings:
                    reading.wait()
                self._take(placement)
            else:
                return
            self._growing = None
        if wanted is self.placement:
            return
        new = set(wanted.pinned) - set(self.placement.pinned)
        if new:
            if self._experts and not wanted.experts:  # else they would be in RAM twice
                self._take(_without_slots(self.placement))
            self._growing = wanted, [self._reader.start_caching(s) for s, _ in spans(new)]
        else:
            self._take(wanted)

    def _take(self, placement: Placement) -> None:
        """Everything that is pinned in it is in RAM."""
        gone = set(self.placement.pinned) - set(placement.pinned)
        if self._experts is not None:
            self._experts.place(placement.experts)
        self.placement = placement
        self._generation += 1
        self._streamed = {tensor.name for tensor in placement.streamed}
        if self._ring is not None:
            self._ring.stream(placement.streamed)
        elif placement.streamed:
            self._ring = Ring(self._reader, placement.streamed, placement.ring_bytes)
        if placement.streamed and placement.streamed[-1].block is None:
            # The output layer may be a table as well, whose rows are then looked up on the file.
            self._mapped.expect_rows(placement.streamed)
        # The system reads ahead, and where it does, weights are cached that nobody asked for.
        self._mapped.release(_inside(gone.union(placement.streamed)))

    def _start_pinning(self) -> list[Reading]:
        portions = [
            Span(span.part, at, min(_PORTION, span.offset + span.n_bytes - at))
            for span, _ in spans(self.placement.pinned)
            for at in range(span.offset, span.offset + span.n_bytes, _PORTION)
        ]
        return [self._reader.start_caching(portion) for portion in portions]

    def _finish_pinning(self) -> None:
        for done, reading in enumerate(self._pinning, 1):
            reading.wait()
            self._report(done / len(self._pinning))
        self._pinning = []

    def _report(self, fraction: float) -> None:
        if not self._on_progress(fraction):
            raise LoadCancelled


def _weights_of(node: Tensor, file: GGUFFile) -> Iterator[tuple[Tensor, Tensor, TensorInfo]]:
    """What ``node`` reads of weights, or of views on them: that, the tensor, and which it is."""
    for operand in node.operands():
        root = Tensor.from_address(operand.view_src) if operand.view_src else operand
        weight = file.tensors.get(root.name) if root.op == OP_NONE else None
        if weight is not None:
            yield operand, root, weight


class _InRam:
    """A handler of the eval hook: points all weights at their bytes in the mapped files."""

    only_at_weights = True

    def __init__(self, file: GGUFFile, mapped: MappedFiles) -> None:
        self._file, self._mapped = file, mapped

    def inspect(self, node: Tensor) -> None:
        if node.op_name not in _VIEWS:
            for operand, root, weight in _weights_of(node, self._file):
                root.data = self._mapped.address(weight)
                operand.data = root.data + operand.view_offs


def _without_slots(placement: Placement) -> Placement:
    return replace(placement, experts=tuple(replace(e, n_slots=0) for e in placement.experts))


def _inside(tensors: Iterable[TensorInfo]) -> Iterator[Span]:
    """The pages that hold these tensors and nothing of any other."""
    for span, members in spans(tensors):
        start = -(-members[0].offset // PAGE) * PAGE
        end = (members[-1].offset + members[-1].n_bytes) // PAGE * PAGE
        if start < end:
            yield Span(span.part, start, end - start)
