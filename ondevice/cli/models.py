"""``ondevice models``: what is on disk, what can be had."""

from __future__ import annotations

import sys

import click

from ondevice import config
from ondevice.models import catalogue, installed
from ondevice.models import pull as fetch


@click.group(name="models")
def command() -> None:
    """List, fetch, import and remove models."""


@command.command(name="pull")
@click.argument("name", required=False)
@click.option("--if-missing", is_flag=True, help="Say nothing if it is there already.")
def pull(name: str | None, if_missing: bool) -> None:
    """Fetch the model NAME, or the one in your settings."""
    name = name or config.load().model
    if if_missing and name in {model.name for model in installed()}:
        return
    recipe = next((r for r in catalogue() if r.name == name), None)
    length = recipe.size_bytes if recipe else 0
    with click.progressbar(length=length, label=f"Fetching {name}", file=sys.stderr) as bar:
        fetch(name, lambda progress: bar.update(progress.done_bytes - bar.pos))
