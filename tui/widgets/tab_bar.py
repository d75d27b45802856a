"""The open conversations, side by side in one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
from rich.cells import cell_len
from textual import events
from textual.content import Content
from textual.message import Message
from textual.widget import Widget

from ondevice.text import printable

_LEAST, _MOST = 6, 24  # cells of a title
_ROOMY = 16  # rows of a terminal in which one goes to the title of an only chat
_TITLE = 60  # characters of the terminal's own title


class TabState(msgspec.Struct, frozen=True):
    """What a tab tells of its conversation."""

    title: str
    private: bool = False
    replying: bool = False
    unread: bool = False

    def label(self, *, words: bool) -> str:
        """The title with what is to be known of it, in signs or in words."""
        title = " ".join(printable(self.title).split()) or "New chat"
        if self.replying:
            title = ("Replying: " if words else "… ") + title
        elif self.unread:
            title = ("Replied: " if words else "● ") + title
        return ("Private: " if words else "◌ ") + title if self.private else title


class TabBar(Widget):
    """Hidden while there is only a new conversation. The terminal's own title says what is shown.

    A private one is called nothing there: titles of windows are kept by other programs.
    """

    @dataclass
    class Chosen(Message):
        """The user has clicked on a tab."""

        place: int

    def __init__(self) -> None:
        super().__init__()
        self.display = False
        self._states: list[TabState] = []
        self._current = 0
        self._persona = ""
        self._terminal_title = ""

    def on_mount(self) -> None:
        self.app.app_resume_signal.subscribe(self, self._reset_title)

    def _reset_title(self, _: object) -> None:
        self._terminal_title = ""
        self.set_terminal_title()

    def show(self, tabs: Sequence[TabState], current: int, persona: str = "") -> None:
        """Tabs from left to right, the place of the one that is shown, and who answers there."""
        fresh = list(tabs)
        if (fresh, current, persona) != (self._states, self._current, self._persona):
            self._states, self._current, self._persona = fresh, current, persona
            here = fresh[current]
            named = bool(here.title or here.private or persona)
            self.display = len(fresh) > 1 or (named and self.app.size.height >= _ROOMY)
            self.refresh()
        self.set_terminal_title()

    def set_terminal_title(self) -> None:
        """Have the terminal say which chat is shown, unless it does."""
        here = self._states[self._current]
        title = "Private chat" if here.private else " ".join(printable(here.title).split())
        title = f"{'… ' if here.replying else ''}{title[:_TITLE] or 'New chat'} · ondevice"
        driver = self.app._driver
        if title != self._terminal_title and driver is not None:
            self._terminal_title = title
            driver.write(f"\x1b]2;{title}\x07")

    @property
    def _titles(self) -> list[str]:
        words = self.app.has_class("-linear")
        return [state.label(words=words) for state in self._states]

    def render(self) -> Content:
        tabs = self._tabs()
        first = self._first(tabs)
        here = self._current - first
        if self.app.has_class("-linear"):
            whose = f"as {self._persona}" if self._persona else ""
            return Content(f"Tab {self._current + 1} of {len(tabs)}:{tabs[self._current]}{whose}")
        shown = "reverse" if len(tabs) > 1 else "bold"
        drawn = [(tab, shown if place == here else "dim") for place, tab in enumerate(tabs[first:])]
        used = sum(cell_len(tab) for tab, _ in drawn)
        whose = f"as {printable(self._persona)}" if self._persona else ""
        room = self.size.width - used
        if not whose or cell_len(whose) > room:
            return Content.assemble(*drawn)
        return Content.assemble(*drawn, " " * (room - cell_len(whose)), (whose, "dim"))

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
        titles = self._titles
        room = self.size.width // max(1, len(titles)) - 2
        width = max(_LEAST, min(room, _MOST)) if len(titles) > 1 else max(_LEAST, room)
        return [f" {Content(title).truncate(width, ellipsis=True).plain} " for title in titles]

    def _first(self, tabs: Sequence[str]) -> int:
        """The place of the leftmost one drawn: the current one is always in view."""
        first = 0
        while first < self._current and (
            sum(map(cell_len, tabs[first : self._current + 1])) > self.size.width
        ):
            first += 1
        return first
