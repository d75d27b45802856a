"""``ondevice fit``: what runs on this machine, how well and how fast."""

from __future__ import annotations

from collections.abc import Iterator

import click

from ondevice import models
from ondevice.cli._json import print_json
from ondevice.cli._options import LOAD, flags
from ondevice.cli.plan import machine_speeds
from ondevice.config import Settings
from ondevice.gguf.quality import params_words
from ondevice.holding.machine import Machine
from ondevice.holding.speeds import USUAL, Speeds
from ondevice.planning import fit
from ondevice.planning.fit import Fit
from ondevice.text import printable, size


@click.command()
@flags(LOAD)
@click.option(
    "--measure", is_flag=True, help="Measure this machine's speed first, even if it is known."
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(settings: Settings, measure: bool, as_json: bool) -> None:
    """Show which models run here, best first: those on disk, and those of the catalogue."""
    machine_speeds(measure)
    machine = Machine.now(settings.ram_limit)
    ram, speeds = machine.ram, machine.speeds
    found = sorted(
        _fits(settings, machine),
        key=lambda each: (each.tokens_per_second > 0, not each.is_base, each.effective_params),
        reverse=True,
    )
    if as_json:
        report = {"usable_bytes": ram.usable, "measured": speeds is not USUAL, "models": found}
        print_json(report)
        return
    click.echo(f"{size(ram.usable)} of RAM is available ({ram.source}).\n")
    best = fit.recommended(found)
    width = max(5, *(len(each.name) for each in found))
    click.echo(f"{'model':<{width}}  {'size':>8}  {'quality':>7}  {'speed':>12}  how it runs")
    for each in found:
        speed = fit.speed_figure(each) or "-"
        good = f"≈{params_words(each.effective_params)}" if each.effective_params else "-"
        place = "on disk" if each.on_disk else "not downloaded"
        marks = [place, *(["recommended"] if each is best else []), *_base(each)]
        line = f"{each.name:<{width}}  {size(each.size_bytes):>8}  {good:>7}  {speed:>12}"
        click.echo(printable(f"{line}  {each.how}; {', '.join(marks)}"))
    click.echo("\n≈7B: about as good as an unquantized model of 7 billion parameters.")
    click.echo(f"Speeds are {_sources(speeds)}.")


def _base(each: Fit) -> list[str]:
    return ["base model: not made for chat"] if each.is_base else []


def _sources(speeds: Speeds) -> str:
    """Where those with a ``~`` are from."""
    source: fit.SpeedFrom = "estimate" if speeds is USUAL else "busy" if speeds.busy else "machine"
    return f"measured in replies, or with ~ {fit.speed_words(source, speeds.measured_at)}"


def _say(problem: str) -> None:
    click.echo(problem, err=True)


def _fits(settings: Settings, machine: Machine) -> Iterator[Fit]:
    """Of what is on disk, then of what can be downloaded."""
    on_disk = models.installed(settings.folders, _say)
    for model in on_disk:
        if not model.missing:
            yield fit.of_installed(model, settings, machine)
    for recipe in models.to_download(on_disk):
        yield fit.of_recipe(recipe, machine)
