"""Shows which weights are in RAM while the engine works, and lets the user change how many."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import psutil
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from ondevice import gguf
from ondevice.errors import OndeviceError
from ondevice.gguf import runnable
from ondevice.holding.cells import Cell
from ondevice.holding.way import Way
from ondevice.holding.ways import way_of
from ondevice.messages import Sizing, Statistics
from ondevice.ram import process
from ondevice.text import size
from tui.screens.modal import Modal
from tui.shared_engine import SharedEngine
from tui.widgets.dial import Dial
from tui.widgets.model_map import STYLES, WHOLE, ModelMap, legend
from tui.widgets.ram_bar import RamBar
from tui.widgets.status_bar import disk_rate
from tui.widgets.trend import Trend

_LOOK = 0.5  # seconds
_SHORT = 18  # rows of a window in which the dial is hidden, and why it has its size
_STEPS = 20  # of the dial, from the smallest budget to the largest
_ABSENT = {
    "streamed": "a part is read from the disk for each token",
    "experts": "experts are read from the disk when they are needed",
    "left out": "steps of the stack are left out",
}


class RamScreen(Modal[None]):
    """The panel over the chat, where there is no room for it beside that."""

    def __init__(self, panel: RamPanel) -> None:
        super().__init__()
        self._panel = panel

    def compose(self) -> ComposeResult:
        yield self._panel


class RamPanel(VerticalScroll):
    """What of the model is in RAM, and a dial for it; ``beside``: the chat, and not over it.

    ``rate`` gives the tokens a second of the reply under way, or None; ``last`` what the last
    reply took.
    """

    HELP = """\
## RAM

Each cell is a block of the model; full cells are in RAM. Left and right give the weights less or
more RAM, even during a reply; A lets ondevice decide again. In a wide window this stays open beside
the chat: Esc goes back to the prompt, and Ctrl+G in this panel closes it.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,minus", "turn(-1)", "Less RAM", id="ram.less"),
        Binding("right,plus", "turn(1)", "More RAM", id="ram.more"),
        Binding("a,A", "automatic", "Automatic", id="ram.automatic"),
        Binding("escape", "leave", show=False),
    ]

    def __init__(
        self,
        engine: SharedEngine,
        rate: Callable[[], float | None],
        last: Callable[[], Statistics | None],
        *,
        beside: bool,
    ) -> None:
        super().__init__(classes="-beside" if beside else "dialog")
        self._engine = engine
        self._rate = rate
        self._last = last
        self._beside = beside
        self._held: tuple[Path, Way] | None = None
        """The file that was shown last, and how it can be held: to read it takes long."""
        self._shown: Sizing | None = None
        self._cells: list[Cell] = []
        self._reading = False
        self._wish: int | None = None
        self._looked_at = time.monotonic()
        self._read = _Counter()
        self._used = _Counter()
        self._found = _Counter()
        self._map = ModelMap()
        self._legend = Static(id="legend")
        self._bar = RamBar()
        self._budget = Static(id="budget")
        self._dial = Dial()
        self._why = Static(id="why")
        self._words = Static(id="words")
        self._speed = Trend("speed", "tok/s")
        self._disk = Trend("disk", "MB/s")
        self._hits = Trend("found in RAM", "%", full=100)
        self.border_title = "RAM"
        closes = "Ctrl+G closes" if beside else "Esc closes"
        self.border_subtitle = f"← → size · A automatic · {closes}"

    def compose(self) -> ComposeResult:
        if self._beside:
            yield Static(Content.styled("RAM", "bold $text-accent"), id="title")
        yield self._budget
        yield self._dial
        yield self._why
        yield self._bar
        yield self._map
        yield self._legend
        yield self._speed
        yield self._disk
        yield self._hits
        yield self._words

    def on_mount(self) -> None:
        self.set_interval(_LOOK, self._update_figures)
        self._update_figures()
        self.screen.set_focus(self)

    def action_leave(self) -> None:
        """Go back to the chat."""
        if self._beside:
            self.screen.set_focus(self.screen.query_one("PromptInput"))
        else:
            self.screen.dismiss(None)

    def action_turn(self, direction: int) -> None:
        """Give the weights less or more RAM."""
        sizing = self._engine.sizing
        if sizing is None or sizing.most_bytes <= sizing.least_bytes:
            self.notify("This model's RAM use is fixed.")
            return
        step = (sizing.most_bytes - sizing.least_bytes) / _STEPS
        now = self._wish or sizing.budget or sizing.resident_bytes
        wish = round(now + direction * step)
        self._wish = max(sizing.least_bytes, min(wish, sizing.most_bytes))
        self._engine.resize(self._wish)
        self._show_dial(sizing)

    def action_automatic(self) -> None:
        """Leave the budget to the engine."""
        self._wish = None
        self._engine.resize(None)

    # ------------------------------------------------------------------ looking

    def _update_figures(self) -> None:
        sizing, loaded = self._engine.sizing, self._engine.loaded
        read = self._disk_speed()
        self._speed.add(self._rate())
        rate = read if self._rate() is not None else disk_rate(self._last())
        self._disk.add(None if rate is None else rate / 1e6)
        self._hits.add(self._hit_rate(sizing))
        if sizing is None or loaded is None:
            remote = "The model runs on a server, so there is no local RAM to show."
            where = remote if loaded else "No model is loaded."
            self._words.update(where)
            return
        if (reading := bool(read and self._rate() is not None)) != self._reading:
            self._reading = reading
            self._map.show(self._cells, reading=reading)
        if sizing != self._shown:
            self._shown = sizing
            self._bar.sizing = sizing
            self._show_dial(sizing)
            self._show_map(Path(loaded.path), sizing)

    @work(exclusive=True)
    async def _show_map(self, path: Path, sizing: Sizing) -> None:
        def find() -> tuple[Way, list[Cell]]:
            held = self._held
            with runnable.blamed(path):
                way = held[1] if held and held[0] == path else way_of(gguf.read(path))
                return way, way.cells(sizing)

        try:
            way, found = await asyncio.to_thread(find)
        except OndeviceError as error:
            self._map.update(Content(str(error)))
        else:
            self._held, self._cells = (path, way), found
            self._map.show(found, reading=self._reading)
            self._legend.update(legend(found, in_two_lines=self._beside))
            short = self.app.size.height < _SHORT
            why = f"{_why(sizing, self._wish or sizing.budget)} " if short else ""
            self._words.update(Content.assemble(why, _words(sizing, found, self._engine.pid)))

    def _show_dial(self, sizing: Sizing) -> None:
        wish = self._wish or sizing.budget
        who = "automatic" if wish is None else f"at most {size(wish)}"
        ends = f"{size(sizing.least_bytes)} … {size(sizing.most_bytes)}"
        if sizing.most_bytes <= sizing.least_bytes:
            ends = "fixed"
        line = Content.assemble("weights   ", (who, "bold"), (f"   {ends}", "dim"))
        if 0 < self._budget.size.width < line.cell_length:
            line = line[len("weights   ") :]
        self._budget.update(line)
        self._dial.value = wish or sizing.resident_bytes
        self._dial.least, self._dial.most = sizing.least_bytes, sizing.most_bytes
        self._dial.useful = max(sizing.least_bytes, min(sizing.most_bytes, sizing.room_bytes))
        self._dial.set_class(sizing.most_bytes <= sizing.least_bytes, "-fixed")
        self._why.update(_why(sizing, wish))

    def _disk_speed(self) -> float | None:
        """Bytes a second that the engine has read since the last look; None: not known."""
        try:
            counters = psutil.Process(self._engine.pid).io_counters() if self._engine.pid else None
        except (psutil.Error, AttributeError):  # macOS has none
            return None
        seconds, self._looked_at = time.monotonic() - self._looked_at, time.monotonic()
        return self._read.gained(counters.read_bytes) / seconds if counters else None

    def _hit_rate(self, sizing: Sizing | None) -> float | None:
        """Percent of the weights that a pass needs and that are in RAM already."""
        if sizing is None:
            return None
        used = self._used.gained(sizing.experts_used)
        found = self._found.gained(sizing.experts_found)
        if sizing.experts_used:
            return 100 * found / used if used else None
        return 100 * sizing.resident_bytes / (sizing.resident_bytes + sizing.absent_bytes)


