"""Finds an earlier conversation, or a place in this one; renames, pins, archives and deletes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Input, OptionList, Static

from ondevice.chats import ChatHit, Chats, Heading
from ondevice.errors import OndeviceError
from ondevice.text import printable
from tui import days
from tui.messages import ChatChosen, ChatsChanged
from tui.open_tabs import OpenTab
from tui.screens.chat_base import ChatBase
from tui.screens.dialogs import ChoiceScreen, LineScreen
from tui.screens.finder import FinderPanel
from tui.screens.modal import Modal

_LOOK = 1.0  # seconds between two looks at what is open

Item = ChatHit | OpenTab


class ChatsScreen(Modal[ChatChosen | None]):
    """The list over the chat, where there is no room for it beside that."""

    def __init__(self, panel: ChatsPanel) -> None:
        super().__init__()
        self._panel = panel

    def compose(self) -> ComposeResult:
        yield self._panel

    @on(ChatChosen)
    def _go(self, message: ChatChosen) -> None:
        self.dismiss(message)


class ChatsPanel(Vertical, FinderPanel[Item]):
    """All chats, or the places in one; ``beside``: the chat, and not over it.

    ``tabs`` gives what is open. ``within`` names the one conversation that is searched; None: all
    are. Posts :class:`ChatChosen`.
    """

    HELP = """\
## Chats

