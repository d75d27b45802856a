"""Shows which models there are and how they would run here; fetches, packs, removes and picks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widgets import Label, OptionList, Static

from ondevice import fit, models
from ondevice.config import Settings
from ondevice.errors import OndeviceError
from ondevice.fit import Fit
from ondevice.models import InstalledModel, Recipe
from ondevice.ram import process, speeds
from ondevice.terminal import printable
from tui.background import in_thread
from tui.model_work import Job, ModelWork
from tui.screens.dialogs import ChoiceScreen
from tui.screens.finder import Finder
from tui.shared_engine import SharedEngine

_LOOK = 0.2  # seconds
_BAR = 12  # cells
_DOING = {
    "fetching": "fetching",
    "calibrating": "packing 1/4, watching it read",
    "encoding": "packing 2/4, splitting weights",
    "measuring": "packing 3/4, measuring",
    "writing": "packing 4/4, writing",
}


@dataclass(frozen=True)
class Entry:
    """A model of the list: on disk, or in the catalogue."""

    name: str
    title: str
    size_bytes: int
    license: str
    model: InstalledModel | None = None
    recipe: Recipe | None = None
    kept_bytes: int = 0
    """Of a download that was stopped."""
    fit: Fit | None = None
    """None: not worked out yet."""


class ModelsScreen(Finder[Entry, InstalledModel | None]):
    """Dismissed with the model to load, or None. The one called ``wanted`` is pointed at."""

    HELP = """\
## Models

