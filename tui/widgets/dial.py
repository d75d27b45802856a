"""How much RAM weights may take, as a knob on a line from the least to the most."""

from __future__ import annotations

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget


class Dial(Widget):
    """Behind the mark, ``useful``, the line is dotted: more gives nothing there."""

    value: reactive[int] = reactive(0)
    least: reactive[int] = reactive(0)
    most: reactive[int] = reactive(0)
    useful: reactive[int] = reactive(0)

    def render(self) -> Content:
        width = self.content_size.width
        if self.most <= self.least or width < 1:
            return Content()
        knob, mark = self._cell(self.value), self._cell(self.useful)
        line = ["━" if n <= knob else "─" if n <= mark else "╌" for n in range(width)]
        if mark < width - 1:
            line[mark] = "┃"
        line[knob] = "●"
        return Content.assemble(
            ("".join(line[: knob + 1]), "$primary"), ("".join(line[knob + 1 :]), "$text-muted")
        )

    def _cell(self, n_bytes: int) -> int:
        share = (n_bytes - self.least) / (self.most - self.least)
        return round(min(max(share, 0), 1) * (self.content_size.width - 1))
