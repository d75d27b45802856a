"""Shows which models there are and how they would run here; downloads, packs, removes, picks."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.visual import VisualType
from textual.widgets import Label, OptionList, Static
from textual.widgets.option_list import Option

from ondevice import models
from ondevice.config import AUTO, Settings
from ondevice.errors import OndeviceError
from ondevice.holding.machine import Machine
from ondevice.models import InstalledModel
from ondevice.planning import fit
from ondevice.planning.fit import Fit
from ondevice.system.typed_paths import looks_like_path
from ondevice.text import printable, size
from tui.background import in_thread
from tui.model_entries import Entry, arranged, at_path, found, predicted
from tui.model_lines import Lines, ModelMarks, about
from tui.model_work import ModelWork
from tui.screens.dialogs import ChoiceScreen
from tui.screens.finder import Finder
from tui.shared_engine import SharedEngine
from tui.widgets.full_width import FullWidth
from tui.widgets.pointing_list import PointingList

_LOOK = 0.2  # seconds
_PAUSE = 0.15  # seconds in the typing of a path, after which it is looked at
_SHOWN = 300  # models; of more, those that the typed words leave
_WORKED_OUT = 50  # models that were typed or searched for, while one waits


class ModelsScreen(Finder[Entry, InstalledModel | None]):
    """Dismissed with the model to load, or None. ``keep_folder`` has a folder listed from now on.

    The model in use is pointed at, else the one of the settings, else the one recommended.
    """

    HELP = """\
## Models

Type to search, or enter the path of a GGUF file or a folder. Enter loads the model, or downloads it
first. Downloads, packing and measuring continue when you close this screen. Packing makes a stack:
one file that fits any amount of RAM.

