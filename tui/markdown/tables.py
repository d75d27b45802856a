"""Tables as lines: in columns, wrapped where need be, or as lists where there is no room."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest

from tui.markdown.lines import BLANK, Line, Piece, split_lines, width_of, wrap

_GAP = 2  # columns between two of the table
_LEAST = 8  # columns for words that are broken into lines

Cell = list[Piece]
_NOTHING: Cell = []


def lay_out_table(rows: Sequence[Sequence[Cell]], aligned: Sequence[str], width: int) -> list[Line]:
    """``rows``, the first of which is the head; ``aligned``: left, right, center or nothing."""
    natural = [
        max(_width(cell) for cell in column) for column in zip_longest(*rows, fillvalue=[Piece("")])
    ]
    widths = _share(natural, width - _GAP * (len(natural) - 1))
    if widths is None:
        return list(_as_list(rows, width))
    return list(_in_columns(rows, aligned, widths))


def _width(cell: Cell) -> int:
    return max(sum(width_of(piece.text) for piece in line) for line in split_lines(cell))


def _share(natural: Sequence[int], room: int) -> list[int] | None:
    """What each column gets: what it needs, or of what is left as much as the others."""
    widths = dict.fromkeys(range(len(natural)), 0)
    waiting = sorted(widths, key=natural.__getitem__)
    while waiting:
        share = room // len(waiting)
        column = waiting.pop(0)
        if natural[column] > share and share < _LEAST:
            return None
        widths[column] = max(1, min(natural[column], share))
        room -= widths[column]
    return list(widths.values())


def _in_columns(
    rows: Sequence[Sequence[Cell]], aligned: Sequence[str], widths: Sequence[int]
) -> Iterator[Line]:
    laid = [[_lines(cell, width) for cell, width in zip(row, widths, strict=False)] for row in rows]
    spaced = any(len(cell) > 1 for row in laid[1:] for cell in row)
    for number, row in enumerate(laid):
        if spaced and number > 1:
            yield BLANK
        for line in zip_longest(*row, fillvalue=()):
            pieces: list[Piece] = []
            for cell, width, side in zip_longest(line, widths, aligned[: len(widths)]):
                pieces += _placed(cell or (), width, side or "", "th" if number == 0 else "")
                pieces.append(Piece(" " * _GAP))
            yield Line(_stripped(pieces))
        if number == 0:
            rule = (" " * _GAP).join("─" * width for width in widths)
            yield Line((Piece(rule, ("mark",)),))


def _lines(cell: Cell, width: int) -> list[tuple[Piece, ...]]:
    return [line for line, _ in wrap(cell, width)]


def _placed(cell: Sequence[Piece], width: int, side: str, style: str) -> Iterator[Piece]:
    left = max(0, width - sum(width_of(piece.text) for piece in cell))
    before = {"right": left, "center": left // 2}.get(side, 0)
    yield Piece(" " * before)
    for piece in cell:
        yield piece._replace(styles=(style, *piece.styles)) if style else piece
    yield Piece(" " * (left - before))


def _stripped(pieces: list[Piece]) -> tuple[Piece, ...]:
    while pieces and not pieces[-1].text.strip():
        pieces.pop()
    return tuple(pieces)


def _as_list(rows: Sequence[Sequence[Cell]], width: int) -> Iterator[Line]:
    """Each row by itself, each of its cells below the other with the head before it."""
    head, *others = rows
    for number, row in enumerate(others):
        if number:
            yield BLANK
        for name, cell in zip_longest(head, row, fillvalue=_NOTHING):
            begin = [piece._replace(styles=("th", *piece.styles)) for piece in name]
            colon = [Piece(": ", ("th",))] if any(piece.text for piece in name) else []
            for line, joint in wrap([*begin, *colon, *cell], width):
                yield Line(line, joint=joint)
    if not others:
        for line, joint in wrap([piece for cell in head for piece in (*cell, Piece(" "))], width):
            yield Line(line, joint=joint)
