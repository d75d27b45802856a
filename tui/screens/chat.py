"""The main screen: a conversation, the prompt and the status bar."""

from __future__ import annotations

import asyncio
from typing import ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer

from ondevice import chats, models
from ondevice.config import Settings
from ondevice.errors import LoadCancelled, ModelNotFound, OndeviceError
from ondevice.models import InstalledModel
from ondevice.ram import process
from tui.messages import ReplyEnded, ReplyProgressed, Submitted
from tui.screens.earlier import EarlierScreen
from tui.screens.models import ModelsScreen
from tui.shared_engine import SharedEngine
from tui.widgets.conversation import Conversation
from tui.widgets.prompt import Prompt
from tui.widgets.status_bar import StatusBar

_LOOK_AT_RAM = 1.0  # seconds


class ChatScreen(Screen[None]):
    """Opens with ``earlier``, or with a new conversation."""

    AUTO_FOCUS = "Prompt"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop", id="chat.stop"),
        Binding("ctrl+n", "new", "New", id="chat.new"),
        Binding("ctrl+r", "earlier", "Earlier", id="chat.earlier"),
        Binding("ctrl+l", "models", "Models", id="chat.models"),
        # Before the prompt takes them for its own few lines.
        Binding("pageup", "page(-1)", show=False, id="chat.page_up", priority=True),
        Binding("pagedown", "page(1)", show=False, id="chat.page_down", priority=True),
    ]

    def __init__(
        self,
        engine: SharedEngine,
        store: chats.Chats,
        settings: Settings,
        earlier: chats.Conversation | None = None,
    ) -> None:
        super().__init__()
        self._engine = engine
        self._store = store
        self._settings = settings
        self._model = settings.model
        self.conversation = self._conversation(earlier)
        self.prompt = Prompt()
        self.status = StatusBar()

    def compose(self) -> ComposeResult:
        yield self.conversation
        yield self.prompt
        yield self.status
        yield Footer()

    def on_mount(self) -> None:
        self.set_interval(_LOOK_AT_RAM, self._look_at_ram)
        self.load_model()

    # ------------------------------------------------------------------ the conversation

    @on(Submitted)
    def _send(self, message: Submitted) -> None:
        if self.conversation.replying:
            self.prompt.give_back(message.text)
            self.notify("A reply is under way. Esc stops it.")
        else:
            self.conversation.ask(message.text)

    @on(ReplyProgressed)
    def _show_progress(self, message: ReplyProgressed) -> None:
        self.status.doing = message.doing
        self.status.estimate = message.per_second

    @on(ReplyEnded)
    def _show_end(self, message: ReplyEnded) -> None:
        self.status.doing = ""
        self.status.estimate = None
        if message.statistics:
            self.status.statistics = message.statistics

    def _conversation(self, earlier: chats.Conversation | None) -> Conversation:
        return Conversation(
            self._engine,
            self._store,
            system=self._settings.system,
            sampling=self._settings.sampling,
            earlier=earlier,
        )

    async def _open(self, earlier: chats.Conversation | None) -> None:
        """Show another conversation; a reply under way in this one is stopped and kept."""
        await self.conversation.remove()
        self.conversation = self._conversation(earlier)
        await self.mount(self.conversation, before=self.prompt)
        self.status.doing = ""
        self._show_model()
        self.prompt.focus()

    async def action_new(self) -> None:
        await self._open(None)

    @work
    async def action_earlier(self) -> None:
        chosen = await self.app.push_screen_wait(EarlierScreen(self._store.headings()))
        if chosen is not None:
            await self._open(self._store.load(chosen))

    def action_stop(self) -> None:
        if self.conversation.replying:
            self.conversation.stop()
        else:
            self.workers.cancel_group(self, "load")

    def action_page(self, direction: int) -> None:
        conversation = self.conversation
        conversation.scroll_relative(y=direction * (conversation.size.height - 2), animate=False)

    # ------------------------------------------------------------------ the engine

    @work
    async def action_models(self, hint: str = "") -> None:
        """Choose a model and load it."""
        model = await self.app.push_screen_wait(ModelsScreen(self._model, hint))
        if model is not None:
            self.conversation.stop()
            self.load_model(model)

    @work(group="load", exclusive=True)
    async def load_model(self, model: InstalledModel | None = None) -> None:
        """Load a model (None: that of the settings) in place of the one loaded before."""
        async with self._engine.free:
            try:
                if model is None:
                    model = await asyncio.to_thread(models.find, self._settings.model)
                self._model = self.status.model = model.name
                self.status.loaded = 0.0
                request = self._settings.load_request(model)
                await self._engine.load(request, self._show_loading)
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
        title = titles.get(self._settings.model)
        return f"{title} is not on disk yet. Enter fetches it." if title else str(error)

    def _show_model(self) -> None:
        loaded = self._engine.loaded
        self.status.loaded = None
        self.status.model = self._model if loaded else "no model"
        self.status.n_ctx = loaded.n_ctx if loaded else None
        self.status.statistics = None

    def _show_loading(self, fraction: float) -> None:
        self.status.loaded = fraction

    def _look_at_ram(self) -> None:
        pid = self._engine.pid
        self.status.ram = process.of_process(pid) if pid else None
