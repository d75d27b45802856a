"""The memories that a reply was given, here or on a server, folded away below it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from textual.content import Content
from textual.widgets import Collapsible, Static

from ondevice.memory import Cube
from ondevice.text import printable
from tui import days

_KEYS = re.compile(r" \([^()]*\)(?=\.$)")  # what else a question may call a fact
_READ = re.compile(r"About (.*?): (.*)\.$", re.DOTALL)  # a fact that a model has read
_CALLED = {
    "turn": "said in a chat",
    "note": "your note",
    "fact": "from what you said",
    "profile": "from what you said",
    "lesson": "how you like replies",
    "document": "from a file",
}


class Memories(Collapsible):
    def __init__(self, cubes: Sequence[Cube], server: str | None = None) -> None:
        lines = [
            part
            for cube in cubes
            for part in (
                f"{sentence(cube)}  ",
                (f"{days.said(cube.event_at)}, {origin(cube)}\n", "dim"),
            )
        ]
        count = "1 memory" if len(cubes) == 1 else f"{len(cubes)} memories"
        sent = f", sent to {printable(server)}" if server else ""
        title = Content(f"Used {count}{sent}").markup
        super().__init__(Static(Content.assemble(*lines).rstrip()), title=title)


def sentence(cube: Cube) -> str:
    """What it says, on one line, without the words that are only there to find it by."""
    text = " ".join(printable(cube.content).split())
    if cube.kind not in ("fact", "profile"):
        return text
    plain = _KEYS.sub("", text)
    if read := _READ.match(plain):
        return f"{read[1][:1].upper()}{read[1][1:]}: {read[2]}"
    return plain


def origin(cube: Cube) -> str:
    """Where it comes from, in a few words; a chat only where it is not called like the memory."""
    name = printable(" ".join(cube.source.name.split()))
    told = " ".join(printable(cube.content).split())
    if cube.source.kind == "document":
        return f"from {name}"
    if name and cube.source.kind == "conversation" and not _same(name, told):
        return f"said in “{name}”"
    return _CALLED[cube.kind]


def _same(title: str, told: str) -> bool:
    """Whether the title of a chat is the beginning of what was told."""
    title = title.rstrip("….").casefold()
    return told.casefold().startswith(title)
