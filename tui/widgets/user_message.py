"""What the user said."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Static

from ondevice.terminal import printable


class UserMessage(Static):
    def __init__(self, text: str) -> None:
        super().__init__(Content(printable(text)))
