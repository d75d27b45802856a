"""Which ways of holding a model there are. A new one is a file of its own, and a line here."""

from __future__ import annotations

from collections.abc import Sequence

from ondevice.gguf import GGUFFile
from ondevice.holding.cells import Cell
from ondevice.holding.repacked import Repacked
from ondevice.holding.stack.way import Stacked
from ondevice.holding.way import Way
from ondevice.holding.window.way import Windowed
from ondevice.messages import Sizing


def ways_of(file: GGUFFile) -> Sequence[Way]:
    """The ways in which this model can be held; the last one takes the least RAM."""
    return [Stacked(file)] if file.is_stack else [Repacked(file), Windowed(file)]


def cells(file: GGUFFile, sizing: Sizing) -> list[Cell]:
    """What is in RAM of each block of a model that is held with ``sizing``, in whatever way."""
    return ways_of(file)[-1].cells(sizing)
