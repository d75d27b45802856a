"""Picks an earlier conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Label, OptionList
from textual.widgets.option_list import Option

from ondevice.chats import Heading
from ondevice.terminal import printable


class EarlierScreen(ModalScreen[int | None]):
    """Dismissed with the id of a conversation, or None."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss", "Close", id="earlier.close"),
        Binding("ctrl+c", "app.quit", show=False, id="earlier.quit"),
    ]

    def __init__(self, headings: Sequence[Heading]) -> None:
        super().__init__()
        self._headings = headings

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = "Earlier chats"
            dialog.border_subtitle = "Enter opens · Esc closes"
            if self._headings:
                yield OptionList(*map(_option, self._headings))
            else:
                yield Label("Nothing yet: what you say is kept from the first message on.")

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(self._headings[event.option_index].id)


def _option(heading: Heading) -> Option:
    when = heading.updated_at.astimezone()
    return Option(
        Content.assemble(
            printable(heading.title),
            (f"\n{when:%d %b %Y %H:%M} · {heading.messages} messages", "dim"),
        )
    )
