"""Draws what an app shows over some time as one SVG that moves: each line as long as it stands."""

from __future__ import annotations

import time
from collections.abc import Iterator
from html import escape
from pathlib import Path

from rich.color import Color
from rich.segment import Segment
from rich.style import Style
from textual.app import App
from textual.strip import Strip

_WIDE, _HIGH, _FONT = 10.0, 22, 16.6  # pixels of a cell, and of the font that fits it
_FRAME = f'font-family="Fira Code,DejaVu Sans Mono,Menlo,Consolas,monospace" font-size="{_FONT}"'


class Recording:
    """Looks at ``app`` at each :meth:`look`."""

    def __init__(self, app: App[None]) -> None:
        self._app = app
        self._began = time.monotonic()
        self._lines: list[list[tuple[float, str]]] = []
        """For each row what it shows, and from what second on."""

    def look(self) -> None:
        """Draw the screen as it is now."""
        at = time.monotonic() - self._began
        for row, strip in enumerate(self._app.screen._compositor.render_strips()):
            if row == len(self._lines):
                self._lines.append([])
            drawn = "".join(self._draw(strip, row))
            if not self._lines[row] or self._lines[row][-1][1] != drawn:
                self._lines[row].append((at if self._lines[row] else 0.0, drawn))

    def write(self, path: Path) -> None:
        """Write what was seen; it begins anew at its end."""
        length = time.monotonic() - self._began
        width, height = self._app.size.width * _WIDE, len(self._lines) * _HIGH
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height}" {_FRAME}>',
            f'<rect width="100%" height="100%" fill="{self._app.theme_variables["background"]}"/>',
        ]
        for row in self._lines:
            for (start, drawn), (end, _) in zip(row, [*row[1:], (length, "")], strict=True):
                parts.append(f"<g>{_visible(start / length, end / length, length)}{drawn}</g>")
        path.write_text("\n".join([*parts, "</svg>\n"]), encoding="utf-8")

    def _draw(self, strip: Strip, row: int) -> Iterator[str]:
        x = 0
        for segment in Segment.simplify(strip):
            style, cells = segment.style or Style(), segment.cell_length
            ink, paper = (_hex(style.color), _hex(style.bgcolor))
            if style.reverse:
                ink, paper = paper or "#121212", ink or "#e0e0e0"
            if paper:
                yield (
                    f'<rect x="{x * _WIDE:g}" y="{row * _HIGH}" width="{cells * _WIDE:g}" '
                    f'height="{_HIGH}" fill="{paper}" shape-rendering="crispEdges"/>'
                )
            if text := segment.text.strip():
                before = len(segment.text) - len(segment.text.lstrip())
                cells = Segment(text).cell_length
                bold = ' font-weight="bold"' if style.bold else ""
                slant = ' font-style="italic"' if style.italic else ""
                kept = escape(text).replace(" ", "\u00a0")
                yield (
                    f'<text x="{(x + before) * _WIDE:g}" y="{(row + 0.76) * _HIGH:g}" '
                    f'fill="{ink or "#e0e0e0"}" textLength="{cells * _WIDE:g}"{bold}{slant}>'
                    f"{kept}</text>"
                )
            x += segment.cell_length


def _hex(color: Color | None) -> str:
    return "" if color is None or color.is_default else color.get_truecolor().hex


def _visible(start: float, end: float, length: float) -> str:
    if start == 0 and end == 1:
        return ""
    times, values = ["0"], ["visible" if start == 0 else "hidden"]
    if start > 0:
        times, values = [*times, f"{start:.4f}"], [*values, "visible"]
    if end < 1:
        times, values = [*times, f"{end:.4f}"], [*values, "hidden"]
    return (
        f'<animate attributeName="visibility" dur="{length:.1f}s" repeatCount="indefinite" '
        f'calcMode="discrete" keyTimes="{";".join(times)}" values="{";".join(values)}"/>'
    )
