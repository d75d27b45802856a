"""Blocks of Markdown as lines of a width."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from tui.markdown import formulas
from tui.markdown.code import Code
from tui.markdown.lines import BLANK, Line, Piece, clip, width_of, wrap
from tui.markdown.tables import lay_out_table

if TYPE_CHECKING:
    from markdown_it.token import Token

MEASURE = 100  # columns of prose at most
COPY = "copy:"
"""The link that copies the block of code it stands above."""
_LEAST = 10  # columns that are left to what stands within lists and quotations
_BULLETS = "•◦▪"
_TASK = re.compile(r"\[([ xX])\](?: |$)")
_STYLE_OF = {"em_open": "em", "strong_open": "strong", "s_open": "s"}


class Look(msgspec.Struct, frozen=True):
    """How it is to look, whatever it says."""

    linear: bool = False
    """Nothing is drawn, for a screen reader."""
    wrapped: bool = True
    """Lines of code go on in the next line; otherwise they are cut."""
    shift: int = 0
    """Of lines that are cut, so many columns are to the left of what is shown."""


class CodeLine(msgspec.Struct, frozen=True):
    """A row of code, which gets its colours later. Stands for a :class:`Line`."""

    code: Code
    row: int
    start: int
    end: int
    before: tuple[Piece, ...]
    indent: int
    joint: str
    fill: str
    reach: int
    after: str = ""

    @property
    def pieces(self) -> tuple[Piece, ...]:
        shown = self.code.pieces(self.row, self.start, self.end)
        if self.fill:
            shown = tuple(piece._replace(styles=(self.fill, *piece.styles)) for piece in shown)
        end = (Piece(self.after, (self.fill, "mark")),) if self.after else ()
        return self.before + shown + end

    @property
    def text(self) -> str:
        before = "".join(piece.text for piece in self.before)
        return before + self.code.lines[self.row][self.start : self.end] + self.after


AnyLine = Line | CodeLine


class MarkdownBlock(msgspec.Struct, frozen=True):
    """Where a block of code stands among the lines, and what it is."""

    code: Code
    first: int
    last: int  # the line after it


class Laid:
    """Lines, and the blocks of code among them."""

    def __init__(self) -> None:
        self.lines: list[AnyLine] = []
        self.blocks: list[MarkdownBlock] = []

    def add(self, other: Laid, first: tuple[Piece, ...] = (), rest: tuple[Piece, ...] = ()) -> None:
        """Put others below, behind pieces that stand before the first line and before the rest."""
        place = len(self.lines)
        self.blocks += [
            replace(block, first=block.first + place, last=block.last + place)
            for block in other.blocks
        ]
        if first or rest:
            self.lines += [
                _behind(rest if number else first, line) for number, line in enumerate(other.lines)
            ]
        else:
            self.lines += other.lines


def _behind(prefix: tuple[Piece, ...], line: AnyLine) -> AnyLine:
    more = sum(len(piece.text) for piece in prefix)
    cells = sum(width_of(piece.text) for piece in prefix)
    reach = line.reach + cells if line.fill else 0
    if isinstance(line, CodeLine):
        return replace(line, before=prefix + line.before, indent=line.indent + more, reach=reach)
    return replace(line, pieces=prefix + line.pieces, indent=line.indent + more, reach=reach)


# ---------------------------------------------------------------------- blocks


def lay_out(tokens: Sequence[Token], codes: Iterable[Code], width: int, look: Look) -> Laid:
    """The lines of some blocks; ``codes`` are the blocks of code among them."""
    return _Layout(look, iter(codes)).blocks(tokens, width, 0)


class _Layout:
    def __init__(self, look: Look, codes: Iterator[Code]) -> None:
        self._look = look
        self._codes = codes

    def blocks(self, tokens: Sequence[Token], width: int, depth: int) -> Laid:
        width = max(1, width)
        laid = Laid()
        place = 0
        before: Token | None = None
        while place < len(tokens):
            token = tokens[place]
            end = _end(tokens, place)
            if before is not None and not (before.hidden or token.hidden):
                laid.lines.append(BLANK)
            laid.add(self._block(token, tokens[place + 1 : end - 1], width, depth))
            before = token
            place = end
        return laid

    def _block(self, token: Token, inside: Sequence[Token], width: int, depth: int) -> Laid:
        match token.type:
            case "heading_open":
                style = f"h{min(3, int(token.tag[1:]))}"
                mark = f"{'#' * int(token.tag[1:])} " if self._look.linear else ""
                return self._prose([Piece(mark), *_styled(self._inline(inside), style)], width)
            case "paragraph_open":
                return self._prose(self._inline(inside), width)
            case "blockquote_open":
                mark = "> " if self._look.linear else "▎ "
                within = self.blocks(inside, max(_LEAST, width - 2), depth)
                laid = Laid()
                prefix = (Piece(mark, ("mark",)),)
                laid.add(within, prefix, prefix)
                return laid
            case "bullet_list_open" | "ordered_list_open":
                return self._list(token, inside, width, depth)
            case "table_open":
                rows = list(self._rows(inside))
                laid = Laid()
                laid.lines += lay_out_table(rows, _alignments(inside), width)
                return laid
            case "fence" | "code_block":
                return lay_out_code(next(self._codes), width, self._look)
            case "formula_block":
                return self._formula(token.content, width)
            case "hr":
                laid = Laid()
                laid.lines.append(Line((Piece("─" * min(width, MEASURE), ("mark",)),)))
                return laid
        # Nothing that the parser knows; whatever it is, it is not left out.
        return self._prose([Piece(token.content)], width) if token.content else Laid()

    def _prose(self, pieces: Sequence[Piece], width: int) -> Laid:
        laid = Laid()
        laid.lines += [Line(line, joint=joint) for line, joint in wrap(pieces, min(width, MEASURE))]
        return laid

    def _list(self, token: Token, items: Sequence[Token], width: int, depth: int) -> Laid:
        laid = Laid()
        number = int(token.attrGet("start") or 1) if token.type == "ordered_list_open" else None
        starts = [place for place, item in enumerate(items) if item.level == token.level + 1]
        starts = [place for place in starts if items[place].type == "list_item_open"]
        last = (number or 0) + len(starts) - 1
        for count, start in enumerate(starts):
            inside = items[start + 1 : _end(items, start) - 1]
            if number is not None:
                bullet = f"{number + count}.".rjust(len(f"{last}.")) + " "
            elif self._look.linear:
                bullet = "- "
            else:
                bullet = f"{_BULLETS[depth % len(_BULLETS)]} "
            if task := _task(inside):
                mark = f"[{task.strip() or ' '}] " if self._look.linear else ""
                tick = mark or ("☑ " if task.strip() else "☐ ")
                bullet = bullet + tick if number is not None or self._look.linear else tick
            if count and not _tight(inside):
                laid.lines.append(BLANK)
            room = max(_LEAST, width - width_of(bullet))
            within = self.blocks(inside, room, depth + 1)
            if not within.lines:
                within.lines.append(BLANK)
            laid.add(within, (Piece(bullet, ("bullet",)),), (Piece(" " * width_of(bullet)),))
        return laid

    def _rows(self, tokens: Sequence[Token]) -> Iterator[list[list[Piece]]]:
        row: list[list[Piece]] = []
        for place, token in enumerate(tokens):
            if token.type in ("th_open", "td_open"):
                row.append(self._inline(tokens[place + 1 : place + 2]))
            elif token.type == "tr_close":
                yield row
                row = []

    def _formula(self, latex: str, width: int) -> Laid:
        lines = formulas.display(latex)
        room = max(_LEAST, width - 2)
        laid = Laid()
        if any(width_of(line) > room for line in lines):
            within = self._prose([Piece(formulas.inline(latex), ("formula",))], room)
        else:
            within = Laid()
            within.lines += [Line((Piece(line, ("formula",)),)) for line in lines]
        indent = (Piece("" if self._look.linear else "  "),)
        laid.add(within, indent, indent)
        return laid

    # ------------------------------------------------------------------ within a line

    def _inline(self, tokens: Sequence[Token]) -> list[Piece]:
        children = [child for token in tokens for child in token.children or ()]
        pieces: list[Piece] = []
        styles: list[str] = []
        link = ""
        for child in children:
            match child.type:
                case "text" | "text_special" | "html_inline":
                    pieces.append(Piece(_without_tabs(child.content), tuple(styles), link))
                case "softbreak" | "hardbreak":
                    pieces.append(Piece("\n", tuple(styles), link))
                case "code_inline":
                    text = _without_tabs(child.content)
                    pieces.append(Piece(text, (*styles, "code"), link))
                case "formula":
                    text = formulas.inline(child.content)
                    pieces.append(Piece(text, (*styles, "formula"), link))
                case "image":
                    text = _without_tabs(child.content)
                    what = f"[picture: {text}]" if text else "[picture]"
                    href = str(child.attrGet("src") or "")
                    pieces.append(Piece(what, (*styles, "link"), link or href))
                case "link_open":
                    link = str(child.attrGet("href") or "")
                    styles.append("link")
                case "link_close":
                    if self._look.linear and child.info != "auto" and link:
                        pieces.append(Piece(f" ({link})", tuple(styles)))
                    link = ""
                    styles.remove("link")
                case kind if kind in _STYLE_OF:
                    styles.append(_STYLE_OF[kind])
                case kind if kind.endswith("_close"):
                    styles.remove(_STYLE_OF[kind.replace("close", "open")])
        return pieces


def _without_tabs(text: str) -> str:
    """A terminal's tab has no width of its own."""
    return text.replace("\t", "    ")


