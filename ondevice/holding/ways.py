"""Which ways of holding a model there are. A new one is a file of its own, and a word here."""

from __future__ import annotations

from ondevice.gguf import GGUFFile
from ondevice.holding.cells import Cell
from ondevice.holding.stack.way import Stacked
from ondevice.holding.way import Way
from ondevice.holding.window.way import Windowed
from ondevice.messages import Sizing


def way_of(file: GGUFFile) -> Way:
    """The way in which this model can be held."""
    return Stacked(file) if file.is_stack else Windowed(file)


def cells(file: GGUFFile, sizing: Sizing) -> list[Cell]:
    """What is in RAM of each block of a model that is held with ``sizing``."""
    return way_of(file).cells(sizing)
