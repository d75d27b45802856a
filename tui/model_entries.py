"""The models that the list shows: found on disk and in the catalogue, in groups and in order."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ondevice import models
from ondevice.config import Settings
from ondevice.errors import OndeviceError
from ondevice.holding.machine import Machine
from ondevice.models import InstalledModel, Recipe
from ondevice.planning import fit
from ondevice.planning.fit import Fit
from ondevice.system.typed_paths import looks_like_path, typed_path
from ondevice.text import reason


@dataclass(frozen=True)
class Entry:
    """A line of the list: a model, the heading of a group, or a folder to be kept in the list."""

    name: str
    title: str
    size_bytes: int = 0
    license: str = ""
    model: InstalledModel | None = None
    recipe: Recipe | None = None
    kept_bytes: int = 0
    """Of a download that was stopped."""
    fit: Fit | None = None
    """None: not worked out yet."""
    is_heading: bool = False
    folder: Path | None = None
    """What is to be kept in the list."""

    @property
    def key(self) -> str:
        """What it is known by, however it changes."""
        return self.name if self.model is None else str(self.model.path)

    @property
    def runs(self) -> bool:
        """Whether it can be loaded, as far as is known."""
        return self.fit is None or self.fit.tokens_per_second > 0


def predicted(entry: Entry, settings: Settings, machine: Machine) -> Fit | None:
    """How the model of an entry would run; None: it is no model."""
    if entry.model:
        return fit.of_installed(entry.model, settings, machine)
    return fit.of_recipe(entry.recipe, machine) if entry.recipe else None


def found(
    folders: Sequence[Path], in_use: Iterable[str], on_problem: Callable[[str], None]
) -> list[Entry]:
    """What is on disk, then what can be downloaded. Blocks.

    ``in_use`` are locations of models that are to be listed wherever they are.
    """
    leftovers = models.leftovers()
    installed = models.installed(folders, on_problem)
    known = {os.path.realpath(model.path) for model in installed}
    for location in in_use:
        with suppress(OndeviceError):
            if looks_like_path(location) and os.path.realpath(location) not in known:
                installed.append(models.find(location))
                known.add(os.path.realpath(location))
    return [
        *(_of_model(model, leftovers) for model in installed),
        *(
            Entry(
                recipe.name,
                recipe.title,
                recipe.size_bytes,
                recipe.license,
                recipe=recipe,
                kept_bytes=leftovers.get(recipe.name, 0),
            )
            for recipe in models.to_download(installed)
        ),
    ]


def at_path(text: str, folders: Sequence[Path]) -> tuple[list[Entry], str]:
    """What is at a path that was typed, or a sentence that says why there is nothing. Blocks.

    A folder that is not among ``folders`` can be kept in the list.
    """
    path = typed_path(text)
    try:
        if path.is_dir():
            there = [_of_model(model) for model in models.in_folder(path)]
            if there and path.absolute() not in folders:
                words = f"Always list the models in {path}"
                there.append(Entry("", words, folder=path.absolute()))
            if there:
                return there, ""
            return [], f"There is no model in {path}: it has no GGUF file."
        return [_of_model(models.find(text.strip()))], ""
    except (OSError, ValueError) as error:
        return [], f"{path} cannot be read: {reason(error)}."
    except OndeviceError as error:
        return [], str(error)


def arranged(
    entries: Sequence[Entry], in_use: str | None, recommended: str | None
) -> Iterator[Entry]:
    """In groups, each after its heading: on this disk, recommended, more.

    ``in_use`` is the path of the model that is loaded, and comes first; ``recommended`` is a key.
    """

    def order(entry: Entry) -> tuple[bool, bool, bool, bool, float, int]:
        good = entry.fit.effective_params if entry.fit else 0.0
        return (
            entry.key != in_use,
            not entry.runs or bool(entry.model and entry.model.missing),
            bool(entry.fit and entry.fit.is_base),
            entry.key != recommended,
            -good,
            -entry.size_bytes,
        )

    groups = {
        "On this disk": sorted((e for e in entries if e.model), key=order),
        "Recommended": [e for e in entries if not e.model and e.key == recommended],
        "More to download": [e for e in entries if not e.model and e.key != recommended],
    }
    for heading, group in groups.items():
        if group:
            yield Entry(f"\0{heading}", heading, is_heading=True)
            yield from group


def _of_model(model: InstalledModel, leftovers: dict[str, int] | None = None) -> Entry:
    return Entry(
        model.name,
        model.recipe.title if model.recipe else model.name,
        model.size_bytes,
        model.license,
        model,
        model.recipe,
        (leftovers or {}).get(models.stack_name(model.name), 0),
    )
