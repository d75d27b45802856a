"""A model's answer, drawn as Markdown; it can neither drive the terminal nor open what it likes.

One widget draws the lines that are in view. What a piece of a reply costs is to read and lay out
the block at its end; where that is long it is done in a thread, and not for each piece.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from rich.segment import Segment
from rich.style import Style
from textual.app import RenderResult
from textual.css.styles import RenderStyles
from textual.dom import DOMNode
from textual.geometry import Region, Size
from textual.message import Message
from textual.selection import Selection
from textual.strip import Strip
from textual.timer import Timer
from textual.widget import Widget

from ondevice.text import printable
from tui.markdown.code import Code
from tui.markdown.document import Document
from tui.markdown.layout import COPY, AnyLine, CodeLine, Look, MarkdownBlock
from tui.markdown.lines import Piece, width_of
from tui.widgets.drawing import OwnRows
from tui.widgets.single_layout import SingleLayout

_SPARE, _SPARE_S = 2, 0.8  # lines that it takes beyond those it needs while it grows, and seconds
_LONG = 3000  # characters that are read in a thread
_UNSURE = 3  # lines at the end of code whose colours may change with what comes after them
_KEPT = 300  # lines that stay drawn when they are not in view
_REST = 4  # times as long as reading has taken, until it is done again
_COLOURING = 0.005  # seconds at a time
_COLOUR_EVERY = 0.03  # seconds
_MAY_OPEN = ("http://", "https://", "mailto:")


class ReplyBody(SingleLayout, Widget):
    """A whole answer, or one that is still being written."""

    def __init__(self, text: str = "") -> None:
        super().__init__()
        self._styles_cache = OwnRows(self.rows)
        self._unread = printable(text)
        """What has come before it is on the screen, where it learns how to look."""
        self._document: Document | None = None
        self._strips: dict[int, Strip] = {}
        self._rows: dict[int, tuple[Strip, Strip]] = {}
        """What was drawn last of a line, and the same with what is to its left and right."""
        self._rich: dict[tuple[str, ...], Style] = {}
        self._grows = False
        self._reserved = 0
        """Lines that are kept for it while it grows, or the screen would move with each of them."""
        self._reserved_for: tuple[int, Look] | None = None
        """The width and the look with which there are so many."""
        self._grown = (0.0, 0)
        """When room was made for it last, and how many lines it had then."""
        self._reading = asyncio.Lock()
        self._not_before = 0.0
        self._drawn_for = 0  # columns
        self._later: Timer | None = None
        self._colouring: Timer | None = None
        self._plain: dict[Code, int] = {}
        """Up to which line blocks of code are to get colours that they do not have yet."""
        self._pale: set[int] = set()
        """The lines that were drawn without them."""
        self._coloured_at = 0.0
        self._left = 0.0
        """Seconds for colours, until there is some time again."""

    async def on_mount(self) -> None:
        self._document = Document(linear=self.app.has_class("-linear"))
        text, self._unread = self._unread, ""
        if text:
            self._document.append(text)
            await self._read(whole=True)

    # ------------------------------------------------------------------ what it says

    @property
    def source(self) -> str:
        """What has come so far."""
        return self._document.text if self._document else self._unread

    async def write(self, text: str) -> None:
        """Append what has come. It is drawn at once, or a little later if that takes long."""
        if self._document is None:
            self._unread += printable(text)
            return
        self._grows = True
        drawn, height = self._drawn(), self._document.height
        if self._document.append(printable(text)):
            self._show(drawn, height, _UNSURE)
        await self._read_when_due()

    async def finish(self) -> None:
        """No more will come: what was cut in two on its way, such as a formula, mends."""
        self._grows = False
        if self._document is None:
            return
        async with self._reading:
            settled = self._document.close()
        if not settled:
            await self._read(whole=True)
        self._grows, self._reserved = False, 0
        self._strips.clear()
        self._resize()

    async def _read_when_due(self) -> None:
        """Read what has come, now if that is soon done and otherwise a little later."""
        to_read = self._document.to_read if self._document else 0
        if to_read and self._later is None:
            wait = self._not_before - time.monotonic()
            if wait <= 0 and to_read < _LONG:
                await self._read()
            else:
                self._later = self.set_timer(max(wait, 0.001), self._read_later)

    async def _read_later(self) -> None:
        try:
            await self._read()
        finally:
            self._later = None
        await self._read_when_due()  # more may have come meanwhile

    async def _read(self, *, whole: bool = False) -> None:
        async with self._reading:
            document = self._document
            if document is None or not (whole or document.to_read):
                return
            started = time.monotonic()
            if (len(document.text) if whole else document.to_read) < _LONG:
                reading = document.read(whole=whole)
            else:
                reading = await asyncio.to_thread(document.read, whole=whole)
            took = time.monotonic() - started
            self._not_before = time.monotonic() + (took * _REST if took > 0.01 else 0)
            drawn, height = self._drawn(), document.height
            document.adopt(reading)
            self._show(drawn, height)

    @property
    def _laid_out(self) -> Document | None:
        """The text, laid out for the width that it has.

        Textual may have asked since how high it would be with another one, and then went by an
        earlier answer for this one.
        """
        if self._document and self.size.width:
            self._document.lay(self.size.width, self._look)
        return self._document

    def _drawn(self) -> dict[int, AnyLine]:
        """What was drawn of the lines there are."""
        document = self._laid_out
        assert document
        return {y: document.line(y) for y in self._strips}

    def _show(self, drawn: dict[int, AnyLine], height: int, unsure: int = 0) -> None:
        """Draw the lines that are others than those there were, ``height`` in number, and of these
        some at the end anyway."""
        document = self._document
        assert document
        changed = {y for y, line in drawn.items() if document.line(y) != line}
        changed |= {y for y in drawn if y >= height - unsure}
        self._redraw(changed)
        if not 0 < document.height <= self.size.height:
            self._reserve()
            self._resize()

    def _reserve(self) -> None:
        """Have room for the lines that come next: for each without, the screen is laid out anew."""
        assert self._document
        now, height = time.monotonic(), self._document.height
        before, self._grown = self._grown, (now, height)
        per_second = (height - before[1]) / max(now - before[0], _SPARE_S)
        spare = max(_SPARE, min(round(_SPARE_S * per_second), self.app.size.height // 5))
        self._reserved = height + spare if self._grows else 0

    def _resize(self) -> None:
        """Have the screen ask how high it is."""
        # Textual keeps the last answer if this was called before and is not yet carried out, though
        # the screen may have been arranged between the two calls.
        self._box_model_cache.clear()
        self.refresh(layout=True)

    def _redraw(self, lines: set[int]) -> None:
        for y in lines:
            self._strips.pop(y, None)
        if lines:
            first, last = min(lines), max(lines)
            self.refresh(Region(0, first, self.size.width, last + 1 - first))

    # ------------------------------------------------------------------ blocks of code

    @dataclass
    class CopyWanted(Message):
        """The user has clicked on a block of code to have it."""

        code: Code

    @property
    def blocks(self) -> list[MarkdownBlock]:
        """The blocks of code and the lines at which they stand."""
        document = self._laid_out
        return document.blocks if document else []

    def redraw(self) -> None:
        """The look of code has changed."""
        self._strips.clear()
        self._resize()

    def action_copy_at(self, y: int) -> None:
        for block in self.blocks:
            if block.first <= y < block.last:
                self.post_message(self.CopyWanted(block.code))

    def _colour(self, line: CodeLine, y: int) -> None:
        """Give a line its colours, now if there is time and otherwise soon."""
        code = line.code
        now = time.monotonic()
        if now > self._coloured_at + _COLOUR_EVERY:
            self._coloured_at, self._left = now, _COLOURING
        waits = not code.ready
        if code.ready and self._left > 0:
            waits = code.colour(line.row + 1, self._left)
            self._left -= time.monotonic() - now
        elif code.ready:
            waits = not code.is_coloured(line.row)
        if waits:
            self._plain[code] = max(line.row + 1, self._plain.get(code, 0))
            self._pale.add(y)
            if self._colouring is None:
                self._colouring = self.set_interval(_COLOUR_EVERY, self._colour_more)

    async def _colour_more(self) -> None:
        """Go on with what was drawn without its colours."""
        while unread := [code for code in self._plain if not code.ready]:  # more may be drawn
            await asyncio.to_thread(unread[0].prepare)
        deadline = time.monotonic() + _COLOURING
        blocks = {block.code: block for block in self.blocks}
        for code, until in list(self._plain.items()):
            if code not in blocks or not code.colour(until, deadline - time.monotonic()):
                del self._plain[code]
                if block := blocks.get(code):
                    self._redraw({y for y in self._pale if block.first <= y < block.last})
        if not self._plain:
            self._pale.clear()
        if not self._plain and self._colouring:
            self._colouring.stop()
            self._colouring = None

    # ------------------------------------------------------------------ lines

    @property
    def _look(self) -> Look:
        screen = self.screen
        return Look(
            linear=self.app.has_class("-linear"),
            wrapped=not screen.has_class("-cut-code"),
            shift=getattr(screen, "code_shift", 0),
        )

    def render(self) -> RenderResult:
        return ""  # it is drawn line by line

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        if self._document is None or not width:
            return 0
        look = self._look
        self._document.lay(width, look)
        if self._reserved_for != (width, look):  # otherwise it would show more than its end
            self._reserved, self._reserved_for = 0, (width, look)
        return max(self._document.height, self._reserved if self._document.height else 0)

    def get_component_styles(self, *names: str) -> RenderStyles:
        """Textual works out those of all COMPONENT_CLASSES, for each reply whatever is in it."""
        part = DOMNode(classes=" ".join(names))
        part._attach(self)
        self.app.stylesheet.apply(part, animate=False)
        return part.styles

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._rich.clear()
        self._strips.clear()

    def rows(self, crop: Region) -> list[Strip]:
        """Those of a part of it, with what is to the left and right of the text."""
        if len(self._strips) > _KEPT + crop.height:
            self._strips = {y: s for y, s in self._strips.items() if y in crop.line_range}
            self._rows.clear()
        document = self._laid_out
        gutter, rows = self.gutter, list[Strip]()
        inner, _ = self._styles_cache.get_inner_outer(*self.background_colors)
        left = Segment(" " * gutter.left, inner.rich_style)
        right = Segment(" " * gutter.right, inner.rich_style)
        # What has been taken away is drawn for a moment still, on no screen.
        selection = self.text_selection if self.is_attached else None
        for y in crop.line_range:
            strip = self._strip(document, y)
            if selection and (span := selection.get_span(y)):
                strip = self._select(strip, span)
            before, row = self._rows.get(y, (None, strip))
            if before is not strip:
                row = Strip([left, *strip, right], strip.cell_length + gutter.width)
                self._rows[y] = strip, row
            rows.append(row)
        if "@click" in (hover := self.hover_style).meta:
            rows = [row.style_links(hover._link_id, self.link_style_hover) for row in rows]
        return rows

    def render_line(self, y: int) -> Strip:
        return self._strip(self._laid_out, y)

    def _strip(self, document: Document | None, y: int) -> Strip:
        if self._drawn_for != self.size.width:
            self._drawn_for = self.size.width
            self._strips.clear()
        strip = self._strips.get(y)
        if strip is None:
            if document is None:
                return Strip.blank(self.size.width, self._style(()))
            strip = self._strips[y] = self._draw(document.line(y), y)
        return strip

    def _draw(self, line: AnyLine, y: int) -> Strip:
        if isinstance(line, CodeLine):
            self._colour(line, y)
        segments = [Segment(piece.text, self._style_of(piece, y)) for piece in line.pieces]
        width = self.size.width
        used = sum(width_of(piece.text) for piece in line.pieces)
        if line.fill and used < line.reach:
            fill = self._style((line.fill,))
            segments.append(Segment(" " * (min(line.reach, width) - used), fill))
        strip = Strip(segments).adjust_cell_length(width, self._style(()))
        return strip.apply_offsets(0, y)

    def _style_of(self, piece: Piece, y: int) -> Style:
        style = self._style(piece.styles)
        if not piece.link:
            return style
        action = f"copy_at({y})" if piece.link == COPY else f"open({piece.link!r})"
        return style + Style.from_meta({"@click": action})

    def _style(self, names: tuple[str, ...]) -> Style:
        if (style := self._rich.get(names)) is None:
            known = [f"reply--{name}" for name in names if name]
            style = self._rich[names] = self.get_visual_style(*known).rich_style
        return style

    # ------------------------------------------------------------------ the mouse

    def _select(self, strip: Strip, span: tuple[int, int]) -> Strip:
        text = strip.text
        start, end = (width_of(text[:place]) for place in (span[0], span[1] % (len(text) + 1)))
        style = self.screen.get_component_rich_style("screen--selection")
        parts = strip.divide([start, max(start, end), strip.cell_length])
        return Strip.join([parts[0], parts[1].apply_style(style), *parts[2:]])

    def get_selection(self, selection: Selection) -> tuple[str, str] | None:
        """The text without marks, and without the breaks that only the width has made."""
        document = self._laid_out
        if document is None:
            return None
        found: list[str] = []
        for y in range(document.height):
            if (span := selection.get_span(y)) is None:
                continue
            line = document.line(y)
            start, end = span
            found.append(line.text[max(start, line.indent) : None if end == -1 else end].rstrip())
            found.append(line.joint)
        return "".join(found[:-1]), "\n"

    def selection_updated(self, selection: Selection | None) -> None:
        self.refresh()

    async def action_open(self, href: str) -> None:
        if href.startswith(_MAY_OPEN):
            self.app.open_url(href)
