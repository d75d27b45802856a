"""Reads the days that a text speaks of: “7 May 2023”, “in July”, “last spring”, “3 weeks ago”."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date, timedelta

MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_MONTH = {name[:length]: n for n, name in enumerate(MONTHS, 1) for length in (3, 4, len(name))}
_WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_SEASONS = {"spring": 3, "summer": 6, "autumn": 9, "fall": 9, "winter": 12}  # first month
_NUMBERS = {
    **{"a": 1, "an": 1, "one": 1, "two": 2, "couple": 2, "three": 3, "few": 3, "four": 4},
    **{"five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10},
}
_DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}

_ISO = re.compile(r"\b((?:19|20)\d\d)-(\d\d)-(\d\d)\b")
_YEAR = re.compile(r"\b(?:19|20)\d\d\b")
_NAMED = re.compile(rf"\b({'|'.join(n for n in _MONTH if n != 'may')})\b", re.IGNORECASE)
#: “may” is a month only beside what makes it one; it is a verb far more often.
_MAY = re.compile(
    r"\b(?:(?:in|on|of|since|until|during|by|last|this|next|early|late|mid) "
    r"|\d{1,2}(?:st|nd|rd|th)? )(may)\b"
    r"|\b(may)(?= \d{1,2}(?:st|nd|rd|th)?\b| (?:19|20)\d\d\b)",
    re.IGNORECASE,
)
_DAY = re.compile(r"\b(\d{1,2})(?:st|nd|rd|th)?\b(?![:\d]|\s*(?:am|pm)\b)", re.IGNORECASE)
_NEAR = re.compile(r"\b(yesterday|today|tonight|tomorrow|this morning)\b", re.IGNORECASE)
_LAST = re.compile(
    rf"\b(last|this|past) (day|week|weekend|month|year|{'|'.join((*_SEASONS, *_WEEKDAYS))})\b",
    re.IGNORECASE,
)
_AGO = re.compile(
    rf"\b(?:(?:a )?(\d{{1,3}}|{'|'.join(_NUMBERS)})(?: of)?) (day|week|month|year)s? ago\b",
    re.IGNORECASE,
)
_SEASON = re.compile(rf"\b(?:in|during|over) (?:the )?({'|'.join(_SEASONS)})\b", re.IGNORECASE)

#: A text that says when something was, is or will be.
TIME_EXPRESSION = re.compile(
    r"\b(?:yesterday|today|tonight|tomorrow|recently|since|ago|(?:last|next|this) \w+"
    rf"|week(?:end)?s?|months?|years?|{'|'.join((*_WEEKDAYS, *_SEASONS))}"
    rf"|{'|'.join(n for n in MONTHS if n not in ('may', 'march'))}|(?:19|20)\d\d)\b",
    re.IGNORECASE,
)


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
    for pattern, span in ((_ISO, _iso), (_NEAR, _near), (_LAST, _last), (_AGO, _ago)):
        for found in pattern.finditer(text):
            if (named := span(found, today)) is not None:
                return Days(span=named), text
    marks: list[tuple[int, int]] = []  # where the words for days are

    def read(pattern: re.Pattern[str]) -> list[str]:
        """The lower-case words that the first matching group of ``pattern`` catches."""
        found = list(pattern.finditer(text))
        marks.extend(match.span(match.lastindex or 0) for match in found)
        return [match[match.lastindex or 0].lower() for match in found]

    months = {_MONTH[name] for name in read(_NAMED)} | {5 for _ in read(_MAY)}
    for season in read(_SEASON):
        months |= {(_SEASONS[season] + n - 1) % 12 + 1 for n in range(3)}
    years = {int(year) for year in read(_YEAR)}
    numbers = {int(day) for day in read(_DAY)} if months else set()
    for start, end in sorted(marks, reverse=True):
        text = text[:start] + " " + text[end:]
    days = frozenset(number for number in numbers if 1 <= number <= 31)
    return Days(years=frozenset(years), months=frozenset(months), days=days), text


_Span = tuple[date, date]


def relative_days(text: str, said: date) -> list[tuple[str, date, date]]:
    """Words such as “last week” in ``text``, with the first and last day that they mean.

    ``said`` is the day on which it was said; words that mean that day itself are left out.
    """
    found = sorted(
        (
            (match, *days)
            for pattern, span in ((_NEAR, _near), (_LAST, _last), (_AGO, _ago))
            for match in pattern.finditer(text)
            if (days := span(match, said)) != (said, said)
        ),
        key=lambda entry: entry[0].start(),
    )
    return [(match[0].lower(), first, last) for match, first, last in found]


def _iso(found: re.Match[str], today: date) -> _Span | None:
    try:
        day = date.fromisoformat(found[0])
    except ValueError:
        return None
    return day, day


def _near(found: re.Match[str], today: date) -> _Span:
    day = today + timedelta(days={"yesterday": -1, "tomorrow": 1}.get(found[1].lower(), 0))
    return day, day


def _ago(found: re.Match[str], today: date) -> _Span:
    number = found[1].lower()
    count = _NUMBERS.get(number) or int(number)
    unit = _DAYS[found[2].lower()]
    middle = today - timedelta(days=count * unit)
    slack = timedelta(days=unit // 2)
    return middle - slack, middle + slack


def _last(found: re.Match[str], today: date) -> _Span:
    this, unit = found[1].lower() == "this", found[2].lower()
    if unit in _WEEKDAYS:
        day = today - timedelta(days=(today.weekday() - _WEEKDAYS.index(unit) - 1) % 7 + 1)
        return day, day
    if unit in _SEASONS:
        first = date(today.year, _SEASONS[unit], 1)
        while first > today or (not this and _months_later(first, 3) > today):
            first = _months_later(first, -12)
        return first, _months_later(first, 3) - timedelta(days=1)
    if unit == "day":
        return today - timedelta(days=1), today
    if unit == "month":
        first = _months_later(today.replace(day=1), 0 if this else -1)
        return first, _months_later(first, 1) - timedelta(days=1)
    if unit == "year":
        year = today.year - (not this)
        return date(year, 1, 1), date(year, 12, 31)
    monday = today - timedelta(days=today.weekday() + (0 if this else 7))
    return monday + timedelta(days=5 * (unit == "weekend")), monday + timedelta(days=6)


def _months_later(day: date, months: int) -> date:
    """The first of the month that many months after the month of ``day``."""
    index = day.year * 12 + day.month - 1 + months
    return date(index // 12, index % 12 + 1, 1)
