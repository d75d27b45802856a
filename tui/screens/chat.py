"""The main screen: a conversation, the prompt and the status bar, and tabs if more are open."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
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
from tui.messages import CommandGiven, NotKept, ReplyEnded, ReplyProgressed, Submitted
from tui.model_work import Kind, ModelWork
from tui.screens.chat_keeping import ChatKeeping
from tui.screens.chat_memory import ChatMemory
from tui.screens.chat_tabs import ChatTabs
from tui.screens.chat_turns import ChatTurns
from tui.widgets.conversation import Conversation
from tui.widgets.welcome import Welcome

if TYPE_CHECKING:
    from ondevice.choice import Choice

_LOOK_AT_RAM = 1.0  # seconds
_BESIDE = 120  # columns, from which on a panel has room beside the chat


class ChatScreen(ChatTurns, ChatTabs, ChatKeeping, ChatMemory):
    AUTO_FOCUS = "Prompt"
    VERTICAL_BREAKPOINTS = [(0, "-tiny"), (10, "-short"), (18, "-tall")]  # noqa: RUF012
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
    problems: Sequence[str] = ()
    """What of the settings is wrong and has its default."""

    def compose(self) -> ComposeResult:
        yield self.tab_bar
        yield self.conversation
        yield self.prompt.completions
        yield self.queue
        yield self.prompt
        yield self.status
        yield Footer()

    def on_mount(self) -> None:
        self.model_work = ModelWork(self.run_worker, self._model_ready)
        self._choosing: Screen[InstalledModel | None] | None = None
        self._asked: dict[Conversation, Submitted] = {}
        self.set_interval(_LOOK_AT_RAM, self._look_at_ram)
        self.prompt.take(self.conversation.typed)
        self.show_status()
        self.tell_problems(self.problems)
        self.run_worker(self.open_the_rest(), group="open")
        if self.first:
            self.action_guide()
        else:
            self.load_model()

    # ------------------------------------------------------------------ talking

    @on(Submitted)
    def _send(self, message: Submitted) -> None:
        if self.conversation.replying or self.conversation.queued:
            self.conversation.queued.append(message)
            self.show_status()
        else:
            self._ask(self.conversation, message)

    def _ask(self, conversation: Conversation, message: Submitted) -> None:
        replaced = message.replaced.id if message.replaced else None
        if replaced is not None and replaced not in {one.id for one in conversation.messages}:
            self.give_back(conversation, [replace(message, replaced=None)])
            self.notify("The message that you were editing is no longer in this chat.")
            return
        self._asked[conversation] = message
        conversation.ask(message.text, message.attachments, replaced, message.pasted)

    @on(NotKept)
    async def _give_back_unkept(self, message: NotKept) -> None:
        conversation = message.conversation
        if sent := self._asked.pop(conversation, None):
            self.give_back(conversation, [sent])
        await self.look_at_store()

    @on(ReplyEnded)
    def _go_on_with_queue(self, message: ReplyEnded) -> None:
        """Send the next message that waits; after a reply that failed or was stopped, none."""
        conversation = message.conversation
        self._asked.pop(conversation, None)
        conversation.unread = conversation is not self.conversation
        if queued := conversation.queued:
            last = conversation.messages[-1] if conversation.messages else None
            if last and last.role == "assistant" and last.finish_reason in ("stop", "length"):
                self._ask(conversation, queued.pop(0))
            else:
                conversation.queued = []
                self.give_back(conversation, queued)
                self.notify("What waited to be sent is in the prompt again.")
        self.show_status()

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

    @on(ReplyProgressed)
    def _show_progress(self) -> None:
        self.show_status()

    def action_stop(self) -> None:
        if self.conversation.finding:
            self.conversation.end_find()
            self.set_focus(self.prompt)
        elif self.conversation.replying:
            self.conversation.stop()
        elif self.prompt.has_focus:
            if self.status.loaded is not None:
                self.notify("The model was not loaded, for Esc was pressed. Ctrl+L loads one.")
            self.workers.cancel_group(self, "load")
            self.workers.cancel_group(self, "import")
        else:
            self.set_focus(self.prompt)

    def action_page(self, direction: int) -> None:
        if (completions := self.prompt.completions).display:
            completions.page(direction)
            return
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

    async def action_ram(self) -> None:
        """Show what is in RAM: beside the chat where there is room, and else over it."""
        # Only now: what reads stacks brings llama.cpp along.
        from tui.screens.ram import RamPanel, RamScreen  # noqa: PLC0415

        beside = self.app.size.width >= _BESIDE
        if panels := self.query(RamPanel):
            if beside and not panels.first().has_focus:
                self.set_focus(panels.first())
                return
            self.set_focus(self.prompt)
            await panels.remove()
            if beside:
                return
        panel = RamPanel(
            self.engine,
            lambda: self.status.estimate,
            lambda: self.status.statistics,
            beside=beside,
        )
        if beside:
            await self.mount(panel)
        else:
            self.app.push_screen(RamScreen(panel))

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

    def _show_loading(self, fraction: float) -> None:
        self.status.loaded = fraction

    def _look_at_ram(self) -> None:
        pid = self.engine.pid
        self.status.ram = process.of_process(pid) if pid else None


def _choose(settings: Settings, name: str | None) -> Choice:
    # Only now, while the app is there already: what plans brings numpy along.
    from ondevice.choice import choose  # noqa: PLC0415

    return choose(settings, name)
