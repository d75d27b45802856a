"""Measures search, with numpy and the records of it loaded only then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ondevice.memory._bench import Report


def measure_search(file: Path, progress: Callable[[str], None] = lambda line: None) -> Report:
    """Search for each question of ``file`` in the turns of its own conversation.

    Raises :class:`FileError` when the file has another format.
    """
    from ondevice.memory._bench import run  # noqa: PLC0415 - numpy comes with it

    return run(file, progress)