def lay_out_code(code: Code, width: int, look: Look) -> Laid:
    laid = Laid()
    laid.lines.append(header(code, width, look))
    for row in range(len(code.lines)):
        laid.lines += code_rows(code, row, width, look)
    laid.blocks.append(MarkdownBlock(code, 0, len(laid.lines)))
    return laid


def header(code: Code, width: int, look: Look) -> Line:
    """Names the language of the code below it, which it copies when it is clicked on."""
    if look.linear:
        return Line((Piece(f"{code.language or 'Code'}:"),))
    language = clip(code.language, max(0, width - 9))
    copy = "copy" if width > 9 else ""
    gap = max(1, min(width, MEASURE) - 3 - width_of(language) - len(copy))
    text = (
        Piece("▎", ("code-block", "mark")),
        Piece(f" {language}{' ' * gap}", ("code-block", "code-head")),
        Piece(copy, ("code-block", "code-head"), COPY),
    )
    whole = sum(len(piece.text) for piece in text)
    return Line(text, indent=whole, joint="", fill="code-block", reach=width)


def code_rows(code: Code, row: int, width: int, look: Look) -> Iterator[CodeLine]:
    """The rows of the screen that a line of code takes."""
    text = code.lines[row]
    if look.linear:
        for start, end, joint in _folded(text, width):
            yield CodeLine(code, row, start, end, (), 0, joint, "", 0)
        return
    room = max(1, width - 3)
    style = ("code-block", "mark")
    if look.wrapped:
        for start, end, joint in _folded(text, room):
            mark = (Piece("▎›" if start else "▎ ", style),)
            yield CodeLine(code, row, start, end, mark, 2, joint, "code-block", width)
        return
    start = len(clip(text, look.shift)) if look.shift else 0
    end = start + len(clip(text[start:], room))
    mark = (Piece("▎‹" if start else "▎ ", style),)
    after = "›" if end < len(text) else ""
    yield CodeLine(code, row, start, end, mark, 2, "\n", "code-block", width, after)


