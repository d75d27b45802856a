"""A figure and how it went lately, in one line."""

from __future__ import annotations

from collections import deque

from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.widgets import Sparkline, Static

_KEPT = 120  # values


class Trend(Horizontal):
    """A name, the last value with its ``unit``, and a sparkline of those before."""

    def __init__(self, name: str, unit: str) -> None:
        super().__init__()
        self._title = name
        self._unit = unit
        self._values: deque[float] = deque(maxlen=_KEPT)
        self._text = Static()
        self._line = Sparkline()

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
            self._values.append(value)
            self._line.data = list(self._values)
