"""What was sent while a reply is under way, and waits for its end."""

from __future__ import annotations

from collections.abc import Sequence

from textual.content import Content
from textual.widgets import Static

from ondevice.text import printable

_SHOWN = 3  # messages


class Queue(Static):
    """Hidden while nothing waits."""

    DEFAULT_CSS = """
    Queue {
        height: auto;
        padding: 0 2;
        color: $text-muted;
        text-wrap: nowrap;
        text-overflow: ellipsis;
        display: none;
    }
    """

    def __init__(self) -> None:
        super().__init__()
        self._texts: list[str] = []

    def show(self, texts: Sequence[str]) -> None:
        """The messages that wait, in the order in which they will be sent."""
        if (fresh := list(texts)) == self._texts:
            return
        self._texts = fresh
        self.display = bool(fresh)
        lines = [f"Queued: {' '.join(printable(text).split())}" for text in fresh[:_SHOWN]]
        if len(fresh) > _SHOWN:
            lines.append(f"and {len(fresh) - _SHOWN} more")
        if fresh:
            lines[-1] += "  (Up edits it)"
        self.update(Content("\n".join(lines)))
