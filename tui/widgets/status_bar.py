"""The line at the bottom: the model, what it is doing, how fast, and what it takes."""

from __future__ import annotations

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from ondevice.ram.process import ProcessRam
from ondevice.terminal import printable

_MODEL_WIDTH = 28  # cells


class StatusBar(Widget):
    """What does not fit the width is left out, the least important first."""

    model: reactive[str] = reactive("no model")
    loaded: reactive[float | None] = reactive(None)
    """How much of a model is loaded, 0 … 1; None: none is being loaded."""
    doing: reactive[str] = reactive("")
    per_second: reactive[float | None] = reactive(None)
    """Tokens."""
    estimated: reactive[bool] = reactive(False)
    """Whether ``per_second`` is a guess while the reply is under way."""
    context: reactive[tuple[int, int] | None] = reactive(None)
    """Tokens in use, and all there is room for."""
    ram: reactive[ProcessRam | None] = reactive(None)
    """Of the engine's process."""

    def render(self) -> Content:
        loading = self.loaded is not None
        doing = f"loading {self.loaded:.0%}" if loading else self.doing
        left = Content.assemble(
            Content(printable(self.model)).truncate(_MODEL_WIDTH, ellipsis=True).stylize("bold"),
            f"  {doing}" if doing else "",
        )
        figures = []
        if self.per_second is not None and not loading:
            figures.append(f"{'~' if self.estimated else ''}{self.per_second:.1f} tok/s")
        if self.context is not None and not loading:
            used, total = self.context
            figures.append(f"{used}/{total} context")
        if self.ram is not None:
            resident, cache = (round(n / 1e6) for n in (self.ram.resident, self.ram.page_cache))
            figures.append(f"RAM {resident} MB + {cache} MB file cache")
        room = self.size.width - left.cell_length
        while figures and sum(len(f) + 3 for f in figures) > room:
            figures.pop()
        right = Content.from_text(" · ".join(figures), markup=False)
        gap = self.size.width - left.cell_length - right.cell_length
        return Content.assemble(left, " " * max(gap, 1), (right.plain, "dim"))
