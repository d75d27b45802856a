"""The main screen: a conversation, the prompt and the status bar, and tabs if more are open."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from inspect import isawaitable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Input
from textual.worker import Worker, WorkerError

from ondevice import config
from ondevice.config import AUTO, Settings
from ondevice.errors import (
    ConfigError,
    EngineDied,
    LoadCancelled,
    ModelNotFound,
    OndeviceError,
    StoreError,
)
from ondevice.ram import process
from tui import commands
from tui.idle_warming import warm_up
from tui.messages import CommandGiven, NotKept, ReplyEnded, ReplyProgressed, Submitted
from tui.model_work import Kind, ModelWork
from tui.screens.chat_library import ChatLibrary
from tui.screens.chat_memory import ChatMemory
from tui.screens.chat_tabs import ChatTabs
from tui.screens.chat_turns import ChatTurns
from tui.slowness import Slowness
from tui.typed import Typed
from tui.widgets.conversation import Conversation
from tui.widgets.keys import Keys
from tui.widgets.welcome import Welcome

if TYPE_CHECKING:
    from ondevice.holding.speeds import Speeds
    from ondevice.models import InstalledModel
    from ondevice.planning.choice import Choice

_LOOK_AT_RAM = 1.0  # seconds
_TRY_AGAIN = 2.0  # seconds after which it is tried again to save a reply
_NONE = "No model is downloaded yet."
_READ_WHY = 20.0  # seconds that it is shown why something failed


class ChatScreen(ChatTurns, ChatTabs, ChatLibrary, ChatMemory):
    AUTO_FOCUS = "PromptInput"
    VERTICAL_BREAKPOINTS = [(0, "-tiny"), (10, "-short"), (18, "-tall")]  # noqa: RUF012
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (60, "-usual")]  # noqa: RUF012
    HELP = """\
## The chat

