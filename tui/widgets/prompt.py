"""Where the user types."""

from __future__ import annotations

from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.widgets import TextArea

from ondevice.terminal import printable
from tui.messages import Submitted


class Prompt(TextArea):
    """A text of one or more lines; it grows with them, and is emptied when it is sent."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "Send", show=False, id="prompt.send"),
        Binding("ctrl+j,shift+enter", "newline", "New line", id="prompt.newline"),
    ]

    def __init__(self) -> None:
        super().__init__(placeholder="Ask anything", compact=True, highlight_cursor_line=False)

    def give_back(self, text: str) -> None:
        """Put what was sent before what has been typed since."""
        self.insert(text, (0, 0), maintain_selection_offset=True)

    def action_send(self) -> None:
        if text := self.text.strip():
            self.clear()
            self.post_message(Submitted(text))

    def action_newline(self) -> None:
        self.insert("\n")

    async def _on_key(self, event: events.Key) -> None:
        # Bindings wait for their turn in the app, and by then later keys may have been typed:
        # what is bound here is done here, in the order of typing.
        bound = self.screen.active_bindings.get(event.key)
        if bound and bound.node is self and await self.app.run_action(bound.binding.action, self):
            event.stop()
            event.prevent_default()

    async def _on_paste(self, event: events.Paste) -> None:
        # Terminals paste line ends as carriage returns.
        event.text = printable(event.text.replace("\r\n", "\n").replace("\r", "\n"))
