"""The model as a row of cells, one for each block: how much of it is in RAM."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.widgets import Static

from ondevice.holding.cells import Absent, Cell

_SHADES = "·░▒▓█"  # nothing of a block in RAM … all of it
_READ_NOW = "▞"
WHOLE = "$success"  # style of a block that is in RAM
NOW = "$primary"
STYLES: dict[Absent, str] = {
    "streamed": "$warning",
    "experts": "$accent",
    "left out": "$secondary",
}


class ModelMap(Static):
    """Fuller means that more of the block is in RAM; that can be seen without colours."""

    def show(self, cells: Sequence[Cell], *, reading: bool) -> None:
        """Draw the cells of blocks; ``reading``: what is not in RAM is being read now."""
        blocks = [cell for cell in cells if cell.block is not None]
        self.update(Content.assemble(*(_drawn(cell, reading) for cell in blocks)))


def legend(cells: Sequence[Cell], *, in_two_lines: bool) -> Content:
    """What the cells mean, each kind with the colour that it has here."""
    kinds = [cell.absent for cell in cells if cell.share < 1]
    style = STYLES[kinds[0]] if kinds else STYLES["streamed"]
    return Content.assemble(
        (_SHADES[-1], WHOLE),
        " in RAM    " if in_two_lines else " in RAM   ",
        (_SHADES[2], style),
        " in part\n" if in_two_lines else " in part   ",
        (_SHADES[0], style),
        " on disk   ",
        (_READ_NOW, NOW),
        " being read now",
    )


def _drawn(cell: Cell, reading: bool) -> tuple[str, str]:
    if cell.share == 1:
        return _SHADES[-1], WHOLE
    if reading and cell.absent != "left out":
        return _READ_NOW, NOW
    return _SHADES[int(cell.share * (len(_SHADES) - 1))], STYLES[cell.absent]
