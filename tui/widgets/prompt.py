"""Where the user types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.widgets import TextArea

from ondevice.chats import Message
from ondevice.errors import OndeviceError
from ondevice.terminal import printable
from tui import attachments, commands
from tui.messages import CommandGiven, Submitted
from tui.widgets.completions import Completion, Completions


class Prompt(TextArea):
    """A text of one or more lines; it grows with them, and is emptied when it is sent.

    ``history`` gives what was said before, oldest first.
    """

    HELP = """\
## The prompt

Enter sends; Alt+Enter or Ctrl+J begins another line, and so does Shift+Enter where the terminal
tells it apart. In the first line, Up brings back what you said before. Type `/` for commands and
`@` to attach a file. What is long and pasted is folded.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "Send", show=False, id="prompt.send"),
        Binding(
            "alt+enter,ctrl+j,shift+enter", "newline", "New line", show=False, id="prompt.newline"
        ),
        Binding("tab", "complete", "Complete", show=False, id="prompt.complete"),
        Binding("up", "up", "Earlier", show=False, id="prompt.up"),
        Binding("down", "down", "Later", show=False, id="prompt.down"),
        Binding("home", "home", show=False),
        Binding("end", "end", show=False),
        Binding("escape", "leave", "Never mind", show=False, id="prompt.leave"),
    ]

    def __init__(self, history: Callable[[], list[str]]) -> None:
        super().__init__(placeholder="Ask anything", compact=True, highlight_cursor_line=False)
        self.completions = Completions()
        self._history = _History(history)
        self._pastes = attachments.Pastes()
        self._revised: Message | None = None
        self._declined: str | None = None
        """The text for which the user wants no completions."""

    @property
    def revised(self) -> Message | None:
        """The message that the text is to replace, or None."""
        return self._revised

    def revise(self, message: Message | None) -> None:
        """Edit a message that was sent; None: never mind."""
        self._revised = message
        self.border_title = "Editing. Esc leaves it as it was" if message else ""
        self.text = printable(message.content) if message else ""
        self.move_cursor(self.document.end)
        self.screen.set_focus(self)

    def give_back(self, text: str) -> None:
        """Put what was sent before what has been typed since."""
        self.insert(text, (0, 0), maintain_selection_offset=True)

    def quote(self, text: str) -> None:
        """Put ``text`` into the prompt as a quotation."""
        lines = [f"> {line}".rstrip() for line in printable(text).strip().splitlines()]
        self.insert("\n".join([*lines, "", ""]))
        self.screen.set_focus(self)

    # ------------------------------------------------------------------ actions

    def action_send(self) -> None:
        text = self.text.strip()
        chosen = self._completion()
        if chosen and chosen.text.strip() != text:
            self.action_complete()
        elif text and (command := commands.given(text)):
            self.clear()
            self._history.add(text)
            self.post_message(CommandGiven(*command))
        elif text:
            self._submit(text)

    def _submit(self, text: str) -> None:
        try:
            going = [*attachments.attached(text), *self._pastes.attached(text)]
        except OndeviceError as error:
            self.notify(str(error), severity="error")
            return
        replaced = self._revised
        if replaced:
            names = {attachment.name for attachment in going}
            going += [a for a in replaced.attachments if a.name in text and a.name not in names]
        self.revise(None)
        self._history.add(text)
        pasted = tuple(self._pastes.lines(text))
        self.post_message(Submitted(text, tuple(going), replaced, pasted))

    def action_newline(self) -> None:
        self.insert("\n")

    def action_complete(self) -> None:
        if chosen := self._completion():
            row, column = self.cursor_location
            self.replace(chosen.text, (row, column - len(chosen.typed)), (row, column))
        else:
            self.screen.focus_next()

    def action_up(self) -> None:
        if self._completion():
            self.completions.action_cursor_up()
        elif self.cursor_location[0] == 0 and self.selection.is_empty:
            self._recall(self._history.back(self.text))
        else:
            self.action_cursor_up()

    def action_down(self) -> None:
        if self._completion():
            self.completions.action_cursor_down()
        elif self.cursor_at_last_line and self.selection.is_empty:
            self._recall(self._history.forth())
        else:
            self.action_cursor_down()

    def action_home(self) -> None:
        if self._completion():
            self.completions.action_first()
        else:
            self.action_cursor_line_start()

    def action_end(self) -> None:
        if self._completion():
            self.completions.action_last()
        else:
            self.action_cursor_line_end()

    def action_leave(self) -> None:
        if self._completion():
            self._declined = self.text
            self._completion()
        elif self._revised:
            self.revise(None)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "leave":  # otherwise Escape stops the reply
            return self.completions.display or self._revised is not None
        return super().check_action(action, parameters)

    def _recall(self, text: str | None) -> None:
        if text is not None:
            self.text = self._declined = printable(text)
            self.move_cursor(self.document.end)

    # ------------------------------------------------------------------ events

    def on_resize(self) -> None:
        self.call_after_refresh(self.scroll_cursor_visible)

    def on_text_area_changed(self) -> None:
        self._completion()

    def _completion(self) -> Completion | None:
        """The highlighted one of those that fit the text as it is now."""
        row, column = self.cursor_location
        before = self.document.get_line(row)[:column]
        offered = self.text != self._declined and (row == 0 or "@" in before)
        self.completions.look_at(before if offered else "")
        return self.completions.chosen

    async def _on_key(self, event: events.Key) -> None:
        # Bindings wait for their turn in the app, and by then later keys may have been typed:
        # what is bound here is done here, in the order of typing.
        bound = self.screen.active_bindings.get(event.key)
        if bound and bound.node is self and await self.app.run_action(bound.binding.action, self):
            event.stop()
            event.prevent_default()

    async def _on_paste(self, event: events.Paste) -> None:
        # Terminals paste line ends as carriage returns.
        text = printable(event.text.replace("\r\n", "\n").replace("\r", "\n"))
        event.text = self._pastes.fold(text)


class _History:
    """What was said before; what is being typed is its newest line."""

    def __init__(self, load: Callable[[], Sequence[str]]) -> None:
        self._load = load
        self._lines: list[str] | None = None
        self._place = 0
        self._typed = ""

    def add(self, text: str) -> None:
        if self._lines is not None:
            if text in self._lines:
                self._lines.remove(text)
            self._lines.append(text)
            self._place = len(self._lines)

    def back(self, typed: str) -> str | None:
        if self._lines is None:
            self._lines = list(self._load())
            self._place = len(self._lines)
        if self._place == len(self._lines):
            self._typed = typed
        if self._place == 0:
            return None
        self._place -= 1
        return self._lines[self._place]

    def forth(self) -> str | None:
        if self._lines is None or self._place >= len(self._lines):
            return None
        self._place += 1
        return self._typed if self._place == len(self._lines) else self._lines[self._place]
