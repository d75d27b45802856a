"""What all screens that lie over the chat have in common."""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

from textual.binding import Binding, BindingType
from textual.screen import ModalScreen

_Result = TypeVar("_Result")


class Modal(ModalScreen[_Result], Generic[_Result]):
    """A dialog; the keys of the app do not reach what lies below it."""

    VERTICAL_BREAKPOINTS = [(0, "-short"), (18, "-tall")]  # noqa: RUF012  (textual's own declaration)
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (60, "-usual"), (100, "-wide")]  # noqa: RUF012
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "close", "Close", id="dialog.close"),
        Binding("ctrl+p", "app.command_palette", show=False, id="dialog.palette"),
        Binding("f1", "app.help", "Help", show=False, id="dialog.help"),
        Binding("ctrl+c", "app.interrupt", show=False, id="dialog.quit"),
    ]

    def action_close(self) -> None:
        self.dismiss(None)
