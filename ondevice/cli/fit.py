"""``ondevice fit``: what runs on this machine, how well and how fast."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click
import msgspec

from ondevice import models
from ondevice.cli._options import settings_flags
from ondevice.cli.plan import machine_speeds, plan_of, usable_ram
from ondevice.config import Settings
from ondevice.errors import MemoryShortError, ModelFileError
from ondevice.models import InstalledModel, Recipe
from ondevice.ram.available import AvailableRam
from ondevice.ram.planner import Plan
from ondevice.ram.speeds import USUAL, Speeds
from ondevice.terminal import printable

_BESIDE_WEIGHTS = 250_000_000  # bytes: about what context, buffers and engine take


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """How one model runs here."""

    name: str
    on_disk: bool
    size_bytes: int
    how: str  # "in RAM", "streamed", or why it does not run
    peak_bytes: int = 0
    tokens_per_second: float = 0.0  # of what is not on disk, a rough estimate
    effective_params: float = 0.0  # of a dense, unquantized model that is about as good


@click.command()
@settings_flags
@click.option("--measure", is_flag=True, help="Measure this machine's speeds again, first.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(settings: Settings, measure: bool, as_json: bool) -> None:
    """Show which models run here, best first: those on disk, and those of the catalogue."""
    speeds = machine_speeds(measure)
    ram = usable_ram(settings)
    found = sorted(
        [*_on_disk(settings, ram, speeds), *_to_fetch(ram, speeds)],
        key=lambda fit: (fit.tokens_per_second > 0, fit.effective_params),
        reverse=True,
    )
    if as_json:
        report = {"usable_bytes": ram.usable, "measured": speeds is not USUAL, "models": found}
        click.echo(msgspec.json.encode(report))
        return
    click.echo(f"{ram.usable / 1e9:.1f} GB of RAM can be used ({ram.source}).\n")
    width = max(len(fit.name) for fit in found)
    for fit in found:
        about = "" if fit.on_disk else "~"
        speed = f"{about}{fit.tokens_per_second:.1f} tok/s" if fit.tokens_per_second else "-"
        place = "on disk" if fit.on_disk else "to fetch"
        size = f"{fit.size_bytes / 1e9:.1f} GB"
        click.echo(printable(f"{fit.name:<{width}}  {size:>8}  {place:<8}  {speed:>12}  {fit.how}"))


def _on_disk(settings: Settings, ram: AvailableRam, speeds: Speeds) -> Iterator[Fit]:
    for model in models.installed():
        if model.missing:
            continue
        try:
            chosen = plan_of(model.path, settings, ram, speeds)
        except (ModelFileError, MemoryShortError) as error:
            yield _none(model, str(error))
        else:
            yield _planned(model, chosen)


def _planned(model: InstalledModel, chosen: Plan) -> Fit:
    return Fit(
        name=model.name,
        on_disk=True,
        size_bytes=model.size_bytes,
        how=_how(chosen.streamed_bytes, chosen.peak_bytes),
        peak_bytes=chosen.peak_bytes,
        tokens_per_second=chosen.tokens_per_second,
        effective_params=chosen.effective_params,
    )


def _none(model: InstalledModel, why: str) -> Fit:
    return Fit(name=model.name, on_disk=True, size_bytes=model.size_bytes, how=why)


def _to_fetch(ram: AvailableRam, speeds: Speeds) -> Iterator[Fit]:
    there = {model.name for model in models.installed()}
    for recipe in models.catalogue():
        if recipe.name not in there:
            yield _foretold(recipe, ram, speeds)


def _foretold(recipe: Recipe, ram: AvailableRam, speeds: Speeds) -> Fit:
    """From what the catalogue says; the file itself will tell more exactly."""
    total, active = _params(recipe.parameters)
    peak = recipe.size_bytes + _BESIDE_WEIGHTS
    streamed = max(0, peak - ram.usable)
    reading = streamed * (active / total) / speeds.disk
    return Fit(
        name=recipe.name,
        on_disk=False,
        size_bytes=recipe.size_bytes,
        how=_how(streamed, min(peak, ram.usable)),
        peak_bytes=min(peak, ram.usable),
        tokens_per_second=1 / max(active / speeds.decoding("Q4_K"), reading),
        effective_params=(total * active) ** 0.5,
    )


def _how(streamed_bytes: int, peak_bytes: int) -> str:
    if streamed_bytes:
        return f"{streamed_bytes / 1e9:.1f} GB of it streamed from the disk"
    return f"{peak_bytes / 1e9:.1f} GB, all in RAM"


def _params(text: str) -> tuple[float, float]:
    """Of "30B-A3B": 30e9 parameters, of which each token uses 3e9."""
    total, active = re.fullmatch(r"([\d.]+[BM])(?:-A([\d.]+[BM]))?", text).groups()  # type: ignore[union-attr]
    return _number(total), _number(active or total)


def _number(text: str) -> float:
    return float(text[:-1]) * {"M": 1e6, "B": 1e9}[text[-1]]
