"""The models that ondevice knows how to fetch, from ``models/catalogue.toml``."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

import msgspec

from ondevice.checking import work_out
from ondevice.messages import without_password
from ondevice.models._records import Recipe

#: In a checkout the data is beside the package; when installed, within it.
_FOLDERS = (Path(__file__).parent / "data", Path(__file__).parents[2] / "models")


class _Catalogue(msgspec.Struct, frozen=True):
    model: tuple[Recipe, ...]


work_out(_Catalogue)


@cache
def catalogue() -> tuple[Recipe, ...]:
    """All recipes, in the order of the file: smallest first."""
    file = next(folder / "catalogue.toml" for folder in _FOLDERS if folder.is_dir())
    values = tomllib.loads(file.read_text(encoding="utf-8"))
    return msgspec.convert(values, _Catalogue).model


def title_of(name: str) -> str:
    """What lists call a model of this name."""
    titles = (recipe.title for recipe in catalogue() if recipe.name == name)
    return next(titles, without_password(name))
