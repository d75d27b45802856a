"""What is known of one model, for people who choose one."""

from __future__ import annotations

from dataclasses import dataclass

from ondevice import gguf
from ondevice.errors import ModelNotFound
from ondevice.gguf import GGUFFile, runnable
from ondevice.gguf.quality import effective_params
from ondevice.models import _library, _own_folder
from ondevice.models._catalogue import catalogue
from ondevice.models._records import Ability, InstalledModel, Place, Recipe
from ondevice.ram.need import Need, need


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Of a model that is not on disk only what the catalogue says; the rest is None."""

    name: str
    title: str
    place: Place | None
    origins: tuple[str, ...]  # where it is from or can be had
    size_bytes: int
    license: str
    parameters: str
    quantization: str
    context: int  # tokens it was trained on
    about: str = ""  # what it is good at, as the catalogue says
    abilities: tuple[Ability, ...] = ()  # likewise
    effective_params: float = 0.0  # of a dense, unquantized model that is about as good
    is_base: bool | None = None  # goes on with a text, and was not made to chat
    aliases: tuple[str, ...] = ()  # other names of the same file
    not_used: tuple[str, ...] = ()  # what the app adds to the model, and ondevice does not
    paths: tuple[str, ...] = ()
    sha256: tuple[str, ...] = ()  # of each path, if it was checked; else what is known of it
    architecture: str | None = None
    n_blocks: int | None = None
    n_experts: int | None = None
    n_vocab: int | None = None
    chat_template: bool | None = None
    need: Need | None = None  # of RAM, with the default context


def facts(name: str) -> Facts:
    """What is known of the model that ``name`` means, on disk or not.

    Raises :class:`ModelNotFound`, and :class:`ModelFileError` if its file is damaged.
    """
    try:
        model = _library.find_file(name)
    except ModelNotFound:
        recipe = next((recipe for recipe in catalogue() if recipe.name == name), None)
        if recipe is None:
            raise
        return _of_recipe(recipe)
    return _of_model(model)


def _of_recipe(recipe: Recipe) -> Facts:
    return Facts(
        name=recipe.name,
        title=recipe.title,
        place=None,
        origins=tuple(source.origin for source in recipe.sources),
        size_bytes=recipe.size_bytes,
        license=recipe.license,
        parameters=recipe.parameters,
        quantization=recipe.quantization,
        context=recipe.context,
        about=recipe.about(),
        sha256=tuple(source.sha256 for source in recipe.sources[:1] if source.sha256),
        abilities=recipe.abilities,
    )


def _of_model(model: InstalledModel) -> Facts:
    with runnable.blamed(model.path):
        return _of_file(model, gguf.read(model.path))


def _of_file(model: InstalledModel, file: GGUFFile) -> Facts:
    provenance = (
        _own_folder.read_provenance(model.path.parent) if model.place == "ondevice" else None
    )
    return Facts(
        name=model.name,
        title=file.name,
        place=model.place,
        origins=(model.origin,) if model.origin else (),
        size_bytes=file.file_bytes,
        license=model.license,
        parameters=_rounded(file.n_params),
        quantization=file.quantization,
        context=file.n_ctx_train,
        about=model.recipe.about() if model.recipe else "",
        abilities=model.recipe.abilities if model.recipe else (),
        effective_params=effective_params(file.n_params, file.n_active_params, file.quality),
        is_base=file.is_base,
        aliases=model.aliases,
        not_used=model.not_used,
        paths=tuple(str(part.path) for part in file.parts),
        sha256=provenance.sha256 if provenance else (),
        architecture=file.architecture,
        n_blocks=file.n_blocks,
        n_experts=file.n_experts,
        n_vocab=file.n_vocab,
        chat_template=file.chat_template is not None,
        need=need(file),
    )


def _rounded(n_params: int) -> str:
    return f"{n_params / 1e9:.1f}B" if n_params >= 1e9 else f"{n_params / 1e6:.0f}M"
