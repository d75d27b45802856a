"""What messages of both sides have in common: they can be pointed at, and something done with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from ondevice.chats import Message
from ondevice.text import printable
from tui.widgets.drawing import EvenRows
from tui.widgets.single_layout import SingleLayout
from tui.widgets.summary import SummaryView

_SEEN = ("content", "thinking", "finish_reason", "attachments", "recalled", "unanswered", "summary")


class MessageView(SingleLayout, EvenRows, Vertical, can_focus=True):
    """A message of the conversation; without ``message`` one that is not in the store yet."""

    # A click is for selecting text. Who clicks and types on means the prompt.
    FOCUS_ON_CLICK = False
    HELP = """\
## A message

Shift+Tab in the prompt selects the last message. Keys act on the selected message; anything else
you type goes to the prompt. If a message has several versions, left and right switch between them,
and so does a click on the arrows.

Where the model sees a summary of what was said so far, `s` edits it and `u` undoes it, or uses it
again.

After a search the matches are highlighted. `n` goes to the next match, `N` to the one before; Esc
ends the search, and Enter selects the message. What you type goes to the prompt.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "screen.point(-1)", "Previous message", show=False, id="message.up"),
        Binding("down", "screen.point(1)", "Next message", show=False, id="message.down"),
        Binding("left", "screen.version(-1)", "Earlier version", id="message.left"),
        Binding("right", "screen.version(1)", "Later version", id="message.right"),
        Binding("n", "screen.find_next(1)", "Next match", id="message.next_match"),
        Binding("N", "screen.find_next(-1)", "Earlier match", id="message.earlier_match"),
        Binding("enter", "screen.pick", "Select message", id="message.pick"),
        Binding("s", "screen.edit_summary", "Edit summary", id="message.edit_summary"),
        Binding("u", "screen.undo_summary", "Undo summary", id="message.undo_summary"),
        Binding("c", "screen.copy", "Copy", id="message.copy"),
        Binding("b", "screen.copy_code", "Copy code", id="message.copy_code"),
        Binding("q", "screen.quote", "Quote", id="message.quote"),
        Binding("e", "screen.edit", "Edit", id="message.edit"),
        Binding("r", "screen.regenerate", "Retry", id="message.regenerate"),
        Binding("m", "screen.used", "Memories", id="message.used"),
        Binding("g", "screen.go_on", "Go on", id="message.go_on"),
    ]

    def __init__(self, message: Message | None) -> None:
        super().__init__()
        self._versions = Static(classes="versions")
        self.id_in_store = message.id if message else None
        """Of the message; known before that is read, so that nobody takes it for another one."""
        self.message = message

    def name_speaker(self, name: str) -> ComposeResult:
        """Where colours and borders cannot tell who speaks."""
        if self.app.has_class("-linear"):
            yield Static(Content(f"{printable(name)}:"))

    def compose(self) -> ComposeResult:
        if self.message and len(self.message.versions) > 1:
            yield self._versions
        if self.message and self.message.summary:
            yield SummaryView(self.message.summary)

    @property
    def message(self) -> Message | None:
        return self._message

    @message.setter
    def message(self, message: Message | None) -> None:
        self._message = message
        self.message_changed()
        if message:
            self.id_in_store = message.id
        if message and len(message.versions) > 1:
            place = message.versions.index(message.id) + 1
            self._versions.update(Content(f"‹ {place}/{len(message.versions)} ›"))
            if self.is_mounted and not self._versions.is_attached:
                self.mount(self._versions)

    def message_changed(self) -> None:
        """It has another message, or another state of it."""

    @property
    def texts(self) -> Sequence[Widget]:
        """The widgets that show what was said, and nothing about it."""
        return ()

    def shows(self, message: Message) -> bool:
        """Whether nothing else is to be seen of it than was to be seen of its own."""
        return self._message is not None and all(
            getattr(self._message, name) == getattr(message, name) for name in _SEEN
        )

    async def on_click(self, event: events.Click) -> None:
        """The arrows of the versions switch, the left one to the left."""
        if event.widget is self._versions:
            self.screen.set_focus(self, scroll_visible=False)
            direction = -1 if event.x < self._versions.size.width / 2 else 1
            await self.app.run_action(("screen", "version", (direction, True)), self)

    async def on_key(self, event: events.Key) -> None:
        # Done at once, for the next key may be waiting here already, and is typed as well then. Not
        # so what is bound here: that may take this view away, which cannot wait for itself. But to
        # go to the next match waits for nothing, and its key may be the beginning of a word.
        bound = self.screen.active_bindings.get(event.key)
        if bound and bound.binding.action.startswith("screen.find_next"):
            event.stop()
            await self.app.run_action(bound.binding.action, self)
        elif event.character and event.is_printable and bound is None:
            event.stop()
            await self.app.run_action(("screen", "type", (event.character,)), self)
