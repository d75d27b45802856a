"""Finds an earlier conversation, or a place in this one; renames, pins, archives and deletes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Input

from ondevice.chats import Chats, Found, Heading
from ondevice.errors import OndeviceError
from ondevice.terminal import printable
from tui.screens.chat_base import ChatBase
from tui.screens.dialogs import ChoiceScreen, LineScreen
from tui.screens.finder import Finder


class ChatsScreen(Finder[Found, Found | None]):
    """Dismissed with a place in a conversation, or None.

    ``within`` names the one conversation that is searched; None: all are.
    """

    HELP = """\
## Chats

Type words to search all chats, or this one. Enter goes to the place that is found.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "rename", "Rename", id="chats.rename"),
        Binding("f3", "pin", "Pin", id="chats.pin"),
        Binding("f4", "archive", "Archive", id="chats.archive"),
        Binding("f5", "switch", "Archived", id="chats.switch"),
        Binding("f8", "delete", "Delete", id="chats.delete"),
    ]

    def __init__(self, store: Chats, words: str = "", *, within: int | None = None) -> None:
        if within:
            super().__init__("This chat", "Enter goes there · Esc closes", words)
        else:
            keys = "F2 rename · F3 pin · F4 archive · F5 archived · F8 delete"
            super().__init__("Chats", keys, words)
        self._store = store
        self._within = within
        self._archived = False

    def find(self, words: str) -> list[Found]:
        if words.strip():
            return self._store.search(words, conversation_id=self._within)
        if self._within:
            return []
        headings = self._store.headings(archived=self._archived)
        return [Found(heading, None, ()) for heading in headings]

    def nothing(self, words: str) -> str:
        if words.strip():
            return "Nothing has these words."
        if self._within:
            return "Type words to find in this chat."
        return "None is archived." if self._archived else "Nothing yet: what you say is kept."

    def line(self, item: Found) -> Content:
        excerpt = [
            (" ".join(printable(text).splitlines()), "bold" if matches else "dim")
            for text, matches in item.excerpt
        ]
        if self._within and excerpt:  # the title would be the same all the way down
            return Content.assemble(*excerpt)
        heading = item.heading
        when = heading.updated_at.astimezone()
        count = "1 message" if heading.messages == 1 else f"{heading.messages} messages"
        below = excerpt or [(f"{when:%d %b %Y %H:%M} · {count}", "dim")]
        mark = "Pinned: " if self.app.has_class("-linear") else "● "
        pin = mark if heading.pinned else ""
        return Content.assemble(f"{pin}{printable(heading.title)}\n", *below)

    def key(self, item: Found) -> int:
        return item.message_id or 0 if self._within else item.heading.id

    def choose(self, item: Found) -> None:
        self.dismiss(item)

    @property
    def _heading(self) -> Heading | None:
        found = None if self._within else self.pointed_at
        return found.heading if found else None

    @work
    async def action_rename(self) -> None:
        if heading := self._heading:
            title = await self.app.push_screen_wait(LineScreen("Rename", heading.title))
            if title is not None:
                await self._change(lambda: self._store.rename(heading.id, title))

    @work
    async def action_pin(self) -> None:
        if heading := self._heading:
            await self._change(lambda: self._store.pin(heading.id, not heading.pinned))

    @work
    async def action_archive(self) -> None:
        if heading := self._heading:
            await self._change(lambda: self._store.archive(heading.id, not heading.archived))

    def action_switch(self) -> None:
        """Show the archived ones instead, or again the others."""
        if not self._within:
            self._archived = not self._archived
            self.query_one(".dialog").border_title = "Archived chats" if self._archived else "Chats"
            self.query_one(Input).clear()
            self.look()

    @work
    async def action_delete(self) -> None:
        if heading := self._heading:
            await delete(self, self._store, heading)
            self.look()

    async def _change(self, change: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(change)
        except OndeviceError as error:
            self.notify(str(error), severity="error")
        self.look()


async def delete(screen: Screen[Any], store: Chats, heading: Heading) -> bool:
    """Ask, then delete a conversation for good; whether it was."""
    answer = await screen.app.push_screen_wait(
        ChoiceScreen(
            f"Delete “{heading.title}” for good?",
            "Keep it",
            "Delete it",
            "Delete it and forget what was remembered of it",
        )
    )
    if not answer:
        return False
    open_chats = [one for one in screen.app.screen_stack if isinstance(one, ChatBase)]
    for chat in open_chats:
        await chat.end_reply(store, heading.id)
    try:
        await asyncio.to_thread(store.delete, heading.id, forget=answer == 2)
    except OndeviceError as error:
        screen.notify(str(error), severity="error")
        return False
    for chat in open_chats:
        chat.forget_typed(store, heading.id)
    return True