Type to search. Enter loads the model, or fetches it first. What is fetched or packed goes on when
you close this screen. Packing makes a stack: one file that fits any amount of RAM.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "pause", "Pause", id="models.pause"),
        Binding("f3", "pack", "Pack", id="models.pack"),
        Binding("f5", "measure", "Measure", id="models.measure"),
        Binding("f8", "remove", "Remove", id="models.remove"),
    ]

    def __init__(
        self,
        engine: SharedEngine,
        model_work: ModelWork,
        settings: Settings,
        wanted: str,
        hint: str = "",
    ) -> None:
        keys = "Enter load · F2 pause · F3 pack · F5 measure · F8 remove"
        super().__init__("Models", keys, "")
        self._engine = engine
        self._work = model_work
        self._settings = settings
        self._wanted = wanted
        self._said = hint
        self._hint = Label(Content(printable(hint)), id="hint")
        self._hint.display = bool(hint)
        self._about = Static(id="about")
        self._entries: list[Entry] = []
        self._busy: set[str] = set()
        self._measured = False
        self._best = ""

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one(".dialog").mount(self._hint, before=0)
        self.query_one(".dialog").mount(self._about)
        self.set_interval(_LOOK, self._show_work)
        self._gather()

    # ------------------------------------------------------------------ the list

    def find(self, words: str) -> list[Entry]:
        wanted = words.casefold().split()
        return [
            entry
            for entry in self._entries
            if all(word in f"{entry.name} {entry.title}".casefold() for word in wanted)
        ]

    def nothing(self, words: str) -> str:
        return "None is called so." if words.strip() else "Looking …"

    def key(self, item: Entry) -> str:
        return item.name if item.model is None else str(item.model.path)

    def line(self, item: Entry) -> Content:
        job = self._work.jobs.get(item.name)
        below = (
            self._progress(job)
            if job and not job.ended
            else Content(" · ".join(self._figures(item, job))).stylize("dim")
        )
        size = _size(item.size_bytes) if item.size_bytes else ""
        return Content.assemble(printable(item.title), (f"  {size}\n", "dim"), below)

    def _figures(self, item: Entry, job: Job | None) -> Iterator[str]:
        if job and job.error:
            yield f"stopped: {printable(' '.join(job.error.split()))}"
            return
        yield self._place(item)
        if item.name == self._best:
            yield "best that fits well"
        if item.fit and item.fit.tokens_per_second:
            speed = item.fit.tokens_per_second
            about = "" if item.model and self._measured else "~"
            yield f"{about}{speed:.{1 if speed < 10 else 0}f} tok/s"
            yield f"{_size(item.fit.peak_bytes)} RAM"
            yield f"quality {item.fit.quality:.0%}"
        elif item.fit:
            yield "does not run here"
        if item.license:
            yield printable(item.license)

    def _place(self, item: Entry) -> str:
        if item.model is None:
            kept = item.kept_bytes
            return f"paused at {_size(kept)}" if kept else "to fetch"
        loaded = self._engine.loaded
        if loaded and loaded.path == str(item.model.path):
            return "loaded"
        return "on disk" if item.model.place == "ondevice" else f"in {item.model.place}"

    def _progress(self, job: Job) -> Content:
        if job.cancel.is_set():
            return Content("stopping …")
        doing = _DOING.get(job.doing, "beginning")
        if job.done is None:
            return Content(f"{doing} …")
        full = round(job.done * _BAR)
        drawn = "" if self.app.has_class("-linear") else "━" * full + "╌" * (_BAR - full) + " "
        seconds = job.seconds_left
        left = "" if seconds is None else f" · {seconds // 60:.0f}:{seconds % 60:02.0f} left"
        total = f" of {_size(job.total_bytes)}" if job.total_bytes else ""
        return Content.assemble((drawn, "$success"), f"{job.done:.0%}{total}{left} · {doing}")

    def _show_work(self) -> None:
        """Draw the progress of what is under way anew, and look again once something has ended."""
        busy = {name for name in self._work.jobs if self._work.busy(name)}
        options = self.query_one(OptionList)
        for place, item in enumerate(self._items):
            if item.name in busy | self._busy:
                options.replace_option_prompt_at_index(place, self.line(item))
        if self._busy - busy:
            self._gather()
        self._busy = busy

    def on_option_list_option_highlighted(self) -> None:
        self._tell_about()

    def _tell_about(self) -> None:
        """What there is no room for in the list."""
        item = self.pointed_at
        lines = [] if item is None else list(_about(item))
        self._about.update(Content("\n".join(map(printable, lines))))

    @work(exclusive=True, group="gather")
    async def _gather(self) -> None:
        """Find the models, then work out how each of them would run."""
        pointed_at = self.pointed_at
        found = await asyncio.to_thread(_entries)
        known = {self.key(entry): entry.fit for entry in self._entries}
        self._entries = [replace(entry, fit=known.get(self.key(entry))) for entry in found]
        if pointed_at is None:
            names = [entry.name for entry in self._entries]
            pointed_at = self._entries[names.index(self._wanted)] if self._wanted in names else None
        self._list(self.find(self._words), pointed_at)

        async def show(fits: list[tuple[str, Fit]]) -> None:
            new = dict(fits)
            self._entries = [
                replace(entry, fit=new.get(self.key(entry), entry.fit)) for entry in self._entries
            ]
            self._list(self.find(self._words), self.pointed_at)
            self._tell_about()

        await in_thread(self._foretell, show, lambda: None)
        best = fit.recommended(entry.fit for entry in self._entries if entry.fit)
        if best:
            self._best = best.name
            title = next(entry.title for entry in self._entries if entry.name == best.name)
            self._hint.update(
                Content(printable(f"Best that fits well: {title}\n{self._said}".strip()))
            )
        self._list(self.find(self._words), self.pointed_at)

    def _foretell(self, put: Callable[[tuple[str, Fit]], None]) -> None:
        ram = fit.usable_ram(self._settings)
        if self._engine.pid and (ours := process.of_process(self._engine.pid)):
            # The model that is loaded makes way for another.
            ram = replace(ram, available=min(ram.total, ram.available + ours.resident))
        known = speeds.known()
        self._measured = known is not speeds.USUAL
        for entry in self._entries:
            if entry.model:
                foretold = fit.of_installed(entry.model, self._settings, ram, known)
            else:
                assert entry.recipe
                foretold = fit.of_recipe(entry.recipe, ram, known)
            put((self.key(entry), foretold))

    # ------------------------------------------------------------------ what can be done

    def choose(self, item: Entry) -> None:
        if item.model and item.model.missing:
            self.notify(f"{item.title}: {item.model.lacks}.", severity="error")
        elif item.model:
            self.dismiss(item.model)
        else:
            self._hint.display = False
            self._work.begin(item.name, "fetch")
            self._show_work()

    def action_pause(self) -> None:
        """Stop what is done to the model, or let it go on."""
        item = self.pointed_at
        if item is None:
            return
        if self._work.busy(item.name):
            self._work.stop(item.name)
        elif item.model is None:
            self._work.begin(item.name, "fetch")
        elif item.kept_bytes:
            self._work.begin(item.name, "pack")
        else:
            self.notify("Nothing is going on. F3 packs it.")
        self._show_work()

    @work
    async def action_pack(self) -> None:
        item = self.pointed_at
        if item is None or item.model is None:
            self.notify("Only a model on disk can be packed. Enter fetches it.")
        elif not self._work.busy(item.name):
            question = (
                f"Make a stack of {item.title}? It is one file that fits any amount of RAM. That "
                f"takes minutes of both processor and patience, and about twice its room on the "
                "disk; F2 pauses it. F16, BF16 or Q8_0 make the best stacks."
            )
            if await self.app.push_screen_wait(ChoiceScreen(question, "No", "Pack it")):
                self._work.begin(item.name, "pack")
                self._show_work()

    @work
    async def action_remove(self) -> None:
        """Delete a model of ours, or what is left of a download."""
        item = self.pointed_at
        if item is None:
            return
        if self._work.busy(item.name):
            self._work.stop(item.name)
            while self._work.busy(item.name):
                await asyncio.sleep(_LOOK)
        try:
            n_bytes = await asyncio.to_thread(models.removable, item.name)
            question = f"Remove {item.title} ({_size(n_bytes)}) from the disk?"
            if await self.app.push_screen_wait(ChoiceScreen(question, "Keep it", "Remove it")):
                await asyncio.to_thread(models.remove, item.name)
        except OndeviceError as error:
            self.notify(str(error), severity="error")
        self._gather()

    @work(exclusive=True, group="measure")
    async def action_measure(self) -> None:
        """Measure the speeds that the predictions are made from."""
        self.notify("Measuring processor and disk, a quarter of a minute …")
        try:
            await asyncio.to_thread(speeds.measure)
        except OndeviceError as error:
            self.notify(str(error), severity="error")
        self._gather()


