"""What commands print for other programs: one form for all of them."""

from __future__ import annotations

import click
import msgspec

from ondevice.text import printable_json


def print_json(value: object) -> None:
    """Print it so that people can read it, too, without what a terminal would obey."""
    click.echo(printable_json(msgspec.json.format(msgspec.json.encode(value), indent=2)))
