"""What Textual loses on the way to the app: keys, brackets, reverse video, clicks, and time."""

from __future__ import annotations

import asyncio
import inspect
import re
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

from textual import events
from textual._compositor import ChopsUpdate, Compositor
from textual._context import visible_screen_stack
from textual._xterm_parser import XTermParser
from textual.app import App
from textual.await_complete import AwaitComplete
from textual.command import DiscoveryHit
from textual.content import Content
from textual.css.query import NoMatches
from textual.dom import DOMNode, NoScreen
from textual.fuzzy import Matcher
from textual.geometry import Offset, Region
from textual.screen import Screen
from textual.strip import Strip
from textual.style import Style
from textual.widget import MountError, Widget
from textual.widgets import OptionList, TextArea
from textual.worker import Worker

from ondevice.text import printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

#: Asks xterm, tmux and others for keys such as Shift+Enter; terminals of the kitty protocol are
#: asked by Textual. See ``modifyOtherKeys`` in xterm's control sequences.
TELL_KEYS_APART = "\x1b[>4;1m"
NO_LONGER = "\x1b[>4m"

#: Alt+Enter as most terminals send it, and Enter with modifiers as xterm does.
_ENTER = re.compile(r"\x1b(?:\r|\[27;(\d+);13~)")
_ALT = 3  # the number of a modifier in such sequences
#: Raised by whoever looks for a part of what is being taken away.
MISSED = (NoMatches, NoScreen, MountError)

_key_events = XTermParser._sequence_to_key_events
_visual_style = Widget.get_visual_style
_widget_at = Screen.get_widget_and_offset_at
_render = Screen.render
_dismiss = Screen.dismiss
_cancel = Worker.cancel
_recompute_cursor = TextArea._recompute_cursor_offset
_move_page = OptionList._move_page
_on_click = OptionList._on_click
_run_async = Worker._run_async


def _with_enter(self: XTermParser, sequence: str, alt: bool = False) -> Iterable[events.Key]:
    """Textual takes Alt+Enter for Enter, which would send half a message."""
    if enter := _ENTER.fullmatch(sequence):
        sequence = f"\x1b[13;{enter[1] or _ALT}u"  # as in the kitty protocol
    return _key_events(self, sequence, alt)


def _is_printable(self: events.Key) -> bool:
    """Python counts among what cannot be printed also what joins letters, parts them or turns them
    around, but keyboards have it: of Khmer, Persian and Hebrew, say, and with pictures."""
    character = self.character
    if character is None or len(character) != 1:
        return False
    formats = unicodedata.category(character) == "Cf" and printable(character) == character
    return character.isprintable() or formats


def _with_reverse(self: Widget, *component_classes: str, partial: bool = False) -> Style:
    """Textual leaves ``reverse`` out, all that shows a choice where there are no colours."""
    style = _visual_style(self, *component_classes, partial=partial)
    parts = [self.styles, *map(self.get_component_styles, component_classes)]
    return style + Style(reverse=True) if any(p.text_style.reverse for p in parts) else style


def _listed_as_written(self: DiscoveryHit) -> Content:
    """The palette takes “[WORDS]” in the name of a command for markup, and shows nothing of it."""
    return Content(str(self.display))


def _found_as_written(self: Matcher, candidate: str) -> Content:
    score, offsets = self.fuzzy_search.match(self.query, candidate)
    content = Content(candidate)
    for offset in offsets if score else ():
        if not candidate[offset].isspace():
            content = content.stylize(self.match_style, offset, offset + 1)
    return content


def _still_there(self: Screen[object], x: int, y: int) -> tuple[Widget | None, Offset | None]:
    """What has been taken away stays on the screen for a moment; a click on it ends the app."""
    widget, offset = _widget_at(self, x, y)
    return (widget, offset) if widget is self or (widget and widget.parent) else (None, None)


def _render_over(self: Screen[object]) -> RenderableType:
    """Textual knows what lies below a dialog only while a frame is drawn, once for each screen. One
    that is drawn at another time, to be read, would have nothing below it, and keep that."""
    stack = self.app.screen_stack
    visible_screen_stack.set(stack[: stack.index(self)] if self in stack else [])
    return _render(self)


def _dismiss_once(self: Screen[object], result: object = None) -> AwaitComplete:
    """Closed twice, as by two clicks, a dialog would take what is below it with it; and one that
    nobody waits for any more would not close."""
    if self not in self.app.screen_stack:
        return AwaitComplete()
    for waiting in self._result_callbacks[-1:]:
        if waiting.future is not None and waiting.future.done():
            waiting.future = None
    return _dismiss(self, result)


