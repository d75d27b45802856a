"""A figure and how it went lately, in one line."""

from __future__ import annotations

from collections import deque

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

_KEPT = 200  # values
_BARS = "▁▂▃▄▅▆▇█"


class Trend(Horizontal):
    """A name, the last value with its ``unit``, and those before as bars.

    The highest bar stands for ``full``, or without that for the highest value.
    """

    def __init__(self, name: str, unit: str, full: float | None = None) -> None:
        super().__init__()
        self._title = name
        self._unit = unit
        self._text = Static()
        self._line = _Line(full)

    def compose(self) -> ComposeResult:
        yield self._text
        yield self._line

    def on_mount(self) -> None:
        self.add(None)

    def add(self, value: float | None) -> None:
        """Another value; None: there is none now."""
        said = "–" if value is None else f"{value:.1f}" if value < 10 else f"{value:.0f}"
        self._text.update(f"{self._title:<12} {said:>5} {self._unit}")
        if value is not None:
            self._line.add(value)


class _Line(Widget):
    """A cell for each value, the latest at the right."""

    def __init__(self, full: float | None) -> None:
        super().__init__()
        self._full = full
        self._values: deque[float] = deque(maxlen=_KEPT)

    def add(self, value: float) -> None:
        self._values.append(value)
        self.refresh()

    def render(self) -> Content:
        width = self.size.width
        shown = list(self._values)[-width:]
        full = self._full or max(shown, default=0) or 1
        top = len(_BARS) - 1
        bars = "".join(_BARS[round(top * min(value / full, 1))] for value in shown)
        return Content.assemble((bars.rjust(width), "$primary"))
