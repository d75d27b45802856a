"""A list that says in text which of its lines is pointed at, where a screen reader reads it."""

from __future__ import annotations

from rich.segment import Segment
from textual.strip import Strip
from textual.widgets import OptionList

_MARK = "> "


class PointingList(OptionList):
    """With the app's class ``-linear`` a mark stands before the line; else its colours tell."""

    @property
    def gutter_width(self) -> int:
        """Cells before its lines."""
        return len(_MARK) if self.app.has_class("-linear") else 0

    def _get_left_gutter_width(self) -> int:
        return self.gutter_width

    def render_line(self, y: int) -> Strip:
        strip = super().render_line(y)
        if not (gutter := self.gutter_width):
            return strip
        line = self.scroll_offset.y + y
        place, nth = self._lines[line] if line < len(self._lines) else (None, 0)
        mark = _MARK if place is not None and (place, nth) == (self.highlighted, 0) else ""
        style = self.get_visual_style("option-list--option").rich_style
        return Strip([Segment(mark.ljust(gutter), style), *strip], strip.cell_length + gutter)
