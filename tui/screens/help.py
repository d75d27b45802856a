"""Tells what can be done with what has the focus: in words, then key by key."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.dom import DOMNode
from textual.screen import Screen
from textual.widgets import Markdown, Static

from ondevice.text import printable
from tui.screens.modal import Modal


class HelpScreen(Modal[None]):
    """Help for ``screen`` and the widget in focus on it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f1,q", "close", "Close", id="help.close"),
    ]

    def __init__(self, screen: Screen[object]) -> None:
        super().__init__()
        self._about: list[DOMNode] = [
            *(screen.focused.ancestors_with_self if screen.focused else [screen])
        ]
        self._active = list(screen.active_bindings.values())

    def compose(self) -> ComposeResult:
        with VerticalScroll(classes="dialog") as dialog:
            dialog.border_title = "Help"
            dialog.border_subtitle = "Esc closes"
            for node in self._about:
                if node.HELP:
                    yield Markdown(node.HELP)
            yield Static(Content("\n".join(self._keys())))

    def _keys(self) -> list[str]:
        keys: dict[str, list[str]] = {}
        for active in self._active:
            # What has no id are the usual keys for editing and scrolling.
            if active.enabled and active.binding.id and (description := active.binding.description):
                shown = self.app.get_key_display(active.binding)
                keys.setdefault(description, []).append(shown)
        told = {description: " ".join(dict.fromkeys(all_)) for description, all_ in keys.items()}
        width = max(map(len, told.values()), default=0)
        return [printable(f"{told[name]:>{width}}  {name}") for name in told]
