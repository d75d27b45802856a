"""What can be changed from a chat: settings, and who the model is to be."""

from __future__ import annotations

from textual import work

from ondevice import config, paths
from ondevice.errors import ConfigError
from tui import theme
from tui.screens.chat_base import ChatBase
from tui.screens.dialogs import ChoiceScreen


class ChatSettings(ChatBase):
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
                self.notify("There are no personas yet. /settings persona makes one.")
                return
            shown = [one or "None" for one in names]
            chosen = await self.app.push_screen_wait(ChoiceScreen("Who is to answer?", *shown))
            if chosen is None:
                return
            name = names[chosen]
        if self.set("persona", name if name.lower() != "none" else ""):
            await self.open(None)
            await self.conversation.note(self.settings.system_prompt)

    async def action_set(self, change: str) -> None:
        """Show the settings, or those that begin so, or change one."""
        key, _, value = change.partition(" ")
        if value:
            self.set(key, value.strip().strip('"'))
            return
        lines = [
            f"{name} = {value!r}"
            for name, value in config.flat(self.settings).items()
            if name.startswith(key)
        ]
        where = f"/set KEY VALUE changes one, also in {paths.config_file()}"
        await self.conversation.note("\n".join([*lines, where]))

    def set(self, key: str, text: str) -> bool:
        """Change a setting, here and in the file; an empty text is the default. Whether it is."""
        try:
            self.settings = config.change(self.settings, key, text)
        except ConfigError as error:
            self.notify(str(error), severity="error")
            return False
        for conversation in self.conversations:
            conversation.sampling = self.settings.sampling
        app = self.settings.app
        self.app.set_class(app.linear, "-linear")
        self.app.set_keymap(app.keys)
        self.app.theme = theme.shown(self.app, app.theme)
        later = "" if "." in key else " for the next chat or load"
        self.notify(f"{key} is set{later}.")
        return True
