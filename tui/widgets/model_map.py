"""The model as a row of cells, one for each block: how much of it is in RAM."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.widgets import Static

from ondevice.ram.residency import Absent, Cell

_SHADES = "·░▒▓█"  # nothing of a block in RAM … all of it
WHOLE = "$success"  # style of a block that is in RAM
STYLES: dict[Absent, str] = {
    "streamed": "$warning",
    "experts": "$accent",
    "left out": "$secondary",
}


class ModelMap(Static):
    """Fuller means that more of the block is in RAM; that can be seen without colours."""

    def show(self, cells: Sequence[Cell]) -> None:
        """Draw the cells of blocks."""
        self.update(Content.assemble(*(_drawn(cell) for cell in cells if cell.block is not None)))


def _drawn(cell: Cell) -> tuple[str, str]:
    if cell.share == 1:
        return _SHADES[-1], WHOLE
    return _SHADES[int(cell.share * (len(_SHADES) - 1))], STYLES[cell.absent]
