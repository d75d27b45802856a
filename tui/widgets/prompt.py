"""Where the user types."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.messages import Update
from textual.strip import Strip
from textual.widgets import TextArea

from ondevice.chats import Attachment, Message
from ondevice.errors import OndeviceError
from ondevice.text import printable
from tui import attachments, commands
from tui.attachments import whole_name
from tui.messages import CommandGiven, Submitted
from tui.typed import Typed
from tui.widgets.completions import Completion, Completions

_LONG = 0.3  # seconds of reading files after which it is said


class PromptInput(TextArea):
    """A text of one or more lines; it grows with them, and is emptied when it is sent.

    ``history`` gives what was said before, oldest first. ``edit_queued`` puts into it what was sent
    last and waits, and says whether there was any such thing.
    """

    HELP = """\
## The prompt

Enter sends; Shift+Enter, Alt+Enter or Ctrl+J starts a new line. Some terminals send Shift+Enter as
Enter; use one of the others there. In the first line, Up brings back your earlier messages. Ctrl+_
undoes, and Ctrl+D in an empty prompt quits. Type `/` for commands and `@` to attach a file. Long
pasted text is folded.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "send", "Send", show=False, id="prompt.send"),
        Binding(
            "alt+enter,ctrl+j,shift+enter", "newline", "New line", show=False, id="prompt.newline"
        ),
        Binding("tab", "complete", "Complete", show=False, id="prompt.complete"),
        Binding("up", "up", "Earlier", show=False, id="prompt.up"),
        Binding("down", "down", "Later", show=False, id="prompt.down"),
        Binding("home", "home", show=False, id="prompt.home"),
        Binding("end", "end", show=False, id="prompt.end"),
        Binding("escape", "leave", "Cancel", show=False, id="prompt.leave"),
        Binding("ctrl+d", "delete_or_quit", show=False, id="prompt.quit"),
        Binding("ctrl+underscore,alt+z,super+z", "undo", "Undo", show=False, id="prompt.undo"),
    ]

    def __init__(
        self, history: Callable[[], list[str]], edit_queued: Callable[[], bool] = lambda: False
    ) -> None:
        super().__init__(placeholder="Ask anything", compact=True, highlight_cursor_line=False)
        self._edit_queued = edit_queued
        self.completions = Completions()
        self._history = _PromptHistory(history)
        self.on_its_way: list[Submitted] = []
        """What was sent, and the screen has not taken yet."""
        self._pastes = attachments.Pastes()
        self._coloured: object = None
        self._revised: Message | None = None
        self._beneath = ""
        self._declined: str | None = None
        """The text for which the user wants no completions."""

    def render_lines(self, crop: Region) -> list[Strip]:
        """Textual works the colours out for each frame, a quarter of the time that most take."""
        if self._coloured is not self._theme:
            self._coloured = self._theme
            return super().render_lines(crop)
        return super(TextArea, self).render_lines(crop)

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._coloured = None

    @property
    def revised(self) -> Message | None:
        """The message that the text is to replace, or None."""
        return self._revised

    @property
    def typed(self) -> Typed:
        """All that is typed here and not sent."""
        text = self._history.typed(self.text)
        pastes = self._pastes.mentioned(text + self._beneath)
        return Typed(text, self._revised, self._beneath, {a.name: a.content for a in pastes})

    def show_typed(self, typed: Typed, whose: object = None) -> None:
        """Go on with what was typed in another conversation; ``whose`` is a private one."""
        self._history.go_to(whose)
        self._revised = typed.replaced
        self._beneath = printable(self._pastes.bring_back(typed.beneath, typed.pastes))
        self.text = printable(self._pastes.bring_back(typed.text, typed.pastes))
        self._show_what()

    def revise(self, message: Message | None) -> None:
        """Edit a message that was sent; None: never mind.

        What was being typed waits until then; a changed text that is given up is in the history.
        """
        if self._revised and self.text != printable(self._revised.content):
            self._history.add(self.text)
        elif message and not self._revised:
            self._beneath = self._history.typed(self.text)
            self._history.leave()
        self._revised = message
        self.text = printable(message.content) if message else self._beneath
        if message is None:
            self._beneath = ""
        self._show_what()
        self.screen.set_focus(self)

    def drop(self) -> bool:
        """Clear it; the history and an undo bring the text back. Whether there was any."""
        if self._revised:
            self.revise(None)
        elif self.text:
            self._clear_into_history(self.text)
        else:
            return False
        return True

    def _clear_into_history(self, text: str) -> None:
        """Clear it, but for what was typed beside; an undo brings it back."""
        rest = self._history.add(text)
        self.clear()
        self.insert(rest)

    def remember(self, texts: Sequence[str]) -> None:
        """Have Up bring back what was typed and not sent."""
        for text in texts:
            self._history.add(text)

    def forget(self, whose: object) -> None:
        """Know nothing any more of what was said in a private conversation."""
        self._history.forget(whose)

    async def _read_files(self, text: str) -> list[Attachment]:
        def show() -> None:
            # Neither a timer of this widget nor a new look has its turn while keys wait for this.
            self.border_title = "Reading the attached files"
            self.screen.post_message(Update(self))

        timer = asyncio.get_running_loop().call_later(_LONG, show)
        try:
            return await asyncio.to_thread(attachments.attached, text)
        finally:
            timer.cancel()
            self._show_title()

    def _show_what(self) -> None:
        self._show_title()
        self.move_cursor(self.document.end)

    def _show_title(self) -> None:
        self.border_title = "Editing. Esc cancels" if self._revised else ""

    def give_back(self, text: str) -> None:
        """Put what was sent before what has been typed since."""
        if self.text.strip() and not text.endswith("\n"):
            text += "\n"
        self.insert(text, (0, 0), maintain_selection_offset=True)

    def quote(self, text: str) -> None:
        """Put ``text`` into the prompt as a quotation."""
        lines = [f"> {line}".rstrip() for line in printable(text).strip().splitlines()]
        self.insert("\n".join([*lines, "", ""]))
        self.screen.set_focus(self)

    # ------------------------------------------------------------------ actions

    async def action_send(self) -> None:
        text = self.text.strip()
        chosen = self._completion()
        if chosen and self.completions.by_enter and chosen.text.strip() != text:
            self.action_complete()
        elif text and (command := commands.given(text)):
            self._clear_into_history(text)
            self.post_message(CommandGiven(*command))
        elif text:
            await self._submit(text)

    async def _submit(self, text: str) -> None:
        """Keys that are pressed while files are read wait until the text is sent."""
        replaced = self._revised
        kept = replaced.attachments if replaced else ()
        names_kept = [whole_name(attachment.name) for attachment in kept]
        try:
            files = await self._read_files(text) if "@" in text else []
            going = [*files, *self._pastes.attached(text, names_kept)]
        except OndeviceError as error:
            self.notify(str(error), severity="error")
            return
        if (self.text.strip(), self._revised) != (text, replaced):
            return  # another conversation is shown now
        if replaced:
            names = {attachment.name for attachment in going}
            going += [
                one
                for one, name in zip(kept, names_kept, strict=True)
                if name in text and name not in names
            ]
        left = filter(None, [self._beneath, self._history.add(text)])
        self._revised, self.text, self._beneath = None, "\n".join(left), ""
        self._show_what()
        sent = Submitted(text, tuple(going), replaced, tuple(self._pastes.lines(text)))
        self.on_its_way.append(sent)
        self.post_message(sent)

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
        elif not self.text and self._edit_queued():
            pass
        elif self.cursor_location[0] == 0 and self.selection.is_empty:
            self._recall(self._history.back(self.text))
        else:
            self.action_cursor_up()

    def action_down(self) -> None:
        if self._completion():
            self.completions.action_cursor_down()
        elif self.cursor_at_last_line and self.selection.is_empty:
            self._recall(self._history.forth(self.text))
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

    async def action_delete_or_quit(self) -> None:
        if self.text or self._revised:
            self.action_delete_right()
        else:
            await self.app.run_action("app.quit")

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
        self.completions.complete(before if offered else "")
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
        event.text = self._pastes.fold(text, self.text)


