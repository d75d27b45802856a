"""A sentence from the app itself, between the messages of a conversation."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from ondevice.text import printable


class NoticeText(Static):
    """``error`` makes it stand out."""

    def __init__(self, text: str, *, error: bool = False) -> None:
        super().__init__(Content(printable(text)), classes="-error" if error else "")

    def say(self, text: str) -> None:
        """Another sentence in its place."""
        self.update(Content(printable(text)))
