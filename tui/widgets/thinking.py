"""A reasoning model's thinking, folded away above its answer."""

from __future__ import annotations

import time

from textual.content import Content
from textual.widgets import Collapsible, Static

from ondevice.terminal import printable


class Thinking(Collapsible):
    """The whole of it, or without ``text`` one that is to come. Drawn only while it is open."""

    def __init__(self, text: str = "") -> None:
        self._text = printable(text)
        self._body = Static()
        self._since: float | None = None if text else time.monotonic()
        super().__init__(self._body, title="Thought" if text else "Thinking …")

    def write(self, text: str) -> None:
        """Append what has come."""
        self._text += printable(text)
        self._draw()

    def finish(self) -> None:
        """Say how long it took."""
        if self._since is not None:
            self.title = f"Thought for {time.monotonic() - self._since:.0f} s"
            self._since = None

    def _watch_collapsed(self, collapsed: bool) -> None:
        super()._watch_collapsed(collapsed)
        self._draw()

    def _draw(self) -> None:
        if not self.collapsed:
            self._body.update(Content(self._text.strip()))