def _entries() -> list[Entry]:
    """What is on disk, then what can be fetched."""
    recipes = {recipe.name: recipe for recipe in models.catalogue()}
    leftovers = models.leftovers()
    installed = models.installed()
    there = {model.name for model in installed}
    return [
        *(
            Entry(
                model.name,
                recipes[model.name].title if model.name in recipes else model.name,
                model.size_bytes,
                model.license,
                model,
                recipes.get(model.name),
                leftovers.get(models.stack_name(model.name), 0),
            )
            for model in installed
        ),
        *(
            Entry(
                recipe.name,
                recipe.title,
                recipe.size_bytes,
                recipe.license,
                recipe=recipe,
                kept_bytes=leftovers.get(recipe.name, 0),
            )
            for recipe in recipes.values()
            if recipe.name not in there
        ),
    ]


def _about(item: Entry) -> Iterator[str]:
    if item.fit:
        good = item.fit.effective_params
        size = f"{good / 1e9:.1f}B" if good > 1e9 else f"{good / 1e6:.0f}M"
        about = f"; about as good as an unquantized {size}." if good else ""
        yield f"{item.fit.how}{about}"
    if item.model:
        yield str(item.model.path)
        if item.model.aliases:
            yield f"also called {', '.join(item.model.aliases)}"
        if item.model.not_used:
            yield f"not used: {', '.join(item.model.not_used)} of {item.model.place}"
        if item.kept_bytes:
            yield "Its packing was stopped; F2 lets it go on."
    elif item.recipe:
        recipe = item.recipe
        yield (
            f"{recipe.parameters} parameters, {recipe.quantization}, context {recipe.context}, "
            f"from {recipe.sources[0].origin}"
        )


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
