"""Styled text, and how it is broken into lines of a width in cells."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import msgspec
from rich.cells import cell_len, split_graphemes

_NARROW = re.compile(
    r"[\x20-\x7e\u00a1-\u00ac\u00ae-\u02ff\u0370-\u0482\u048a-\u052f\u2010-\u2027\u2030-\u205e"
    r"\u2190-\u2199\u2200-\u22ff\u2500-\u257f]*"
)
_WORD = re.compile(r"\S+|\s+")


class Piece(NamedTuple):
    """Text in one style."""

    text: str
    styles: tuple[str, ...] = ()
    """Names of styles; a later one goes over an earlier one."""
    link: str = ""


class Line(msgspec.Struct, frozen=True):
    """One row of the screen."""

    pieces: tuple[Piece, ...]
    indent: int = 0
    """How many characters at its beginning are none of the text's: marks, bullets, borders."""
    joint: str = "\n"
    """What stands between its text and that of the next line."""
    fill: str = ""
    """The style of the rest of the row, if there is one."""
    reach: int = 0
    """Up to which column it is filled."""

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


BLANK = Line(())


def width_of(text: str) -> int:
    """In cells."""
    return len(text) if text.isascii() else cell_len(text)


def split_lines(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    """At each newline."""
    line: list[Piece] = []
    for piece in pieces:
        first, *others = piece.text.split("\n")
        line.append(piece._replace(text=first))
        for other in others:
            yield line
            line = [piece._replace(text=other)]
    yield line


def wrap(pieces: Sequence[Piece], width: int) -> Iterator[tuple[tuple[Piece, ...], str]]:
    """Lines of at most ``width`` cells, and what stood between each and the next one."""
    for line in split_lines(pieces):
        text = "".join(piece.text for piece in line)
        cuts = breaks(text, width)
        parts = _parts_of(line, cuts)
        for place, (_, end) in enumerate(cuts):
            joint = "\n" if place + 1 == len(cuts) else " " if cuts[place + 1][0] > end else ""
            yield next(parts), joint


def breaks(text: str, width: int) -> list[tuple[int, int]]:
    """Where the lines of a text without newlines begin and end."""
    width = max(1, width)
    if _NARROW.fullmatch(text):
        if len(text) <= width:
            return [(0, len(text))]
        found = _greedy(width).finditer(text)
        return [match.span(match.lastindex or 0) for match in found] or [(0, 0)]
    if cell_len(text) <= width:
        return [(0, len(text))]
    return _breaks_of_wide(text, width)


def _greedy(width: int) -> re.Pattern[str]:
    # As many words as there is room for, or as much of a word that is longer; re keeps some.
    return re.compile(rf"(\S(?:.{{0,{width - 1}}}(?<=\S))?)(?:\s+|$)|(\S{{1,{width}}})\s*")


def _breaks_of_wide(text: str, width: int) -> list[tuple[int, int]]:
    """The same for characters that take two cells or none."""
    found: list[tuple[int, int]] = []
    start = end = used = 0
    for match in _WORD.finditer(text):
        word = match[0]
        cells = width_of(word)
        if word.isspace():
            used += cells
            continue
        if used + cells > width and start < end and (cells <= width or word.isascii()):
            found.append((start, end))
            start, used = match.start(), 0
        elif end == start:
            start, used = (match.start(), 0) if found else (start, used)
        if used + cells <= width:
            used, end = used + cells, match.end()
            continue
        spans, _ = split_graphemes(word)
        for first, last, size in spans:
            if used + size > width and start < match.start() + first:
                found.append((start, end))
                start, used = match.start() + first, 0
            used, end = used + size, match.start() + last
    found.append((start, end))
    return found


def _parts_of(
    pieces: Sequence[Piece], cuts: Iterable[tuple[int, int]]
) -> Iterator[tuple[Piece, ...]]:
    """The characters between each start and end, which come in order."""
    number = place = 0  # of the first piece that matters, and of its first character
    for start, end in cuts:
        found = []
        while number < len(pieces):
            piece = pieces[number]
            after = place + len(piece.text)
            if after > start:
                found.append(piece._replace(text=piece.text[max(0, start - place) : end - place]))
            if after > end:
                break
            number, place = number + 1, after
        yield tuple(found)


def clip(text: str, width: int) -> str:
    """At most ``width`` cells of it."""
    if width_of(text) <= width:
        return text
    spans, _ = split_graphemes(text)
    sizes = accumulate(size for *_, size in spans)
    ends = [end for (_, end, _), size in zip(spans, sizes, strict=True) if size <= width]
    return text[: ends[-1]] if ends else ""
