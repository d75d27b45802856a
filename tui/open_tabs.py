"""What is open and typed in this window, on its way to the store and back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from ondevice import chats
from ondevice.chats import Tab
from ondevice.errors import OndeviceError, StoreUnwritable
from tui.typed import Typed
from tui.widgets.tab_bar import TabState

if TYPE_CHECKING:
    from tui.widgets.conversation import Conversation

MOST = 9  # conversations that are open
_KEEP_AFTER = 0.5  # seconds between something being typed and its way to the store
_KEEP_AGAIN = 5.0  # seconds after it could not be stored


class OpenTab(msgspec.Struct, frozen=True):
    """A conversation that is open, for the list of chats."""

    conversation: Conversation
    id_in_store: int | None  # where all are kept; None: it is not there
    state: TabState
    shown: bool

    @property
    def private(self) -> bool:
        """Whether it is kept nowhere."""
        return self.state.private


class Keeping:
    """Stores ``tabs()`` soon after each :meth:`change`, in a thread."""

    def __init__(
        self,
        window: chats.AppWindow,
        tabs: Callable[[], list[Tab]],
        later: Callable[[float, Callable[[], None]], object],
        run: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._window = window
        self._tabs = tabs
        self._later = later
        self._run = run
        self._one_at_a_time = threading.Lock()
        self._is_due = self._has_failed = False
        self._kept: list[Tab] | None = None
        self._put_away: list[str] = []
        self._ended = False

    def change(self) -> None:
        """Something is open or typed that the store may not have yet."""
        self._keep_in(_KEEP_AFTER)

    def put_away(self, texts: list[str]) -> None:
        """Have the next window know what was typed in a tab that is closed."""
        self._put_away += texts
        self.change()

    def end(self) -> None:
        """Store it at once, and nothing after that: the app ends, and takes apart what is open."""
        if self._ended:
            return
        self._ended = True
        with self._one_at_a_time, suppress(OndeviceError):  # most was stored as it was typed
            self._window.keep(self._tabs(), self._put_away, surely=True)

    def close(self) -> None:
        """What is open stays for the next window."""
        self.end()
        self._window.close()

    def _keep_in(self, seconds: float) -> None:
        if not self._is_due:
            self._is_due = True
            self._later(seconds, self._begin)

    def _begin(self) -> None:
        self._is_due = False
        if (tabs := self._tabs()) != self._kept or self._put_away:
            self._run(self._keep(tabs))

    async def _keep(self, tabs: list[Tab]) -> None:
        try:
            await asyncio.to_thread(self._store, tabs)
        except StoreUnwritable:
            self._keep_in(_KEEP_AGAIN)
            if not self._has_failed:  # otherwise it was said
                self._has_failed = True
                raise
        else:
            self._has_failed = False
            self._kept = tabs

    def _store(self, tabs: list[Tab]) -> None:
        with self._one_at_a_time:
            if not self._ended:
                texts = [*self._put_away]
                self._window.keep(tabs, texts)
                del self._put_away[: len(texts)]


def named(texts: Mapping[str, str], text: str) -> dict[str, str]:
    """Those that a line in ``text`` stands for."""
    return {name: content for name, content in texts.items() if f"[{name}]" in text}


def typed_of(tab: Tab, conversation: chats.Chat | None) -> Typed:
    """What was typed in it; the message that it is an edit of may be gone."""
    messages = conversation.messages if conversation else ()
    replaced = next((one for one in messages if one.id == tab.edited_id), None)
    if tab.edited_id is not None and replaced is None:
        return Typed("\n".join(filter(None, [tab.draft, tab.beneath])), pastes=tab.pastes)
    return Typed(tab.draft, replaced, tab.beneath, tab.pastes)


def to_restore(tabs: list[Tab], resumed: int | None) -> list[Tab]:
    """Those that are worth it, each conversation once unless something is typed; one is shown.

    ``resumed`` is the conversation that is to be shown, if that is asked for.
    """
    drafts = [tab for tab in tabs if tab.draft or tab.beneath]
    room = MOST - len(drafts) - (resumed is not None)
    chosen: list[Tab] = []
    drafted = {tab.conversation_id for tab in drafts}
    known: set[int | None] = {None, *drafted}
    for tab in tabs:
        if tab in drafts:
            chosen.append(tab)
        elif tab.conversation_id not in known and room > 0:
            known.add(tab.conversation_id)
            chosen.append(tab)
            room -= 1
    wanted = [i for i, tab in enumerate(chosen) if tab.conversation_id == resumed]
    if resumed is not None and not wanted:
        chosen.append(Tab(resumed))
    elif resumed is None:
        wanted = [i for i, tab in enumerate(chosen) if tab.shown]
    place = wanted[0] if wanted else len(chosen) - 1
    return [replace(tab, shown=i == place) for i, tab in enumerate(chosen)]