Esc stops a reply; messages you send meanwhile wait until it ends. While a model thinks, F7 ends
the thinking and the answer begins. Everything you write and every
reply is saved at once and is there at the next start. Ctrl+C stops a reply; without one it clears
the prompt, and pressed twice it quits. Ctrl+Z goes back to the shell until you type `fg`. The
command palette, Ctrl+P, has all of this and more.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop", id="chat.stop"),
        Binding("f7", "answer_now", "Answer now", id="chat.answer_now", priority=True),
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
        yield Keys()

    _saving: Worker[None] | None = None
    """The attempt to save a reply that could not be saved when it ended."""
    _loading: Worker[None] | None = None
    """The load that was begun last."""
    _unloaded = True
    """Whether a model is to be loaded before anything else. One whose engine died loads itself."""

    def on_mount(self) -> None:
        self.model_work = ModelWork(
            self.run_worker, self._model_ready, self._model_failed, self._measured
        )
        self.engine.make_ready = self._make_ready
        self._slowness = Slowness(self.engine)
        self._choosing: Screen[InstalledModel | None] | None = None
        self.set_interval(_LOOK_AT_RAM, self._update_ram)
        self.set_interval(_TRY_AGAIN, self._save_rest)
        self.prompt.show_typed(self.conversation.typed)
        self.conversation.typed = Typed()
        self.show_status()
        self.show_problems(self.problems)
        if why := self.store.database.read_only:
            self.conversation.note(
                f"You can read your chats, but nothing new can be saved: {why}, and start again.",
                error=True,
            )
        self.run_worker(self.open_the_rest(), group="open")
        if self.first:
            self.action_guide()
        else:  # it shares the processor's time with what draws the first frame
            self.call_after_refresh(self._load_first)

    def _load_first(self) -> None:
        if self._loading is None:  # a message that was sent meanwhile may have begun it
            self.load_model()

    # ------------------------------------------------------------------ talking

    @on(Submitted)
    def _send(self, message: Submitted) -> None:
        if message in self.prompt.on_its_way:
            self.prompt.on_its_way.remove(message)
        here = self.conversation
        if here.replying or here.queued:
            here.queued.append(message)
            self.show_status()
        elif self._unloaded and not self._is_loading:
            here.queued.append(message)
            self.show_status()
            self._send_when_loaded(here)
        else:
            self._ask(here, message)
            if self._unloaded:
                self._edit_unless_loaded(here, message)

    @work
    async def _send_when_loaded(self, conversation: Conversation) -> None:
        """Load the model first; where that comes to nothing, what was sent is in the prompt."""
        self.notify("Your message will be sent once the model is loaded.")
        if not await self._make_ready():
            queued, conversation.queued = conversation.queued, []
            self.give_back(conversation, queued)
        elif conversation.queued and conversation.is_attached and not conversation.replying:
            self._ask(conversation, conversation.queued.pop(0))
        self.show_status()

    @work
    async def _edit_unless_loaded(self, conversation: Conversation, message: Submitted) -> None:
        """Put a message that met no model into the prompt again, to be sent in its own place."""
        if await self._load_is_over():
            return
        await conversation.ended()
        if conversation.is_attached:  # it may have been stopped before it showed what is stored
            with suppress(WorkerError):
                await conversation.follow().wait()
        last = conversation.messages[-1] if conversation.messages else None
        if conversation.is_attached and last and last.role == "user":
            self.give_back(conversation, [replace(message, replaced=last)])

    @property
    def _is_loading(self) -> bool:
        return self._loading is not None and not self._loading.is_finished

    async def _make_ready(self) -> bool:
        """Wait for the load under way; without one, load the model of the settings."""
        if self._unloaded and not self._is_loading:
            self.load_model()
        return await self._load_is_over()

    async def _load_is_over(self) -> bool:
        """Wait for the load under way, if any; whether there is a model then."""
        if self._unloaded and self._loading is not None:
            with suppress(WorkerError):
                await self._loading.wait()
        return not self._unloaded

    def _ask(self, conversation: Conversation, message: Submitted) -> None:
        replaced = message.replaced.id if message.replaced else None
        if replaced is not None and replaced not in {one.id for one in conversation.messages}:
            self.give_back(conversation, [replace(message, replaced=None)])
            self.notify("The message you were editing is no longer in this chat.")
            return
        conversation.unsaid = message
        conversation.ask(message.text, message.attachments, replaced, message.pasted)

    @on(NotKept)
    async def _give_back_unkept(self, message: NotKept) -> None:
        conversation = message.conversation
        if sent := conversation.unsaid:
            conversation.unsaid = None
            self.give_back(conversation, [sent])
        await self.refresh_from_store()

    @on(ReplyEnded)
    def _go_on_with_queue(self, message: ReplyEnded) -> None:
        """Send the next message that waits; after a reply that failed or was stopped, none."""
        conversation = message.conversation
        conversation.unread = conversation is not self.conversation
        if (queued := conversation.queued) and not conversation.replying:
            last = conversation.messages[-1] if conversation.messages else None
            if last and last.role == "assistant" and last.finish_reason in ("stop", "length"):
                self._ask(conversation, queued.pop(0))
            else:
                conversation.queued = []
                self.give_back(conversation, queued)
                self.notify("Your unsent messages are back in the prompt.")
        self.show_status()

    @on(CommandGiven)
    async def obey(self, given: CommandGiven) -> None:
        self.conversation.end_find()
        command = commands.find(given.name)
        if command is None:
            self.prompt.text = f"/{given.name} {given.argument}".rstrip()  # to be put right
            told = f"There is no command /{given.name}. Type / to see the commands."
            self.notify(told, severity="warning")
        elif command.argument[:1].isupper() and not given.argument:
            self.prompt.text = f"/{command.name} "
            self.notify(f"Usage: /{command.name} {command.argument}")
        elif given.argument and not command.argument:  # as in “/again, but shorter”
            self.prompt.text = f"/{given.name} {given.argument}"
            told = f"/{command.name} takes no words after it, so nothing was done."
            self.notify(told, severity="warning")
        elif command.argument:
            done = getattr(self, f"action_{command.action}")(given.argument)
            if isawaitable(done):
                await done
        elif not await self.app.run_action(command.action, self):
            self.notify(f"/{command.name} has nothing to do now.")

    @on(ReplyProgressed)
    def _show_progress(self) -> None:
        self.show_status()
        if self.conversation.replying:
            self.status.usual = self._slowness.while_replying(self.status.estimate)

    @on(ReplyEnded)
    def _show_end(self) -> None:
        self.show_status()
        self.status.usual = self._slowness.after(self.status.statistics)

    def action_stop(self) -> None:
        if self.prompt.on_its_way:  # what was sent before Escape comes here after it
            self.call_later(self.action_stop)
        elif self.conversation.finding:
            self.conversation.end_find()
            self.set_focus(self.prompt)
        elif self.conversation.replying and not self._is_loading:
            self.conversation.stop()
        elif self.prompt.has_focus:
            if self.status.loaded is not None:
                self.notify("Loading was cancelled with Esc. Press Ctrl+L to load a model.")
            self.workers.cancel_group(self, "load")
            self.conversation.stop()  # what waits for that would begin another one
            self.workers.cancel_group(self, "import")
            self.workers.cancel_group(self, "compact")
        else:
            self.set_focus(self.prompt)

    def action_answer_now(self) -> None:
        self.conversation.answer_now()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if action == "answer_now":
            return self.conversation.can_answer_now
        if action == "page" and isinstance(self.focused, Input):
            return False  # in a list beside the conversation these keys are its own
        return super().check_action(action, parameters)

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
            self.action_models()
        elif self.engine.loaded is None:
            self.load_model()

    @work
    async def action_models(self, hint: str = "") -> None:
        """Choose a model and load it."""
        from tui.screens.models import ModelsScreen  # noqa: PLC0415 - a faster start

        screen = ModelsScreen(self.engine, self.model_work, self.settings, self._keep_folder, hint)
        self._choosing = screen
        model = await self.app.push_screen_wait(screen)
        if model is not None:
            self.choose_model(model)

    def choose_model(self, model: InstalledModel, *, at_once: bool = True) -> None:
        for conversation in self.conversations if at_once else ():
            conversation.stop()
        self.load_model(model)
        self._keep_model(model)

    def _model_ready(self, model: InstalledModel, kind: Kind) -> None:
        """A model was downloaded or packed while the user did something else, or waited for it."""
        if kind == "download" and self.engine.loaded is None and not self.engine.is_busy:
            if self.app.screen is self._choosing:
                self.app.screen.dismiss(model)
            else:
                self.load_model(model)
                self._keep_model(model)
        else:
            self.notify(f"{model.name} is ready. Load it with /models.")

    def _model_failed(self, name: str, kind: Kind, why: str) -> None:
        """Told at once, unless the user looks at it in the list of models."""
        from tui.screens.models import ModelsScreen  # noqa: PLC0415 - a faster start

        screen = self.app.screen
        if not (isinstance(screen, ModelsScreen) and screen.points_at(name)):
            what = "The download" if kind == "download" else "Packing"
            self.notify(f"{what} of {name} stopped: {why}", severity="error", timeout=_READ_WHY)

    def _measured(self, speeds: Speeds | str) -> None:
        if isinstance(speeds, str):
            self.notify(speeds, severity="error")
        elif speeds.busy:
            self.notify("This machine is busy. Its speed will be measured again later.")
        else:
            self.notify("This machine is measured. /models shows the new predictions.")

    def _keep_model(self, model: InstalledModel) -> None:
        """Load it next time, too."""
        name = model.name if model.place == "ondevice" else model.location
        if name != self.settings.model:
            try:
                self.settings = config.change(self.settings, "model", name)
            except ConfigError as error:
                self.notify(str(error), severity="error")

    def _keep_folder(self, folder: Path) -> None:
        """List the models of this folder from now on, too."""
        folders = dict.fromkeys((*self.settings.models_folder, str(folder)))
        self.set("models_folder", config.join_folders(folders))

    async def action_ram(self) -> None:
        """Show what is in RAM: beside the chat where there is room, and else over it."""
        # Only now: what reads stacks brings llama.cpp along.
        from tui.screens.ram import RamPanel, RamScreen  # noqa: PLC0415

        if await self.goes_to(RamPanel):
            return
        panel = RamPanel(
            self.engine,
            lambda: self.status.estimate,
            lambda: self.status.statistics,
            beside=self.has_room,
        )
        if self.has_room:
            await self.open_beside(panel)
        else:
            self.app.push_screen(RamScreen(panel))

    def load_model(self, model: InstalledModel | None = None) -> Worker[None]:
        """Load a model (None: that of the settings) in place of the one loaded before."""
        self._unloaded = True
        loading: Worker[None] = self._load_model(model)
        self._loading = loading
        return loading

    @work(group="load", exclusive=True)
    async def _load_model(self, model: InstalledModel | None) -> None:
        async with self.engine.turn():
            try:
                name = model.location if model else None
                choice = await asyncio.to_thread(_choose, self.settings, name, self.engine.pid)
                from ondevice import models  # noqa: PLC0415 - a faster start

                self._model = model.name if model else choice.model.name
                self.engine.title = self.status.model = models.title_of(self._model)
                self.status.loaded = 0.0
                for welcome in self.query(Welcome):
                    welcome.describe(choice.request.path, self.settings.send_memories)
                if choice.why:
                    self.notify(choice.why)
                self._slowness.load = choice.request
                await self.engine.load(choice.request, self._show_loading)
                self._unloaded = False
                linear = self.app.has_class("-linear")
                self.run_worker(warm_up(memory=self.settings.memory, linear=linear), group="warm")
            except LoadCancelled:
                pass
            except ModelNotFound as error:
                self.action_models(await self._not_found(error))
            except OndeviceError as error:
                self._unloaded = not isinstance(error, EngineDied)  # or it would die of it again
                self.conversation.note(str(error), error=True)
            finally:
                self._show_model()
        self.show_status()  # the engine is free now, to count what the conversation takes

    async def _not_found(self, error: ModelNotFound) -> str:
        from ondevice import models  # noqa: PLC0415 - a faster start

        titles = {recipe.name: recipe.title for recipe in models.catalogue()}
        title = titles.get(self.settings.model)
        if self.settings.model == AUTO:
            there = await asyncio.to_thread(models.installed, self.settings.folders)
            return "None of the models on this disk is made to chat." if there else _NONE
        return f"{title} is not downloaded yet." if title else str(error)

    def _show_model(self) -> None:
        loaded = self.engine.loaded
        self.status.loaded = None
        self.status.model = self.engine.title if loaded else "no model"
        for conversation in self.conversations:
            conversation.statistics = None
            conversation.measure(anew=True)
        self.show_status()
        self.call_later(self.refresh_bindings)

    def _show_loading(self, fraction: float) -> None:
        self.status.loaded = fraction

    def _save_rest(self) -> None:
        if self.store.unsaved and (self._saving is None or self._saving.is_finished):
            self._saving = self.run_worker(self._save_unsaved(), group="save")

    async def _save_unsaved(self) -> None:
        with suppress(StoreError):  # there is no room yet
            await asyncio.to_thread(self.store.unsaved.save)
            self.notify("The reply is saved now.")

    def _update_ram(self) -> None:
        pid = self.engine.pid
        self.status.ram = process.of_process(pid) if pid else None


def _choose(settings: Settings, name: str | None, engine: int | None) -> Choice:
    # Only now, while the app is there already: what plans brings numpy along.
    from ondevice.planning.choice import choose  # noqa: PLC0415

    return choose(settings, name, engine)