def _recompute_cursor_inside(self: TextArea) -> None:
    """An undo takes lines away before it moves the cursor, which ends the app if a scrollbar goes
    with them. It is computed again once the cursor has moved."""
    with suppress(ValueError):
        _recompute_cursor(self)  # type: ignore[no-untyped-call]


def _cancel_begun(self: Worker[object]) -> None:
    """One that is cancelled before its first step counts as running for ever."""
    task = self._task
    if task and inspect.getcoroutinestate(task.get_coro()) == inspect.CORO_CREATED:  # type: ignore[arg-type]
        asyncio.get_running_loop().call_soon(_cancel, self)
    else:
        _cancel(self)


def is_going(node: DOMNode) -> bool:
    """Whether it is being taken away, so that parts of it may be gone."""
    nodes = node.ancestors_with_self
    gone = node._exit if isinstance(node, App) else not node.is_attached
    return gone or any(one._closing or one._pruning for one in nodes)


async def _run_while_there(self: Worker[object]) -> object:
    """A worker may find that what it works for is being taken away: that ends it, no more."""
    try:
        return await _run_async(self)
    except MISSED:
        if not is_going(self.node):
            raise
        raise asyncio.CancelledError from None


def _move_page_when_drawn(self: OptionList, direction: Literal[-1, 1]) -> None:
    """A list whose lines are not laid out yet has no pages, and no line to look up."""
    if (self.highlighted or 0) in self._index_to_line:
        _move_page(self, direction)


async def _click_if_there(self: OptionList, event: events.Click) -> None:
    """The options may have changed between the press of the button and the click."""
    if event.style.meta.get("option", 0) < self.option_count:
        await _on_click(self, event)


def _chops_in_sight(
    self: Compositor, crop: Region, is_drawn: Callable[[int], bool]
) -> list[dict[int, Strip | None]]:
    """Textual draws all rows of all widgets, for one row too, and those that others cover."""
    cuts = self.cuts
    unfilled = {y for y in crop.line_range if is_drawn(y)}
    chops: list[dict[int, Strip | None]] = [
        dict.fromkeys(row[:-1]) if y in unfilled else {} for y, row in enumerate(cuts)
    ]
    for widget, (region, clip) in self.visible_widgets.items():  # from the front to the back
        shown = clip.intersection(region)
        rows = sorted(unfilled.intersection(shown.line_range)) if shown else ()
        if not rows:
            continue
        left, right = shown.column_span
        top = rows[0]
        part = Region(left, top, shown.width, rows[-1] + 1 - top).translate(-region.offset)
        strips = widget.render_lines(part)
        for y in rows:
            row = chops[y]
            inside = [cut for cut in cuts[y] if left <= cut <= right]
            parts = strips[y - top].divide([cut - left for cut in inside[1:]])
            for cut, strip in zip(inside, parts, strict=False):
                if row[cut] is None:
                    row[cut] = strip
            if None not in row.values():
                unfilled.remove(y)
    return chops


def _written(self: ChopsUpdate, console: Console) -> str:
    """Textual makes a control of rich's for each place to which the cursor goes."""
    parts = []
    for y, first, last in self.spans:
        for end, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
            if strip is not None and x <= last and end > first:
                whole = first <= x < last and end <= last
                drawn = strip if whole else strip.crop(0, min(end, last) - x)
                parts.append(f"\x1b[{y + 1};{x + 1}H{drawn.render(console)}")
    return "".join(parts)


def close() -> None:
    """Have Textual lose none of it, from here on."""
    setattr(XTermParser, "_sequence_to_key_events", _with_enter)  # noqa: B010 - mypy minds it
    setattr(events.Key, "is_printable", property(_is_printable))  # noqa: B010
    setattr(Widget, "get_visual_style", _with_reverse)  # noqa: B010
    setattr(DiscoveryHit, "prompt", property(_listed_as_written))  # noqa: B010
    setattr(Matcher, "highlight", _found_as_written)  # noqa: B010
    setattr(Screen, "get_widget_and_offset_at", _still_there)  # noqa: B010
    setattr(Screen, "render", _render_over)  # noqa: B010
    setattr(Screen, "dismiss", _dismiss_once)  # noqa: B010
    setattr(TextArea, "_recompute_cursor_offset", _recompute_cursor_inside)  # noqa: B010
    setattr(Worker, "cancel", _cancel_begun)  # noqa: B010
    setattr(Worker, "_run_async", _run_while_there)  # noqa: B010
    setattr(OptionList, "_move_page", _move_page_when_drawn)  # noqa: B010
    setattr(Compositor, "_render_chops", _chops_in_sight)  # noqa: B010
    setattr(ChopsUpdate, "render_segments", _written)  # noqa: B010
    setattr(OptionList, "_on_click", _click_if_there)  # noqa: B010
