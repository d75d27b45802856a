"""The messages of a conversation, of which only those around the ones in view are widgets."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from itertools import accumulate, groupby, pairwise
from math import ceil

import msgspec
from msgspec.structs import replace
from textual import work
from textual.containers import VerticalScroll
from textual.geometry import Region, Size
from textual.layout import DockArrangeResult
from textual.scrollbar import ScrollBar, ScrollTo
from textual.widget import AwaitMount, Widget

from ondevice.chats import Message
from ondevice.memory import Cube
from tui.widgets.drawing import EvenRows, OwnRows
from tui.widgets.marks import Marks
from tui.widgets.message import MessageView
from tui.widgets.notice import NoticeText
from tui.widgets.prompt import PromptInput
from tui.widgets.reply import Reply
from tui.widgets.single_layout import SingleLayout
from tui.widgets.user_message import UserMessage
from tui.widgets.welcome import Welcome

_MORE = 0.5  # of the view's height that is mounted at a time, when it comes near the last of them
_LESS = 4  # at a time, when they are far away
_NEAR = 2  # messages between, that are mounted with one that is gone to
_FAR = 2  # heights of the view: what is farther away than that goes
_MOST = 40  # messages that stay mounted when others come between them
_NARROWER = 8  # columns that a text has less than the view, about


class _Hold(msgspec.Struct, frozen=True):
    """What stays where it is in the view, whatever comes above it."""

    view: Widget
    above: float
    """Lines of it above the top of the view; negative: its top is below that."""
    size: Size
    """That it had then; another width moves the lines within it."""


class _Goal(msgspec.Struct, frozen=True):
    """Where the view is to go once the message is mounted."""

    message_id: int
    above: float
    size: Size
    focus: bool


class Transcript(SingleLayout, EvenRows, VerticalScroll, can_focus=False):
    """Shows ``messages``, at first the last ones.

    What is to be shown is only written down: the messages of the store's branch, views of what is
    not in the store yet, and the window, which is a run of these. One task, and nothing else,
    mounts and removes views until they are those of the window. So there are no two at it that
    could get in each other's way, and no message comes twice or is left out.
    """

    def __init__(self, messages: Sequence[Message] = ()) -> None:
        super().__init__()
        self.messages = list(messages)
        """Of the branch that the store shows."""
        self.marks: Marks | None = None
        """What is marked in the messages; None: nothing."""
        self._unsaved: list[MessageView] = []
        """Shown after the message ``_after`` while the store does not have them."""
        self._after: int | None = None
        self._live: list[MessageView] = []
        """Views that stay, hidden if need be: what they show is still being written."""
        self._shown: list[Message | MessageView] = list(messages)
        """All that the user could scroll through."""
        self._first = self._last = len(self._shown)
        """The window: the place of its first one, and that after its last one."""
        self._views: list[MessageView] = []
        """Those of the window, in order."""
        self._notices: dict[NoticeText, MessageView | int | None] = {}
        """What the app said, and after which message."""
        self._stale = self._mounting = False
        self._equal = asyncio.Event()
        self._arranged = asyncio.Event()
        self._regions: dict[Widget, Region] = {}
        """Of the children, as of the last time they were arranged."""
        self._placing = self._looked = False
        self._bar_look = (0, 0, 0)
        self._heights: tuple[object, int, list[int]] = (None, 0, [])
        self._hold: _Hold | None = None
        self._goal: _Goal | None = None

    def on_mount(self) -> None:
        self.to_end()

    def on_resize(self) -> None:
        self._mount_visible()

    def welcome(self) -> Welcome:
        """What is shown where there is nothing yet."""
        return Welcome()

    @property
    def views(self) -> list[MessageView]:
        """The mounted messages, but those that are not in the store, or not yet."""
        return [view for view in self._views if view.message]

    @property
    def pointed_at(self) -> MessageView | None:
        """The message in focus, or else the last one in view."""
        return self.in_focus or self.last_in_view

    @property
    def in_focus(self) -> MessageView | None:
        """It may be the reply that is being written, and has no message yet."""
        return next((view for view in self._stored if view.has_focus_within), None)

    @property
    def last_in_view(self) -> MessageView | None:
        """As ``in_focus``."""
        views = self._stored
        bottom = round(self.scroll_y) + self.size.height
        seen = [v for v in views if (r := self._regions.get(v)) and r.y < bottom]
        return seen[-1] if seen else views[-1] if views else None

    @property
    def _stored(self) -> list[MessageView]:
        """The mounted messages that are in the store, also those that are not read from it yet."""
        return [view for view in self._views if view.id_in_store is not None]

    def neighbour(self, view: MessageView, direction: int) -> int | None:
        """The id of the message after this one (1), or before it (-1), which is the first one's for
        the first one; None: none is after it."""
        ids = [_id(item) for item in self._shown]
        place = ids.index(view.id_in_store) + direction if view.id_in_store in ids else len(ids)
        return ids[max(0, place)] if place < len(ids) else None

    # ------------------------------------------------------------------ what is to be shown

    def follow_list(self, messages: Sequence[Message]) -> None:
        """Show these instead, as far as possible at the same place."""
        self.messages = list(messages)
        by_id = {message.id: message for message in messages}
        for view in self._live:  # which show themselves what comes
            if message := by_id.get(view.id_in_store or 0):
                view.message = message
        self._rebuild_list()

    def add_unsaved(self, view: MessageView, after: int | None) -> None:
        """Show what the store does not have yet, in place of all that follows ``after``."""
        self._unsaved = [v for v in self._unsaved if v.id_in_store != after]
        self._after = after
        self._unsaved.append(view)
        self._live.append(view)
        self._rebuild_list()
        self.to_end()

    def keep(self, view: MessageView) -> None:
        """More is to be written to a view."""
        self._live.append(view)

    def is_being_written(self, view: MessageView) -> bool:
        """Whether it shows more, or may, than its message has."""
        return view in self._live

    def release(self, view: MessageView) -> None:
        """It is as it stays, or is not to be shown any more unless the store has it."""
        self._live = [v for v in self._live if v is not view]
        self._unsaved = [v for v in self._unsaved if v is not view]
        for notice, after in self._notices.items():
            if after is view and view.id_in_store is None:  # it is never shown again
                self._notices[notice] = self._after
        self._rebuild_list()

    def note(self, text: str, *, error: bool = False) -> NoticeText:
        """Show a sentence from the app after all that has been said."""
        notice = NoticeText(text, error=error)
        last = self._shown[-1] if self._shown else None
        self._notices[notice] = last.id if isinstance(last, Message) else last
        if self.is_attached:  # and not closed meanwhile
            self.mount(notice)
            self._change()
        return notice

    def note_before(self, view: MessageView, text: str) -> None:
        """Show a sentence from the app above a message that is being written."""
        place = next((p for p, item in enumerate(self._shown) if self._is(item, view)), 0)
        before = self._shown[place - 1] if place else None
        self._notices[NoticeText(text)] = before.id if isinstance(before, Message) else before
        self._change()

    def forget_errors(self, after: int | None) -> None:
        """Take away what was said to have gone wrong from a message on: it is tried again."""
        places = {_id(item): place for place, item in enumerate(self._shown)}
        start = places.get(after, 0)
        for notice, anchor in list(self._notices.items()):
            place = places.get(anchor.id_in_store if isinstance(anchor, MessageView) else anchor)
            if notice.has_class("-error") and (place is None or place >= start):
                notice.remove()

    def jump(self, message_id: int, above: float = 0, *, focus: bool = True) -> None:
        """Bring a message into view, ``above`` lines of it above its top, and point at it."""
        self._go(_Goal(message_id, above, Size(self.size.width, 0), focus))

    def leave_focus(self) -> None:
        """Point at nothing that is still to be gone to."""
        if self._goal:
            self._goal = replace(self._goal, focus=False)

    def point(self, message_id: int) -> None:
        """Point at a message; the view moves no more than it must."""
        view = self.view_of(message_id)
        region = self._regions.get(view) if view else None
        if view is None or region is None:
            self.jump(message_id)
            return
        self.screen.set_focus(view, scroll_visible=False)
        self.scroll_to_widget(view, animate=False)

    def to_start(self) -> None:
        """Show the beginning."""
        if self.messages:
            self.jump(self.messages[0].id, focus=False)

    def to_end(self) -> None:
        """Show the end and stay there while the conversation grows."""
        if self._last < len(self._shown) or not self._views:
            self._last = len(self._shown)
            self._first = self._up_from(self._last, self._height)
        self._goal = self._hold = None
        self.anchor()
        self._change()

    @property
    def at_rest(self) -> bool:
        """Whether all that is to be shown is mounted and has its place, as far as is needed."""
        return self._equal.is_set() and self._looked

    async def equal(self) -> None:
        """Wait until what is to be shown is mounted. Not for message handlers."""
        await self._equal.wait()

    async def arranged(self, view: MessageView) -> bool:
        """Wait until a message has its place on the screen, or False if it gets none."""
        while view.is_attached and view not in self._regions:
            self._arranged.clear()
            await self._arranged.wait()
        return view.is_attached

    def view_of(self, message_id: int) -> MessageView | None:
        """The view of a message, if it is mounted."""
        return next((view for view in self._views if view.id_in_store == message_id), None)

    def lines_above(self, view: MessageView) -> float:
        """How many lines of a message are above the top of the view."""
        region = self._regions.get(view)
        return self.scroll_y - region.y if region else 0

    def _go(self, goal: _Goal) -> None:
        ids = list(map(_id, self._shown))
        if goal.message_id not in ids:
            return
        place = ids.index(goal.message_id)
        if self._first - _NEAR <= place < self._last + _NEAR:
            self._first = min(self._first, place)
            self._last = max(self._last, place + 1)
        else:
            self._last = self._down_from(place, self._height)
            self._first = min(place, self._up_from(self._last, self._height))
        self._goal = goal
        self.release_anchor()
        self._change()

    def _rebuild_list(self) -> None:
        """List what can be scrolled through, and keep the window on what it was on."""
        known = {message.id for message in self.messages}
        unsaved = [view for view in self._unsaved if view.id_in_store not in known]
        shown: list[Message | MessageView] = list(self.messages)
        if unsaved:
            places = (p for p, m in enumerate(self.messages, start=1) if m.id == self._after)
            end = next(places, len(shown)) if self._after is not None else 0
            shown = [*shown[:end], *unsaved]
        before, was_at_end = self._shown[self._first : self._last], self._at_end
        self._shown = shown
        places_now = {_id(item): place for place, item in enumerate(shown)}
        kept = [p for item in before if (p := places_now.get(_id(item))) is not None]
        if was_at_end or not kept:
            self._last = len(shown)
            self._first = max(min(kept, default=0), self._last - _MOST)
            if not kept:
                self._first = self._up_from(self._last, self._height)
        else:
            self._first = min(kept)
            self._last = min(max(kept) + 1, self._first + _MOST)
        self._change()

    @property
    def _at_end(self) -> bool:
        """Whether the end is in view and stays there."""
        return self._anchored and not self._anchor_released

    @staticmethod
    def _is(item: Message | MessageView, view: MessageView) -> bool:
        return item is view or (isinstance(item, Message) and item.id == view.id_in_store)

    # ------------------------------------------------------------------ the one who mounts

    def _change(self) -> None:
        self._stale = True
        self._looked = False
        self._equal.clear()
        if not self._mounting and self.is_attached:
            self._mounting = True
            self._mount_until_equal()

    @work(group="mount")
    async def _mount_until_equal(self) -> None:
        try:
            while self._stale:
                self._stale = False
                await self._mount_window()
        finally:
            self._mounting = False
            self._equal.set()  # also after an error: nobody is to wait for what will not come

    async def _mount_window(self) -> None:
        """Mount what is missing of the window, in order, and remove what is not in it."""
        before, self._views = self._views, self._views_of_window()
        stays = {*self._views, *self._live}
        gone: list[Widget] = [v for v in self.query_children(MessageView) if v not in stays]
        welcome = self.query_children(Welcome)
        if self._shown:
            gone += welcome
        order = self._in_order()
        visible = set(order)
        order += [view for view in self._live if view not in visible]
        focus = self._next_focus(before)
        self._next_hold(before)
        fresh = any(not widget.is_attached for widget in order)
        with self.app.batch_update() if fresh and gone else nullcontext():
            mounting = self._mount_missing(order)
            if not all(widget.is_attached for widget in order):
                return  # it is being closed
            for left, right in pairwise(order):
                if self.children.index(right) < self.children.index(left):
                    self.move_child(right, after=left)
            for child in self.children:
                child.display = child in visible or not isinstance(child, MessageView | NoticeText)
            if not self._shown and not welcome:
                mounting.append(self.mount(self.welcome(), before=0 if self.children else None))
            for mounted in mounting:
                await mounted
            if focus and focus.is_attached:
                self.screen.set_focus(focus, scroll_visible=False)
            if gone:
                await self.remove_children(gone)
        if self.marks:
            self.marks.put_on(self._views)
        self._looked = False
        self.refresh(layout=True)

    def _mount_missing(self, order: Sequence[Widget]) -> list[AwaitMount]:
        """Begin to mount those that are not, each run of them after what is mounted before it."""
        mounting: list[AwaitMount] = []
        last: Widget | None = None
        for attached, run in groupby(order, key=lambda widget: widget.is_attached):
            widgets = list(run)
            if attached:
                pass
            elif last:
                mounting.append(self.mount(*widgets, after=last))
            else:
                mounting.append(self.mount(*widgets, before=0 if self.children else None))
            last = widgets[-1]
        return mounting

    def _views_of_window(self) -> list[MessageView]:
        """A view for each item of the window: its own, or a new one."""
        mounted = {v.id_in_store: v for v in [*self._views, *self._live] if v.id_in_store}
        views: list[MessageView] = []
        for place in range(self._first, self._last):
            item = self._shown[place]
            if isinstance(item, MessageView):
                views.append(item)
                continue
            view = mounted.get(item.id)
            if view is None or not (view in self._live or self._is_shown_by(view, place, item)):
                view = self._view(place, item)
            elif view.message is not item:
                view.message = item
            views.append(view)
        return views

    def _view(self, place: int, message: Message) -> MessageView:
        if message.role == "user":
            return UserMessage(message)
        return Reply(message, self._memories_with(place, message))

    def _is_shown_by(self, view: MessageView, place: int, message: Message) -> bool:
        uses = not isinstance(view, Reply) or view.uses(self._memories_with(place, message))
        return uses and view.shows(message)

    def _memories_with(self, place: int, message: Message) -> Sequence[Cube]:
        """The memories that a reply had."""
        before = self._shown[place - 1] if place else None
        return message.given(before if isinstance(before, Message) else None)

    def _in_order(self) -> list[Widget]:
        """The views of the window, each with what the app said after it."""
        for notice in list(self._notices):
            if not notice.is_attached and notice.is_mounted:
                del self._notices[notice]
        notes: dict[object, list[NoticeText]] = {}
        for notice, after in self._notices.items():
            known = after.id_in_store if isinstance(after, MessageView) else after
            notes.setdefault(known if known or after is None else after, []).append(notice)
        order: list[Widget] = list(notes.get(None, ())) if self._first == 0 else []
        for view in self._views:
            order += [view, *notes.get(view.id_in_store or view, ())]
        return order

    def _next_focus(self, before: list[MessageView]) -> Widget | None:
        """What gets the focus: the goal, or instead of a view that goes its successor."""
        goal = self._goal
        if goal and goal.focus and (view := self.view_of(goal.message_id)):
            return view
        focused = next((view for view in before if view.has_focus_within), None)
        if focused is None or focused in self._views:
            return None
        return self.view_of(focused.id_in_store or 0) or self.screen.query_one(PromptInput)

    def _next_hold(self, before: list[MessageView]) -> None:
        """Where the view stands: at the goal, or where it stood, however that is mounted now."""
        goal, hold = self._goal, self._hold
        if goal and (view := self.view_of(goal.message_id)):
            self._goal = None
            self._hold = _Hold(view, goal.above, goal.size)
        elif hold and isinstance(hold.view, MessageView) and hold.view not in self._views:
            if same := self.view_of(hold.view.id_in_store or 0):
                self._hold = _Hold(same, hold.above, hold.size)
            else:
                kept = (v for v in before if v in self._views and v in self._regions)
                top = round(self.scroll_y)
                near = min(kept, key=lambda v: abs(self._regions[v].y - top), default=None)
                region = self._regions[near] if near else Region()
                self._hold = _Hold(near, top - region.y, region.size) if near else None

    # ------------------------------------------------------------------ the window moves

    def watch_scroll_y(self, old: float, new: float) -> None:
        super().watch_scroll_y(old, new)
        if not self._placing:
            self._hold_top()
        self._draw_bar()
        self._mount_visible()

    def _mount_visible(self) -> None:
        """Have more mounted if the view is near an end of the window, and less far from it."""
        height = self.size.height
        regions = [self._regions.get(view) for view in self._views]
        placed = [region for region in regions if region is not None]
        if not self._equal.is_set() or not height or len(placed) < len(regions):
            return  # it is looked at again once they have their places
        self._looked = True
        top = self.max_scroll_y if self._at_end else round(self.scroll_y)
        bottom = top + height
        first, last = self._first, self._last
        missing = height - (top - placed[0].y) if placed else height
        if missing > 0:
            first = self._up_from(first, min(missing, _MORE * height))
        else:
            far = sum(region.bottom < top - _FAR * height for region in placed)
            first += min(far, _LESS)
        missing = height - (placed[-1].bottom - bottom) if placed else height
        if missing > 0:
            last = self._down_from(last, min(missing, _MORE * height))
        else:
            far = sum(region.y > bottom + _FAR * height for region in placed)
            last -= min(far, _LESS)
        if (first, last) != (self._first, self._last) and first < last:
            self._first, self._last = first, last
            self._change()

    def _check_anchor(self) -> None:
        if self._last == len(self._shown):  # or the end of the window would be taken for the end
            super()._check_anchor()

    # ------------------------------------------------------------------ standing still

    def _hold_top(self) -> None:
        """Remember what is at the top of the view."""
        top = self.scroll_y
        for child, region in self._regions.items():
            if region.bottom > top and child.is_attached:
                self._hold = _Hold(child, round(top) - region.y, region.size)
                return

    def arrange(self, size: Size, optimal: bool = False) -> DockArrangeResult:
        result = super().arrange(size, optimal)
        self._regions = {p.widget: p.region for p in result.placements}
        self._arranged.set()
        if self._anchor_released:
            y = round(self.scroll_y)
            if (hold := self._hold) and (region := self._regions.get(hold.view)) is not None:
                y = round(region.y + self._lines_of(hold, region))
                if self._first == 0 and region.y >= y and hold.view in self._views[:1]:
                    y = 0  # with the space above it
            # While it is anchored, a short conversation stands at the bottom: above zero.
            y = max(0, min(y, result.spatial_map.total_region.bottom - size.height))
            self.set_reactive(Widget.scroll_y, y)
            self.set_reactive(Widget.scroll_target_y, y)
        return result

    def _lines_of(self, hold: _Hold, region: Region) -> float:
        """How many lines are above the top now; another width makes more or less of them."""
        if hold.size.width == region.width or not hold.size.height or hold.above <= 0:
            return hold.above
        above = hold.above * region.height / hold.size.height
        self._hold = _Hold(hold.view, above, region.size)
        return above

    # ------------------------------------------------------------------ the scrollbar

    def _size_updated(
        self, size: Size, virtual_size: Size, container_size: Size, layout: bool = True
    ) -> bool:
        self._placing = True
        changed = super()._size_updated(size, virtual_size, container_size, layout)
        self._placing = False
        self._draw_bar()
        if changed and self.show_vertical_scrollbar:  # drawn with all of it, and not once more
            self.vertical_scrollbar._exchange_repaint_regions()
        if not self._looked:
            self.call_later(self._mount_visible)
        return changed

    def _scroll_update(self, virtual_size: Size) -> None:
        """As Textual's, but for the bar, which it would have drawn anew each time."""
        self._refresh_scrollbars()
        self.scroll_x = self.validate_scroll_x(self.scroll_x)
        self.scroll_y = self.validate_scroll_y(self.scroll_y)

    def _draw_bar(self) -> None:
        """Show the place in the whole conversation, of which the rest is estimated."""
        if self.show_vertical_scrollbar and self.styles.scrollbar_size_vertical:
            above = self._lines()
            below = above[-1] - above[self._last]
            whole = above[self._first] + self.virtual_size.height + below
            seen = self.container_size.height
            place = above[self._first] + self.scroll_y
            bar = self.vertical_scrollbar
            if not isinstance(bar._styles_cache, OwnRows):  # its rows are its lines: no border
                bar._styles_cache = OwnRows(
                    lambda crop: [bar.render_line(y) for y in crop.line_range]
                )
            bar.set_reactive(ScrollBar.window_virtual_size, whole)
            bar.set_reactive(ScrollBar.window_size, seen)
            bar.set_reactive(ScrollBar.position, place)
            # Its ends, as they are drawn: in eighths of a row.
            thumb = max(1.0, seen * seen / max(whole, seen, 1))
            look = seen, ceil(8 * thumb), int(8 * (seen - thumb) * place / max(whole - seen, 1))
            if look != self._bar_look:
                self._bar_look = look
                bar.refresh()

    @property
    def _height(self) -> int:
        return self.size.height or self.app.size.height

    def _up_from(self, place: int, lines: float) -> int:
        """The place from which there are about so many lines, and one message, up to another."""
        above = self._lines()
        return max(0, min(place - 1, bisect_right(above, above[place] - lines) - 1))

    def _down_from(self, place: int, lines: float) -> int:
        """The place up to which there are about so many lines, and one message, from another."""
        above = self._lines()
        return min(len(self._shown), max(place + 1, bisect_left(above, above[place] + lines)))

    def _lines(self) -> list[int]:
        """About how many lines there are above each message, and in all of them."""
        width = max(10, (self.size.width or self.app.size.width) - _NARROWER)
        shown, for_width, heights = self._heights
        if shown is not self._shown or for_width != width:
            heights = list(accumulate(_heights(self._shown, width), initial=0))
            self._heights = (self._shown, width, heights)
        return heights

    def _on_scroll_to(self, message: ScrollTo) -> None:
        """The scrollbar was dragged."""
        message.stop()
        message.prevent_default()
        if message.y is None:
            return
        above = self._lines()
        y = message.y - above[self._first]
        if message.y >= self.vertical_scrollbar.window_virtual_size - self.container_size.height:
            self.to_end()
        elif 0 <= y <= self.max_scroll_y:
            self.scroll_to(y=y, animate=False)
        else:
            place = min(bisect_right(above, max(0, message.y)) - 1, len(self._shown) - 1)
            item = self._shown[place]
            if message_id := _id(item):
                height = above[place + 1] - above[place]
                share = (max(0, message.y) - above[place]) / height
                self._go(_Goal(message_id, share, Size(0, 1), False))


def _id(item: Message | MessageView) -> int | None:
    return item.id if isinstance(item, Message) else item.id_in_store


def _heights(items: Iterable[Message | MessageView], width: int) -> Iterable[int]:
    for item in items:
        text = item.content if isinstance(item, Message) else ""
        yield 2 + text.count("\n") + len(text) // width
