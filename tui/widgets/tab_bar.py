"""The open conversations, side by side in one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len
from textual import events
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from ondevice.terminal import printable

_LEAST, _MOST = 6, 24  # cells of a title


class TabBar(Widget):
    """Hidden while there is only one conversation."""

    @dataclass
    class Chosen(Message):
        """The user has clicked on a tab."""

        place: int

    def __init__(self) -> None:
        super().__init__()
        self.display = False
        self._titles: list[str] = []
        self._current = 0

    def show(self, titles: Sequence[str], current: int) -> None:
        """Titles from left to right, and the place of the one that is shown."""
        fresh = [" ".join(printable(title).split()) or "New chat" for title in titles]
        if (fresh, current) != (self._titles, self._current):
            self._titles, self._current = fresh, current
            self.display = len(fresh) > 1
            self.refresh()

    def render(self) -> Content:
        tabs = self._tabs()
        first = self._first(tabs)
        here = self._current - first
        if self.app.has_class("-linear"):
            return Content(f"Tab {self._current + 1} of {len(tabs)}:{tabs[self._current]}")
        return Content.assemble(
            *(
                (tab, "reverse" if place == here else "dim")
                for place, tab in enumerate(tabs[first:])
            )
        )

    def on_click(self, event: events.Click) -> None:
        tabs = self._tabs()
        x = event.x
        for place in range(self._first(tabs), len(tabs)):
            x -= cell_len(tabs[place])
            if x < 0:
                self.post_message(self.Chosen(place))
                return

    def _tabs(self) -> list[str]:
        """What is drawn of each."""
        room = self.size.width // max(1, len(self._titles)) - 2
        width = max(_LEAST, min(room, _MOST))
        return [
            f" {Content(title).truncate(width, ellipsis=True).plain} " for title in self._titles
        ]

    def _first(self, tabs: Sequence[str]) -> int:
        """The place of the leftmost one drawn: the current one is always in view."""
        first = 0
        while first < self._current and (
            sum(map(cell_len, tabs[first : self._current + 1])) > self.size.width
        ):
            first += 1
        return first
