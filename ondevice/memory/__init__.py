"""A private memory of what the user told: found again, corrected, and forgotten for good."""

from ondevice.memory._asking import tells
from ondevice.memory._documents import find_files, read_file
from ondevice.memory._measure import measure_search
from ondevice.memory._memory import Memory
from ondevice.memory._passages import beginnings, passages
from ondevice.memory._quotations import FORGOTTEN
from ondevice.memory._reading import read_grammar, read_question
from ondevice.memory._recall import GATE, Recalled, with_memories
from ondevice.memory._records import (
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
