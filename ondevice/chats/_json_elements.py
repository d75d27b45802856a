"""Cuts a long JSON text into the objects of its list, which need not be in RAM at one time."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_LONGEST = 32 << 20  # bytes of an object in the list
_LONGEST_ALONE = 256 << 20  # bytes of one that is the whole text, such as our own exports
_MOST_PARTS = 1_000_000  # objects and lists in an object; each takes some hundred bytes of RAM
_MOST_BETWEEN = 512 << 20  # bytes without the end of an object: no export is like that

#: A string, which may go on in the next piece of the text, or a bracket.
_TOKEN = re.compile(rb'"(?:[^"\\]++|\\.)*+("|\\?\Z)|[\[\]{}]', re.DOTALL)
_REST = re.compile(rb'(?:[^"\\]++|\\.)*+("|\\?\Z)', re.DOTALL)
_BLANK = b" \t\r\n"


class NotJSON(ValueError):
    """The text, or what follows of it, is no list of objects."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An object that is too large, or that the end of the text cuts off."""

    why: str


def elements(pieces: Iterable[bytes]) -> Iterator[bytes | LeftOut]:
    """The objects of a list, or the one object, in a text of JSON that comes in pieces.

    Whether each is JSON is not looked at. Raises :class:`NotJSON`.
    """
    depth = 0
    kept = bytearray()  # of the object that has begun
    outer: int | None = None  # the depth around it
    parts = between = 0
    too_large = in_string = escaped = begun = False
    for piece in _utf8(pieces):
        if not begun:
            if not (start := piece.lstrip(_BLANK)):
                between += len(piece)
                if between > _LONGEST:
                    raise NotJSON("it is empty")
                continue
            if start[0] not in b"[{":
                raise NotJSON("it does not start like JSON")
            begun = True
        position = from_ = 0
        between += len(piece)
        while position < len(piece):
            if in_string:
                # The byte after a backslash that ended the last piece is part of the string.
                rest = _REST.match(piece, position + escaped)
                assert rest is not None
                in_string, escaped = rest[1] != b'"', rest[1] == b"\\"
                position = max(rest.end(), position + 1)
                continue
            token = _TOKEN.search(piece, position)
            if token is None:
                break
            position = token.end()
            character = piece[token.start()]
            if character == 0x22:
                in_string, escaped = token[1] != b'"', token[1] == b"\\"
            elif character in b"[{":
                if outer is None and character == 0x7B and depth <= 1:
                    outer, from_, parts, too_large = depth, token.start(), 0, False
                depth += 1
                parts += 1
            else:
                depth -= 1
                if depth == outer:
                    kept += piece[from_:position]
                    too_large |= _is_too_large(len(kept), parts, outer)
                    yield LeftOut("it is too large") if too_large else bytes(kept)
                    kept.clear()
                    outer, between = None, 0
                elif depth < 0:
                    raise NotJSON("it closes a bracket that was never opened")
        if outer is not None:
            if not too_large:
                kept += piece[from_:]
            if too_large := too_large or _is_too_large(len(kept), parts, outer):
                kept.clear()
        if between > _MOST_BETWEEN:
            raise NotJSON("one part of it is far longer than any chat")
    if outer is not None:
        yield LeftOut("the file ends in the middle of a chat")


def _is_too_large(n_bytes: int, parts: int, outer: int) -> bool:
    return n_bytes > (_LONGEST if outer else _LONGEST_ALONE) or parts > _MOST_PARTS


def _utf8(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The text without a byte order mark; from UTF-16 if that is what the mark says."""
    pieces = iter(pieces)
    first = next(pieces, b"")
    if first.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        texts = codecs.iterdecode(_joined(first, pieces), "utf-16", "replace")
        yield from (text.encode() for text in texts)
    else:
        yield from _joined(first.removeprefix(codecs.BOM_UTF8), pieces)


def _joined(first: bytes, others: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from others
