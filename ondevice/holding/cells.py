"""Which part of each block of a model is in RAM: the model as a row of cells."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from ondevice.gguf import GGUFFile
from ondevice.holding.stack import StackFile, is_stack
from ondevice.holding.window.placement import place
from ondevice.messages import Sizing

#: What is done with bytes of a block that are not in RAM: they are read for each pass, or when
#: their experts are needed, or the block is computed less exactly without them.
Absent = Literal["streamed", "experts", "left out"]


@dataclass(frozen=True, slots=True)
class Cell:
    """A block of the model, or what comes before and after the blocks."""

    block: int | None  # None: it belongs to no block, such as the output layer
    n_bytes: int
    resident_bytes: int
    absent: Absent

    @property
    def share(self) -> float:
        """Of its bytes, those in RAM: 0 … 1."""
        return self.resident_bytes / self.n_bytes if self.n_bytes else 1.0


def cells(file: GGUFFile, sizing: Sizing) -> list[Cell]:
    """The blocks in their order, then what belongs to none; tables that stay on the disk are not
    among them."""
    if is_stack(file):
        return _of_stack(StackFile.of(file), sizing)
    if not sizing.absent_bytes:
        others = (t for t in file.tensors.values() if t.name not in file.read_by_row)
        return _sum((t.block, t.n_bytes, t.n_bytes, "streamed") for t in others)
    # What is pinned depends on the file and the bytes alone.
    placed = place(file, sizing.resident_bytes)
    parts: list[tuple[int | None, int, int, Absent]] = []
    parts += [(t.block, t.n_bytes, t.n_bytes, "streamed") for t in placed.pinned]
    parts += [(t.block, t.n_bytes, 0, "streamed") for t in placed.streamed]
    for block in placed.experts:
        for t in block.tensors:
            parts.append((t.block, t.n_bytes, t.n_bytes * block.n_slots // t.shape[2], "experts"))
    return _sum(parts)


def _of_stack(stack: StackFile, sizing: Sizing) -> list[Cell]:
    n_resident = stack.n_base + sizing.n_blocks
    return _sum(
        (tensor.block, tensor.n_bytes, tensor.n_bytes if place < n_resident else 0, "left out")
        for place, tensor in enumerate(stack.gguf.tensors.values())
        if tensor.name not in stack.stays_on_disk
    )


def _sum(parts: Iterable[tuple[int | None, int, int, Absent]]) -> list[Cell]:
    found: dict[int | None, Cell] = {}
    for block, n_bytes, resident, absent in parts:
        cell = found.get(block, Cell(block, 0, 0, "streamed"))
        kind = cell.absent if absent == "streamed" else absent
        found[block] = Cell(block, cell.n_bytes + n_bytes, cell.resident_bytes + resident, kind)
    return sorted(found.values(), key=lambda cell: (cell.block is None, cell.block or 0))
