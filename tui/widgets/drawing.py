"""Cheaper ways to draw rows than Textual's, which draws all of them anew for each new line."""

from __future__ import annotations

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


class BareRows(StylesCache):
    """For a widget without padding and border: its rows are its lines."""

    def render_widget(self, widget: Widget, crop: Region) -> list[Strip]:
        rows = [widget.render_line(y) for y in crop.line_range]
        return filtered(widget, rows, crop)


def filtered(widget: Widget, rows: list[Strip], crop: Region) -> list[Strip]:
    """Rows of a widget as they are drawn, the columns of ``crop``."""
    _, background = widget.background_colors
    for line_filter in widget.get_line_filters():
        rows = [row.apply_filter(line_filter, background) for row in rows]
    return [row.crop(*crop.column_span) for row in rows]
