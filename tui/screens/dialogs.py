"""Small questions: one of a few answers, a line of text, or a longer one."""

from __future__ import annotations

from typing import ClassVar

from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.widgets import Input, Label, OptionList, TextArea

from ondevice.text import printable
from tui.screens.modal import Modal
from tui.widgets.pointing_list import PointingList


class ChoiceScreen(Modal[int | None]):
    """Dismissed with the place of the chosen answer, or None.

    The answers are in view however long the question is, which is scrolled then. ``now`` is the
    answer that holds already, if one does: it is pointed at.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("pagedown", "read(1)", show=False, id="choice.down", priority=True),
        Binding("pageup", "read(-1)", show=False, id="choice.up", priority=True),
    ]

    def __init__(self, question: str, *answers: str, now: str = "") -> None:
        super().__init__()
        self._question = question
        self._answers = answers
        self._now = now

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            with VerticalScroll(id="question", can_focus=False):
                yield Label(Content(printable(self._question)))
            yield PointingList(*(Content(printable(answer)) for answer in self._answers))

    def on_mount(self) -> None:
        if self._now in self._answers:
            self.query_one(OptionList).highlighted = self._answers.index(self._now)

    def on_resize(self) -> None:
        self.call_after_refresh(self._show_keys)

    def _show_keys(self) -> None:
        read = ["PgDn reads on"] if self.query_one("#question").max_scroll_y else []
        keys = " · ".join([*read, "Enter chooses", "Esc closes"])
        self.query_one(".dialog").border_subtitle = keys

    def action_read(self, direction: int) -> None:
        """Turn a page of the question, or of the answers if all of that is in view."""
        question = self.query_one("#question")
        pages = question if question.max_scroll_y else self.query_one(OptionList)
        getattr(pages, "action_page_down" if direction > 0 else "action_page_up")()

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        self.dismiss(event.option_index)


class LineScreen(Modal[str | None]):
    """Dismissed with a line of text, or None. ``empty`` is what an empty one stands for."""

    def __init__(self, title: str, value: str, empty: str = "") -> None:
        super().__init__()
        self._title = title
        self._value = value
        self._empty = empty

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = Content(printable(self._title))
            dialog.border_subtitle = "Enter saves · Esc closes"
            yield Input(printable(self._value), placeholder=self._empty, select_on_focus=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self.dismiss(event.value)


class TextScreen(Modal[str | None]):
    """Dismissed with a text of several lines, or None. ``kept``: what is not lost, if not all."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+s", "take", "Save", id="text.take", priority=True),
        Binding("alt+enter,ctrl+j,shift+enter", "newline", show=False),
    ]

    def __init__(self, title: str, text: str, kept: str | None = None) -> None:
        super().__init__()
        self._title = title
        self._text = text
        self._kept = text if kept is None else kept

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = Content(printable(self._title))
            dialog.border_subtitle = "Ctrl+S saves · Esc closes"
            yield TextArea(printable(self._text), compact=True, highlight_cursor_line=False)

    def action_newline(self) -> None:
        self.query_one(TextArea).insert("\n")

    def action_close(self) -> None:
        """Close it; what was written is not lost without a question."""
        self._close()

    @work
    async def _close(self) -> None:
        if self.query_one(TextArea).text != printable(self._kept):
            question = ChoiceScreen(
                "This text is not saved.", "Keep writing", "Save it", "Discard it"
            )
            match await self.app.push_screen_wait(question):
                case 1:
                    self.action_take()
                    return
                case 2:
                    pass
                case _:
                    return
        self.dismiss(None)

    def action_take(self) -> None:
        self.dismiss(self.query_one(TextArea).text)
