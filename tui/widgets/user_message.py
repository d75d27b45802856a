"""What the user said."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Collapsible, Static

from ondevice.chats import Attachment, Message
from ondevice.text import printable
from tui.widgets.message import MessageView

_PASTED = re.compile(r"^(pasted text \d+), \d+ lines?")  # as what was pasted is called
_LINES, _CHARACTERS = 400, 40_000  # of an attachment that are shown


class UserMessage(MessageView):
    """An earlier message, or a ``text`` with ``attachments`` that has just been sent."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("a", "attachments", "Attachments", id="message.attachments"),
    ]

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
        self._unanswered = Static(
            "No reply yet, so the model does not see this message. Press R to ask again.",
            classes="unanswered",
        )
        self._unanswered.display = message is not None and message.unanswered

    def compose(self) -> ComposeResult:
        yield from self.name_speaker("You")
        yield self._text
        for attachment in self._attachments:
            yield AttachmentView(attachment)
        if self._unanswered.display:
            yield self._unanswered
        yield from super().compose()

    @property
    def texts(self) -> Sequence[Widget]:
        return [self._text]

    def action_attachments(self) -> None:
        """Show what went with the message, or fold it again."""
        views = list(self.query(AttachmentView))
        collapsed = not all(view.collapsed for view in views)
        for view in views:
            view.collapsed = collapsed

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "attachments":
            return bool(self._attachments)
        return super().check_action(action, parameters)

    def ask_again(self) -> None:
        """A reply is to come after all."""
        self._unanswered.display = False


class AttachmentView(Collapsible):
    """A text that went with the message, folded; a click shows its beginning as well."""

    def __init__(self, attachment: Attachment) -> None:
        self._content = attachment.content
        self._body = Static()
        super().__init__(
            self._body,
            title=Content(describe(attachment)).markup,
            collapsed_symbol="+",
            expanded_symbol="-",
            classes="attachment",
        )

    def _watch_collapsed(self, collapsed: bool) -> None:
        super()._watch_collapsed(collapsed)
        if not collapsed:
            self._body.update(Content(printable(_beginning(self._content))))


def _beginning(text: str) -> str:
    lines = text[:_CHARACTERS].splitlines()
    shown = "\n".join(lines[:_LINES])
    left = len(text) - len(shown)
    return f"{shown}\n… and {left:,} more characters" if left > 1 else shown


def describe(attachment: Attachment) -> str:
    """Its name and length, for one line."""
    n_lines = len(attachment.content.splitlines())
    name = printable(" ".join(attachment.name.split()))
    name = _PASTED.sub(r"\1", name)  # only a part of it may have been sent
    return f"{name}, {n_lines} {'line' if n_lines == 1 else 'lines'}"
