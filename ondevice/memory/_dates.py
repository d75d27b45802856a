"""Which days a text is about, and which a question asks for."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cache

from ondevice.memory import _calendar
from ondevice.memory._calendar import Span, Spans
from ondevice.memory._expressions import READ, Expression, read, readers_of
from ondevice.memory._language import any_of

_YEAR = re.compile(r"\b(?:19|20)\d\d\b")
_ANY_DAY = date(2024, 1, 1)
_NEAR = 14  # days from one that a text is about to another


@cache
def _says_when() -> re.Pattern[str]:
    pattern = any_of(lambda language: language.dates.says_when if language.dates else "")
    return re.compile(pattern, re.IGNORECASE)


def says_when(text: str) -> bool:
    """Whether a text says when something was, is or will be."""
    return _says_when().search(text) is not None


def names_days(text: str) -> bool:
    """Whether a text names days, months or years that can be worked out, be it “in March”."""
    return bool(read(text, _ANY_DAY))


def without_times(text: str) -> str:
    """``text`` without the words that say when."""
    return _says_when().sub(" ", text)


@dataclass(frozen=True)
class Days:
    """Which days a text speaks of: in a span, or those with one of the years, months and days."""

    spans: Spans = ()  # first and last days; of several, one is meant
    years: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    days: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.spans or self.years or self.months)

    @property
    def period(self) -> Span | None:
        """First and last of the days, when they are one stretch of time."""
        return self.spans[0] if len(self.spans) == 1 else None

    def match(self, day: date) -> int:
        """0: not one of these days; 1: within the period; 2: the very day that was named."""
        of_spans = max(
            (1 + (first == last) for first, last in self.spans if first <= day <= last), default=0
        )
        if of_spans == 2 or not (self.years or self.months):
            return of_spans
        if self.years and day.year not in self.years:
            return of_spans
        if self.months and day.month not in self.months:
            return of_spans
        return max(of_spans, 1 + (day.day in self.days))

    def match_span(self, first: date, last: date) -> int:
        """:meth:`match` for what is about the days from ``first`` to ``last``."""
        if first == last or not self.spans:
            return max(self.match(first), self.match(last))
        meets = any(first <= end and begin <= last for begin, end in self.spans)
        return 1 if meets else min(1, max(self.match(first), self.match(last)))


def find_days(text: str, today: date) -> tuple[Days, str]:
    """The days ``text`` asks for, seen from ``today``, and the text without their names.

    Words such as “last summer” stay in the text: they may be what was said then.
    """
    return days_of(text, read(text, today))


def days_of(text: str, found_in_it: Iterable[Expression]) -> tuple[Days, str]:
    """:func:`find_days` with the words for days that have been read already."""
    text, rest = text[:READ], text[READ:]
    spans: list[Span] = []
    figures: list[tuple[int, int]] = []  # where “2026-06-20” is, whose year is not asked for
    for each in found_in_it:
        spans += (each.wide,) if each.wide else each.spans
        if not any(char.isalpha() for char in text[each.start : each.end]):
            figures.append((each.start, each.end))
    marks: set[tuple[int, int]] = set()  # where the words for days are

    def marked(found: re.Match[str]) -> str:
        """The first group that matches, or all of it."""
        marks.add(found.span(found.lastindex or 0))
        return found[found.lastindex or 0]

    months: set[int] = set()
    spoken = readers_of(text)
    for rules in spoken:
        for found, numbers in rules.months(text):
            marked(found)
            months |= numbers
    years = {
        int(marked(found))
        for found in _YEAR.finditer(text)
        if all(found.end() <= start or end <= found.start() for start, end in figures)
    }
    days = {
        int(marked(found))
        for rules in (spoken if months else ())
        for found in rules.day.finditer(text)
    }
    if not spans and len(years) == 1 and len(months) <= 1:
        (year,) = years
        spans = [_calendar.month(date(year, month, 1)) for month in months] or [
            _calendar.year(year)
        ]
    for start, end in sorted(marks, reverse=True):
        text = text[:start] + " " + text[end:]
    return Days(
        spans=tuple(dict.fromkeys(spans)),
        years=frozenset(years),
        months=frozenset(months),
        days=frozenset(day for day in days if 1 <= day <= 31),
    ), text + rest


def asks_by_day(text: str, found_in_it: Sequence[Expression]) -> tuple[str, bool, bool]:
    """Of a question that names days: what else it says, and two things about it.

    Whether it may be about the user's own days, as “What do I have tomorrow?” is, and whether it
    asks for what was told on them.
    """
    if len(text) > READ:
        return text, False, False
    rest = text
    for each in reversed(found_in_it):
        rest = f"{rest[: each.start]} {rest[each.end :]}"
    if not rest.strip(" ?!.,"):
        return "", True, False
    spoken = readers_of(text)
    told = any(rules.telling.search(rest) for rules in spoken)
    own = told or any(rules.mine.search(rest) or rules.doing.search(rest) for rules in spoken)
    for rules in spoken:
        for pattern in (rules.telling, rules.doing, rules.mine):
            rest = pattern.sub(" ", rest)
    return rest, own, told


def relative_days(text: str, said: date) -> list[tuple[str, date, date]]:
    """Words such as “last week” in ``text``, with the first and last day that they mean.

    ``said`` is the day on which it was said; words that mean that day itself are left out, and
    so are those that say all themselves, and those of which it is not certain what they mean.
    """
    return [
        (text[each.start : each.end].lower(), *each.spans[0])
        for each in read(text, said)
        if len(each.spans) == 1
        and not (each.vague or each.says_all)
        and each.spans[0] != (said, said)
    ]


def about(text: str, said: date) -> Span | None:
    """First and last of the days that ``text`` is about, if it says so for certain.

    Of several, the one nearest to ``said``, the day on which it was said, with those close to it.
    """
    spans = [each.wide or each.spans[0] for each in read(text, said) if len(each.spans) == 1]
    if not spans:
        return None
    day = said.toordinal()
    ranges = [(first.toordinal(), last.toordinal()) for first, last in spans]
    begin, end = min(
        ranges, key=lambda each: (max(each[0] - day, day - each[1], 0), each[1] - each[0])
    )
    close = [
        (first, last)
        for first, last in ranges
        if first - _NEAR <= end
        and begin <= last + _NEAR
        and last - first <= max(end - begin, _NEAR)
    ]
    return (
        date.fromordinal(min(first for first, _ in close)),
        date.fromordinal(max(last for _, last in close)),
    )
