"""The memories that a reply was given, here or on a server, folded away below it."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.widgets import Collapsible, Static

from ondevice.memory import Cube
from ondevice.terminal import printable


class Memories(Collapsible):
    def __init__(self, cubes: Sequence[Cube], server: str | None = None) -> None:
        lines = [
            f"{cube.label}  {cube.event_at:%d %b %Y}, {provenance(cube)}: {printable(cube.content)}"
            for cube in cubes
        ]
        count = "1 memory" if len(cubes) == 1 else f"{len(cubes)} memories"
        sent = f", sent to {printable(server)}" if server else ""
        title = Content(f"With {count}{sent}").markup
        super().__init__(Static(Content("\n".join(lines))), title=title)


def provenance(cube: Cube) -> str:
    """Where it comes from, in a few words."""
    name = printable(" ".join(cube.source.name.split()))
    return f"{cube.kind} from “{name}”" if name else cube.kind
