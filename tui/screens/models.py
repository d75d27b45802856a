"""Picks a model: one that is on disk, or one of the catalogue, which is fetched first."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Label, OptionList, ProgressBar
from textual.widgets.option_list import Option

from ondevice import models
from ondevice.errors import OndeviceError
from ondevice.models import InstalledModel, PullProgress, Recipe
from ondevice.terminal import printable
from tui.background import in_thread


class ModelsScreen(ModalScreen[InstalledModel | None]):
    """Dismissed with the model to load, or None. The one called ``wanted`` is pointed at."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close", id="models.close"),
        Binding("ctrl+c", "app.quit", show=False, id="models.quit"),
    ]

    def __init__(self, wanted: str, hint: str = "") -> None:
        super().__init__()
        self._wanted = wanted
        self._hint = Label(Content(printable(hint)), id="hint")
        self._hint.display = bool(hint)
        self._progress = ProgressBar(id="progress")
        self._progress.display = False
        self._choices: list[InstalledModel | Recipe] = []
        self._cancel = threading.Event()
        self._fetching = False

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "Models"
            dialog.border_subtitle = "Enter fetches and loads · Esc closes"
            yield self._hint
            yield OptionList()
            yield self._progress

    def on_mount(self) -> None:
        self._list()

    @work
    async def _list(self) -> None:
        self._choices = await asyncio.to_thread(_choices)
        options = self.query_one(OptionList)
        options.add_options(_options(self._choices))
        names = [choice.name for choice in self._choices]
        options.highlighted = names.index(self._wanted) if self._wanted in names else 0

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        choice = self._choices[event.option_index]
        if isinstance(choice, InstalledModel):
            self.dismiss(choice)
        elif not self._fetching:
            self._fetch(choice)

    def action_close(self) -> None:
        if self._fetching:
            self._cancel.set()
        else:
            self.dismiss(None)

    @work
    async def _fetch(self, recipe: Recipe) -> None:
        self._say(f"Fetching {recipe.title}. Esc cancels.")
        self._progress.update(total=None)
        self._progress.display = True
        self._cancel.clear()
        self._fetching = True
        try:
            model = await in_thread(
                lambda put: models.pull(recipe.name, put, self._cancel),
                self._show_progress,
                self._cancel.set,
            )
        except OndeviceError as error:
            self._say(str(error))
        else:
            self.dismiss(model)
        finally:
            self._fetching = False
            self._progress.display = False

    def _say(self, text: str) -> None:
        self._hint.update(Content(printable(text)))
        self._hint.display = True

    async def _show_progress(self, news: list[PullProgress]) -> None:
        self._progress.update(total=news[-1].total_bytes, progress=news[-1].done_bytes)


def _choices() -> list[InstalledModel | Recipe]:
    """What is on disk, then what can be fetched."""
    installed = models.installed()
    names = {model.name for model in installed}
    return [*installed, *(recipe for recipe in models.catalogue() if recipe.name not in names)]


def _options(choices: Sequence[InstalledModel | Recipe]) -> Iterator[Option]:
    """A line for each: title, size, licence and where it is."""
    recipes = {recipe.name: recipe for recipe in models.catalogue()}
    titles = [
        printable(recipes[choice.name].title if choice.name in recipes else choice.name)
        for choice in choices
    ]
    width = max(map(cell_len, titles), default=0)
    for choice, title in zip(choices, titles, strict=True):
        recipe = recipes.get(choice.name)
        place = "on disk" if isinstance(choice, InstalledModel) else "to fetch"
        figures = f"{_size(choice.size_bytes):>8}   {recipe.license if recipe else '':<12} {place}"
        yield Option(Content.assemble(set_cell_size(title, width), (f"   {figures}", "dim")))


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"
