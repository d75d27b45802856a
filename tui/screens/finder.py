"""A line to type words in, above a list of what fits them."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Generic, TypeVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.visual import VisualType
from textual.widget import Widget
from textual.widgets import Input, OptionList
from textual.widgets.option_list import Option
from textual.worker import Worker, WorkerCancelled, WorkerFailed

from ondevice.errors import OndeviceError
from ondevice.store import Database
from ondevice.text import printable
from tui.screens.modal import Modal
from tui.widgets.pointing_list import PointingList

_LOOK = 1.0  # seconds between two looks at whether others have written

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class _List(PointingList):
    """What is highlighted stays in view when there is less room, as with an error below it."""

    def on_resize(self) -> None:
        self.call_after_refresh(self.scroll_to_highlight)


class FinderPanel(Generic[_Item], Widget):
    """The keys go to the line, those that move up and down to the list."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down", "move(1)", show=False, id="finder.down", priority=True),
        Binding("up", "move(-1)", show=False, id="finder.up", priority=True),
        Binding("pagedown", "list('page_down')", show=False, priority=True),
        Binding("pageup", "list('page_up')", show=False, priority=True),
        # In the line, Ctrl+A and Ctrl+E do what these two do elsewhere.
        Binding("home", "list('first')", show=False, priority=True),
        Binding("end", "list('last')", show=False, priority=True),
    ]

    _words = ""
    _items: Sequence[_Item] = ()
    _looking: Worker[None] | None = None
    _point_at: _Item | None = None
    _is_due = False
    _changes: tuple[int, int] | None = None

    def line_and_list(self) -> ComposeResult:
        """What it is made of."""
        yield Input(printable(self._words), placeholder="Search", select_on_focus=False)
        yield _List()

    def on_mount(self) -> None:
        self.query_one(OptionList).can_focus = False
        self._list(self.find(self._words))

    @abstractmethod
    def find(self, words: str) -> list[_Item]:
        """What to list. Blocks; called in a thread while the user types."""

    @abstractmethod
    def line(self, item: _Item) -> VisualType:
        """How it stands in the list."""

    @abstractmethod
    def key(self, item: _Item) -> int | str:
        """What it is known by, however it changes."""

    @abstractmethod
    def nothing(self, words: str) -> str:
        """What to say when nothing was found."""

    @abstractmethod
    def choose(self, item: _Item) -> object:
        """The user has pressed Enter on it."""

    @property
    @abstractmethod
    def frame(self) -> Widget:
        """What has the border in which the keys are named."""

    @abstractmethod
    def keys_for(self, item: _Item | None) -> str:
        """What keys do to what is pointed at, or where there is nothing."""

    def is_heading(self, item: _Item) -> bool:
        """Whether it is only the name of those below it."""
        return False

    @property
    def words(self) -> str:
        """What has been typed."""
        return self._words

    @property
    def pointed_at(self) -> _Item | None:
        """The highlighted item."""
        place = self.query_one(OptionList).highlighted if self._items else None
        return None if place is None else self._items[place]

    def update_list(self, point_at: _Item | None = None) -> None:
        """Find anew, and point at this item, None: at the same one, or else at the same place."""
        if not self.is_attached:  # it was closed meanwhile
            return
        self._look(self.pointed_at if point_at is None else point_at)

    def follow_store(self, database: Database) -> None:
        """Have :meth:`written_elsewhere` called from now on, once other programs have written."""
        self._changes = database.changes(own=False)
        self.set_interval(_LOOK, partial(self._check_store, database))

    def _check_store(self, database: Database) -> None:
        changes = database.changes(own=False)  # which waits for nothing
        if changes is not None and changes != self._changes:
            self._changes = changes
            self.written_elsewhere()

    def written_elsewhere(self) -> None:
        """Another window or program has changed something in the store."""
        self.update_list()

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
        if event.value != self._words:
            self._words = event.value
            self._look(None)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._choose_found(self._words)

    @work(exclusive=True, group="choose")  # so that keys work while it waits
    async def _choose_found(self, words: str) -> None:
        while self._looking and not self._looking.is_finished:
            try:
                await self._looking.wait()
            except WorkerCancelled:  # it is being closed
                return
            except WorkerFailed:  # which the user is told by itself
                return
        if words == self._words and (item := self.pointed_at) is not None:
            self.choose(item)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if any(event.option is option for option in event.option_list.options):  # still
            self.choose(self._items[event.option_index])

    @on(OptionList.OptionHighlighted)
    def show_keys(self) -> None:
        """Name those that do something now."""
        self.frame.border_subtitle = self.keys_for(self.pointed_at)

    @on(OptionList.OptionHighlighted)
    def _show_heading(self, event: OptionList.OptionHighlighted) -> None:
        if all(map(self.is_heading, self._items[: event.option_index])):
            event.option_list.scroll_home(animate=False)  # the heading is to be seen with it

    def action_move(self, direction: int) -> None:
        options = self.query_one(OptionList)
        if direction > 0:
            options.action_cursor_down()
        else:
            options.action_cursor_up()

    def action_list(self, movement: str) -> None:
        """Move in the list as it does when it has the focus."""
        getattr(self.query_one(OptionList), f"action_{movement}")()

    def _look(self, point_at: _Item | None) -> None:
        """Find anew. Whatever is typed while that goes on is looked for after it, all at once."""
        self._point_at, self._is_due = point_at, True
        if self._looking is None or self._looking.is_finished:
            self._looking = self._find_due()

    @work(group="look")
    async def _find_due(self) -> None:
        while self._is_due:
            self._is_due = False
            try:
                items = await asyncio.to_thread(self.find, self._words)
            except OndeviceError:
                if not self._is_due:
                    raise
            else:
                if not self._is_due:
                    self._list(items, self._point_at)

    def _list(self, items: Sequence[_Item], pointed_at: _Item | None = None) -> None:
        options = self.query_one(OptionList)
        place = 0
        if pointed_at is not None:
            keys = list(map(self.key, items))
            key = self.key(pointed_at)
            if key in keys:
                place = keys.index(key)
            elif pointed_at in self._items:
                place = self._items.index(pointed_at)
        self._items = items
        options.set_options(
            Option(self.line(item), disabled=self.is_heading(item)) for item in items
        )
        if items:
            after = range(min(place, len(items) - 1), len(items))
            there = [*after, *reversed(range(after.start))]
            options.highlighted = next((n for n in there if not self.is_heading(items[n])), None)
        else:
            options.add_option(Option(self.nothing(self._words), disabled=True))
        self.show_keys()


class Finder(Modal[_Result], FinderPanel[_Item], Generic[_Item, _Result]):
    """The line and the list in a dialog."""

    def __init__(self, title: str, words: str) -> None:
        super().__init__()
        self.dialog = Vertical(classes="dialog")
        """Also while this screen comes and when it has gone: what a key began may end then."""
        self.dialog.border_title = title
        self._words = words

    @property
    def frame(self) -> Widget:
        return self.dialog

    def compose(self) -> ComposeResult:
        with self.dialog:
            yield from self.line_and_list()