class _PromptHistory:
    """What was said before; what is being typed is its newest line.

    A line that is changed stays so until something is sent: nothing that was typed is lost on the
    way up and down. Lines of a private conversation are there only while that is shown.
    """

    def __init__(self, load: Callable[[], Sequence[str]]) -> None:
        self._load = load
        self._all: list[tuple[object, str]] | None = None
        self._early: list[tuple[object, str]] = []  # before the others were needed
        self._whose: object = None
        self._lines: list[str] = []
        self._changed: dict[int, str] = {}
        self._place = 0

    def go_to(self, whose: object) -> None:
        """Another conversation is shown; None: not a private one."""
        self._whose = whose
        self._begin()

    def add(self, text: str) -> str:
        """Take the present line for said; what was typed in others, which is in none any more."""
        self._changed.pop(self._place, None)
        rest = self.typed("")
        lines = self._early if self._all is None else self._all
        line = (self._whose, text)
        if line in lines:
            lines.remove(line)
        lines.append(line)
        self._begin()
        return rest

    def leave(self) -> None:
        """Be at the newest line again; what was typed in others is in none any more."""
        self._begin()

    def forget(self, whose: object) -> None:
        """Leave out what was said in a private conversation."""
        self._early = [line for line in self._early if line[0] is not whose]
        if self._all is not None:
            self._all = [line for line in self._all if line[0] is not whose]
        self._begin()

    def back(self, typed: str) -> str | None:
        if self._all is None:
            said = [text for text in self._load() if (None, text) not in self._early]
            self._all = [*((None, text) for text in said), *self._early]
            self._begin()
        return self._go(typed, -1)

    def forth(self, typed: str) -> str | None:
        return self._go(typed, 1)

    def typed(self, text: str) -> str:
        """What was typed of all lines, with ``text`` as the present one; the others were said."""
        said = dict(enumerate(self._lines))
        lines = sorted((self._changed | {self._place: text}).items())
        return "\n".join(line for at, line in lines if line and line != said.get(at))

    def _begin(self) -> None:
        lines = self._early if self._all is None else self._all
        self._lines = [text for whose, text in lines if whose in (None, self._whose)]
        self._place = len(self._lines)
        self._changed = {}

    def _go(self, typed: str, direction: int) -> str | None:
        place = self._place + direction
        if self._all is None or not 0 <= place <= len(self._lines):
            return None
        self._changed[self._place] = typed
        self._place = place
        return self._changed.get(place, "") if place == len(self._lines) else self._line(place)

    def _line(self, place: int) -> str:
        return self._changed.get(place, self._lines[place])
