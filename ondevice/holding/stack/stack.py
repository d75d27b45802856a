"""A stack in use: as much of its file in RAM as the budget allows, more or less at any time."""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from typing import NamedTuple

import msgspec
import numpy as np

from ondevice.disk.mapped import map_file
from ondevice.disk.reader import PAGE, Arena, Reader, Reading, Span
from ondevice.disk.ring import Ring
from ondevice.errors import LoadCancelled, MemoryShortError, ModelFileError
from ondevice.gguf import GGUFFile, TensorInfo
from ondevice.holding.experts.blocks import ExpertBlock, slots_bytes
from ondevice.holding.experts.experts import Experts
from ondevice.holding.stack._experts import ExpertPlanes
from ondevice.holding.stack._file import RING_ENTRIES, StackFile
from ondevice.holding.stack._planes import checksum
from ondevice.holding.stack._products import Products, StreamedProducts
from ondevice.holding.window.placement import spans
from ondevice.llama import Actions, EvalHook, Model, NodeHandler, Tensor
from ondevice.messages import Sizing, Streaming
from ondevice.system.cores import default_threads
from ondevice.text import size

_PORTION = 8 << 20  # bytes that are read while those before them are checked
_PORTIONS = 3  # that are under way; while one is checked, the disk is still busy with two


