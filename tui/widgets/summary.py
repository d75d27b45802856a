"""The summary that stands in the prompt for a message and all before it, folded away below it."""

from __future__ import annotations

from textual.content import Content
from textual.widgets import Collapsible, Static

from ondevice.chats import Summary
from ondevice.text import printable


class SummaryView(Collapsible):
    def __init__(self, summary: Summary) -> None:
        title = (
            "Earlier messages, summarised"
            if summary.used
            else "Summary undone: the model sees the messages themselves"
        )
        super().__init__(Static(Content(printable(summary.content))), title=title)
