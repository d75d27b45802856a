"""Textual's command palette: all that can be done on the screen, and all themes."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.command import CommandList, CommandPalette

from tui.widgets.pointing_list import PointingList


class _PaletteList(CommandList, PointingList, can_focus=False):
    """Looks like Textual's own."""


class Palette(CommandPalette):
    """Its list has the keys and the mark of all lists."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("home", "command_list('first')", show=False, priority=True),
        Binding("end", "command_list('last')", show=False, priority=True),
    ]

    def compose(self) -> ComposeResult:
        for part in super().compose():
            yield _PaletteList() if isinstance(part, CommandList) else part
