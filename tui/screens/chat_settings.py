"""What can be changed from a chat: settings, and who the model is to be."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from textual import work

from ondevice import config, paths
from ondevice.config import AUTO
from ondevice.errors import ConfigError, OndeviceError
from tui import settings_form, theme
from tui.screens.chat_base import ChatBase
from tui.screens.dialogs import ChoiceScreen

if TYPE_CHECKING:
    from ondevice.models import InstalledModel

#: Settings that count from now on.
_AT_ONCE = ("models_folder", "app", "thinking", "keep_state", "state_mb", "send_memories")
_IN_NEW_CHATS = ("system", "persona", "memory")


class ChatSettings(ChatBase):
    def choose_model(self, model: InstalledModel, *, at_once: bool = True) -> None:
        """Load it in place of the one loaded before, now and at the next start.

        ``at_once``: replies under way are stopped for it.
        """
        raise NotImplementedError

    @work
    async def action_settings(self, words: str = "") -> None:
        """Show all settings in a form."""
        from tui.screens.settings import SettingsScreen  # noqa: PLC0415 - a faster start

        screen = SettingsScreen(lambda: self.settings, self.set, words)
        if await self.app.push_screen_wait(screen) == "models":
            await self.run_action("models")

    @work
    async def action_persona(self, name: str = "") -> None:
        """Begin a chat with another system prompt, and so all that follow."""
        names = ["", *self.settings.personas]
        if not name:
            if len(names) == 1:
                self.notify("There are no personas yet. Create one with /settings persona.")
                return
            shown = [one or "None" for one in names]
            now = self.settings.persona or "None"
            question = ChoiceScreen("Choose a persona", *shown, now=now)
            chosen = await self.app.push_screen_wait(question)
            if chosen is None:
                return
            name = names[chosen]
        changed = self.set("persona", name if name.lower() != "none" else "")
        if changed and await self.open(None):
            self.conversation.note(self.settings.system_prompt)

    async def action_set(self, change: str) -> None:
        """Show the settings, or those that begin so, or change one."""
        key, _, value = change.partition(" ")
        if value and key == "model":
            await self._set_model(value.strip())
            return
        if value:
            self.set(key, value.strip().strip('"'))
            return
        lines = [
            f"{name} {_told(value)}"
            for name, value in config.flat(self.settings).items()
            if name.startswith(key)
        ]
        where = f"Change one with /set KEY VALUE or in {paths.config_file()}"
        self.conversation.note("\n".join([*lines, where]))

    async def _set_model(self, name: str) -> None:
        """Load the model that is named, by its path as well, now and at the next start."""
        from ondevice import models  # noqa: PLC0415 - a faster start
        from ondevice.gguf import runnable  # noqa: PLC0415 - likewise

        if name.strip('"') in ("", AUTO):
            self.set("model", "")
            return
        try:
            model = await asyncio.to_thread(models.find, name, self.settings.folders)
            if model.place != "server":
                await asyncio.to_thread(runnable.read, model.path)
        except OndeviceError as error:
            self.notify(f"{error} The current model stays in use.", severity="error")
            return
        if any(conversation.replying for conversation in self.conversations):
            self.notify(f"{model.name} will be loaded when the reply ends.")
        self.choose_model(model, at_once=False)

    def set(self, key: str, text: str, *, quiet: bool = False) -> bool:
        """Change a setting, here and in the file; an empty text is the default. Whether it is."""
        if text and (wrong := self._wrong(key, text)):
            self.notify(wrong, severity="error")
            return False
        try:
            self.settings = config.change(self.settings, key, text)
        except ConfigError as error:
            self.notify(str(error), severity="error")
            return False
        for conversation in self.conversations:
            conversation.sampling = self.settings.sampling
            conversation.thinks = self.settings.thinks
            conversation.thinking_tokens = self.settings.thinking_tokens
            conversation.send_memories = self.settings.send_memories
        if key in ("keep_state", "state_mb"):
            folder = self.store.database.path.parent
            self.store.limit_states(self.settings.state_bytes(folder))
        app = self.settings.app
        self.app.set_class(app.linear, "-linear")
        self._map_keys()
        self.app.theme = theme.shown(self.app, app.theme)
        at_once = "." in key or key in _AT_ONCE
        later = "to new chats" if key in _IN_NEW_CHATS else "when a model is next loaded"
        if not quiet:
            self.notify(f"Saved {key}." if at_once else f"Saved {key}. It applies {later}.")
        if key == "models_folder" and text:
            self._warn_about_folders()
        return True

    @work
    async def _warn_about_folders(self) -> None:
        """Say which of the folders of models cannot be read."""
        from ondevice import models  # noqa: PLC0415 - a faster start

        problems: list[str] = []
        await asyncio.to_thread(models.installed, self.settings.folders, problems.append)
        for problem in problems:
            self.notify(f"{problem} It will be tried again each time.", severity="warning")

    def _wrong(self, key: str, text: str) -> str | None:
        """What only the app knows to be wrong with a setting."""
        if key == "app.theme" and text not in (names := self.app.available_themes):
            return f"There is no theme {text}. Available themes: {', '.join(sorted(names))}."
        if key.startswith("app.keys."):
            from tui.screens import settings  # noqa: F401, PLC0415 - it brings all keys along

            return settings_form.wrong_key(key.removeprefix("app.keys."), text)
        return None

    def _map_keys(self) -> None:
        """Give the keys of the settings to what they are for; leave out those that are wrong."""
        keys = self.settings.app.keys
        self.app.set_keymap({k: v for k, v in keys.items() if not self._wrong(f"app.keys.{k}", v)})

    @work
    async def show_problems(self, found: Sequence[str]) -> None:
        """Say what of the settings is wrong, at the start."""
        app = self.settings.app
        given = [("app.theme", app.theme), *((f"app.keys.{k}", v) for k, v in app.keys.items())]
        wrong = [f"{key}: {what}" for key, text in given if (what := self._wrong(key, text))]
        if app.keys:
            self._map_keys()
        if problems := [*found, *wrong]:
            file = f"{paths.config_file()}"
            heading = f"Some settings in {file} are wrong, so their defaults are used:"
            short = [problem.removeprefix(f"{file}: ") for problem in problems]
            told = "\n".join([heading, *short])
            self.conversation.note(told, error=True)


def _told(value: object) -> str:
    """A setting as it stands in the file."""
    if value is None or value in ((), {}):
        return "is not set"
    return f"= {json.dumps(value, ensure_ascii=False)}"
