"""A reply that grows: only its end is read again when more of it comes."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from tui.markdown.code import Code
from tui.markdown.layout import (
    AnyLine,
    Laid,
    Look,
    MarkdownBlock,
    code_rows,
    lay_out,
    lay_out_code,
)
from tui.markdown.lines import BLANK

if TYPE_CHECKING:
    from markdown_it.token import Token


class DocumentSection:
    """A block of the text and what is in it, laid out."""

    def __init__(self, tokens: Sequence[Token], codes: Sequence[Code]) -> None:
        self._tokens = tokens
        self.codes = codes
        self.laid = Laid()
        self._laid_for: tuple[int, Look] | None = None

    def lay(self, width: int, look: Look) -> None:
        if self._laid_for != (width, look):
            self.laid = lay_out(self._tokens, self.codes, width, look)
            self._laid_for = (width, look)


class _OpenCode(DocumentSection):
    """A block of code that is being written. What is there already is not laid out again."""

    def __init__(self, token: Token, code: Code) -> None:
        super().__init__([token], [code])
        self.code = code
        self._marker = token.markup[0]
        self._closing = re.compile(
            rf" {{0,3}}{re.escape(token.markup[0])}{{{len(token.markup)},}}[ \t]*"
        )
        self._held = ""
        """The last line, not yet a whole one, as long as it may end the block."""
        self._whole = True
        """Whether a new line begins with what comes next."""

    def feed(self, text: str) -> str | None:
        """More text; when the block ends with it, what comes after the block."""
        text, self._held = self._held + text, ""
        place = 0
        while place < len(text):
            end = text.find("\n", place) + 1
            line = text[place : end or len(text)]
            if self._whole and self._closing.fullmatch(line.rstrip("\n")) and end:
                self._append(text[:place])
                self.close()
                return text[end:]
            if self._whole and not end and not line.strip(f" \t{self._marker}"):
                self._held = line
                break
            self._whole = bool(end)
            place = end or len(text)
        self._append(text[:place])
        return None

    def finish(self) -> None:
        """The text ends here."""
        if self._held.strip() and not self._closing.fullmatch(self._held):
            self._append(self._held)
        self._held = ""
        self.close()

    def close(self) -> None:
        text = self.code.text
        self.code.finish(text if text.endswith("\n") or not text else f"{text}\n")
        self._tokens[0].content = self.code.text
        self._laid_for = None

    def _append(self, text: str) -> None:
        if not text:
            return
        last = max(0, len(self.code.lines) - 1)
        self.code.append(text)
        if self._laid_for:
            width, look = self._laid_for
            lines = self.laid.lines
            while len(lines) > 1 and getattr(lines[-1], "row", -1) >= last:
                lines.pop()
            shown = len(self.code.lines) - (not self.code.lines[-1])
            for row in range(last, shown):
                lines += code_rows(self.code, row, width, look)
            self.laid.blocks[:] = [MarkdownBlock(self.code, 0, len(lines))]

    def lay(self, width: int, look: Look) -> None:
        if self._laid_for != (width, look):
            self.laid = lay_out_code(self.code, width, look)
            self._laid_for = (width, look)


class ParsedEnd(msgspec.Struct, frozen=True):
    """What the end of a text was read as, for :meth:`Document.adopt`."""

    first: int  # the section that these take the place of, with all after it
    sections: list[DocumentSection]
    stable: int  # how many of these stay, whatever comes
    offset: int  # of the text after those
    upto: int  # where the text ended
    open_code: _OpenCode | None  # the last one, if it has no end yet
    references: dict[str, Any]
    whole: bool


class Document:
    """Markdown, whole or still being written, and its lines for a width."""

    def __init__(self, *, linear: bool = False) -> None:
        self.text = ""
        self.height = 0
        """In lines, once it is laid out."""
        self._linear = linear
        self._sections: list[DocumentSection] = []
        self._starts: list[int] = []  # lines at which they begin
        self._laid_for = (0, Look(linear=linear))
        self._stable = 0  # sections that stay, whatever comes
        self._offset = 0  # of the text after those
        self._upto = 0  # how much of the text was read
        self._open_code: _OpenCode | None = None
        self._references: dict[str, Any] = {}
        self._refers = False
        self._closed = False

    # ------------------------------------------------------------------ the text

    def append(self, text: str) -> bool:
        """More of it. Whether it is there at once: it belongs to a block of code that is open."""
        if self._closed and text:  # it goes on after all: what was its end may be none
            self._closed = False
            self._stable = self._offset = self._upto = 0
            self._references = {}
        self.text += text
        if not self._open_code:
            return False
        rest = self._open_code.feed(self.text[self._upto :])
        self._upto = len(self.text)
        if rest is not None:
            self._open_code = None
            self._stable = len(self._sections)
            self._offset = len(self.text) - len(rest)
            self._upto = self._offset
        self._place(self._stable - 1)
        return True

    @property
    def to_read(self) -> int:
        """How many characters :meth:`read` would go through."""
        return len(self.text) - self._offset if self._upto < len(self.text) else 0

    def read(self, *, whole: bool = False) -> ParsedEnd:
        """What the end of the text is, laid out. Changes nothing, so that a thread may do it.

        ``whole``: no more text will come.
        """
        from tui.markdown.parser import parser  # noqa: PLC0415 - a faster start

        again = whole and self._refers  # what is defined may have been used before
        start = 0 if again else self._offset
        tail = self.text[start:]
        references = {} if again else self._references
        env: dict[str, Any] = {"references": dict(references)}
        env["open"] = "" if whole else tail.rstrip()
        groups = list(_top_level(parser(linear=self._linear).parse(tail, env)))
        sections = [
            DocumentSection(group, [*map(_code, filter(_is_code, group))]) for group in groups
        ]
        lines = tail.split("\n")
        begins = [*accumulate((len(line) + 1 for line in lines), initial=0)]
        open_code = None
        if groups and not whole and (token := groups[-1][0]) and _is_open(token, lines):
            open_code = _OpenCode(token, Code(token.info))
            stable, line = len(groups) - 1, _lines_of(token)[0]
            open_code.feed(tail[begins[line + 1] :])
            sections[-1] = open_code
        elif whole:
            stable, line = len(groups), len(lines)
        else:
            stable, line = _certain(groups, lines)
        width, look = self._laid_for
        if width:
            for section in sections:
                section.lay(width, look)
        return ParsedEnd(
            first=0 if again else self._stable,
            sections=sections,
            stable=stable,
            offset=start + min(begins[line], len(tail)),
            upto=start + len(tail),
            open_code=open_code,
            references=env["references"],
            whole=whole,
        )

    def adopt(self, reading: ParsedEnd) -> None:
        """Let the end of the text be what it was read as."""
        before = [code for section in self._sections[reading.first :] for code in section.codes]
        after = [code for section in reading.sections for code in section.codes]
        for code, earlier in zip(after, before, strict=False):
            code.inherit(earlier)
        self._sections[reading.first :] = reading.sections
        stays = len(self.text[: reading.offset].split("\n")) if reading.references else 0
        self._references = self._references | {
            label: found
            for label, found in reading.references.items()
            if label in self._references or found["map"][1] < stays
        }
        self._refers = bool(reading.references)
        self._stable = reading.first + reading.stable
        self._offset, self._upto = reading.offset, reading.upto
        self._open_code = reading.open_code
        self._closed = reading.whole
        self._place(reading.first)
        self.append("")  # what came while it was read may belong to the code that is open

    def close(self) -> bool:
        """No more text will come. False: it is to be read as a whole once more."""
        self._closed = True
        if self._open_code:
            self._open_code.finish()
            self._open_code = None
            self._offset = self._upto = len(self.text)
            self._stable = len(self._sections)
            self._place(self._stable - 1)
            return not self._refers
        return self._offset == len(self.text) and not self._refers

    # ------------------------------------------------------------------ the lines

    def lay(self, width: int, look: Look) -> None:
        """Lay it out for a width in columns, if it is not already."""
        if self._laid_for != (width, look):
            self._laid_for = (width, look)
            self._place(0)

    def _place(self, first: int) -> None:
        """Lay out the sections from there on, and find where they begin."""
        width, look = self._laid_for
        if not width:
            return
        first = max(0, first)
        del self._starts[first:]
        self.height = self._line_of(first)
        for section in self._sections[first:]:
            section.lay(width, look)
            self._starts.append(self.height)
            self.height += len(section.laid.lines) + 1
        self.height = max(0, self.height - 1)  # between two of them is a blank line

    def _line_of(self, place: int) -> int:
        """The line at which a section begins, or would."""
        if place < len(self._starts):
            return self._starts[place]
        if not self._starts:
            return 0
        return self._starts[-1] + len(self._sections[len(self._starts) - 1].laid.lines) + 1

    def line(self, y: int) -> AnyLine:
        """One of the ``height`` lines; a blank one below them."""
        place = bisect_right(self._starts, y) - 1
        if place >= 0:
            lines = self._sections[place].laid.lines
            if y - self._starts[place] < len(lines):
                return lines[y - self._starts[place]]
        return BLANK

    @property
    def blocks(self) -> list[MarkdownBlock]:
        """The blocks of code and where they stand."""
        return [
            replace(block, first=block.first + start, last=block.last + start)
            for start, section in zip(self._starts, self._sections, strict=False)
            for block in section.laid.blocks
        ]

    @property
    def codes(self) -> list[Code]:
        """The blocks of code, also where nothing is laid out."""
        return [code for section in self._sections for code in section.codes]


def _top_level(tokens: Sequence[Token]) -> Iterator[list[Token]]:
    """The tokens of each block that is in no other."""
    group: list[Token] = []
    for token in tokens:
        group.append(token)
        if token.level == 0 and token.nesting <= 0:
            yield group
            group = []


def _is_code(token: Token) -> bool:
    return token.type in ("fence", "code_block")


def _code(token: Token) -> Code:
    code = Code(token.info)
    code.finish(token.content)
    return code


def _lines_of(token: Token) -> tuple[int, int]:
    assert token.map is not None
    return token.map[0], token.map[1]


def _is_closed(token: Token, lines: Sequence[str]) -> bool:
    """Whether a block of code has an end, on a line that is whole."""
    first, after = _lines_of(token)
    end = re.compile(rf" {{0,3}}{re.escape(token.markup[0])}{{{len(token.markup)},}}[ \t]*")
    return first < after - 1 < len(lines) - 1 and bool(end.fullmatch(lines[after - 1]))


def _is_open(token: Token, lines: Sequence[str]) -> bool:
    """Whether it is a block of code that began, on a line that is whole, and goes on."""
    if token.type != "fence":
        return False
    first, _ = _lines_of(token)
    whole = first < len(lines) - 1 and lines[first].startswith(token.markup)
    return whole and not _is_closed(token, lines)


def _is_definite(token: Token, lines: Sequence[str]) -> bool:
    """Whether nothing that comes after its last line can change it."""
    if _lines_of(token)[1] > len(lines) - 1:
        return False
    if token.type == "fence":
        return _is_closed(token, lines)
    return token.type in ("heading_open", "hr") or (
        token.type == "formula_block" and token.info != "open"
    )


def _certain(groups: Sequence[Sequence[Token]], lines: Sequence[str]) -> tuple[int, int]:
    """How many blocks stay what they are, and the line after them; the last line may go on."""
    if not groups:
        return 0, 0
    last = groups[-1][0]
    first, after = _lines_of(last)
    if _is_definite(last, lines):
        return len(groups), after
    begins = first + (last.type == "table_open")  # the line that makes it one
    if begins < len(lines) - 1 and last.info != "open":
        return len(groups) - 1, first
    if len(groups) == 1:
        return 0, 0
    # What begins on a line that is not whole, or is a formula that may get no end, may turn out to
    # belong to the block before.
    if _is_definite(groups[-2][0], lines):
        return len(groups) - 1, first
    return len(groups) - 2, _lines_of(groups[-2][0])[0]
