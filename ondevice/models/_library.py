"""Which models are on disk, whoever put them there, and which one a name means."""

from __future__ import annotations

import difflib
import os
import shutil
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path

from ondevice import gguf
from ondevice.errors import ModelError, ModelFileError, ModelNotFound
from ondevice.messages import URL_SCHEMES
from ondevice.models import _folders, _other_apps, _own_folder, _scan
from ondevice.models._catalogue import catalogue
from ondevice.models._records import InstalledModel, Recipe
from ondevice.system.typed_paths import looks_like_path, typed_path
from ondevice.text import alternatives, reason

_SHOWN = 5  # models of a folder, in a sentence
_MEANT = 3  # names that may have been meant


def installed(
    folders: Sequence[Path] | None = None, on_problem: Callable[[str], None] = lambda _: None
) -> list[InstalledModel]:
    """The models on disk, by name.

    A file that several apps know, or one app by several names, is listed once, as ours first; the
    other names are kept. ``folders`` are looked at as well; None: those of the settings.
    ``on_problem`` gets a sentence for one that cannot be read.
    """
    if folders is None:
        folders = _folders.of_settings()
    named = _folders.models(folders, on_problem) if folders else []
    found: dict[Path, InstalledModel] = {}
    for model in (*_own_folder.models(), *_other_apps.models(), *named):
        path = Path(os.path.realpath(model.path))  # that of pathlib fails for a link in a circle
        known = found.setdefault(path, _with_recipe(model))
        if model.name not in (known.name, *known.aliases):
            found[path] = replace(known, aliases=(*known.aliases, model.name))
    return sorted(found.values(), key=lambda model: (model.name.casefold(), model.place))


def _with_recipe(model: InstalledModel) -> InstalledModel:
    """What the catalogue knows of the model, if it is one of those."""
    for recipe in catalogue():
        if model.is_one(recipe):
            name = model.name if model.place == "ondevice" else recipe.name
            return replace(model, name=name, license=recipe.license, recipe=recipe)
    return model


def to_download(on_disk: Collection[InstalledModel]) -> list[Recipe]:
    """The models of the catalogue that are not on disk, under whatever name."""
    there = {model.name for model in on_disk}
    there |= {model.recipe.name for model in on_disk if model.recipe}
    return [recipe for recipe in catalogue() if recipe.name not in there]


def find(name: str, folders: Sequence[Path] | None = None) -> InstalledModel:
    """The model that ``name`` means.

    That is one on a server for a URL such as "http://localhost:8017/v1#smollm2-135m"; a GGUF file
    of this path, or the only one in a folder of this path; else our own model of this name; else
    one of a folder of the user's or of another app, by its name, its file's name, Ollama's
    "name:tag" or "owner/repo/file.gguf".

    ``folders`` as in :func:`installed`.

    Raises :class:`ModelNotFound` with what to do instead, also if several models are meant, and
    :class:`ModelFileError` if parts of the model are missing.
    """
    if name.startswith(URL_SCHEMES):
        return InstalledModel(name, Path(), 0, "server", origin=name)
    path = typed_path(name)
    model = _at_path(path)
    if model is None:
        model = _in_folder(path) if looks_like_path(name) else called(name, folders)
    return whole(model)


def whole(model: InstalledModel) -> InstalledModel:
    """The model. Raises :class:`ModelFileError` if parts of it are missing."""
    if model.missing:
        some = ", ".join(model.missing[:3]) + (" …" if model.missing[3:] else "")
        if model.place == "ondevice" and model.path.is_symlink() and not model.path.exists():
            raise ModelFileError(
                f"{model.name} is a link, but {model.path.readlink()} is gone. Put the file back "
                f"or remove the name: ondevice models rm {model.name}"
            )
        raise ModelFileError(
            f"{model.name} is incomplete: {some} "
            f"{('is' if len(model.missing) == 1 else 'are')} missing in "
            f"{model.path.parent}. Download it again from where you got it."
        )
    return model


def find_file(name: str) -> InstalledModel:
    """As :func:`find`, for who needs the file: a model on a server is refused."""
    model = find(name)
    if model.place == "server":
        raise ModelNotFound(
            f"{name} runs on a server and is not on this disk. Nothing is known about it here."
        )
    return model


def _at_path(path: Path) -> InstalledModel | None:
    try:
        if not path.is_file():
            return None
    except (OSError, ValueError):  # too long for a path, or a zero byte in it
        return None
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise ModelFileError(
            f"{path} has a name that is not valid text. Rename it first."
        ) from error
    parts = [path.with_name(name) for name in gguf.part_names(path.name)]
    size = sum(part.stat().st_size for part in parts if part.is_file())
    return InstalledModel(_scan.plain(path.stem), path.absolute(), size, "file")


