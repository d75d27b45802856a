"""A private memory of what the user told: found again, corrected, and forgotten for good."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from ondevice.memory._records import (
    FORGOTTEN,
    Blanked,
    Cube,
    Found,
    History,
    Hit,
    Kind,
    Link,
    MemoryStatistics,
    Remembered,
    Source,
    Status,
    Unread,
    Version,
    parse_label,
)

if TYPE_CHECKING:
    from ondevice.memory._asking import tells
    from ondevice.memory._documents import find_files, read_file
    from ondevice.memory._measure import measure_search
    from ondevice.memory._memory import Memory
    from ondevice.memory._passages import beginnings, passages
    from ondevice.memory._quotations import Quotations
    from ondevice.memory._reading import read_grammar, read_question
    from ondevice.memory._recall import GATE, Recalled, with_memories
    from ondevice.memory._transfer import export_salvaged
    from ondevice.memory._unlearn import unlearn

__all__ = [
    "FORGOTTEN",
    "GATE",
    "Blanked",
    "Cube",
    "Found",
    "History",
    "Hit",
    "Kind",
    "Link",
    "Memory",
    "MemoryStatistics",
    "Quotations",
    "Recalled",
    "Remembered",
    "Source",
    "Status",
    "Unread",
    "Version",
    "beginnings",
    "export_salvaged",
    "find_files",
    "measure_search",
    "parse_label",
    "passages",
    "read_file",
    "read_grammar",
    "read_question",
    "tells",
    "unlearn",
    "with_memories",
]

#: What reads texts takes 30 ms to import, a tenth of the app's start, which needs the records only.
_LATER = {
    "_asking": ("tells",),
    "_documents": ("find_files", "read_file"),
    "_measure": ("measure_search",),
    "_memory": ("Memory",),
    "_passages": ("beginnings", "passages"),
    "_quotations": ("Quotations",),
    "_reading": ("read_grammar", "read_question"),
    "_recall": ("GATE", "Recalled", "with_memories"),
    "_transfer": ("export_salvaged",),
    "_unlearn": ("unlearn",),
}


def __getattr__(name: str) -> object:
    for module, names in _LATER.items():
        if name in names:
            found: object = getattr(import_module(f"{__name__}.{module}"), name)
            globals()[name] = found
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