def _folded(text: str, width: int) -> Iterator[tuple[int, int, str]]:
    """Where it is broken: anywhere, and nothing is left out."""
    start = 0
    while True:
        end = start + max(1, len(clip(text[start : start + width], width)))
        if end >= len(text):
            yield start, len(text), "\n"
            return
        yield start, end, ""
        start = end


# ---------------------------------------------------------------------- pieces


def _end(tokens: Sequence[Token], place: int) -> int:
    """The place after the block that begins there."""
    opened = tokens[place]
    if opened.nesting != 1:
        return place + 1
    for end in range(place + 1, len(tokens)):
        if tokens[end].level == opened.level and tokens[end].nesting == -1:
            return end + 1
    return len(tokens)


def _styled(pieces: Iterable[Piece], style: str) -> list[Piece]:
    return [piece._replace(styles=(style, *piece.styles)) for piece in pieces]


def _tight(item: Sequence[Token]) -> bool:
    return not item or item[0].type != "paragraph_open" or item[0].hidden


def _task(item: Sequence[Token]) -> str:
    """The sign in the box that the item begins with, which is taken away; empty: no box."""
    if len(item) < 2 or item[1].type != "inline" or not item[1].children:
        return ""
    first = item[1].children[0]
    if "task" in first.meta:
        return str(first.meta["task"])
    match = _TASK.match(first.content) if first.type == "text" else None
    if not match:
        return ""
    first.content = first.content[match.end() :]
    first.meta["task"] = match[1]
    return match[1]


def _alignments(tokens: Sequence[Token]) -> list[str]:
    heads = [token for token in tokens if token.type == "th_open"]
    return [str(token.attrGet("style") or "").removeprefix("text-align:") for token in heads]
