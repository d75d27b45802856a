"""Code and its colours, a line at a time: what has been coloured is not gone through again."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tui.markdown.lines import Piece

if TYPE_CHECKING:
    from tui.markdown.lexers import CodeReader

_LONGEST = 2000  # characters of a line that is coloured
_UNSURE = 3  # lines before the end whose colours may change with what comes after them
TAB = 4  # columns

_State = tuple[str, ...]


class Code:
    """The lines of a block, which may grow; ``language`` as its fence names it."""

    def __init__(self, language: str = "") -> None:
        self.language = next(iter(language.split()), "")
        self.text = ""
        """As it came, to be copied."""
        self.lines: list[str] = []
        """As they are shown: tabs are spaces."""
        self._spans: list[list[tuple[int, int, str]]] = []
        self._marks: list[tuple[int, _State]] = []
        """Lines at whose beginning a token begins, and the state that the lexer has there."""
        self._reading: Iterator[None] | None = None
        self._read = 0  # lines that were gone through

    def finish(self, text: str) -> None:
        """It is this, and whole: go through it once more, for its end may tell of its beginning."""
        self.text = text
        self.lines = [line.expandtabs(TAB) for line in text.removesuffix("\n").split("\n")]
        self._go_back(-1)

    def inherit(self, earlier: Code) -> None:
        """Take over the colours of what it was before, as far as it is still the same."""
        before = earlier.text.removesuffix("\n")
        if self.language == earlier.language and self.text.startswith(before):
            self._spans, self._marks, self._read = earlier._spans, earlier._marks, earlier._read
            self._go_back(min(self._read, len(earlier.lines) - 1 - _UNSURE))

    def append(self, text: str) -> None:
        """More of it, from where the text ends now, perhaps in the middle of a line."""
        if self.lines:
            begun = self.text[self.text.rfind("\n") + 1 :]
            self.lines.pop()
        else:
            begun = ""
        self.text += text
        self.lines += [line.expandtabs(TAB) for line in (begun + text).split("\n")]
        self._go_back(len(self.lines) - 1 - _UNSURE)

    def pieces(self, line: int, start: int, end: int) -> tuple[Piece, ...]:
        """Of a line; plain where it has not been coloured."""
        text = self.lines[line][:end]
        spans = self._spans[line] if line < len(self._spans) else []
        found: list[Piece] = []
        place = start
        for first, last, style in spans[max(0, bisect_right(spans, (start,)) - 1) :]:
            if first >= len(text):
                break
            if last > place:
                if first > place:
                    found.append(Piece(text[place:first]))
                found.append(Piece(text[max(first, place) : last], (style,)))
                place = last
        if place < len(text):
            found.append(Piece(text[place:]))
        return tuple(found)

    # ------------------------------------------------------------------ colours

    @property
    def ready(self) -> bool:
        """Whether what reads its language is there; otherwise see :meth:`prepare`."""
        return self.language.lower() in _prepared

    def prepare(self) -> None:
        """Load what reads its language, which may take a while."""
        from tui.markdown import lexers  # noqa: PLC0415 - a faster start

        if not self.ready:
            _prepared[self.language.lower()] = lexers.reader(self.language.lower())

    def is_coloured(self, line: int) -> bool:
        return self._read > line or _prepared.get(self.language.lower()) is None

    def colour(self, until: int, seconds: float) -> bool:
        """Go on up to a line, for some time at most; whether there is more to do up to there."""
        reader = _prepared.get(self.language.lower())
        until = min(until, len(self.lines))
        if reader is None or self._read >= until:
            return False
        deadline = time.perf_counter() + seconds
        self._reading = self._reading or self._read_on(reader)
        try:
            for _ in self._reading:
                if self._read >= until or time.perf_counter() > deadline:
                    break
        except Exception:  # a lexer's own fault: the rest stays plain
            self._read = len(self.lines)
        return self._read < until

    def _go_back(self, line: int) -> None:
        """The lines from there on are to be gone through anew; until then they keep their look."""
        self._reading = None
        if line < self._read:
            while self._marks and self._marks[-1][0] > line:
                self._marks.pop()
            self._read = self._marks[-1][0] if self._marks else 0

    def _read_on(self, reader: CodeReader) -> Iterator[None]:
        from pygments.lexer import LexerContext  # noqa: PLC0415 - a faster start

        first, state = self._marks[-1] if self._marks else (0, ("root",))
        shown = [line if len(line) <= _LONGEST else "" for line in self.lines[first:]]
        if not reader.resumes:
            for number, line in enumerate(shown, first):
                self._set(number, list(_spans(reader.read(line + "\n"))))
                self._read = number + 1
                self._marks.append((number + 1, ()))
                yield
            return
        context = LexerContext("\n".join(shown) + "\n", 0, [*state])
        number = begin = 0  # the line, and where in the text it begins
        spans: list[tuple[int, int, str]] = []
        for place, style, value in reader.read_on(context):
            if place == begin and number:
                self._marks.append((first + number, tuple(context.stack)))
            start = place
            for part in value.split("\n"):
                if start > place:  # a line has ended
                    self._set(first + number, spans)
                    spans = []
                    number, begin = number + 1, start
                    self._read = first + number
                if style and part:
                    spans.append((start - begin, start - begin + len(part), style))
                start += len(part) + 1
            yield
        self._read = len(self.lines)

    def _set(self, line: int, spans: list[tuple[int, int, str]]) -> None:
        self._spans += [[] for _ in range(line + 1 - len(self._spans))]
        self._spans[line] = spans


def _spans(parts: Iterator[tuple[int, str, str]]) -> Iterator[tuple[int, int, str]]:
    for place, style, value in parts:
        if style:
            yield place, place + len(value.rstrip("\n")), style


_prepared: dict[str, CodeReader | None] = {"": None}
