"""Words that were looked for, marked wherever they stand in the messages on the screen."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import msgspec
from rich.segment import Segment
from rich.style import Style
from textual.strip import Strip
from textual.widget import Widget

from ondevice.store import VOWEL_SIGNS
from tui.widgets.message import MessageView

# Attributes only, so that they are seen with NO_COLOR and in every theme.
_MARK = Style(bold=True, underline=True)
_HERE = Style(bold=True, underline=True, reverse=True)


class MarkedWord(msgspec.Struct, frozen=True):
    """One of the words on the screen: the line ``y`` of a widget, from character ``start`` on."""

    widget: Widget
    y: int
    start: int
    row: int
    """The line of the whole message."""


class Marks:
    """Marks ``words``, in any case, in the lines that widgets draw, whatever kind these are.

    ``parts`` are marked within words, too.
    """

    def __init__(self, words: Iterable[str], parts: Iterable[str] = ()) -> None:
        # The index of the store takes _ for a space.
        self._pattern = re.compile(
            rf"(?<![^\W_])(?:{_any_of(words)})(?![^\W_{VOWEL_SIGNS}])|{_any_of(parts)}",
            re.IGNORECASE,
        )
        self._marked: set[Widget] = set()
        self._here: MarkedWord | None = None

    @property
    def here(self) -> MarkedWord | None:
        """The one that the user has gone to."""
        return self._here

    @here.setter
    def here(self, hit: MarkedWord | None) -> None:
        before, self._here = self._here, hit
        for one in (before, hit):
            if one:
                one.widget.refresh()

    def put_on(self, views: Iterable[MessageView]) -> None:
        """Mark the words in these messages from now on."""
        self._marked = {widget for widget in self._marked if widget.is_attached}
        for view in views:
            for widget in _drawn(view):
                if widget not in self._marked:
                    self._marked.add(widget)
                    line = partial(self._line, widget, widget.render_line)
                    vars(widget)["render_line"] = line  # in place of the method of its class
                    widget.refresh()

    def remove(self) -> None:
        """Mark nothing any more."""
        for widget in self._marked:
            vars(widget).pop("render_line", None)
            widget.refresh()
        self._marked.clear()

    def hits(self, view: MessageView) -> list[MarkedWord]:
        """Where the words stand in a message that has its place on the screen, from its top on."""
        found = []
        top = view.region.y
        for widget in _drawn(view):
            region = widget.content_region
            for y in range(region.height):
                found += [
                    MarkedWord(widget, y, match.start(), region.y - top + y)
                    for match in self._pattern.finditer(widget.render_line(y).text)
                ]
        return sorted(found, key=lambda hit: (hit.row, hit.widget.region.x, hit.start))

    def _line(self, widget: Widget, draw: Any, y: int) -> Strip:
        strip: Strip = draw(y)
        text = strip.text
        cuts = [(m.start(), m.end()) for m in self._pattern.finditer(text)]
        if not cuts:
            return strip
        here = self._here
        if here and (here.widget, here.y) != (widget, y):
            here = None
        styles: list[Style | None] = [None] * len(text)
        for start, end in cuts:
            mark = _HERE if here and here.start == start else _MARK
            styles[start:end] = [mark] * (end - start)
        return Strip(_styled(strip, styles), strip.cell_length)


def _any_of(words: Iterable[str]) -> str:
    """A pattern for the longest one that stands at a place."""
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True)) or "(?!)"


def _styled(strip: Strip, styles: list[Style | None]) -> Iterator[Segment]:
    """The segments of a strip, with another style on top for each character that has one."""
    place = 0
    for text, style, control in strip:
        if control:
            yield Segment(text, style, control)
            continue
        edges = [
            0,
            *(i for i in range(1, len(text)) if styles[place + i] is not styles[place + i - 1]),
            len(text),
        ]
        for start, end in pairwise(edges):
            if end > start:
                mark = styles[place + start]
                yield Segment(text[start:end], (style or Style()) + mark if mark else style)
        place += len(text)


def _drawn(view: MessageView) -> Iterator[Widget]:
    """The widgets that draw the text of a message."""
    for text in view.texts:
        inner = [widget for widget in text.walk_children(Widget) if not widget.children]
        yield from inner or [text]
