"""A model as a row of cells: which part of each block is in RAM."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, NamedTuple

from ondevice.gguf import GGUFFile

#: What is done with bytes of a block that are not in RAM: they are read for each pass, or when
#: their experts are needed, or the block is computed less exactly without them.
Absent = Literal["streamed", "experts", "left out"]

#: Of a tensor its block, its bytes, those in RAM, and what is done with the others.
CellPart = tuple[int | None, int, int, Absent]


class Cell(NamedTuple):
    """A block of the model, or what comes before and after the blocks."""

    block: int | None  # None: it belongs to no block, such as the output layer
    n_bytes: int
    resident_bytes: int
    absent: Absent

    @property
    def share(self) -> float:
        """Of its bytes, those in RAM: 0 … 1."""
        return self.resident_bytes / self.n_bytes if self.n_bytes else 1.0


def cells_in_ram(file: GGUFFile) -> list[Cell]:
    """Of a model that is all in RAM."""
    others = (t for t in file.tensors.values() if t.name not in file.read_by_row)
    return sum_cells((t.block, t.n_bytes, t.n_bytes, "streamed") for t in others)


def sum_cells(parts: Iterable[CellPart]) -> list[Cell]:
    """The cells of these tensors."""
    found: dict[int | None, Cell] = {}
    for block, n_bytes, resident, absent in parts:
        cell = found.get(block, Cell(block, 0, 0, "streamed"))
        kind = cell.absent if absent == "streamed" else absent
        found[block] = Cell(block, cell.n_bytes + n_bytes, cell.resident_bytes + resident, kind)
    return sorted(found.values(), key=lambda cell: (cell.block is None, cell.block or 0))
