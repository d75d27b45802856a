"""Where the user types."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.widgets import TextArea

from ondevice.terminal import printable
from tui.messages import Submitted


class Prompt(TextArea):
    """A text of one or more lines; it grows with them."""

    BINDINGS: ClassVar[list[BindingType]] = [
        # Before TextArea itself takes the key for a new line.
        Binding("enter", "send", "Send", show=False, id="prompt.send", priority=True),
        Binding("ctrl+j,shift+enter", "newline", "New line", id="prompt.newline"),
    ]

    def __init__(self) -> None:
        super().__init__(
            placeholder="Ask anything", compact=True, highlight_cursor_line=False, id="prompt"
        )

    def action_send(self) -> None:
        if self.text.strip():
            self.post_message(Submitted(self.text.strip()))

    def action_newline(self) -> None:
        self.insert("\n")

    async def _on_paste(self, event: events.Paste) -> None:
        # Terminals paste line ends as carriage returns.
        event.text = printable(event.text.replace("\r\n", "\n").replace("\r", "\n"))
        await super()._on_paste(event)
