"""A private memory of what the user told: found again, corrected, and forgotten for good."""

from ondevice.memory._documents import read_file
from ondevice.memory._memory import History, Memory, Remembered, Statistics, parse_label
from ondevice.memory._recall import Recalled, quotation
from ondevice.memory._records import Cube, Found, Hit, Link, Source, Version

__all__ = [
    "Cube",
    "Found",
    "History",
    "Hit",
    "Link",
    "Memory",
    "Recalled",
    "Remembered",
    "Source",
    "Statistics",
    "Version",
    "parse_label",
    "quotation",
    "read_file",
]
