"""What could be meant by the command or file name that is being typed."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import msgspec
from textual.content import Content
from textual.widget import Widget
from textual.widgets.option_list import Option

from ondevice.text import printable
from tui import attachments, commands
from tui.widgets.pointing_list import PointingList

_SHOWN = 50  # files
_MOST = 10  # lines


class Completion(msgspec.Struct, frozen=True):
    typed: str
    """What of it stands before the cursor."""
    text: str
    """What to put there instead."""
    label: str
    help: str = ""
    by_tab: bool = False
    """Whether Enter sends what is typed, unless it was pointed at."""


class Completions(PointingList, can_focus=False):
    """Hidden while there is nothing to choose from. The prompt drives it."""

    def __init__(self) -> None:
        super().__init__()
        self.display = False
        self._before = ""
        self._choices: list[Completion] = []

    def on_mount(self) -> None:
        self.screen.screen_layout_refresh_signal.subscribe(self, lambda _: self._fit())

    def _fit(self) -> None:
        """Leave room for the others, for the prompt above all, and a line of the conversation."""
        assert self.parent is not None
        others = [
            child.outer_size.height + child.styles.margin.height
            for child in self.parent.children
            if isinstance(child, Widget)
            and child is not self
            and child.display
            and not (child.styles.height and child.styles.height.is_fraction)
        ]
        room = self.screen.size.height - sum(others) - 1
        self.styles.max_height = max(1, min(_MOST, room))

    def complete(self, before: str) -> None:
        """Offer what fits the text before the cursor; nothing for an empty one."""
        if before == self._before:
            return
        self._before = before
        self._choices = _completions(before)
        self.display = bool(self._choices)
        self.set_options(
            Option(Content.assemble(printable(choice.label), (f"  {choice.help}", "dim")))
            for choice in self._choices
        )
        self.highlighted = 0 if self._choices else None

    def page(self, direction: int) -> None:
        """Move by as many as are seen at once."""
        self._move_page(1 if direction > 0 else -1)

    @property
    def chosen(self) -> Completion | None:
        """The one that is highlighted, if any is to be seen."""
        if not self.display or self.highlighted is None:
            return None
        return self._choices[self.highlighted]

    @property
    def by_enter(self) -> bool:
        """Whether Enter takes the one that is highlighted."""
        chosen = self.chosen
        return chosen is not None and not (chosen.by_tab and self.highlighted == 0)


def _completions(before: str) -> list[Completion]:
    if before.startswith("/") and " " not in before and "\n" not in before:
        return [
            Completion(
                before,
                f"/{command.name}{' ' if command.argument else ''}",
                f"/{command.name} {command.argument}".strip(),
                command.help,
            )
            for command in commands.beginning(before[1:])
        ]
    found = re.fullmatch(r"/([a-z]+) +(.*)", before)
    if found and (command := commands.find(found[1])) is not None:
        return _arguments(command, found[2])
    typed = attachments.mention(before)
    if typed is None:
        return []
    return [
        Completion(
            before[before.rindex("@") :],
            f'@"{path}"' if " " in path else f"@{path}",
            path,
            by_tab=_is_file(typed),
        )
        for path in attachments.files(typed, _SHOWN)
        if path != typed
    ]


def _arguments(command: commands.Command, typed: str) -> list[Completion]:
    may_be_empty = command.argument.startswith("[")
    offered = typed or may_be_empty
    words = [word for word in command.words if offered and word.startswith(typed)]
    paths = attachments.files(typed, _SHOWN) if command.takes_file else []
    # What is typed means something already; /export names what is not there yet.
    means = typed in words or (may_be_empty and not typed)
    as_typed = means or command.name == "export" or _is_there(typed)
    return [
        Completion(typed, text, text, by_tab=as_typed) for text in [*words, *paths] if text != typed
    ]


def _is_file(typed: str) -> bool:
    return _is_there(typed) and Path(typed).expanduser().is_file()


def _is_there(typed: str) -> bool:
    with suppress(OSError, ValueError, RuntimeError):  # no name for a file; no such user
        return Path(typed).expanduser().exists()
    return False
