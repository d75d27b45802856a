"""A figure and how it went lately: its name, what it is now, its highest value, and bars."""

from __future__ import annotations

from collections import deque

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

_KEPT = 200  # values
_BARS = " ▁▂▃▄▅▆▇█"


class Trend(Horizontal):
    """A name, the last value with its ``unit``, the highest one, and all lately as bars.

    The highest bar stands for ``full``, or without that for the highest value.
    """

    def __init__(self, name: str, unit: str, full: float | None = None) -> None:
        super().__init__()
        self._title = name
        self._unit = unit
        self._text = Static()
        self._line = _Bars(full)

    def compose(self) -> ComposeResult:
        yield self._text
        yield self._line

    def on_mount(self) -> None:
        self.add(None)

    def add(self, value: float | None) -> None:
        """Another value; None: there is none now."""
        if value is not None:
            self._line.add(value)
        most = self._line.most
        said = "–" if value is None else _figure(value)
        highest = "" if most is None else f"{'highest':<12} {_figure(most):>5}"
        self._text.update(
            Content.assemble(f"{self._title:<12} {said:>5} {self._unit}\n", (highest, "dim"))
        )


class _Bars(Widget):
    """A cell for each value, the latest at the right."""

    def __init__(self, full: float | None) -> None:
        super().__init__()
        self._full = full
        self._values: deque[float] = deque(maxlen=_KEPT)

    @property
    def most(self) -> float | None:
        """The highest of those that are kept."""
        return max(self._values, default=None)

    def add(self, value: float) -> None:
        self._values.append(value)
        self.refresh()

    def render(self) -> Content:
        width, height = self.content_size
        shown = list(self._values)[-width:] if width else []
        full = self._full or max(shown, default=0) or 1
        steps = len(_BARS) - 1
        # Whatever there is of something is to be seen.
        tops = [max(round(height * steps * min(value / full, 1)), value >= 0) for value in shown]
        rows = [
            "".join(_BARS[min(max(top - row * steps, 0), steps)] for top in tops).rjust(width)
            for row in reversed(range(height))
        ]
        return Content.assemble(("\n".join(rows), "$primary"))


def _figure(value: float) -> str:
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"
