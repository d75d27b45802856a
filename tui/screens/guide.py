"""The first steps: what is private here, then which model to begin with."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Static

from tui.screens.modal import Modal

_TEXT = """\
What you write stays on this device unless you choose a model on a server.
Chats and memories are in one file that only you can read. “ondevice memory passphrase” encrypts it.
What you delete or forget is gone for good. Only downloads and servers use a network.

Next, pick a model. The list shows how well each of them would run here."""


class GuideScreen(Modal[bool]):
    """Dismissed with whether the user wants to pick a model."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "go_on", "Pick a model", id="guide.go_on"),
    ]

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog") as dialog:
            dialog.border_title = "Welcome to ondevice"
            dialog.border_subtitle = "Enter continues · Esc closes"
            yield Static(_TEXT)

    def action_go_on(self) -> None:
        self.dismiss(True)

    def action_close(self) -> None:
        self.dismiss(False)
