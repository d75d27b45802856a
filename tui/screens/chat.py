"""The main screen: a conversation, the prompt and the status bar, and tabs if more are open."""

from __future__ import annotations

import asyncio
from inspect import isawaitable
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer

from ondevice import config, models
from ondevice.config import Settings, to_fetch
from ondevice.errors import ConfigError, LoadCancelled, ModelNotFound, OndeviceError
from ondevice.models import InstalledModel
from ondevice.ram import process
from tui import commands
from tui.messages import CommandGiven, NotSent, ReplyEnded, ReplyProgressed, Submitted
from tui.model_work import Kind, ModelWork
from tui.screens.chat_keeping import ChatKeeping
from tui.screens.chat_memory import ChatMemory
from tui.screens.chat_tabs import ChatTabs
from tui.screens.chat_turns import ChatTurns
from tui.widgets.welcome import Welcome

if TYPE_CHECKING:
    from ondevice.choice import Choice

_LOOK_AT_RAM = 1.0  # seconds


class ChatScreen(ChatTurns, ChatTabs, ChatKeeping, ChatMemory):
    AUTO_FOCUS = "Prompt"
    HELP = """\
## The chat

Esc stops a reply. Nothing is lost: all that is said is kept as it comes. What these keys do, and
more, is also in the command palette.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop", id="chat.stop"),
        Binding("ctrl+n", "new", "New", id="chat.new"),
        Binding("ctrl+r", "chats", "Chats", id="chat.chats"),
        Binding("ctrl+o", "memory", "Memory", id="chat.memory"),
        Binding("ctrl+l", "models", "Models", id="chat.models"),
        Binding("ctrl+g", "ram", "RAM", id="chat.ram"),
        Binding("f2", "settings", "Settings", show=False, id="chat.settings"),
        Binding("f1", "app.help", "Help", id="chat.help"),
        Binding("ctrl+f", "find", "Find", show=False, id="chat.find", priority=True),
        Binding(
            "ctrl+pagedown,f6", "tab(1)", "Next tab", show=False, id="chat.next", priority=True
        ),
        Binding("ctrl+pageup,shift+f6", "tab(-1)", show=False, id="chat.previous", priority=True),
        Binding("f4", "close", "Close tab", show=False, id="chat.close"),
        # Before the prompt takes them for its own few lines.
        Binding("ctrl+up", "point(-1)", "Messages", show=False, id="chat.up", priority=True),
        Binding("ctrl+down", "point(1)", show=False, id="chat.down", priority=True),
        Binding("ctrl+home", "edge(-1)", "Beginning", show=False, id="chat.start", priority=True),
        Binding("ctrl+end", "edge(1)", "End", show=False, id="chat.end", priority=True),
        Binding("pageup", "page(-1)", show=False, id="chat.page_up", priority=True),
        Binding("pagedown", "page(1)", show=False, id="chat.page_down", priority=True),
    ]

    first = False
    """Whether the user is to be shown around before a model is loaded."""

    def compose(self) -> ComposeResult:
        yield self.tab_bar
        yield self.conversation
        yield self.prompt.completions
        yield self.prompt
        yield self.status
        yield Footer()

    def on_mount(self) -> None:
        self.model_work = ModelWork(self.run_worker, self._model_ready)
        self._choosing: Screen[InstalledModel | None] | None = None
        self.set_interval(_LOOK_AT_RAM, self._look_at_ram)
        self.show_status()
        if self.first:
            self.action_guide()
        else:
            self.load_model()

    # ------------------------------------------------------------------ talking

    @on(Submitted)
    def _send(self, message: Submitted) -> None:
        if self.is_busy():
            self.prompt.revise(message.replaced)
            self.prompt.give_back(message.text)
        else:
            replaced = message.replaced.id if message.replaced else None
            self.conversation.ask(message.text, message.attachments, replaced, message.pasted)

    @on(CommandGiven)
    async def obey(self, given: CommandGiven) -> None:
        self.conversation.end_find()
        command = commands.find(given.name)
        if command is None:
            self.notify(f"There is no command /{given.name}. F1 shows them.", severity="warning")
        elif command.argument[:1].isupper() and not given.argument:
            self.prompt.text = f"/{command.name} "
            self.notify(f"Say /{command.name} {command.argument}.")
        elif command.argument:
            done = getattr(self, f"action_{command.action}")(given.argument)
            if isawaitable(done):
                await done
        else:
            await self.run_action(command.action)

    @on(NotSent)
    def _give_back(self, message: NotSent) -> None:
        if message.conversation is self.conversation:
            self.prompt.give_back(message.text)
        else:
            message.conversation.draft = f"{message.text}{message.conversation.draft}"

    @on(ReplyProgressed)
    @on(ReplyEnded)
    def _show_progress(self) -> None:
        self.show_status()

    def action_stop(self) -> None:
        if self.conversation.finding:
            self.conversation.end_find()
            self.set_focus(self.prompt)
        elif self.conversation.replying:
            self.conversation.stop()
        elif self.prompt.has_focus:
            self.workers.cancel_group(self, "load")
            self.workers.cancel_group(self, "import")
        else:
            self.set_focus(self.prompt)

    def action_page(self, direction: int) -> None:
        conversation = self.conversation
        conversation.scroll_relative(y=direction * (conversation.size.height - 2), animate=False)

    async def action_quit(self) -> None:
        await self.app.action_quit()

    # ------------------------------------------------------------------ the engine

    @work
    async def action_guide(self) -> None:
        """Say what is private here, then let a model be picked."""
        from tui.screens.guide import GuideScreen  # noqa: PLC0415 - a faster start

        if await self.app.push_screen_wait(GuideScreen()):
            self.action_models("Enter fetches a model, or loads one that is on disk.")
        elif self.engine.loaded is None:
            self.load_model()

    @work
    async def action_models(self, hint: str = "") -> None:
        """Choose a model and load it."""
        from tui.screens.models import ModelsScreen  # noqa: PLC0415 - a faster start

        screen = ModelsScreen(self.engine, self.model_work, self.settings, self._model, hint)
        self._choosing = screen
        model = await self.app.push_screen_wait(screen)
        if model is not None:
            for conversation in self.conversations:
                conversation.stop()
            self.load_model(model)
            self._keep_model(model)

    def _model_ready(self, model: InstalledModel, kind: Kind) -> None:
        """A model was fetched or packed while the user did something else, or waited for it."""
        if kind == "fetch" and self.engine.loaded is None and not self.engine.is_busy:
            if self.app.screen is self._choosing:
                self.app.screen.dismiss(model)
            else:
                self.load_model(model)
                self._keep_model(model)
        else:
            self.notify(f"{model.name} is ready. /models loads it.")

    def _keep_model(self, model: InstalledModel) -> None:
        """Load it next time, too."""
        name = model.name if model.place == "ondevice" else model.location
        if name != self.settings.model:
            try:
                self.settings = config.change(self.settings, "model", name)
            except ConfigError as error:
                self.notify(str(error), severity="error")

    def action_ram(self) -> None:
        # Only now: what reads stacks brings llama.cpp along.
        from tui.screens.ram import RamScreen  # noqa: PLC0415

        self.app.push_screen(RamScreen(self.engine, lambda: self.status.estimate))

    @work(group="load", exclusive=True)
    async def load_model(self, model: InstalledModel | None = None) -> None:
        """Load a model (None: that of the settings) in place of the one loaded before."""
        async with self.engine.turn():
            try:
                name = model.location if model else None
                choice = await asyncio.to_thread(_choose, self.settings, name)
                self._model = self.status.model = model.name if model else choice.model.name
                self.status.loaded = 0.0
                for welcome in self.query(Welcome):
                    welcome.tell(choice.request.path)
                if choice.why:
                    self.notify(choice.why)
                await self.engine.load(choice.request, self._show_loading)
            except LoadCancelled:
                pass
            except ModelNotFound as error:
                self.action_models(self._not_found(error))
            except OndeviceError as error:
                await self.conversation.note(str(error), error=True)
            finally:
                self._show_model()

    def _not_found(self, error: ModelNotFound) -> str:
        titles = {recipe.name: recipe.title for recipe in models.catalogue()}
        name = to_fetch(self.settings.model)
        title = titles.get(name)
        return f"{title} is not on disk yet. Enter fetches it." if title else str(error)

    def _show_model(self) -> None:
        loaded = self.engine.loaded
        self.status.loaded = None
        self.status.model = self._model if loaded else "no model"
        self.status.n_ctx = (loaded.n_ctx or None) if loaded else None
        for conversation in self.conversations:
            conversation.statistics = None
        self.show_status()
        self.call_later(self.refresh_bindings)

    def _show_loading(self, fraction: float) -> None:
        self.status.loaded = fraction

    def _look_at_ram(self) -> None:
        pid = self.engine.pid
        self.status.ram = process.of_process(pid) if pid else None


def _choose(settings: Settings, name: str | None) -> Choice:
    # Only now, while the app is there already: what plans brings numpy along.
    from ondevice.choice import choose  # noqa: PLC0415

    return choose(settings, name)
