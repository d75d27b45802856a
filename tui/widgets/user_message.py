"""What the user said."""

from __future__ import annotations

from collections.abc import Sequence

from textual.app import ComposeResult
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from ondevice.chats import Attachment, Message
from ondevice.terminal import printable
from tui.widgets.message import MessageView


class UserMessage(MessageView):
    """An earlier message, or a ``text`` with ``attachments`` that has just been sent."""

    def __init__(
        self,
        message: Message | None = None,
        *,
        text: str = "",
        attachments: Sequence[Attachment] = (),
    ) -> None:
        super().__init__(message)
        self._text = Static(Content(printable(message.content if message else text)))
        self._attachments = message.attachments if message else attachments

    def compose(self) -> ComposeResult:
        yield from self.name_speaker("You")
        yield self._text
        for attachment in self._attachments:
            yield Static(Content(f"+ {describe(attachment)}"), classes="attachment")
        yield from super().compose()

    @property
    def texts(self) -> Sequence[Widget]:
        return [self._text]


def describe(attachment: Attachment) -> str:
    """Its name and length, for one line."""
    n_lines = len(attachment.content.splitlines())
    name = printable(" ".join(attachment.name.split()))
    length = f", {n_lines} {'line' if n_lines == 1 else 'lines'}"
    return f"{name.removesuffix(length)}{length}"  # what was pasted is called so