def _in_folder(path: Path) -> InstalledModel:
    """The only model in a folder. Raises :class:`ModelNotFound` with what there is instead."""
    try:
        is_folder, is_there = path.is_dir(), path.exists()
    except (OSError, ValueError):
        is_folder = is_there = False
    if is_there and not is_folder:  # a device, a pipe
        raise ModelFileError(f"{path} is not a file. Name a GGUF file.")
    if not is_folder:
        raise ModelNotFound(f'There is no file or folder "{path}". Check its name.')
    there = list(_folders.in_folder(path))
    if len(there) == 1:
        return there[0]
    if not there:
        raise ModelNotFound(f"There is no model in {path}: it contains no GGUF file of a model.")
    some = "\n".join(f"  {model.path}" for model in there[:_SHOWN])
    more = f"\n  … and {len(there) - _SHOWN} more" if there[_SHOWN:] else ""
    raise ModelNotFound(f"There are {len(there)} models in {path}. Choose one:\n{some}{more}")


def called(name: str, folders: Sequence[Path] | None = None) -> InstalledModel:
    """As :func:`find`, but ``name`` is no path, and the model may be incomplete."""
    if own := _own_folder.named(name):
        return _with_recipe(own)
    on_disk = installed(folders)
    meant = [model for model in on_disk if name.casefold() in _names(model)]
    if len(meant) == 1:
        return meant[0]
    if meant:
        candidates = "\n".join(f"  {model.path}  ({model.place})" for model in meant)
        raise ModelNotFound(f"Several models match {name}. Give the path of one:\n{candidates}")
    if name in {recipe.name for recipe in catalogue()}:
        raise ModelNotFound(f"{name} is not downloaded. Download it: ondevice models pull {name}")
    if name.endswith(".gguf"):
        raise ModelNotFound(f"There is no file {name}.")
    raise unknown(name, {model.name for model in on_disk})


def _names(model: InstalledModel) -> set[str]:
    names = {model.name, *model.aliases, model.origin, model.path.name, model.path.stem}
    if model.recipe:
        names.add(model.recipe.name)
    names |= {name.removesuffix(":latest") for name in (model.name, *model.aliases)}
    return {name.casefold() for name in names}


def unknown(name: str, on_disk: set[str]) -> ModelNotFound:
    """That there is no model of this name, and which one may have been meant."""
    if not name.strip():  # a variable that is not set, mostly
        return ModelNotFound("The name of the model is empty. See: ondevice models list")
    known = dict.fromkeys([*sorted(on_disk), *sorted(recipe.name for recipe in catalogue())])
    named = [one for one in known if name.casefold() in one.casefold()]
    close = [*dict.fromkeys([*named, *difflib.get_close_matches(name, known)])][:_MEANT]
    hint = f"Did you mean {alternatives(close)}?" if close else "See: ondevice models list"
    return ModelNotFound(f"There is no model named {name}. {hint}")


def removable(wanted: str | InstalledModel) -> int:
    """Bytes of our own model of this name, or of what an interrupted download left of it.

    A model that has been found stands for itself, whatever others are called. Raises
    :class:`ModelError` if it is not ours to remove, else as :func:`find`.
    """
    if isinstance(wanted, str) or wanted.place == "ondevice":
        name = wanted if isinstance(wanted, str) else wanted.name
        ours = {model.name: model.size_bytes for model in _own_folder.models()}
        n_bytes = ours.get(name, 0) + _own_folder.leftovers().get(name, 0)
        if name in ours or n_bytes:
            return n_bytes
        wanted = find_file(name)
    model = wanted
    if model.place == "file":
        why = "it is not in the folder of ondevice. If you want to, delete the file yourself."
    elif model.place == "your folder":
        why = "it is in your own folder. If you want to, delete the file yourself."
    elif model.place == "ondevice":
        why = f"call it {model.name}."
    else:
        why = f"it belongs to {model.place}. Remove it there."
    raise ModelError(f"{model.path} was not removed: {why}")


def remove(name: str) -> None:
    """Delete what :func:`removable` speaks of; of a link, what it leads to stays.

    Raises the same, and :class:`ModelError` if it is in use.
    """
    from filelock import Timeout  # noqa: PLC0415 - asyncio comes with it

    removable(name)
    try:
        with _own_folder.lock(name).acquire(timeout=0):
            shutil.rmtree(_own_folder.folder_of(name))
    except Timeout as error:
        raise ModelError(f"{name} is being downloaded. Stop the download first.") from error
    except OSError as error:
        raise ModelError(
            f"{name} could not be removed: {reason(error)}. Close any program that is using it."
        ) from error
