"""The file of a stack: what is in it, in which order, and how good it is up to where."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from ondevice.disk.reader import PAGE
from ondevice.errors import ModelFileError
from ondevice.gguf import ArrayOnDisk, GGUFFile, TensorInfo, writing
from ondevice.gguf.writing import HollowHeader, TensorEntry
from ondevice.holding.experts.blocks import ExpertBlock, ExpertMatrix, slots_bytes, with_slots
from ondevice.holding.stack import _layout
from ondevice.holding.stack._layout import (
    BASE_PLANES,
    FIRST_PLANE,
    PLANES,
    PREFIX,
    VERSION,
    BlockId,
    PlanesShape,
    Quality,
)
from ondevice.holding.window.placement import pages_bytes

RING_BYTES = 16 << 20  # through which pass what is not resident, at least
RING_ENTRIES = 2  # the largest matrix that many times: one is computed with, one arrives
_F16 = 1  # ggml's number of that type


@dataclass(frozen=True, slots=True)
class Matrix:
    """A weight that lies in planes."""

    name: str
    shape: PlanesShape
    base: TensorInfo  # scales, nibbles and the first planes


@dataclass(frozen=True, slots=True)
class Block:
    """A residual block: it makes some rows of one matrix a bit more exact."""

    id: BlockId
    tensor: TensorInfo
    end: int  # bytes of the file up to its end
    quality: Quality  # of the model once it is loaded


@dataclass(frozen=True)
class StackFile:
    """A stack as its file describes it."""

    gguf: GGUFFile
    matrices: Mapping[str, Matrix]
    blocks: tuple[Block, ...]  # in the order in which they are loaded
    checksums: Mapping[str, int]  # of every tensor of the file
    base_quality: Quality  # without any block

    @property
    def base_end(self) -> int:
        """Bytes of the file without any block: the smallest size."""
        return self.blocks[0].tensor.offset if self.blocks else self.gguf.file_bytes

    @property
    def n_base(self) -> int:
        """Tensors of the file that are no blocks, and come before them."""
        return len(self.gguf.tensors) - len(self.blocks)

    @cached_property
    def tables(self) -> frozenset[str]:
        """Matrices of which only rows are looked up: they stay on the disk."""
        return self.gguf.read_by_row & self.matrices.keys()

    @cached_property
    def n_weights(self) -> int:
        """Of all matrices but tables."""
        return sum(m.shape.n_weights for m in self.matrices.values() if m.name not in self.tables)

    @cached_property
    def multiplied(self) -> Mapping[str, float]:
        """How many weights a token is multiplied with, of each matrix but tables."""
        share = self.gguf.experts_share
        return {
            name: matrix.shape.n_weights * (share if "_exps" in name else 1.0)
            for name, matrix in self.matrices.items()
            if name not in self.tables
        }

    @cached_property
    def blocks_of(self) -> Mapping[str, list[Block]]:
        """The blocks of each matrix, in the order in which they are loaded."""
        found: dict[str, list[Block]] = {name: [] for name in self.matrices}
        for block in self.blocks:
            found[block.id.matrix].append(block)
        return found

    @property
    def n_unpacked(self) -> int:
        """Tensors that are as in the source; they come first."""
        return self.n_base - len(self.matrices)

    @cached_property
    def stays_on_disk(self) -> frozenset[str]:
        """Tensors of tables, their bases and blocks, and what llama.cpp never reads."""
        blocks = {b.tensor.name for b in self.blocks if b.id.matrix in self.tables}
        return self.tables | blocks | self.gguf.unread

    @cached_property
    def ram_bytes(self) -> list[int]:
        """What the tensors of the file take in RAM, up to and including each; in its order."""
        alignment = self.gguf.parts[0].alignment
        needed = [
            2 * PAGE
            if tensor.name in self.stays_on_disk
            else writing.padded(tensor.n_bytes, alignment)
            for tensor in self.gguf.tensors.values()
        ]
        return [PAGE + total for total in accumulate(needed)]

    @cached_property
    def whole_bytes(self) -> list[int]:
        """RAM with which all of it is computed while so many tensors are resident, from none on.

        The others are streamed, so the ring takes its part: enough for the planes of any matrix of
        a block, or they would have to be computed with outside of llama.cpp's graph.
        """
        needed = [self.ram_bytes[-1]]
        largest = max(
            (
                n_bytes - self.matrices[name].base.n_bytes
                for name, n_bytes in self._matrix_bytes.items()
                if self.matrices[name].base.block is not None
            ),
            default=0,
        )
        tensors = list(self.gguf.tensors)
        for n in range(len(tensors) - 1, -1, -1):
            if n < self.n_base:
                largest = max(largest, self._matrix_bytes.get(tensors[n], 0))
            resident = self.ram_bytes[n - 1] if n else PAGE
            needed.append(resident + max(RING_BYTES, RING_ENTRIES * largest))
        return needed[::-1]

    @cached_property
    def _matrix_bytes(self) -> dict[str, int]:
        """Matrices that may be streamed with all their blocks, each in its own pages."""
        needed = {
            name: matrix.base.n_bytes + 2 * PAGE
            for name, matrix in self.matrices.items()
            if name not in self.tables
        }
        for block in self.blocks:
            if block.id.matrix in needed:
                needed[block.id.matrix] += block.tensor.n_bytes + 2 * PAGE
        return needed

    @property
    def least_whole_bytes(self) -> int:
        """RAM with which all of it can be computed, however much of it is on the disk."""
        least = self.least_streaming_bytes
        return min(least, self.least_with_experts) if self.expert_blocks else least

    @property
    def least_streaming_bytes(self) -> int:
        """The same if what is not in RAM is read for each pass."""
        return min(self.whole_bytes[self.n_unpacked :])

    @cached_property
    def expert_blocks(self) -> tuple[ExpertBlock, ...]:
        """The blocks of which not all experts need to be in RAM."""
        found: dict[int, list[ExpertMatrix]] = {}
        for matrix in self.matrices.values():
            block = matrix.base.block
            if block is not None and (experts := self._experts_in(matrix)):
                found.setdefault(block, []).append(experts)
        return tuple(ExpertBlock(tuple(matrices)) for _, matrices in sorted(found.items()))

    @cached_property
    def beside_experts(self) -> list[TensorInfo]:
        """The tensors that hold nothing of these experts, in the order of the file."""
        experts = {m.name for block in self.expert_blocks for m in block.matrices}
        theirs = {b.tensor.name for name in experts for b in self.blocks_of[name]} | experts
        return [t for t in self.gguf.tensors.values() if t.name not in theirs]

    @cached_property
    def beside_experts_bytes(self) -> int:
        """What they take in RAM."""
        in_ram = [t for t in self.beside_experts if t.name not in self.stays_on_disk]
        n_tables = len(self.beside_experts) - len(in_ram)
        return pages_bytes(in_ram) + (1 + 2 * n_tables) * PAGE

    @cached_property
    def least_with_experts(self) -> int:
        """The same if experts are read when they are needed."""
        return self.beside_experts_bytes + slots_bytes(self.expert_blocks)

    def experts_within(self, budget_bytes: int) -> tuple[ExpertBlock, ...]:
        """With so much RAM for all weights; none: all of it fits, or not all that is no expert."""
        if not self.least_with_experts <= budget_bytes < self.ram_bytes[-1]:
            return ()
        return with_slots(self.expert_blocks, budget_bytes - self.beside_experts_bytes)

    def _experts_in(self, matrix: Matrix) -> ExpertMatrix | None:
        """None: it has none, or some with more planes than others."""
        if not self.gguf.holds_experts(matrix.base):
            return None
        shape, n_experts = matrix.shape, self.gguf.n_experts
        rows = shape.rows // n_experts
        n_planes, others = divmod(len(self.blocks_of[matrix.name]), len(shape.chunks()))
        if others:
            return None
        n_planes += BASE_PLANES
        scales, nibbles, plane = shape.part_bytes(rows)
        n_bytes = scales + nibbles + n_planes * plane
        # An expert may begin at the end of a chunk, and a piece of it at the end of a page.
        in_chunk = math.gcd(rows, shape.chunk_rows)
        n_chunks = 1 + -(-(rows - in_chunk) // shape.chunk_rows)
        n_pieces = n_chunks * (FIRST_PLANE + n_planes)
        in_slot = -(-n_bytes // PAGE) * PAGE + 2 * PAGE * n_pieces
        return ExpertMatrix(matrix.name, matrix.base.block, n_experts, n_bytes, in_slot)

    def cut(self, n_tensors: int) -> StackFile:
        """The smaller stack of the first ``n_tensors`` of this one, bases included.

        Of experts, it leaves out what not all rows of a matrix have, so that each can be read by
        itself.
        """
        n_chunks = {
            matrix.name: len(self.matrices[matrix.name].shape.chunks())
            for block in self.expert_blocks
            for matrix in block.matrices
        }
        blocks = self.blocks[: max(0, n_tensors - self.n_base)]
        counts = Counter((block.id.matrix, block.id.plane) for block in blocks)
        complete = {plane for plane, n in counts.items() if n == n_chunks.get(plane[0], n)}
        kept = tuple(b for b in blocks if (b.id.matrix, b.id.plane) in complete)
        left_out = {b.tensor.name for b in self.blocks} - {b.tensor.name for b in kept}
        tensors = {n: t for n, t in self.gguf.tensors.items() if n not in left_out}
        return replace(self, gguf=replace(self.gguf, tensors=tensors), blocks=kept)

    def fitting(self, budget_bytes: int) -> int:
        """How many tensors, from the first one on, fit into so much RAM."""
        return bisect_right(self.ram_bytes, budget_bytes)

    def fitting_whole(self, budget_bytes: int) -> int:
        """The same if all others are streamed; fewer than ``n_unpacked``: all of it cannot be."""
        counts = range(len(self.whole_bytes) - 1, self.n_unpacked - 1, -1)
        return next((n for n in counts if self.whole_bytes[n] <= budget_bytes), 0)

    @classmethod
    def of(cls, file: GGUFFile) -> StackFile:
        """Raises :class:`ModelFileError` if the file is damaged or of another version."""
        version = file.number(f"{PREFIX}version")
        if version != VERSION:
            raise ModelFileError(
                f"{file.path.name} is a stack of version {version}, and {VERSION} is known. "
                "Pack the model again, or get another version of ondevice."
            )
        if len(file.parts) > 1:
            raise _damaged(file, "it is cut into parts")
        with file.path.open("rb") as opened:
            if not _layout.is_whole(opened.read(file.parts[0].data_offset)):
                raise _damaged(file, "its header is not the one that was written")
        columns = _numbers(file, "columns", "<u4")
        checksums = _numbers(file, "checksums", "<u4")
        qualities = [
            Quality(float(kl), float(perplexity))
            for kl, perplexity in zip(
                _numbers(file, "kl", "<f4"), _numbers(file, "perplexity", "<f4"), strict=True
            )
        ]
        matrices: dict[str, Matrix] = {}
        blocks: list[Block] = []
        levels: dict[tuple[str, int], int] = {}
        base_quality = _layout.NOT_MEASURED
        for tensor, width, quality in zip(file.tensors.values(), columns, qualities, strict=True):
            if width:
                matrices[tensor.name] = _matrix(file, tensor, int(width))
                base_quality = quality
            elif block := _block_of(tensor, matrices):
                level = levels.get((block.matrix, block.chunk), BASE_PLANES)
                expected = _layout.block_entry(block, matrices[block.matrix].shape)
                if block.plane != level or level >= PLANES or tensor.n_bytes != expected.n_bytes:
                    raise _damaged(file, f"its block {tensor.name} is out of place")
                levels[block.matrix, block.chunk] = level + 1
                end = tensor.offset + tensor.n_bytes
                blocks.append(Block(block, tensor, end, quality))
            elif blocks:
                raise _damaged(file, f"its tensor {tensor.name} lies behind the first block")
        stack = cls(
            file,
            matrices,
            tuple(blocks),
            dict(zip(file.tensors, map(int, checksums), strict=True)),
            base_quality,
        )
        if not stack.n_weights:
            raise _damaged(file, "it has no matrices")
        return stack

    def as_llama_sees_it(self) -> HollowHeader:
        """A header with every weight in its true shape and none of the blocks.

        Raises :class:`ModelFileError` if the file is damaged.
        """
        (part,) = self.gguf.parts
        blocks = {block.tensor.name for block in self.blocks}
        entries = []
        for tensor in self.gguf.tensors.values():
            if matrix := self.matrices.get(tensor.name):
                shape = (matrix.shape.columns, *tensor.shape[1:])
                entries.append(TensorEntry(tensor.name, shape, _F16, 2 * math.prod(shape)))
            elif tensor.name not in blocks:
                entries.append(TensorEntry(tensor.name, tensor.shape, tensor.type, tensor.n_bytes))
        try:
            n_keys, keys = writing.raw_keys(self.gguf)
        except ValueError:
            raise _damaged(self.gguf, "its tensors are out of place") from None
        infos, data_bytes = writing.tensor_infos(entries, part.alignment)
        front = writing.header(len(entries), n_keys, keys, infos, part.alignment)
        return HollowHeader(part.path.name, front, len(front) + data_bytes)

    def as_a_model(self) -> GGUFFile:
        """The model as others are: every weight in its true shape, with the bytes of all blocks."""
        n_bytes = {name: matrix.base.n_bytes for name, matrix in self.matrices.items()}
        for block in self.blocks:
            n_bytes[block.id.matrix] += block.tensor.n_bytes
        tensors = dict(list(self.gguf.tensors.items())[: self.n_base])
        for name, matrix in self.matrices.items():
            shape = (matrix.shape.columns, *tensors[name].shape[1:])
            tensors[name] = replace(tensors[name], shape=shape, type=_F16, n_bytes=n_bytes[name])
        return replace(self.gguf, tensors=tensors)

    def quality_with(self, n_tensors: int) -> Quality:
        """Of the model with so many tensors, at least those that come before the blocks."""
        n_blocks = n_tensors - self.n_base
        return self.blocks[n_blocks - 1].quality if n_blocks > 0 else self.base_quality


def _matrix(file: GGUFFile, tensor: TensorInfo, columns: int) -> Matrix:
    rows = math.prod(tensor.shape[1:])
    fits = rows > 0 and columns % 32 == 0 and 0 < columns <= _layout.MOST_COLUMNS
    shape = _layout.shape_of(rows, columns) if fits else None
    if shape is None or _layout.base_bytes(shape, rows) != tensor.n_bytes:
        raise _damaged(file, f"the size of {tensor.name} does not fit its shape")
    return Matrix(tensor.name, shape, tensor)


def _block_of(tensor: TensorInfo, matrices: Mapping[str, Matrix]) -> BlockId | None:
    block = BlockId.of(tensor.name)
    if block is None or block.matrix not in matrices:
        return None
    return block if block.chunk < len(matrices[block.matrix].shape.chunks()) else None


def _numbers(file: GGUFFile, key: str, kind: str) -> npt.NDArray[np.generic]:
    """A metadata array with a number for each tensor."""
    value = file.metadata.get(PREFIX + key)
    numbers: npt.NDArray[np.generic] = np.array([])
    if isinstance(value, tuple):
        with suppress(ValueError, TypeError, OverflowError):  # no numbers, or such as do not fit
            numbers = np.array(value, kind)
    elif isinstance(value, ArrayOnDisk) and value.n_bytes == 4 * value.length:
        numbers = np.fromfile(file.path, kind, value.length, offset=value.offset)
    if numbers.shape != (len(file.tensors),):
        raise _damaged(file, f"its list of {key} is not as long as that of its tensors")
    return numbers


def _damaged(file: GGUFFile, reason: str) -> ModelFileError:
    return ModelFileError(f"{file.path.name} is damaged: {reason}. Pack the model again.")