class Stack:
    """The first tensors of a stack's file, as many as fit into ``budget_bytes`` of RAM (None: all).

    ::

        stack = Stack(gguf.read(path), budget_bytes)
        model = stack.load_model()
        context = Context(model, n_ctx=…, eval_hook=stack.hook())
        …
        stack.resize(other_budget)  # between two calls of ``decode``
        …
        context.close(); model.close(); stack.close()

    The memory mirrors the file, since blocks lie in the order of loading. So growing is one read,
    and shrinking gives the end back.

    What does not fit is left out: the model is less exact. With ``whole``, it is read from the
    disk for each pass instead, or, where it is of experts, when they are needed: the model is what
    it is in RAM, but slower. With ``cut`` (:meth:`StackFile.cut`), only that part of the file is
    never left out, and experts of it are read when they are needed. With ``drafts``, what is
    in RAM alone then drafts for it (:meth:`drafting_hook`). ``cached`` lets the system keep what is
    read for it, if there is room. ``by_expert`` False: experts are read for each pass, too.
    ``handlers`` see each node after the stack has: they compute with what is not in planes.

    Raises :class:`MemoryShortError` if too little fits, :class:`ModelFileError` for a damaged file
    and :class:`LoadCancelled` when ``on_progress`` (0 … 1) returns False.
    """

    only_at_weights = True

    def __init__(
        self,
        file: GGUFFile,
        budget_bytes: int | None = None,
        *,
        whole: bool = False,
        cut: StackFile | None = None,
        drafts: bool = False,
        cached: bool = False,
        by_expert: bool = True,
        threads: int | None = None,
        handlers: Sequence[NodeHandler] = (),
        on_progress: Callable[[float], bool] = lambda _: True,
    ) -> None:
        self.file = StackFile.of(file)
        self._drafts = drafts
        self._handlers = handlers
        self._wanted: int | None = None  # bytes
        self._tensors = list(file.tensors.values())
        self._held: list[TensorInfo] = []  # tensors that are in RAM, or of which rows are looked up
        self._n_blocks = 0  # of these
        self._experts: Experts | None = None
        self._slots: tuple[ExpertBlock, ...] = ()  # what it is to keep; none: experts are held too
        self._checked: set[str] = set()
        self._reader = Reader([file.path], cached=cached)
        self._ring: Ring | None = None
        self._waited = 0.0  # seconds, for rings that are gone
        self._arena = Arena(-(-file.file_bytes // PAGE) * PAGE)
        self._is_whole = whole
        # What is computed with at least, its experts read when they are needed.
        self._kept = (self.file if whole else cut) if by_expert else None
        # What stays in RAM may lie between what does not.
        if self._kept and self._kept.expert_blocks:
            self._arena.use_small_pages(0, self._arena.n_bytes)
        for tensor in self._tensors:
            if tensor.name in self.file.stays_on_disk and (pages := _whole_pages(tensor, tensor)):
                self._arena.use_small_pages(pages.start, len(pages))
        self._mapped = _map(file)
        mapped = np.frombuffer(self._mapped, np.uint8).ctypes.data
        threads = threads or default_threads()
        self._resident = Products(self.file, self._arena.address, mapped, threads)
        self._streamed: StreamedProducts | None = None
        try:
            if whole or cut:
                self._streamed = StreamedProducts(
                    self.file, self._arena.address, mapped, threads, self._fetch
                )
            self.resize(budget_bytes, on_progress=on_progress)
        except BaseException:
            self.close()
            raise

    @property
    def n_blocks(self) -> int:
        """Blocks that are in RAM, those of experts in slots left out."""
        return self._n_blocks

    @property
    def resident_bytes(self) -> int:
        """RAM that the weights take."""
        if self._kept and self._slots:
            return self._kept.beside_experts_bytes + slots_bytes(self._slots)
        ring = self._ring.n_bytes if self._ring else 0
        return self.file.ram_bytes[len(self._held) - 1] + ring

    @property
    def least_bytes(self) -> int:
        """The smallest budget."""
        file, kept = self.file, self._kept
        if self._is_whole:
            return file.least_whole_bytes if kept else file.least_streaming_bytes
        part = file.ram_bytes[file.n_base - 1]
        return min(part, kept.least_with_experts) if kept else part

    @property
    def most_bytes(self) -> int:
        """The budget with which all of it is in RAM."""
        return self.file.ram_bytes[-1]

    @property
    def own_bytes(self) -> int:
        """Of the weights in RAM, those that are no pages of the file: all."""
        return self.resident_bytes

    @property
    def absent_bytes(self) -> int:
        """Weights that are not in RAM: streamed, or left out."""
        if self._kept and self._slots:
            left_out = self.most_bytes - self._kept.ram_bytes[-1]
            return left_out + self.streamed_bytes
        return self.most_bytes - self.resident_bytes

    @property
    def streamed_bytes(self) -> int:
        """Weights that are read from the disk for each pass, or when it needs them."""
        if self._slots:
            return sum(block.absent_bytes for block in self._slots)
        return self.absent_bytes if self._ring else 0

    @property
    def products(self) -> Products:
        """What computes with the stack."""
        return self._streamed or self._resident

    @property
    def may_draft(self) -> bool:
        """Whether what is in RAM makes a model of its own, and a smaller one than all of it."""
        return self._ring is not None and len(self._held) >= self.file.n_base

    def hook(self) -> EvalHook:
        """What feeds a context of the model."""
        return EvalHook(self, *self._handlers)

    def drafting_hook(self) -> EvalHook | None:
        """What feeds a context that computes with the blocks that are in RAM alone.

        Only to be used while :attr:`may_draft`. None: no such context was asked for.
        """
        drafts = self._drafts and self.may_draft
        return EvalHook(self._resident, *self._handlers) if drafts else None

    def describe(self, sizing: Sizing) -> Sizing:
        """Add how many blocks it computes with, and how many of the needed experts were in RAM."""
        done, n_blocks = self.statistics(), self.n_blocks
        if self.streamed_bytes:
            n_blocks = len((self._kept or self.file).blocks)
        return msgspec.structs.replace(
            sizing,
            n_blocks=n_blocks,
            total_blocks=len(self.file.blocks),
            experts_used=done.experts_used,
            experts_found=done.experts_found,
        )

    def statistics(self) -> Streaming:
        """What was read from the disk so far, the loading included."""
        waiting = [part.wait_seconds for part in (self._ring, self._experts) if part]
        return Streaming(
            bytes_read=self._reader.bytes_read,
            read_ms=self._reader.busy_seconds * 1e3,
            wait_ms=(self._waited + sum(waiting)) * 1e3,
            resident_bytes=self.resident_bytes,
            experts_used=self._experts.used if self._experts else 0,
            experts_found=self._experts.found if self._experts else 0,
        )

    def load_model(self, *, with_vocabulary: bool = True) -> Model:
        """The model, for contexts that have this stack in their eval hook and for no others."""
        file = self.file.gguf
        return Model(
            file.path,
            use_extra_bufts=False,
            hollow=[self.file.as_llama_sees_it()],
            without_vocabulary=None if with_vocabulary else file,
        )

    def inspect(self, node: Tensor) -> Actions | None:
        """Compute what reads our matrices; part of the eval hook."""
        return self.products.inspect(node)

    def aim(self, budget_bytes: int) -> None:
        """Have as much in RAM as another budget allows with the next :meth:`settle`.

        Any thread may call this at any time.
        """
        self._wanted = budget_bytes

    def settle(self) -> bool:
        """Take up the last budget that was aimed at, between two calls of ``decode``; True."""
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            self.resize(wanted)
        return True

    def close(self) -> None:
        """Give the memory back. The model must have been closed before."""
        self._drop_ring()
        if self._experts is not None:
            self._experts.close()
        if self._streamed is not None:
            self._streamed.close()
        self._reader.close()

    def resize(
        self,
        budget_bytes: int | None,
        *,
        on_progress: Callable[[float], bool] = lambda _: True,
    ) -> None:
        """Have as much in RAM as ``budget_bytes`` allow; None: all of it.

        Between two calls of ``decode``: the KV cache stays what it is. Raises like the
        constructor; what was loaded then is as before.
        """
        file = self.file
        budget = file.ram_bytes[-1] if budget_bytes is None else budget_bytes
        kept = self._kept
        slots = kept.experts_within(budget) if kept else ()
        fitting = file.fitting_whole(budget) if self._is_whole else file.fitting(budget)
        if not slots and fitting < (file.n_unpacked if self._is_whole else file.n_base):
            raise self._short(budget, self.least_bytes)
        held = kept.beside_experts if kept and slots else self._tensors[:fitting]
        before = self._held
        if self._experts is not None and not slots:
            self._experts.place(())  # else experts would be in RAM twice
        try:
            self._hold(held, on_progress)
            if kept and slots:
                self._place(kept, slots)
        except BaseException:
            self._hold(before, lambda _: True)
            if self._experts is not None:
                self._experts.place(self._slots)
            raise
        self._slots = slots
        if not slots:
            self._resident.use(file.blocks[: self._n_blocks])
        if self._streamed is None:
            return
        self._drop_ring()
        names = {tensor.name for tensor in held}
        if kept and slots:
            self._streamed.set_resident(kept.blocks, names, 0, self._experts)
        elif not self._is_whole:
            self._streamed.set_resident(file.blocks[: self._n_blocks], names, 0)
        else:
            n_bytes = file.whole_bytes[fitting] - file.ram_bytes[fitting - 1]
            if absent := self._streamed.set_resident(file.blocks, names, n_bytes // RING_ENTRIES):
                self._ring = Ring(self._reader, absent, n_bytes)

    def _place(self, of: StackFile, slots: Sequence[ExpertBlock]) -> None:
        """Keep so many experts of each block."""
        if is_new := self._experts is None:
            scratch, unit = self.products.scratch, self._reader.unit
            matrices = (each for block in slots for each in block.matrices)
            planes = {each.name: ExpertPlanes(each, of, scratch, unit) for each in matrices}
            self._experts = Experts(self._reader, slots, planes)
        self._experts.place(slots)
        if is_new:
            self._experts.fill()

    def _drop_ring(self) -> None:
        if self._ring is not None:
            self._ring.close()
            self._waited += self._ring.wait_seconds
            self._ring = None

    def _hold(self, wanted: Sequence[TensorInfo], on_progress: Callable[[float], bool]) -> None:
        """Have these tensors in RAM and no others."""
        held, names = {t.name for t in self._held}, {t.name for t in wanted}
        if absent := [tensor for tensor in wanted if tensor.name not in held]:
            self._read(absent, on_progress)
        for are_wanted, tensors in groupby(self._tensors, lambda tensor: tensor.name in names):
            some = [tensor for tensor in tensors if not are_wanted and tensor.name in held]
            if some:
                self._release(some[0], some[-1])
        blocks = {block.tensor.name for block in self.file.blocks}
        self._held, self._n_blocks = list(wanted), len(names & blocks)

    def _release(self, first: TensorInfo, last: TensorInfo) -> None:
        """Give back what lies from the one to the other."""
        if pages := _whole_pages(first, last):
            self._arena.release(pages.start, len(pages))

    def _read(self, tensors: Sequence[TensorInfo], on_progress: Callable[[float], bool]) -> None:
        """Have the bytes of these tensors in the arena, checked; those of tables only checked."""
        self._reader.check()
        stays = self.file.stays_on_disk
        wanted = [t for t in tensors if t.name not in stays or t.name not in self._checked]
        portions = iter(list(_portions(wanted)))
        under_way: deque[tuple[_Portion, Reading]] = deque()
        done, total = 0, sum(tensor.n_bytes for tensor in wanted)
        try:
            while True:
                for portion in islice(portions, _PORTIONS - len(under_way)):
                    span = portion.span
                    view = self._arena.view[span.offset : span.offset + span.n_bytes]
                    under_way.append((portion, self._reader.start(span, view)))
                if not under_way:
                    return
                portion, reading = under_way.popleft()
                reading.wait()
                for tensor in portion.ends:
                    self._check(tensor, self._arena.address + tensor.offset)
                    if tensor.name in stays:
                        self._release(tensor, tensor)
                    done += tensor.n_bytes
                if not on_progress(done / total):
                    raise LoadCancelled
        finally:
            for _, reading in under_way:
                reading.cancel()

    def _fetch(self, tensors: Sequence[TensorInfo]) -> list[int]:
        assert self._ring is not None
        addresses = self._ring.use(tensors)
        for tensor, address in zip(tensors, addresses, strict=True):
            self._check(tensor, address)
        return addresses

    def _check(self, tensor: TensorInfo, address: int) -> None:
        """Raises :class:`ModelFileError` if these are not the tensor's bytes; looks only once."""
        if tensor.name in self._checked:
            return
        if checksum(address, tensor.n_bytes) != self.file.checksums[tensor.name]:
            raise ModelFileError(
                f"{self.file.gguf.path.name} is damaged: the bytes of {tensor.name} are not those "
                "that were written. Copy the file anew, or pack the model again."
            )
        self._checked.add(tensor.name)

    def _short(self, budget: int, needed: int) -> MemoryShortError:
        return MemoryShortError(
            f"{self.file.gguf.path.name} needs at least {size(needed)} of RAM for weights, "
            f"but is limited to {size(budget)}. "
            "Raise --ram, or choose a smaller model."
        )


def _whole_pages(first: TensorInfo, last: TensorInfo) -> range:
    """The bytes of the pages that hold nothing else than what lies from the one to the other."""
    return range(-(-first.offset // PAGE) * PAGE, (last.offset + last.n_bytes) // PAGE * PAGE)


class _Portion(NamedTuple):
    """Bytes that are read at once, and the tensors that are complete with them."""

    span: Span
    ends: list[TensorInfo]


def _portions(tensors: Sequence[TensorInfo]) -> Iterator[_Portion]:
    for whole, members in spans(tensors):
        end = whole.offset + whole.n_bytes
        for at in range(whole.offset, end, _PORTION):
            span = Span(0, at, min(_PORTION, end - at))
            ends = [t for t in members if at < t.offset + t.n_bytes <= at + span.n_bytes]
            yield _Portion(span, ends)


def _map(file: GGUFFile) -> mmap.mmap:
    mapped = map_file(file.path)
    if hasattr(mmap, "MADV_RANDOM"):
        mapped.madvise(mmap.MADV_RANDOM)  # single rows: reading ahead would only displace
    return mapped
