"""The messages of a conversation, of which only those around the ones in view are widgets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from textual.app import ComposeResult
from textual.containers import VerticalScroll
from textual.geometry import Size
from textual.layout import DockArrangeResult
from textual.widget import Widget

from ondevice.chats import Message
from tui.widgets.message import MessageView
from tui.widgets.placed_once import PlacedOnce
from tui.widgets.reply import Reply
from tui.widgets.user_message import UserMessage

_OPENED = 12  # messages that are mounted at first
_MORE = 2  # at a time, when the view comes near the last of them
_KEPT = 2  # heights of the view: what is farther away than that goes


class Transcript(PlacedOnce, VerticalScroll, can_focus=False):
    """Shows ``messages``, at first the last ones.

    Heights are known only after mounting, and change while a reply is written. What is in view
    then stays where it is: at the end, or with the topmost message as it stands.
    """

    def __init__(self, messages: Sequence[Message] = ()) -> None:
        super().__init__()
        self.messages = list(messages)
        self._first = max(0, len(self.messages) - _OPENED)
        """The place of the first mounted message; they have no gaps."""
        self._held: tuple[Widget, int] | None = None
        """The topmost widget in view and how far its top is below that of the view."""
        self._growing = False

    def compose(self) -> ComposeResult:
        yield from self._views(self._first, len(self.messages))

    def on_mount(self) -> None:
        self.anchor()
        self.call_after_refresh(self._look)

    def on_resize(self) -> None:
        self._look()

    @property
    def views(self) -> list[MessageView]:
        """The mounted messages, but those that are not in the store, or not yet."""
        return [view for view in self.query_children(MessageView) if view.message]

    @property
    def _last(self) -> int:
        """The place after the last mounted message."""
        return self._first + len(self.views)

    @property
    def pointed_at(self) -> MessageView | None:
        """The message in focus, or else the last one."""
        views = self.views
        return next((view for view in views if view.has_focus_within), views[-1] if views else None)

    async def cut(self, place: int) -> None:
        """Take the messages from this place on away."""
        gone = self.views[max(0, place - self._first) :]
        if gone:
            await self.remove_children(self.children[self.children.index(gone[0]) :])
        del self.messages[place:]
        self._first = min(self._first, place)

    async def jump(self, message_id: int) -> None:
        """Bring a message into view and point at it."""
        place = [message.id for message in self.messages].index(message_id)
        if not self._first <= place < self._last:
            await self._rebuild(place)
        view = self.views[place - self._first]
        self.screen.set_focus(view, scroll_visible=False)
        self.release_anchor()
        self.call_after_refresh(self.scroll_to_widget, view, top=True, animate=False)

    async def to_end(self) -> None:
        """Show the end and stay there while the conversation grows."""
        if self._last < len(self.messages):
            await self._rebuild(len(self.messages))
        self._held = None
        self.anchor()

    # ------------------------------------------------------------------ the window

    def _views(self, start: int, end: int) -> Iterable[MessageView]:
        for place in range(start, end):
            message = self.messages[place]
            if message.role == "user":
                yield UserMessage(message)
            else:
                before = self.messages[place - 1] if place else None
                yield Reply(message, message.given(before))

    async def _rebuild(self, place: int) -> None:
        """Mount the messages around this place instead of those that are."""
        self._held = None
        await self.remove_children(MessageView)
        self._first = max(0, place - _OPENED // 2)
        end = min(len(self.messages), self._first + _OPENED)
        await self.mount(*self._views(self._first, end), before=0)

    def watch_scroll_y(self, old: float, new: float) -> None:
        super().watch_scroll_y(old, new)
        self._hold()
        self._look()

    def _look(self) -> None:
        """Mount more if the view is near an end."""
        if not self._growing and self.is_attached:
            self._growing = True
            self.call_later(self._grow)

    async def _grow(self) -> None:
        height = self.size.height
        views: list[MessageView] = []
        try:
            if self._first > 0 and self.scroll_y < height:
                below = self.scroll_y + _KEPT * height
                far = [view for view in self.views if view.virtual_region.y > below]
                start = max(0, self._first - _MORE)
                views = list(self._views(start, self._first))
                self._first = start
                await self.mount(*views, before=0)
                if self._anchor_released and self._may_prune:
                    await self.remove_children(far)
            elif self._last < len(self.messages) and self.scroll_y > self.max_scroll_y - height:
                above = self.scroll_y - _KEPT * height
                far = [view for view in self.views if view.virtual_region.bottom < above]
                end = min(len(self.messages), self._last + _MORE)
                views = list(self._views(self._last, end))
                await self.mount(*views, after=self.views[-1])
                if self._may_prune:
                    self._first += len(far)
                    await self.remove_children(far)
        finally:
            self._growing = False
        if views:
            self.call_after_refresh(self._look)

    @property
    def _may_prune(self) -> bool:
        return True

    # ------------------------------------------------------------------ standing still

    def _hold(self) -> None:
        """Remember what is at the top of the view."""
        top = self.scroll_y
        for child in self.children:
            if child.virtual_region.bottom > top:
                self._held = (child, child.virtual_region.y - round(top))
                return

    def arrange(self, size: Size, optimal: bool = False) -> DockArrangeResult:
        result = super().arrange(size, optimal)
        if self._anchor_released:
            y = round(self.scroll_y)
            if self._held:
                held, distance = self._held
                tops = (p.region.y - distance for p in result.placements if p.widget is held)
                y = next(tops, y)
            # While it is anchored, a short conversation stands at the bottom: above zero.
            self.set_reactive(Widget.scroll_y, max(0, y))
            self.set_reactive(Widget.scroll_target_y, max(0, y))
        return result
