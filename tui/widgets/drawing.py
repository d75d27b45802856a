"""Cheaper ways to draw rows than Textual's, which draws all of them anew for each new line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from textual._styles_cache import StylesCache
from textual.geometry import Region
from textual.strip import Strip

if TYPE_CHECKING:
    from textual.widget import Widget
else:
    Widget = object  # as the first base it would take the place of the other one's styles


class EvenRows(Widget):
    """One whose rows all look the same behind its children: no border or title above or below."""

    def render_lines(self, crop: Region) -> list[Strip]:
        return super().render_lines(Region(crop.x, crop.y, crop.width, 1)) * crop.height


class OwnRows(StylesCache):
    """For a widget that has its whole rows itself: ``rows`` gives those of a part of it."""

    def __init__(self, rows: Callable[[Region], list[Strip]]) -> None:
        super().__init__()
        self._rows_of = rows

    def render_widget(self, widget: Widget, crop: Region) -> list[Strip]:
        rows = self._rows_of(crop)
        _, background = widget.background_colors
        for line_filter in widget.get_line_filters():
            rows = [row.apply_filter(line_filter, background) for row in rows]
        return [row.crop(*crop.column_span) for row in rows]
