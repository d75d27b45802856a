"""The line at the bottom: the model, what it is doing, how fast, and what it takes."""

from __future__ import annotations

from rich.cells import cell_len
from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from ondevice.messages import Statistics
from ondevice.ram.process import ProcessRam
from ondevice.text import printable, size

_NAME = 12  # cells that the model's name has at least
_WIDE = 76  # cells, from which on there is room for a sentence
_SEPARATOR = " · "


class StatusBar(Widget):
    """Where it is narrow the model's name is cut, then figures are left out."""

    model: reactive[str] = reactive("no model")
    loaded: reactive[float | None] = reactive(None)
    """How much of a model is loaded, 0 … 1; None: none is being loaded."""
    private: reactive[bool] = reactive(False)
    """Whether the chat is in RAM only."""
    paused: reactive[bool] = reactive(False)
    """Whether the chat is kept out of the memory, but not of the store."""
    doing: reactive[str] = reactive("")
    estimate: reactive[float | None] = reactive(None)
    """Tokens a second of the reply under way; None: none is, or it has only begun."""
    usual: reactive[float | None] = reactive(None)
    """Tokens a second without the other programs that slow it down; 0: not known; None: none do."""
    n_ctx: reactive[int | None] = reactive(None)
    """Tokens that there is room for; None: no model is loaded, or a server does not tell."""
    context_tokens: reactive[int | None] = reactive(0)
    """Tokens of these that the conversation takes; None: not known yet."""
    statistics: reactive[Statistics | None] = reactive(None)
    """Of the last reply of this model."""
    ram: reactive[ProcessRam | None] = reactive(None)
    """Of the engine's process."""

    def render(self) -> Content:
        doing = f"  {self._doing}  "
        figures = self._figures()
        while figures and self.size.width - cell_len(doing + _SEPARATOR.join(figures)) < _NAME:
            figures.pop()
        right = _SEPARATOR.join(figures)
        room = self.size.width - cell_len(doing + right)
        model = Content(printable(self.model)).truncate(max(room, _NAME), ellipsis=True)
        gap = " " * max(room - model.cell_length, 0)
        return Content.assemble(model.stylize("bold"), doing, gap, (right, "dim"))

    @property
    def _doing(self) -> str:
        return self.doing if self.loaded is None else f"loading {self.loaded:.0%}"

    def _figures(self) -> list[str]:
        """The most important first."""
        figures = ["private"] if self.private else ["memory paused"] if self.paused else []
        if self.loaded is None and self.n_ctx is not None:
            last = self.statistics
            if self.estimate is not None:
                figures.append(self._speed(self.estimate, "~"))
            elif self.doing and self.usual is not None:  # while the prompt is read
                figures.append(self._slowed)
            elif last and last.generated_per_second:
                figures.append(self._speed(last.generated_per_second))
            used = "?" if self.context_tokens is None else self.context_tokens
            figures.append(f"ctx {used}/{self.n_ctx}")
            if last and (disk := last.streaming) and (rate := disk_rate(last)):
                waited = disk.wait_ms / (last.prompt_ms + last.generated_ms)
                figures.append(f"disk {size(rate)}/s, waited {waited:.0%}")
        if self.ram is not None:
            # As task managers count; /ram says what of it is only cache.
            used = self.ram.resident + self.ram.page_cache
            figures.append(f"RAM {size(used)}")
        return figures

    def _speed(self, per_second: float, about: str = "") -> str:
        """With what slows it down, if anything does."""
        if self.usual is None:
            return about + _rate(per_second)
        of = f" of {self.usual:.{1 if self.usual < 10 else 0}f}" if self.usual else ""
        return f"{self._slowed}: {per_second:.1f}{of} tok/s"

    @property
    def _slowed(self) -> str:
        wide = self.size.width >= _WIDE
        return "other programs use the processor" if wide else "busy machine"


def _rate(per_second: float) -> str:
    return f"{per_second:.{1 if per_second < 100 else 0}f} tok/s"


def disk_rate(last: Statistics | None) -> float | None:
    """Bytes a second that were read on average for a reply; None: nothing was."""
    if last is None or last.streaming is None or not last.streaming.bytes_read:
        return None
    milliseconds = last.prompt_ms + last.generated_ms
    return last.streaming.bytes_read * 1e3 / milliseconds if milliseconds > 0 else None
