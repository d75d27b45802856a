"""Experts of a stack of which only some are in RAM: each is read by itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter
from typing import NamedTuple

from ondevice.disk.reader import Reader, Reading, Span
from ondevice.holding.experts.blocks import ExpertMatrix
from ondevice.holding.experts.experts import Matrices
from ondevice.holding.stack._file import StackFile
from ondevice.holding.stack._layout import (
    BASE_PLANES,
    FIRST_PLANE,
    PlanesShape,
    base_parts,
)
from ondevice.holding.stack._planes import Planes, Scratch
from ondevice.llama import Tensor


class _Extent(NamedTuple):
    """Bytes that lie together in the file: of one part, some rows that belong to one chunk."""

    part: int  # scales, nibbles or a plane
    start: int  # bytes from the start of the file
    n_bytes: int
    span: Span
    at: int  # where the span begins, bytes from the start of the slot

    @property
    def arrives_at(self) -> int:
        """Bytes from the start of the slot."""
        return self.at + self.start - self.span.offset


class ExpertPlanes(Matrices):
    """A matrix with the rows of all experts, one after the other, in the planes that ``file`` has.

    ``unit``: bytes of which the ends of a read are multiples.
    """

    def __init__(self, of: ExpertMatrix, file: StackFile, scratch: Scratch, unit: int) -> None:
        super().__init__(of)
        matrix = file.matrices[of.name]
        self._unit = unit
        self._chunk_rows = matrix.shape.chunk_rows  # in the file
        #: Of each chunk there, where its scales, nibbles and planes begin; bytes from the start.
        self._starts: list[list[int]] = []
        blocks, chunks = file.blocks_of[of.name], matrix.shape.chunks()
        n_refining = len(blocks) // len(chunks)
        for chunk in chunks:
            base = base_parts(matrix.shape, chunk)
            self._starts.append([matrix.base.offset + at for at in base] + [0] * n_refining)
        for block in blocks:
            self._starts[block.id.chunk][FIRST_PLANE + block.id.plane] = block.tensor.offset
        rows, columns = matrix.shape.rows // of.n_experts, matrix.shape.columns
        scales, nibbles, plane = matrix.shape.part_bytes(1)
        n_planes = BASE_PLANES + n_refining
        self._row_bytes = [scales, nibbles, *[plane] * n_planes]  # of each part
        self._planes = Planes(PlanesShape(matrix.shape.rows, columns, rows), scratch)
        self._planes.levels[:] = n_planes
        self._shown = [0] * of.n_experts  # addresses of slots

    def take_over(self, node: Tensor) -> Tensor:
        self._planes.multiply_node(node)
        _, _, ids = node.operands()
        return ids

    def read(self, reader: Reader, expert: int, slot: memoryview, n_pieces: int) -> list[Reading]:
        reads = [(extent.span, slot[extent.at :]) for extent in self._extents(expert)]
        some = (reads[n::n_pieces] for n in range(n_pieces))
        return [reader.start_all(each) for each in some if each]

    def arrange(self, expert: int, slot: memoryview) -> None:
        for _, (first, *others) in self._parts(expert):
            end = first.arrives_at + first.n_bytes
            for extent in others:  # of the same part, in the next chunk
                at = extent.arrives_at
                slot[end : end + extent.n_bytes] = slot[at : at + extent.n_bytes]
                end += extent.n_bytes

    def show(
        self, ids: Tensor, experts: Sequence[int], address: int, places: Mapping[int, int]
    ) -> None:
        for expert, place in places.items():
            slot = address + place * self.stride
            if self._shown[expert] != slot:
                self._shown[expert] = slot
                for part, (first, *_) in self._parts(expert):
                    self._planes.parts[expert, part] = slot + first.arrives_at

    def _parts(self, expert: int) -> Iterator[tuple[int, Iterator[_Extent]]]:
        return groupby(self._extents(expert), attrgetter("part"))

    def _extents(self, expert: int) -> Iterator[_Extent]:
        """What is to be read of an expert, part after part, and where in a slot."""
        rows, step = self._planes.shape.chunk_rows, self._chunk_rows
        begin, end, at = expert * rows, (expert + 1) * rows, 0
        for part, row_bytes in enumerate(self._row_bytes):
            for chunk in range(begin // step, -(-end // step)):
                first, last = max(begin, chunk * step), min(end, (chunk + 1) * step)
                start = self._starts[chunk][part] + (first - chunk * step) * row_bytes
                n_bytes = (last - first) * row_bytes
                span = Span.around(0, start, n_bytes, self._unit)
                yield _Extent(part, start, n_bytes, span, at)
                at += span.n_bytes