class _Counter:
    """Something that only grows."""

    def __init__(self) -> None:
        self._last: int | None = None

    def gained(self, now: int) -> int:
        """How much it has grown since the last call."""
        before, self._last = self._last, now
        return max(0, now - before) if before is not None else 0


def _why(sizing: Sizing, wish: int | None) -> str:
    """Why it has the size that it has, and whether more would help."""
    if sizing.most_bytes <= sizing.least_bytes:
        return "The whole model is in RAM, so its RAM use is fixed."
    if not sizing.absent_bytes:
        return "The whole model is in RAM: more RAM would not make it faster."
    gains = ["faster"] if sizing.streamed_bytes else []
    if sizing.absent_bytes > sizing.streamed_bytes:
        gains.append("more exact")
    gain = ", then ".join(gains)
    room = min(sizing.room_bytes, sizing.most_bytes)
    if wish is not None and wish < room:
        return f"You set a limit of {size(wish)}. More RAM makes it {gain}, up to {size(room)}."
    if sizing.room_bytes < sizing.most_bytes:
        others = "Other programs and the drafter" if sizing.drafter_bytes else "Other programs"
        return (
            f"{others} leave room for {size(sizing.room_bytes)} of weights. A "
            "higher limit would change nothing."
        )
    return (
        f"More RAM makes it {gain}, up to {size(sizing.most_bytes)}, where the whole "
        "model is in RAM."
    )


def _words(sizing: Sizing, cells: Sequence[Cell], pid: int | None) -> Content:
    """What bar and map show, in the colours of the map."""
    blocks = [cell for cell in cells if cell.block is not None]
    absent = sorted({cell.absent for cell in blocks if cell.share < 1})
    whole = sum(cell.share == 1 for cell in blocks)
    parts: list[str | tuple[str, str]] = [
        (f"{whole} of {len(blocks)} blocks are fully in RAM", WHOLE)
    ]
    for number, kind in enumerate(absent):
        parts += [" and " if number else "; of the others, ", (_ABSENT[kind], STYLES[kind])]
    parts.append(". ")
    if sizing.total_blocks:
        parts.append(f"Steps of the stack: {sizing.n_blocks} of {sizing.total_blocks}. ")
    source = sizing.limit_source
    if "cgroup" in source:
        source = "the limit of this container"
    parts.append(
        f"Weights in RAM: {size(sizing.resident_bytes)}, on disk: "
        f"{size(sizing.absent_bytes)}. There is room for {size(sizing.room_bytes)} of "
        f"weights, of {size(sizing.limit_bytes)} ({source})."
    )
    if sizing.predicts:
        parts.append(" The model's own prediction block drafts.")
    if sizing.drafter_bytes:
        parts.append(f" A smaller model that drafts has {size(sizing.drafter_bytes)} in RAM.")
    if pid and (used := process.of_process(pid)) and used.page_cache:
        parts.append(
            f" The engine uses {size(used.resident + used.page_cache)} in total; "
            f"{size(used.page_cache)} of that is file cache, which the system frees when "
            "other programs need it."
        )
    return Content.assemble(*parts)
