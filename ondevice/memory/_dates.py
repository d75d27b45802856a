"""Reads the days that a text speaks of: “7 May 2023”, “in July”, “last spring”, “3 weeks ago”."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cache

from ondevice.memory._language import Dates, Language, any_of, forms_of, languages, months_of

_ISO = re.compile(r"\b((?:19|20)\d\d)-(\d\d)-(\d\d)\b")
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")

_Span = tuple[date, date]


class _DateReader:
    """How days are spoken of in one language, compiled."""

    def __init__(self, language: Language, dates: Dates) -> None:
        self._dates = dates
        self._weekdays = forms_of(dates.weekdays)
        self._counts = dates.numbers | dates.about
        self._months = months_of(dates)
        self._near = language.compile(r"\b({near})\b")
        self._last = language.compile(dates.last)
        self._ago = language.compile(dates.ago)
        self._month = language.compile(r"\b({sure_months})\b")
        self._unsure = language.compile(dates.unsure_month) if dates.unsure_month else None
        self._season = language.compile(dates.season)
        self.day = language.compile(dates.day)

    def spans(self, text: str, today: date) -> Iterator[tuple[re.Match[str], _Span]]:
        """The words that name one stretch of days, seen from ``today``, and that stretch."""
        kinds: tuple[tuple[re.Pattern[str], Callable[[re.Match[str], date], _Span]], ...] = (
            (self._near, self._near_days),
            (self._last, self._last_days),
            (self._ago, self._days_ago),
        )
        for pattern, span in kinds:
            for found in pattern.finditer(text):
                yield found, span(found, today)

    def months(self, text: str) -> Iterator[tuple[re.Match[str], set[int]]]:
        """The words that name months or seasons, and their months, from 1."""
        for pattern in (self._month, self._unsure):
            for found in pattern.finditer(text) if pattern else ():
                yield found, {self._months[_named(found[found.lastindex or 0], self._months)]}
        for found in self._season.finditer(text):
            first = self._dates.seasons[_named(found[1], self._dates.seasons)]
            yield found, {(first + n - 1) % 12 + 1 for n in range(3)}

    def _near_days(self, found: re.Match[str], today: date) -> _Span:
        day = today + timedelta(days=self._dates.near[_named(found[1], self._dates.near)])
        return day, day

    def _days_ago(self, found: re.Match[str], today: date) -> _Span:
        number = found["count"]
        count = int(number) if number.isdecimal() else self._counts[_named(number, self._counts)]
        unit = self._dates.units[_named(found["unit"], self._dates.units)]
        middle = today - timedelta(days=count * unit)
        slack = timedelta(days=unit // 2)
        return middle - slack, middle + slack

    def _last_days(self, found: re.Match[str], today: date) -> _Span:
        dates = self._dates
        back = dates.which[_named(found["which"], dates.which)]
        unit = _named(found["unit"], [*self._weekdays, *dates.seasons, *dates.periods])
        if unit in self._weekdays:
            ago = (today.weekday() - self._weekdays[unit] - 1) % 7 + 1
            return (day := today - timedelta(days=ago)), day
        if unit in dates.seasons:
            first = date(today.year, dates.seasons[unit], 1)
            while first > today or (back and _months_later(first, 3) > today):
                first = _months_later(first, -12)
            return first, _months_later(first, 3) - timedelta(days=1)
        period = dates.periods[unit]
        if period == "day":
            return today - timedelta(days=1), today
        if period == "month":
            first = _months_later(today.replace(day=1), back)
            return first, _months_later(first, 1) - timedelta(days=1)
        if period == "year":
            year = today.year + back
            return date(year, 1, 1), date(year, 12, 31)
        monday = today + timedelta(days=7 * back - today.weekday())
        return monday + timedelta(days=5 * (period == "weekend")), monday + timedelta(days=6)


@cache
def _rules() -> tuple[_DateReader, ...]:
    return tuple(
        _DateReader(language, language.dates) for language in languages() if language.dates
    )


@cache
def _says_when() -> re.Pattern[str]:
    pattern = any_of(lambda language: language.dates.says_when if language.dates else "")
    return re.compile(pattern, re.IGNORECASE)


def says_when(text: str) -> bool:
    """Whether a text says when something was, is or will be."""
    return _says_when().search(text) is not None


def without_times(text: str) -> str:
    """``text`` without the words that say when."""
    return _says_when().sub(" ", text)


@dataclass(frozen=True)
class Days:
    """Which days a text speaks of: in a span, or those with one of the years, months and days."""

    span: tuple[date, date] | None = None  # first and last day
    years: frozenset[int] = frozenset()
    months: frozenset[int] = frozenset()
    days: frozenset[int] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.span or self.years or self.months)

    @property
    def period(self) -> tuple[date, date] | None:
        """First and last of the days, when they are one stretch of time within a year."""
        if self.span or len(self.years) != 1 or len(self.months) > 1:
            return self.span
        (year,) = self.years
        if not self.months:
            return date(year, 1, 1), date(year, 12, 31)
        (month,) = self.months
        return date(year, month, 1), _months_later(date(year, month, 1), 1) - timedelta(days=1)

    def match(self, day: date) -> int:
        """0: not one of these days; 1: within the period; 2: the very day that was named."""
        if self.span:
            first, last = self.span
            return (1 + (first == last)) if first <= day <= last else 0
        if not self or (self.years and day.year not in self.years):
            return 0
        if self.months and day.month not in self.months:
            return 0
        return 1 + (day.day in self.days)


def find_days(text: str, today: date) -> tuple[Days, str]:
    """The days ``text`` speaks of, seen from ``today``, and the text without their names.

    Words such as “last summer” stay in the text: they may be what was said then.
    """
    for found in _ISO.finditer(text):
        if (day := _iso(found)) is not None:
            return Days(span=(day, day)), text
    for rules in _rules():
        for _, span in rules.spans(text, today):
            return Days(span=span), text
    marks: set[tuple[int, int]] = set()  # where the words for days are

    def marked(found: re.Match[str]) -> str:
        """The first group that matches, or all of it."""
        marks.add(found.span(found.lastindex or 0))
        return found[found.lastindex or 0]

    months: set[int] = set()
    for rules in _rules():
        for found, numbers in rules.months(text):
            marked(found)
            months |= numbers
    years = {int(marked(found)) for found in _YEAR.finditer(text)}
    days = {
        int(marked(found))
        for rules in (_rules() if months else ())
        for found in rules.day.finditer(text)
    }
    for start, end in sorted(marks, reverse=True):
        text = text[:start] + " " + text[end:]
    return Days(
        years=frozenset(years),
        months=frozenset(months),
        days=frozenset(day for day in days if 1 <= day <= 31),
    ), text


def relative_days(text: str, said: date) -> list[tuple[str, date, date]]:
    """Words such as “last week” in ``text``, with the first and last day that they mean.

    ``said`` is the day on which it was said; words that mean that day itself are left out.
    """
    found = sorted(
        (
            (match.start(), match[0].lower(), *span)
            for rules in _rules()
            for match, span in rules.spans(text, said)
            if span != (said, said)
        ),
        key=lambda entry: entry[0],
    )
    return [(words, first, last) for _, words, first, last in found]


def _iso(found: re.Match[str]) -> date | None:
    try:
        return date.fromisoformat(found[0])
    except ValueError:
        return None


def _named(word: str, names: Iterable[str]) -> str:
    """The one of ``names`` that a pattern of them has found as ``word``."""
    if (lower := word.lower()) in names:
        return lower
    # To a pattern “ſ” is an “s” as well, and “ı” an “i”.
    return next(name for name in names if re.fullmatch(re.escape(name), word, re.IGNORECASE))


def _months_later(day: date, months: int) -> date:
    """The first of the month that many months after the month of ``day``."""
    index = day.year * 12 + day.month - 1 + months
    return date(index // 12, index % 12 + 1, 1)