Type to search all chats, or this one. Enter opens the match. In a wide window the list stays open
beside the chat: Esc goes back to the prompt, and Ctrl+R in the list closes it.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "rename", "Rename", id="chats.rename"),
        Binding("f3", "pin", "Pin", id="chats.pin"),
        Binding("f4", "archive", "Archive", id="chats.archive"),
        Binding("f5", "switch", "Archived", id="chats.switch"),
        Binding("f8", "delete", "Delete", id="chats.delete"),
        Binding("escape", "leave", show=False, id="chats.leave"),
    ]

    def __init__(
        self,
        store: Chats,
        tabs: Callable[[], Sequence[OpenTab]],
        words: str = "",
        *,
        within: int | None = None,
        beside: bool = False,
    ) -> None:
        super().__init__(classes="-beside" if beside else "dialog")
        self._store = store
        self._tabs = tabs
        self._words = words
        self._within = within
        self._beside = beside
        self._archived = False
        self._open = tuple(tabs())
        self._title = Static(id="title")

    @property
    def frame(self) -> ChatsPanel:
        return self

    def keys_for(self, item: Item | None) -> str:
        if self._within:
            return "Enter opens · Esc closes" if item else "Esc closes"
        if not isinstance(item, ChatHit):  # a private chat, or nothing
            return "F5 archived · Esc closes"
        return "F2 rename · F3 pin · F4 archive · F5 archived · F8 delete"

    def compose(self) -> ComposeResult:
        if self._beside:
            yield self._title
        yield from self.line_and_list()

    def on_mount(self) -> None:
        self._show_title()
        self.screen.set_focus(self.query_one(Input))
        self.set_interval(_LOOK, self.follow)
        self.follow_store(self._store.database)

    def on_descendant_focus(self) -> None:
        self.remove_class("-away")

    def on_descendant_blur(self) -> None:
        self.add_class("-away")
        self._show_lines()

    def _show_title(self) -> None:
        title = "This chat" if self._within else "Archived chats" if self._archived else "Chats"
        self.border_title = title
        self._title.update(Content.styled(title, "bold $text-accent"))

    # ------------------------------------------------------------------ what there is

    def find(self, words: str) -> list[Item]:
        if words.strip():
            return [*self._store.search(words, conversation_id=self._within)]
        if self._within:
            return []
        headings = self._store.headings(archived=self._archived)
        private = () if self._archived else [tab for tab in self._open if tab.private]
        return [*private, *(ChatHit(heading, None, ()) for heading in headings)]

    def follow(self) -> None:
        """What is open may be something else now."""
        if self.is_running and (now := tuple(self._tabs())) != self._open:
            self._open = now
            self._show_lines()
            self.update_list()

    def _list(self, items: Sequence[Item], pointed_at: Item | None = None) -> None:
        if items and items == self._items:  # so that it stays where it has been scrolled
            self._show_lines()
        else:
            super()._list(items, pointed_at)
            self._show_lines()

    def _show_lines(self) -> None:
        """Draw each line as it is now; without the keys, point at what is shown."""
        if not (lists := self.query(OptionList)):  # it is being closed
            return
        options = lists.first()
        for place, item in enumerate(self._items):
            line = self.line(item)
            if options.get_option_at_index(place).prompt != line:
                options.replace_option_prompt_at_index(place, line)
        if self._beside and not self.has_focus_within and self._items:
            shown = next((n for n, item in enumerate(self._items) if self._is_shown(item)), None)
            if options.highlighted != shown:
                options.highlighted = shown

    def nothing(self, words: str) -> str:
        if words.strip():
            return "No matches."
        if self._within:
            return "Type to search this chat."
        return (
            "No archived chats."
            if self._archived
            else ("No chats yet. Everything you write is saved here.")
        )

    # ------------------------------------------------------------------ one line

    def line(self, item: Item) -> Content:
        words = self.app.has_class("-linear")
        if isinstance(item, OpenTab):
            return self._entry(item, item.state.label(words=words), ("Never saved", "dim"))
        excerpt = [
            (" ".join(printable(text).splitlines()), "bold" if matches else "dim")
            for text, matches in item.excerpt
        ]
        if self._within and excerpt:  # the title would be the same all the way down
            return Content.assemble(*excerpt)
        heading = item.heading
        tab = self._tab(heading.id)
        title = tab.state.label(words=words) if tab else printable(heading.title)
        count = "1 message" if heading.messages == 1 else f"{heading.messages} messages"
        when = days.said(heading.updated_at)
        about = " · ".join(["Pinned"] * heading.pinned + [when, count])
        return self._entry(item, title, *(excerpt or [(f"{about[0].upper()}{about[1:]}", "dim")]))

    def _entry(self, item: Item, title: str, *below: tuple[str, str]) -> Content:
        shown = self._is_shown(item)
        if shown and self.app.has_class("-linear"):
            title = f"Open: {title}"
        return Content.assemble((title, "bold $text-accent" if shown else ""), "\n", *below)

    def _is_shown(self, item: Item) -> bool:
        tab = item if isinstance(item, OpenTab) else self._tab(item.heading.id)
        return tab is not None and tab.shown

    def _tab(self, conversation_id: int) -> OpenTab | None:
        if self._within:
            return None
        return next((tab for tab in self._open if tab.id_in_store == conversation_id), None)

    def key(self, item: Item) -> int | str:
        if isinstance(item, OpenTab):
            return f"tab {id(item.conversation)}"
        return item.message_id or 0 if self._within else item.heading.id

    # ------------------------------------------------------------------ what can be done

    def choose(self, item: Item) -> None:
        self.post_message(ChatChosen(item, self._words))

    def action_leave(self) -> None:
        """Go back to the chat."""
        if self._beside:
            self.screen.set_focus(self.screen.query_one("PromptInput"))
        else:
            self.screen.dismiss(None)

    @property
    def _heading(self) -> Heading | None:
        item = None if self._within else self.pointed_at
        return item.heading if isinstance(item, ChatHit) else None

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
            self._show_title()
            self.query_one(Input).clear()
            self.update_list()

    @work
    async def action_delete(self) -> None:
        if heading := self._heading:
            await delete(self.screen, self._store, heading)
            self.post_message(ChatsChanged())
            self.update_list()

    async def _change(self, change: Callable[[], None]) -> None:
        try:
            await asyncio.to_thread(change)
        except OndeviceError as error:
            self.notify(str(error), severity="error")
        self.post_message(ChatsChanged())
        self.update_list()


async def delete(screen: Screen[Any], store: Chats, heading: Heading) -> bool:
    """Ask, then delete a conversation for good; whether it was."""
    answer = await screen.app.push_screen_wait(
        ChoiceScreen(
            f"Delete “{heading.title}” for good?",
            "Keep it",
            "Delete it",
            "Delete it and forget what was remembered from it",
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
