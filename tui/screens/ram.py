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

from ondevice.engine.messages import Sizing
from ondevice.errors import OndeviceError
from ondevice.ram.residency import Cell, cells
from ondevice.weights import gguf, runnable
from ondevice.weights.gguf import GGUFFile
from tui.screens.modal import Modal
from tui.shared_engine import SharedEngine
from tui.widgets.model_map import STYLES, WHOLE, ModelMap
from tui.widgets.ram_bar import RamBar
from tui.widgets.trend import Trend

_LOOK = 0.5  # seconds
_STEPS = 20  # of the dial, from the smallest budget to the largest
_ABSENT = {
    "streamed": "a part is read from the disk for each token",
    "experts": "experts are read when they are needed",
    "left out": "steps of the stack are left out",
}


class RamScreen(Modal[None]):
    """``rate`` gives the tokens a second of the reply under way, or None."""

    HELP = """\
## RAM

Each cell is a block of the model: full ones are in RAM. Left and right give the weights less and
more RAM, also while a reply is being written; A leaves it to ondevice again.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,minus", "turn(-1)", "Less RAM", id="ram.less"),
        Binding("right,plus", "turn(1)", "More RAM", id="ram.more"),
        Binding("a,A", "automatic", "Automatic", id="ram.automatic"),
    ]

    def __init__(self, engine: SharedEngine, rate: Callable[[], float | None]) -> None:
        super().__init__()
        self._engine = engine
        self._rate = rate
        self._file: GGUFFile | None = None
        self._shown: Sizing | None = None
        self._wish: int | None = None
        self._looked_at = time.monotonic()
        self._read = _Counter()
        self._used = _Counter()
        self._found = _Counter()
        self._map = ModelMap()
        self._bar = RamBar()
        self._dial = Static(id="dial")
        self._words = Static(id="words")
        self._speed = Trend("speed", "tok/s")
        self._disk = Trend("disk", "MB/s")
        self._hits = Trend("found in RAM", "%", full=100)

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog", can_focus=False) as dialog:
            dialog.border_title = "RAM"
            dialog.border_subtitle = "← → budget · A automatic · Esc closes"
            yield self._dial
            yield self._bar
            yield self._map
            yield self._speed
            yield self._disk
            yield self._hits
            yield self._words

    def on_mount(self) -> None:
        self.set_interval(_LOOK, self._look)
        self._look()

    def action_turn(self, direction: int) -> None:
        """Give the weights less or more RAM."""
        sizing = self._engine.sizing
        if sizing is None or sizing.most_bytes <= sizing.least_bytes:
            self.notify("Its RAM cannot be changed.")
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

    def _look(self) -> None:
        sizing, loaded = self._engine.sizing, self._engine.loaded
        self._speed.add(self._rate())
        self._disk.add(self._disk_speed())
        self._hits.add(self._hit_rate(sizing))
        if sizing is None or loaded is None:
            where = "The model is not on this machine." if loaded else "No model is loaded."
            self._words.update(where)
        elif sizing != self._shown:
            self._shown = sizing
            self._bar.sizing = sizing
            self._show_dial(sizing)
            self._show_map(Path(loaded.path), sizing)

    @work(exclusive=True)
    async def _show_map(self, path: Path, sizing: Sizing) -> None:
        def find() -> tuple[GGUFFile, list[Cell]]:
            same = self._file and self._file.path == path
            file = self._file if self._file and same else gguf.read(path)
            with runnable.blamed(path):
                return file, cells(file, sizing)

        try:
            self._file, found = await asyncio.to_thread(find)
        except OndeviceError as error:
            self._map.update(Content(str(error)))
        else:
            self._map.show(found)
            self._words.update(_words(sizing, found))

    def _show_dial(self, sizing: Sizing) -> None:
        wish = self._wish or sizing.budget
        who = "automatic" if wish is None else f"at most {_mb(wish)} for weights"
        ends = f"{_mb(sizing.least_bytes)} … {_mb(sizing.most_bytes)}"
        if sizing.most_bytes <= sizing.least_bytes:
            ends = "fixed: all of it is in RAM, arranged for speed"
        self._dial.update(Content.assemble("budget         ", (who, "bold"), (f"   {ends}", "dim")))

    def _disk_speed(self) -> float | None:
        """MB/s that the engine has read since the last look; None where that is not told."""
        try:
            counters = psutil.Process(self._engine.pid).io_counters() if self._engine.pid else None
        except (psutil.Error, AttributeError):  # macOS has none
            return None
        seconds, self._looked_at = time.monotonic() - self._looked_at, time.monotonic()
        return self._read.gained(counters.read_bytes) / seconds / 1e6 if counters else None

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


def _words(sizing: Sizing, cells: Sequence[Cell]) -> Content:
    """What bar and map show, in the colours of the map."""
    blocks = [cell for cell in cells if cell.block is not None]
    absent = sorted({cell.absent for cell in blocks if cell.share < 1})
    whole = sum(cell.share == 1 for cell in blocks)
    parts: list[str | tuple[str, str]] = [
        (f"{whole} of {len(blocks)} blocks are whole in RAM", WHOLE)
    ]
    for number, kind in enumerate(absent):
        parts += [" and " if number else "; of the others, ", (_ABSENT[kind], STYLES[kind])]
    parts.append(". ")
    if sizing.total_blocks:
        parts.append(f"Steps of the stack: {sizing.n_blocks} of {sizing.total_blocks}. ")
    parts.append(
        f"Weights in RAM: {_mb(sizing.resident_bytes)}, not in RAM: {_mb(sizing.absent_bytes)}. "
        f"There is room for {_mb(sizing.room_bytes)} of weights, of {_mb(sizing.limit_bytes)} "
        f"({sizing.limit_source})."
    )
    return Content.assemble(*parts)


def _mb(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 10e9 else f"{n_bytes / 1e6:.0f} MB"
