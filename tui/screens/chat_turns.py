"""What can be done with the messages of the chat: edit, answer anew, switch, copy, quote."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, cast

from textual import on, work
from textual.binding import Binding, BindingType
from textual.worker import Worker

from ondevice.chats import Message
from ondevice.errors import OndeviceError
from ondevice.messages import server_of
from tui.idle_compacting import compact
from tui.markdown.code import Code
from tui.markdown.layout import MarkdownBlock
from tui.messages import ReplyEnded
from tui.screens.chat_base import ChatBase
from tui.screens.dialogs import ChoiceScreen, TextScreen
from tui.widgets.conversation import Conversation
from tui.widgets.message import MessageView
from tui.widgets.reply import Reply
from tui.widgets.reply_text import ReplyBody

if TYPE_CHECKING:
    from tui.app import OndeviceApp

_OF_MESSAGE = ("copy", "copy_code", "quote", "edit", "regenerate", "used", "go_on", "wrap_code")
_STOPPABLE = ("load", "import", "compact")  # groups of workers
_ONE_WORD = 1.0  # seconds between two letters of it


class ChatTurns(ChatBase):
    """The message meant is the one that is pointed at, or else the last one."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f3", "copy_code", "Copy code", show=False, id="chat.copy_code"),
    ]

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._letter = ""
        """The one that has just led to another match; it may be the beginning of a word."""
        self._letter_at = 0.0
        self.code_shift = 0
        """Of lines of code that are cut, so many columns are to the left of what is shown."""
        self._copied: Code | None = None

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action in ("find_next", "pick"):
            return self.conversation.finding
        if action in _OF_MESSAGE and self.conversation.finding:  # what is typed is for the prompt
            return not isinstance(self.focused, MessageView)
        if action == "stop":
            loading = any(w.group in _STOPPABLE and not w.is_finished for w in self.workers)
            here = self.conversation
            return here.replying or here.finding or loading or not self.prompt.has_focus
        if action in ("edit_summary", "undo_summary"):
            view = self.conversation.in_focus
            return bool(view and view.message and view.message.summary) and super().check_action(
                action, parameters
            )
        if action == "version":
            return len(parameters) > 1 or self._version(int(str(parameters[0]))) is not None
        return super().check_action(action, parameters)

    @on(ReplyEnded)
    @on(Worker.StateChanged)
    def _show_keys(self) -> None:
        self.refresh_bindings()

    def action_point(self, direction: int) -> None:
        """Point at the message before or after; past the last one is the prompt."""
        conversation = self.conversation
        conversation.end_find()
        found = None
        if pointed_at := conversation.in_focus:
            found = conversation.neighbour(pointed_at, direction)
        elif direction < 0 and (last := conversation.last_in_view):
            found = last.id_in_store
        if found is None:
            self.set_focus(self.prompt)
            conversation.to_end()
        else:
            conversation.point(found)

    def action_edge(self, direction: int) -> None:
        """Go to the beginning (-1) or the end (1) of the chat."""
        if direction < 0:
            self.conversation.to_start()
        else:
            self.conversation.to_end()

    def action_type(self, character: str) -> None:
        """The user types, but not in the prompt."""
        if time.monotonic() - self._letter_at < _ONE_WORD:
            character = self._letter + character
        self._letter_at = 0.0
        self.conversation.end_find()
        self.set_focus(self.prompt)
        self.prompt.insert(character)

    def action_find_next(self, direction: int) -> None:
        """Go to the next match (1) or the one before (-1)."""
        self._letter, self._letter_at = "n" if direction > 0 else "N", time.monotonic()
        self.conversation.find_next(direction)

    def action_pick(self) -> None:
        """Have the keys of the message that was found."""
        self.conversation.end_find()
        self.refresh_bindings()

    def action_edit(self) -> None:
        if message := self._current_message("user"):
            self.prompt.revise(message)

    def action_regenerate(self) -> None:
        if not self.is_busy() and (message := self._current_message()):
            self.set_focus(self.prompt)
            self.conversation.regenerate(message)

    def action_go_on(self) -> None:
        if not self.is_busy() and (message := self._current_message()):
            if message is not self.conversation.messages[-1]:
                self.notify("Only the last reply can be continued.")
                return
            self.set_focus(self.prompt)
            self.conversation.go_on(message)

    # ------------------------------------------------------------------ summaries

    async def action_compact(self, what: str = "") -> None:
        """Have the model see a summary of all but the last exchange; or edit it, or undo it."""
        if what == "edit":
            self.action_edit_summary()
        elif what == "undo":
            await self.action_undo_summary()
        elif what:
            self.notify("Usage: /compact, /compact edit or /compact undo")
        elif self.id_in_store is not None and not self.is_busy():
            self._compact(self.conversation)

    @work(group="compact", exclusive=True)
    async def _compact(self, conversation: Conversation) -> None:
        if self.engine.loaded is None or server_of(self.engine.loaded.path):
            self.notify("Summaries are written by models on this device. Press Ctrl+L to load one.")
            return
        notice = conversation.note("Summarising the earlier messages … Esc stops this.")
        try:
            async with self.engine.turn():
                """What was done aside makes way."""
            done = await compact(self.engine, conversation, now=True)
        except OndeviceError as error:
            notice.say(f"The earlier messages are not summarised: {error}")
            return
        except asyncio.CancelledError:
            notice.say("Stopped. What is summarised so far is kept; /compact undo takes it back.")
            raise
        if conversation.replying:
            notice.say("Your message came first. Use /compact again to summarise the rest.")
        elif done:
            notice.say(
                f"The model now sees a summary in place of {done} earlier messages. Use /compact "
                "edit to change it, or /compact undo to take it back."
            )
        elif conversation.id_in_store is not None:
            why = "The last exchange always stays as it is."
            if done is None:
                why = "The model wrote no notes that could be used. Try another model."
            notice.say(f"Nothing was summarised. {why}")

    @work
    async def action_edit_summary(self) -> None:
        """Edit the summary that ends with the message, or else the last one."""
        message, store = self._with_summary(), self.conversation.store
        if message is None or message.summary is None:
            return
        text = kept = message.summary.content
        while True:
            screen = TextScreen("What the model sees of earlier messages", text, kept)
            written = await self.app.push_screen_wait(screen)
            if written is None or not (text := written.strip()):
                return
            edit = partial(store.edit_summary, message.id, text, instead_of=kept)
            try:
                kept = await asyncio.to_thread(edit)
            except OndeviceError as error:
                self.conversation.note(str(error), error=True)
                self._copy(text, "What you wrote")
                return
            self._show_summary()
            if kept == text:
                return
            theirs = ChoiceScreen(
                f"Another window has changed this summary meanwhile. It says now:\n\n{kept}",
                "Go on with what you wrote; saving that replaces it",
                "Keep what it says now",
            )
            if await self.app.push_screen_wait(theirs):
                return

    async def action_undo_summary(self) -> None:
        """Have the model see the messages themselves, or the summary again."""
        message, store = self._with_summary(), self.conversation.store
        if message is None or message.summary is None or self.is_busy():
            return
        used = not message.summary.used
        try:
            await asyncio.to_thread(store.use_summary, message.id, used)
        except OndeviceError as error:
            self.notify(str(error), severity="error")
        self._show_summary()

    def _with_summary(self) -> Message | None:
        view = self.conversation.in_focus
        if view and view.message and view.message.summary:
            return view.message
        found = next((m for m in reversed(self.conversation.messages) if m.summary), None)
        if found is None:
            self.notify("No messages of this chat are summarised.")
        return found

    def _show_summary(self) -> None:
        self.conversation.follow()
        self.conversation.measure(anew=True)

    # ------------------------------------------------------------------ versions, copies

    async def action_version(self, direction: int, either: bool = False) -> None:
        """Switch to the branch of an earlier or later version of the message.

        ``either``: the other way where there is none.
        """
        version = self._version(direction)
        if version is None and either:
            version = self._version(-direction)
        if version is not None and not self.is_busy():
            try:
                await self.conversation.show_version(version)
            except OndeviceError as error:
                self.notify(str(error), severity="error")

    def _version(self, direction: int) -> int | None:
        """The version of the message before or after the one that is shown."""
        if (message := self._current_message()) is None:
            return None
        place = message.versions.index(message.id) + direction
        return message.versions[place] if 0 <= place < len(message.versions) else None

    def action_copy(self) -> None:
        selected = self.get_selected_text()
        if selected:
            self._copy(selected, "The selected text")
        elif text := self._current_text():
            self._copy(text, "The message")

    def action_copy_code(self) -> None:
        """Copy the block of code that is in view; again: the one before."""
        found = [(text, block) for text in self._replies() for block in text.blocks]
        if not found:
            self.notify("The reply has no code block.")
            return
        codes = [block.code for _, block in found]
        if self._copied in codes and self._copied and self.app.clipboard == self._copied.text:
            place = codes.index(self._copied) - 1
        else:
            place = max(range(len(found)), key=lambda place: (*self._in_view(*found[place]), place))
        self._copy_code(codes[place], f"Code block {place % len(codes) + 1} of {len(codes)}")

    @on(ReplyBody.CopyWanted)
    def _copy_clicked(self, wanted: ReplyBody.CopyWanted) -> None:
        self._copy_code(wanted.code, "The code block")

    def _copy_code(self, code: Code, which: str) -> None:
        self._copied = code
        lines = len(code.lines)
        what = f"{code.language or 'text'}, {lines} {'line' if lines == 1 else 'lines'}"
        self._copy(code.text, f"{which} ({what})")

    def _replies(self) -> list[ReplyBody]:
        """The texts of the reply that is pointed at, or else of all that are mounted."""
        view = self.conversation.in_focus
        views = [view] if isinstance(view, Reply) else self.conversation.views
        return [text for view in views for text in view.texts if isinstance(text, ReplyBody)]

    def _in_view(self, text: ReplyBody, block: MarkdownBlock) -> tuple[bool, int]:
        """Whether a block of code is on the screen, and else how much; below 0: how far from it."""
        view = self.conversation.region
        first = max(view.y, text.region.y + block.first)
        last = min(view.bottom, text.region.y + block.last)
        whole = last - first == block.last - block.first
        return whole, 0 if whole else last - first

    def action_wrap_code(self) -> None:
        """Break long lines of code, or cut them at the edge."""
        self.code_shift = 0
        self.toggle_class("-cut-code")
        self._redraw_code()

    def action_shift_code(self, columns: int) -> None:
        """Show what is farther right, or farther left, of lines of code that are cut."""
        if self.has_class("-cut-code"):
            codes = [block.code for text in self._replies() for block in text.blocks]
            longest = max((len(line) for code in codes for line in code.lines), default=0)
            self.code_shift = max(0, min(self.code_shift + columns, longest - 1))
            self._redraw_code()

    def _redraw_code(self) -> None:
        for text in self.query(ReplyBody):
            text.redraw()

    def action_quote(self) -> None:
        selected = self.get_selected_text()
        if selected:
            self.prompt.quote(selected)
        elif text := self._current_text():
            self.prompt.quote(text)

    def _copy(self, text: str, what: str) -> None:
        cast("OndeviceApp", self.app).copy_to_clipboard(text, what)

    def _current_text(self) -> str:
        """Of the message that is pointed at, or else of the last one."""
        view = self.conversation.in_focus
        if isinstance(view, Reply) and self.conversation.is_being_written(view):
            return view.source
        message = self._current_message()
        return message.content if message else ""

    def _current_message(self, role: str = "") -> Message | None:
        """The message that is pointed at, or else the last one, of that role if one is given."""
        view = self.conversation.in_focus
        if view and not role:
            return view.message
        if view and view.message and role == view.message.role:
            return view.message
        messages = reversed(self.conversation.messages)
        return next((m for m in messages if role in ("", m.role)), None)
