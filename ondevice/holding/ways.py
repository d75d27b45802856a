"""Which ways of holding a model there are. A new one is a file of its own, and a word here."""

from __future__ import annotations

from ondevice.gguf import GGUFFile
from ondevice.holding.stack.way import Stacked
from ondevice.holding.way import Way
from ondevice.holding.window.way import Windowed


def way_of(file: GGUFFile) -> Way:
    """The way in which this model can be held."""
    return Stacked(file) if file.is_stack else Windowed(file)
