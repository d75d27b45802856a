"""The terminal app."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import Any, ClassVar

from rich.console import RenderableType
from rich.text import Text
from textual import constants, events, on, work
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.driver import Driver
from textual.notifications import Notify, SeverityLevel
from textual.screen import Screen
from textual.theme import Theme, ThemeProvider
from textual.widgets import TextArea

from ondevice import chats
from ondevice.config import Settings
from ondevice.engine import EngineLike
from ondevice.errors import OndeviceError, StoreError
from ondevice.messages import URL_SCHEMES
from ondevice.text import printable
from tui import clipboard, idle_gc, textual_gaps, theme
from tui.commands import COMMANDS
from tui.cursor import STILL_AFTER, Cursor
from tui.error_net import ErrorNet
from tui.idle_compacting import Compacting
from tui.idle_learning import Learning
from tui.messages import CommandGiven, ReplyEnded
from tui.screens.chat import ChatScreen
from tui.screens.dialogs import ChoiceScreen
from tui.screens.modal import Modal
from tui.screens.palette import Palette
from tui.shared_engine import SharedEngine
from tui.widgets.conversation import Conversation

_IDLE = 2.0  # seconds without any input
_PAUSES = 5.0  # seconds without any input
_LEARN_EVERY = 10.0  # seconds
_AWAY = 60.0  # seconds without any input
_TWICE = 3.0  # seconds in which a key counts as pressed again

textual_gaps.close()


class OndeviceApp(App[None]):
    """Chat with ``engine``; conversations go to ``store``, from ``earlier`` on if there is one.

    ``first``: the user is told what to know and asked for a model. ``problems``: what of the
    settings is wrong and has its default. The app closes the engine when
    it ends.
    """

    TITLE = "ondevice"
    # Here and not in the screens: the screen an app starts with does not load its own.
    CSS_PATH = [  # noqa: RUF012  (textual's own declaration)
        "screens/chat.tcss",
        "screens/dialog.tcss",
        "screens/models.tcss",
        "screens/linear.tcss",
        "screens/ram.tcss",
        "screens/chats.tcss",
    ]
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+q", "quit", "Quit", id="app.quit", priority=True),
        # Where text is selected, ctrl+c copies it and does not come here.
        Binding("ctrl+c", "interrupt", show=False, id="app.interrupt"),
        Binding("ctrl+z", "suspend", "Suspend", show=False, id="app.suspend", priority=True),
        Binding("f1", "help", "Help", show=False, id="app.help"),
    ]

    def __init__(
        self,
        engine: EngineLike,
        store: chats.Chats,
        settings: Settings,
        earlier: chats.Chat | None = None,
        *,
        first: bool = False,
        problems: Sequence[str] = (),
    ) -> None:
        # The terminal's own colours, so that with NO_COLOR none is sent at all, not even greys.
        super().__init__(ansi_color="NO_COLOR" in os.environ or None)
        if self.no_color:
            self.theme = "ansi-dark"
        elif settings.app.theme in self.available_themes:
            self.theme = settings.app.theme
        self.set_class(settings.app.linear, "-linear")
        self.set_keymap(settings.app.keys)
        self._engine = SharedEngine(engine)
        self._store = store
        self._settings = settings
        self._problems = problems
        self._learning = Learning(self._engine, store)
        self._compacting = Compacting(self._engine)
        self._input_at = time.monotonic()
        self._interrupted_at = -_TWICE
        self._cursor = Cursor(self)
        self._at_end = ExitStack()
        self.net = ErrorNet()
        self._earlier = earlier
        self._first = first
        self._chat: ChatScreen | None = None

    def copy_to_clipboard(self, text: str, what: str = "") -> None:
        """Copy, and say that ``what`` is copied, if that is given."""
        super().copy_to_clipboard(text)
        self.run_worker(clipboard.hand_over(self, text, what))

    def get_driver_class(self) -> type[Driver]:
        if os.name != "posix" or constants.DRIVER:
            return super().get_driver_class()
        from tui.driver import TerminalDriver  # noqa: PLC0415 - Windows lacks what it takes

        return TerminalDriver

    def get_default_screen(self) -> ChatScreen:
        self._chat = ChatScreen(self._engine, self._store, self._settings, self._earlier)
        self._chat.first = self._first
        self._chat.problems = self._problems
        return self._chat

    @property
    def chat(self) -> ChatScreen:
        """The screen below all others."""
        assert self._chat is not None
        return self._chat

    def get_system_commands(self, screen: Screen[object]) -> Iterable[SystemCommand]:
        """All that can be done on the screen, by whatever key or word."""
        yield from (c for c in super().get_system_commands(screen) if c.title == "Theme")
        if isinstance(screen, ChatScreen):
            keys = {  # those of what has the focus do something else: Ctrl+C copies a selection
                active.binding.action: self.get_key_display(active.binding)
                for active in reversed(screen.active_bindings.values())
                if active.node in (screen, self)
            }
            for command in COMMANDS:
                given = partial(screen.obey, CommandGiven(command.name, ""))
                spelled = f"/{command.name} {command.argument}".strip()
                title = f"{spelled}  {command.help}"
                yield SystemCommand(title, keys.get(command.action, ""), given)
            return
        for active in screen.active_bindings.values():
            binding = active.binding
            if active.enabled and binding.description:
                do = partial(self.run_action, binding.action, active.node)
                yield SystemCommand(binding.description, self.get_key_display(binding), do)

    def notify(
        self,
        message: str,
        *,
        title: str = "",
        severity: SeverityLevel = "information",
        timeout: float | None = None,
        markup: bool = False,
    ) -> None:
        """Show a sentence for a while: plain text, whatever file names and models put into it.

        ``markup`` counts for nothing: widgets and screens say that it is.
        """
        super().notify(
            printable(message),
            title=printable(title),
            severity=severity,
            timeout=timeout,
            markup=False,
        )

    @on(Notify)
    def _show_newest_only(self) -> None:
        """Several sentences, or one that comes again and again, would cover the chat."""
        self._notifications.clear()

    def action_help(self) -> None:
        """Tell what can be done here."""
        from tui.screens.help import HelpScreen  # noqa: PLC0415 - a faster start

        self.push_screen(HelpScreen(self.screen))

    # ------------------------------------------------------------------ errors

    def _handle_exception(self, error: Exception) -> None:
        """Go on after any error that reached nobody else; Textual would end the app."""
        sentence = self.net.catch(error)
        if self._exit:
            return
        if self.net.hopeless or self._chat is None or not self._chat.prompt.is_attached:
            self.exit(
                return_code=1,
                message=Text(
                    f"{sentence or 'The same error kept occurring.'} The app had to "
                    "close. Run “ondevice chat” to get back your open chats and what you "
                    "typed."
                ),
            )
        elif sentence:
            self.notify(sentence, severity="error")

    def _on_loop_error(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Exception):
            self._handle_exception(error)

    # ------------------------------------------------------------------ leaving

    async def action_quit(self) -> None:
        """Leave; ask first if something would be lost."""
        if self.chat.loss_on_quit:
            if not isinstance(self.screen, ChoiceScreen):
                self._ask_to_leave()
        else:
            self.exit()

    @work
    async def _ask_to_leave(self) -> None:
        if await self.push_screen_wait(
            ChoiceScreen(
                f"{self.chat.loss_on_quit} Quit anyway?",
                "Stay",
                "Quit",
            )
        ):
            self.exit()

    async def action_interrupt(self) -> None:
        """Stop the reply, or else clear the prompt, or else leave if that is asked for twice."""
        now, before = time.monotonic(), self._interrupted_at
        self._interrupted_at = -_TWICE
        if isinstance(self.screen, Modal):
            await self.screen.run_action("close")
        elif self.chat.conversation.replying:
            self.chat.conversation.stop()
        elif self.chat.prompt.drop():
            self.chat.set_focus(self.chat.prompt)
        elif now - before < _TWICE:
            await self.action_quit()
        else:
            self._interrupted_at = now
            self.notify("Press Ctrl+C again to quit.", timeout=_TWICE)

    def action_command_palette(self) -> None:
        if self._nodes._get_by_id("--command-palette") is None:  # also not one that is closing
            self.push_screen(Palette(id="--command-palette"))

    def search_themes(self) -> None:
        """Choose one, in the list that the command “Theme” opens."""
        self.push_screen(Palette([ThemeProvider], placeholder="Search for themes…"))

    def action_suspend(self) -> None:
        """Give the terminal back to the shell until it says “fg”."""
        driver = self._driver
        if sys.platform != "win32" and driver and getattr(driver, "has_shell", False):
            self._suspend_signal()
            os.killpg(os.getpgrp(), signal.SIGTSTP)  # as the terminal would: the whole job
        elif isinstance(self.focused, TextArea):
            self.focused.action_undo()

    def exit(
        self,
        result: None = None,
        return_code: int = 0,
        message: RenderableType | None = None,
    ) -> None:
        if self._chat and not self._exit:
            self._chat.keeping.end()
        super().exit(result, return_code, message)

    def on_mount(self) -> None:
        self.theme = theme.shown(self, self._settings.app.theme)
        asyncio.get_running_loop().set_exception_handler(self._on_loop_error)
        self.theme_changed_signal.subscribe(self, self._keep_theme)
        # Without a terminal, as in tests, one app may come after the other in a process.
        loop, stays = asyncio.get_running_loop(), not self.is_headless
        self._at_end.enter_context(idle_gc.collected_when_idle(loop, stays=stays))
        self.set_interval(_LEARN_EVERY, self._learn)
        self.set_interval(STILL_AFTER, self._cursor.rest)

    async def on_event(self, event: events.Event) -> None:
        if isinstance(event, events.InputEvent):
            if not self._screen_stack:
                return  # the app is ending
            self._input_at = time.monotonic()
            self._cursor.move()
        await super().on_event(event)

    def _keep_theme(self, chosen: Theme) -> None:
        chat = self.screen_stack[0]
        if not isinstance(chat, ChatScreen) or self.no_color:
            return
        if theme.shown(self, chat.settings.app.theme) != chosen.name:  # or it comes from there
            chat.set("app.theme", chosen.name)

    @on(ReplyEnded)
    def _use_pause(self, message: ReplyEnded) -> None:
        self._think_of_title(message.conversation)
        self._compact(message.conversation)

    @work(group="title", exclusive=True)
    async def _think_of_title(self, conversation: Conversation) -> None:
        """Have the model give a new conversation a title, once the user pauses."""
        loaded, id_ = self._engine.loaded, conversation.id_in_store
        if loaded is None or id_ is None or loaded.path.startswith(URL_SCHEMES):
            return  # a server may want money for it
        await self._pause_of(_IDLE)
        try:
            title = await self._engine.aside(
                lambda engine: chats.think_of_title(conversation.store, engine, id_)
            )
        except OndeviceError:
            return  # it has the title it had; what is wrong shows with the next message
        if title:
            conversation.title = title
            if isinstance(self.screen_stack[0], ChatScreen):
                self.screen_stack[0].show_status()

    @work(group="idle compacting", exclusive=True)
    async def _compact(self, conversation: Conversation) -> None:
        """Have the model sum up the beginning of a long chat, once the user pauses."""
        await self._pause_of(_PAUSES)
        if conversation.is_attached and not conversation.replying:
            await self._compacting.run(conversation)

    async def _pause_of(self, seconds: float) -> None:
        """Wait until there has been no input for so long."""
        began = time.monotonic()
        while (wait := max(self._input_at, began) + seconds - time.monotonic()) > 0:
            await asyncio.sleep(wait)

    def _learn(self) -> None:
        chat = self.screen_stack[0]
        away = time.monotonic() - self._input_at > _AWAY
        if away and isinstance(chat, ChatScreen) and chat.settings.memory:
            self.run_worker(self._learning.run(chat.conversation), group="learning")

    async def on_unmount(self) -> None:
        self._at_end.close()
        await self._engine.close()
        with suppress(StoreError):
            await asyncio.to_thread(self._store.unsaved.save)
        if self._chat:
            self._chat.keeping.close()
