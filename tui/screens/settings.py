"""A form for all that is in ``config.toml``: settings, personas and keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from textual import events, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Label

from ondevice.config import Settings
from ondevice.text import printable
from tui import settings_form
from tui.screens import chats, memory, models, ram  # noqa: F401  (their keys are in the form)
from tui.screens.dialogs import ChoiceScreen, LineScreen, TextScreen
from tui.screens.finder import Finder
from tui.screens.modal import Modal
from tui.settings_form import Field


class SettingsScreen(Finder[Field, str | None]):
    """Dismissed with what is to be opened instead ("models"), or None.

    ``settings`` tells how things are, ``change`` sets a key to a text; an empty one is the default.
    """

    HELP = """\
## Settings

Type to search. Enter changes a setting; F8 restores its default. All settings are in `config.toml`,
which you can also edit by hand; your comments are kept.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f8", "reset", "Default", id="settings.reset"),
    ]

    def __init__(
        self,
        settings: Callable[[], Settings],
        change: Callable[[str, str], object],
        words: str = "",
    ) -> None:
        super().__init__("Settings", words)
        self._settings = settings
        self._change = change

    def find(self, words: str) -> list[Field]:
        wanted = words.casefold().split()
        return [
            field
            for field in settings_form.fields(self._settings())
            if all(word in f"{field.title} {field.key} {field.help}".casefold() for word in wanted)
        ]

    def nothing(self, words: str) -> str:
        return "No matching settings."

    def keys_for(self, item: Field | None) -> str:
        return "Enter changes · F8 resets · Esc closes" if item else "Esc closes"

    def key(self, item: Field) -> str:
        return item.key

    def line(self, item: Field) -> Content:
        settings = self._settings()
        value = " ".join(printable(settings_form.value(item, settings)).split())
        also = settings_form.clashes(item.help, settings) if item.kind == "key" else []
        about = f"{item.help}, also “{'”, “'.join(also)}”" if also else printable(item.help)
        return Content.assemble(f"{printable(item.title)}  ", (value, "bold"), "\n", (about, "dim"))

    def action_reset(self) -> None:
        item = self.pointed_at
        if item is not None and item.kind != "new":
            self._set(item.key, "")

    @work
    async def choose(self, item: Field) -> None:
        now = settings_form.value(item, self._settings())
        match item.kind:
            case "model":
                self.dismiss("models")
            case "switch":
                self._set(item.key, "false" if now == "on" else "true")
            case "choice" | "theme":
                await self._choose(item, now)
            case "key":
                pressed = await self.app.push_screen_wait(KeyScreen(item.title))
                if pressed is not None:
                    self._set(item.key, pressed)
            case "new":
                name = await self.app.push_screen_wait(LineScreen("Name the persona", ""))
                if name and name.strip():
                    await self._write(f"personas.{name.strip()}", name, "")
            case "long" | "persona":
                await self._write(item.key, item.title, now)
            case "text":
                unset = now == item.default
                line = LineScreen(item.title, "" if unset else now, item.default)
                text = await self.app.push_screen_wait(line)
                if text is not None:
                    self._set(item.key, text.strip())

    async def _choose(self, item: Field, now: str) -> None:
        if item.kind == "theme":
            choices = [*sorted(self.app.available_themes)]
        elif item.key == "persona":
            choices = ["", *self._settings().personas]
        else:
            choices = [*item.choices]
        names = [choice or item.default for choice in choices]
        chosen = await self.app.push_screen_wait(ChoiceScreen(item.title, *names, now=now))
        if chosen is not None:
            self._set(item.key, choices[chosen])

    async def _write(self, key: str, title: str, text: str) -> None:
        written = await self.app.push_screen_wait(TextScreen(title, text))
        if written is not None:
            self._set(key, written.strip())

    def _set(self, key: str, text: str) -> None:
        self._change(key, text)
        self.update_list()


class KeyScreen(Modal[str | None]):
    """Dismissed with the key that is pressed, or None."""

    def __init__(self, title: str) -> None:
        super().__init__()
        self._title = title

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog") as dialog:
            dialog.border_title = Content(printable(self._title))
            dialog.border_subtitle = "Esc cancels"
            yield Label("Press the new key.")

    def on_key(self, event: events.Key) -> None:
        event.stop()
        self.dismiss(None if event.key == "escape" else event.key)
