"""A reasoning model's thinking, folded away above its answer."""

from __future__ import annotations

import time

from textual.widgets import Collapsible

from ondevice.text import printable
from tui.widgets.reply_text import ReplyBody


class Thinking(Collapsible):
    """The whole of it, or without ``text`` one that is to come. Drawn only once it is open.

    ``cut``: it was ended so that the answer begins.
    """

    def __init__(self, text: str = "", *, cut: bool = False) -> None:
        self._undrawn = text.strip()
        self._body = ReplyBody()
        self._since: float | None = None if text else time.monotonic()
        self._told = "Thought"
        self._cut = cut
        super().__init__(self._body, title=self._thought() if text else "Thinking …")

    def _thought(self) -> str:
        return f"{self._told}, cut short" if self._cut else self._told

    def say_cut(self) -> None:
        """Say that it was ended so that the answer begins."""
        self._cut = True
        if self._since is None:
            self.title = self._thought()

    @property
    def source(self) -> str:
        """The whole of it."""
        return f"{self._body.source}{printable(self._undrawn)}".strip()

    async def write(self, text: str) -> None:
        """Append what has come."""
        self._undrawn += text if self._undrawn or self._body.source else text.lstrip()
        await self._draw()

    async def finish(self) -> None:
        """Say how long it took."""
        if self._since is not None:
            self._told = f"Thought for {time.monotonic() - self._since:.0f} s"
            self._since = None
            self.title = self._thought()
            if self._body.source:
                await self._body.finish()

    def _watch_collapsed(self, collapsed: bool) -> None:
        super()._watch_collapsed(collapsed)
        self.call_later(self._draw)

    async def _draw(self) -> None:
        if not self.collapsed and self._undrawn:
            text, self._undrawn = self._undrawn, ""
            await self._body.write(text)
            if self._since is None:
                await self._body.finish()