Quality ≈7B means about as good as an unquantized model of 7 billion parameters. ● is in use, ★ is
recommended for this machine. A speed with ~ is predicted; F5 measures this machine, and replies
make the prediction better.
"""
    # Details stand beside the list only where all columns have room.
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (60, "-usual"), (126, "-wide")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "pause", "Pause", id="models.pause"),
        Binding("f3", "pack", "Pack", id="models.pack"),
        Binding("f4", "details", "Details", id="models.details"),
        Binding("f5", "measure", "Measure", id="models.measure"),
        Binding("f8", "remove", "Remove", id="models.remove"),
    ]

    def __init__(
        self,
        engine: SharedEngine,
        model_work: ModelWork,
        settings: Settings,
        keep_folder: Callable[[Path], object],
        hint: str = "",
    ) -> None:
        super().__init__("Models", "")
        self._engine = engine
        self._work = model_work
        self._settings = settings
        self._keep_folder = keep_folder
        self._said = hint
        self._problems: list[str] = []
        self._hint = Label(Content(printable(hint)), id="hint")
        self._hint.display = bool(hint)
        self._about = Static(id="about")
        self._columns = Static(FullWidth(self._heads), id="columns")
        self._entries: list[Entry] = []
        self._nothing = "Looking …"
        self._busy: set[str] = set()
        self._measuring = False
        self._best: str | None = None
        """Key of the recommended model."""
        self._chosen = False
        """Whether the user has pointed at something."""
        self._machine: Machine | None = None

    def on_mount(self) -> None:
        super().on_mount()
        self.query_one("Input").placeholder = "Search, or type a path"  # type: ignore[attr-defined]
        self.dialog.mount(self._hint, before=0)
        self.dialog.mount(self._columns, before=self.query_one(OptionList))
        self.dialog.mount(self._about)
        self.set_interval(_LOOK, self._show_work)
        self._gather()

    # ------------------------------------------------------------------ the list

    def find(self, words: str) -> list[Entry]:
        if looks_like_path(words):
            time.sleep(_PAUSE)  # in a thread; whoever types on is not after this folder
            if self._words != words:
                return []
            entries, self._nothing = at_path(words, self._settings.folders)
            return self._worked_out(entries)
        wanted = words.casefold().split()
        self._nothing = "No matching models." if wanted else "Looking …"
        named = [
            entry
            for entry in self._entries
            if all(word in f"{entry.name} {entry.title}".casefold() for word in wanted)
        ]
        kept = list(arranged(named, self._in_use, self._best))
        return self._worked_out(kept) if wanted else kept

    def _worked_out(self, entries: list[Entry]) -> list[Entry]:
        """With how they run, of those that one is likely to look at."""
        machine = self._machine
        if machine is None:
            return entries
        return [
            replace(entry, fit=predicted(entry, self._settings, machine))
            if entry.fit is None and not entry.is_heading and place < _WORKED_OUT
            else entry
            for place, entry in enumerate(entries)
        ]

    def nothing(self, words: str) -> str:
        return self._nothing

    def key(self, item: Entry) -> str:
        return item.key

    def line(self, item: Entry) -> VisualType:
        return FullWidth(lambda width: self._lines(width).line(item, self._marks(item)))

    @property
    def _in_use(self) -> str | None:
        loaded = self._engine.loaded
        return loaded.path if loaded else None

    def _marks(self, item: Entry) -> ModelMarks:
        return ModelMarks(
            in_use=item.model is not None and item.key == self._in_use,
            recommended=item.key == self._best,
            job=self._work.jobs.get(item.name),
        )

    def _lines(self, width: int) -> Lines:
        return Lines(width, self.app.has_class("-linear"))

    def _heads(self, width: int) -> Content:
        """The names of the columns, above these."""
        gutter = self.query_one(PointingList).gutter_width
        return Content.assemble(" " * gutter, self._lines(width - gutter).heads())

    def _list(self, items: Sequence[Entry], pointed_at: Entry | None = None) -> None:
        options = self.query_one(OptionList)
        self._items = items[:_SHOWN]
        options.set_options(
            Option(self.line(item), disabled=item.is_heading) for item in self._items
        )
        if left := len(items) - len(self._items):
            options.add_option(Option(f"… and {left} more: type to search", disabled=True))
        if self._items:
            options.highlighted = self._place(pointed_at)
        else:
            options.add_option(Option(printable(self.nothing(self._words)), disabled=True))
        self._show_about()

    def _place(self, pointed_at: Entry | None) -> int:
        """Of what is to be pointed at."""
        keys = [item.key for item in self._items]
        names = [item.name for item in self._items]
        if pointed_at is not None and pointed_at.key in keys:
            return keys.index(pointed_at.key)
        if not self._words.strip():
            if self._in_use in keys:
                return keys.index(self._in_use)
            if self._settings.model != AUTO and self._settings.model in names:
                return names.index(self._settings.model)
            if self._best in keys:
                return keys.index(self._best)
        return next((n for n, item in enumerate(self._items) if not item.is_heading), 0)

    def _show_work(self) -> None:
        """Draw the progress of what is under way anew, and look again once any of it has ended."""
        busy = {name for name in self._work.jobs if self._work.busy(name)}
        self._redraw(lambda item: item.name in busy | self._busy)
        if busy != self._busy:  # other keys do something now
            self._show_about()
        if self._busy - busy or (self._measuring and not self._work.measuring):
            self._gather()
        self._busy, self._measuring = busy, self._work.measuring

    def _redraw(self, which: Callable[[Entry], bool]) -> None:
        options = self.query_one(OptionList)
        for place, item in enumerate(self._items):
            if not item.is_heading and which(item):
                options.replace_option_prompt_at_index(place, self.line(item))

    def on_option_list_option_highlighted(self) -> None:
        self._show_about()

    def action_move(self, direction: int) -> None:
        self._chosen = True
        super().action_move(direction)

    def _show_about(self) -> None:
        """What there is no room for in the list, and what the keys do."""
        item = self.pointed_at
        if item is None or item.is_heading or item.folder:
            self._about.update("")
        else:
            short = self.has_class("-short")
            marks = self._marks(item)
            self._about.update(about(item, marks, with_title=not short))
            self._about.set_class(bool(marks.job and marks.job.error), "-failed")
        self.show_keys()

    def points_at(self, name: str) -> bool:
        """Whether the user sees what became of this model."""
        return self.pointed_at is not None and self.pointed_at.name == name

    def keys_for(self, item: Entry | None) -> str:
        if item is None or item.is_heading:
            return "Esc closes"
        if item.folder:
            return "Enter adds the folder · Esc closes"
        if self._work.busy(item.name):
            return "F2 pauses · F4 details · F8 removes · Esc closes"
        if item.model and item.kept_bytes:
            return "Enter loads it · F2 resumes packing · F4 details · F8 discards the packing"
        if item.model:
            ours = " · F8 removes" if item.model.place == "ondevice" else ""
            return f"Enter loads it · F3 packs · F4 details · F5 measures{ours}"
        begin = "resumes the download" if item.kept_bytes else "downloads it"
        return f"Enter {begin} · F4 details · F5 measures · Esc closes"

    @work(exclusive=True, group="gather")
    async def _gather(self) -> None:
        """Find the models, then work out how each of them would run."""
        in_use = [path for path in (self._in_use, self._settings.model) if path]
        await self._gather_in((), in_use)
        folders = self._settings.folders
        if folders:
            await self._gather_in(folders, in_use)
        shown = [entry for entry in self._items if not entry.is_heading]

        async def show(fits: list[tuple[str, Fit]]) -> None:
            new = dict(fits)
            self._entries = [replace(e, fit=new.get(e.key, e.fit)) for e in self._entries]
            self._items = [replace(e, fit=new.get(e.key, e.fit)) for e in self._items]
            self._redraw(lambda item: item.key in new)
            self._show_about()

        ended = threading.Event()
        await in_thread(lambda put: self._work_out(shown, put, ended), show, ended.set)
        self._recommend(whole=True)
        if not looks_like_path(self._words):
            self._list(self.find(self._words), self.pointed_at if self._chosen else None)

    async def _gather_in(self, folders: tuple[Path, ...], in_use: list[str]) -> None:
        problems: list[str] = []
        entries = await asyncio.to_thread(found, folders, in_use, problems.append)
        limit = self._settings.ram_limit
        machine = await asyncio.to_thread(Machine.now, limit, self._engine.pid)
        self._machine = machine
        known = {entry.key: entry.fit for entry in self._entries}
        self._entries = [
            # A recipe is worked out in no time, a file is not.
            replace(
                e,
                fit=known.get(e.key)
                or (None if e.model else predicted(e, self._settings, machine)),
            )
            for e in entries
        ]
        self._problems = problems
        self._recommend()
        if not looks_like_path(self._words):
            pointed_at = self.pointed_at if self._chosen or self._words.strip() else None
            self._list(self.find(self._words), pointed_at)

    def _recommend(self, *, whole: bool = False) -> None:
        """Say which model is recommended, once it is known how those on disk run (``whole``)."""
        fits = [entry.fit for entry in self._entries if entry.fit]
        known = whole or all(entry.fit for entry in self._entries)
        best = fit.recommended(fits) if known else None
        which = [entry for entry in self._entries if best and entry.fit is best]
        self._best = which[0].key if which else None
        recommended = [f"Recommended for this machine: {entry.title}" for entry in which[:1]]
        if self.has_class("-short"):
            recommended = []  # its star must do
        said = [line for line in (self._said, *self._problems, *recommended) if line]
        self._hint.display = bool(said)
        self._hint.update(Content(printable("\n".join(said))))

    def _work_out(
        self,
        entries: list[Entry],
        put: Callable[[tuple[str, Fit]], None],
        ended: threading.Event,
    ) -> None:
        assert self._machine is not None
        for entry in entries:
            if ended.is_set():
                return
            if how := predicted(entry, self._settings, self._machine):
                put((entry.key, how))

    # ------------------------------------------------------------------ what can be done

    def choose(self, item: Entry) -> None:
        if item.folder:
            self._keep_folder(item.folder)
            self.dismiss(None)
        elif item.model and item.model.missing:
            self.notify(f"{item.title}: {item.model.lacks}.", severity="error")
        elif item.model and item.fit and not item.runs:
            self.notify(item.fit.how, severity="error")
        elif item.model:
            self.dismiss(item.model)
        else:
            self._said = ""
            self._work.download(item.name)
            self._show_work()
            self._show_about()

    def action_pause(self) -> None:
        """Stop what is done to the model, or let it go on."""
        item = self.pointed_at
        if item is None or item.folder:
            return
        if self._work.busy(item.name):
            self._work.stop(item.name)
        elif item.model is None:
            self._work.download(item.name)
        elif item.kept_bytes:
            self._work.pack(item.model)
        else:
            self.notify("No download or packing is running. Press F3 to pack this model.")
        self._show_work()

    @work
    async def action_details(self) -> None:
        """Show all that is known of the model, also where the list leaves no room for it."""
        item = self.pointed_at
        if item is not None and not item.is_heading and not item.folder:
            told = about(item, self._marks(item)).plain
            await self.app.push_screen_wait(ChoiceScreen(told, "Close"))

    @work
    async def action_pack(self) -> None:
        item = self.pointed_at
        if item is None or item.model is None:
            self.notify("Only a downloaded model can be packed. Press Enter to download it.")
        elif not self._work.busy(item.name):
            question = (
                f"Make a stack of {item.title}? A stack is one file that fits any amount "
                "of RAM. Packing takes minutes, or hours for a model of 20 GB, and about "
                "twice the model's size in free disk space; F2 pauses it. F16, BF16 and Q8_0 "
                "models make the best stacks."
            )
            if await self.app.push_screen_wait(ChoiceScreen(question, "No", "Pack it")):
                self._work.pack(item.model)
                self._show_work()

    @work
    async def action_remove(self) -> None:
        """Delete a model of ours, or what is left of a download or of packing."""
        item = self.pointed_at
        if item is None or item.folder:
            return
        if self._work.busy(item.name):
            self._work.stop(item.name)
            while self._work.busy(item.name):
                await asyncio.sleep(_LOOK)
        try:
            what, name = item.title, item.name
            if item.model and (stack := models.stack_name(name)) in models.leftovers():
                what, name = f"what has been packed of {what}", stack
                n_bytes = await asyncio.to_thread(models.removable, stack)
            else:
                n_bytes = await asyncio.to_thread(models.removable, item.model or name)
            question = f"Remove {what} ({size(n_bytes)}) from the disk?"
            if await self.app.push_screen_wait(ChoiceScreen(question, "Keep it", "Remove it")):
                await asyncio.to_thread(models.remove, name)
        except OndeviceError as error:
            self.notify(str(error), severity="error")
        self._gather()

    def action_measure(self) -> None:
        """Measure the speeds that the predictions are made from."""
        if self._work.measure():
            self.notify("Measuring the processor and the disk (about 15 seconds) …")
        else:
            self.notify("This machine is already being measured.")
