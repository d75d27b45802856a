"""How a model stands in the list: one line in columns; and what there is no room for in a line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size
from textual.content import Content

from ondevice.gguf.quality import params_words
from ondevice.planning.fit import loss_words, speed_figure, speed_words
from ondevice.text import printable, size
from tui.model_entries import Entry
from tui.model_work import ModelJob

_BAR = 12  # cells
_LEAST_NAME, _MOST_NAME = 18, 44  # cells
_MARK = 2  # cells before a name
_COLUMNS = {"Size": 8, "Speed": 12, "RAM": 8, "Quality": 8}  # to the right; then the state
_STATE = 16
_DROPPED = ("State", "RAM", "Size")  # where there is no room, in this order
_DOING = {
    "calibrating": "packing 1/4, calibrating",
    "encoding": "packing 2/4, splitting weights",
    "measuring": "packing 3/4, measuring",
    "writing": "packing 4/4, writing",
}


@dataclass(frozen=True)
class ModelMarks:
    """What is special about an entry now."""

    in_use: bool = False
    recommended: bool = False
    job: ModelJob | None = None


class Lines:
    """Lines of ``width`` cells; ``linear``: nothing is drawn, for screen readers."""

    def __init__(self, width: int, linear: bool) -> None:
        self._width = width
        self._linear = linear
        shown = [*_COLUMNS, "State"]
        for name in _DROPPED:
            if width - self._taken(shown) >= _LEAST_NAME:
                break
            shown.remove(name)
        self._shown = shown
        self._name = max(1, min(width - self._taken(shown), _MOST_NAME))

    @staticmethod
    def _taken(shown: list[str]) -> int:
        return _MARK + sum(_COLUMNS.get(name, _STATE) for name in shown)

    def heads(self) -> Content:
        """The names of the columns."""
        return Content(self._row("Name", {name: name for name in self._shown})).stylize("dim")

    def line(self, entry: Entry, marks: ModelMarks) -> Content:
        if entry.is_heading:
            return Content(printable(entry.title)).stylize("bold $text-accent")
        if entry.folder:
            return Content(f"+ {printable(entry.title)}")
        mark = "● " if marks.in_use else "★ " if marks.recommended else "  "
        if self._linear:
            mark = "  "
        if marks.job and not marks.job.ended:
            name = set_cell_size(mark + printable(entry.title), _MARK + self._name)
            return Content.assemble(name, " ", self._progress(marks.job))
        row = self._row(printable(entry.title), dict(_figures(entry, marks)), mark)
        line = Content(row)
        if marks.in_use:
            return line.stylize("$success")
        usable = entry.runs and not (entry.fit and entry.fit.is_base)
        return line if usable else line.stylize("dim")

    def _row(self, name: str, figures: dict[str, str], mark: str = "  ") -> str:
        if cell_len(name) > self._name:
            name = set_cell_size(name, self._name - 1) + "…"
        cells = [mark + set_cell_size(name, self._name)]
        for column in self._shown:
            figure = figures.get(column, "")
            if column == "State":
                cells.append(f"  {figure}")
            else:
                cells.append(" " * max(1, _COLUMNS[column] - cell_len(figure)) + figure)
        return "".join(cells).rstrip()

    def _progress(self, job: ModelJob) -> Content:
        if job.cancel.is_set():
            return Content("stopping …")
        doing = _DOING.get(job.doing, "")
        if job.done is None:
            return Content(f"{doing or 'starting'} …")
        full = round(job.done * _BAR)
        drawn = "" if self._linear else "━" * full + "╌" * (_BAR - full) + " "
        parts = [f"{job.done:.0%}{f' of {size(job.total_bytes)}' if job.total_bytes else ''}"]
        if job.bytes_per_second:
            parts.append(f"{size(job.bytes_per_second)}/s")
        if job.seconds_left is not None:
            parts.append(f"{job.seconds_left // 60:.0f}:{job.seconds_left % 60:02.0f} left")
        if doing:
            parts.append(doing)
        return Content.assemble((drawn, "$success"), " · ".join(parts))


def _figures(entry: Entry, marks: ModelMarks) -> Iterator[tuple[str, str]]:
    yield "Size", size(entry.size_bytes) if entry.size_bytes else ""
    how = entry.fit
    if how and how.tokens_per_second:
        yield "Speed", speed(entry)
        yield "RAM", size(how.peak_bytes)
        yield "Quality", f"≈{params_words(how.effective_params)}"
    elif how:
        yield "Speed", "cannot run"
    yield "State", state(entry, marks)


def speed(entry: Entry) -> str:
    """In tokens a second; with a ``~`` if it is estimated."""
    return speed_figure(entry.fit) if entry.fit else ""


def state(entry: Entry, marks: ModelMarks) -> str:
    """In two words or three."""
    if marks.job and marks.job.error:
        return "stopped"
    if marks.in_use:
        return "in use"
    if entry.model is None:
        return f"paused, {size(entry.kept_bytes)}" if entry.kept_bytes else "not downloaded"
    if entry.model.missing:
        return "incomplete"
    if not entry.runs:
        return "cannot run"
    if entry.fit and entry.fit.is_base:
        return "base model"
    place = entry.model.place
    if place in ("file", "your folder", "Hugging Face"):
        return place
    return "on disk" if place == "ondevice" else f"in {place}"


def about(entry: Entry, marks: ModelMarks, *, with_title: bool = True) -> Content:
    """What can be said of it, a line for each thing."""
    title = [Content(printable(entry.title)).stylize("bold $text")] if with_title else []
    return Content("\n").join(
        [*title, *(Content(printable(line)) for line in _about(entry, marks))]
    )


def _about(entry: Entry, marks: ModelMarks) -> Iterator[str]:
    if marks.job and marks.job.error:
        yield f"Failed: {' '.join(marks.job.error.split())}"
    special = [
        words
        for words, holds in (
            ("In use.", marks.in_use),
            ("Recommended for this machine.", marks.recommended),
            (
                "A base model: it continues a text and was not made to chat.",
                entry.fit and entry.fit.is_base,
            ),
        )
        if holds
    ]
    if special:
        yield " ".join(special)
    recipe, how = entry.recipe, entry.fit
    if recipe:
        yield recipe.about()
    if how and how.tokens_per_second:
        yield f"{speed(entry)}, {speed_words(how.speed_from, how.speed_at)}; {how.how}."
    elif how:
        yield f"Cannot run: {how.how}"
    if recipe and not entry.model:
        yield (
            f"{recipe.parameters} parameters, {recipe.quantization}, context {recipe.context} "
            f"tokens, {recipe.license}, from {recipe.sources[0].origin}."
        )
    if how and how.tokens_per_second:
        yield (
            f"About as good as an unquantized {params_words(how.effective_params)} model; "
            f"quantization costs {loss_words(how.quantization_loss)}."
        )
    if entry.model:
        yield str(entry.model.path)
        if entry.model.aliases:
            yield f"Also called {', '.join(entry.model.aliases)}."
        if entry.model.not_used:
            yield f"Not used: {', '.join(entry.model.not_used)} of {entry.model.place}."
        if entry.kept_bytes:
            yield "Packing was paused. Press F2 to resume."
        if entry.license:
            yield f"Licence: {entry.license}."
