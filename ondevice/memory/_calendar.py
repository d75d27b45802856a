"""Arithmetic of days: weeks, months, seasons and feasts, seen from a day.

A stretch of days is its first and its last day. Where people differ in what they mean, there are
several; the caller decides whether that is good enough. Years that no calendar has raise
:class:`ValueError` or :class:`OverflowError`.
"""

from __future__ import annotations

from datetime import date, timedelta

Span = tuple[date, date]  # first and last day
Spans = tuple[Span, ...]  # what may be meant; one, if that is certain

_WEEK = timedelta(days=7)


def one(day: date) -> Spans:
    return ((day, day),)


def month(day: date, later: int = 0) -> Span:
    """The month so many months after that of ``day``."""
    index = day.year * 12 + day.month - 1 + later
    first = date(index // 12, index % 12 + 1, 1)
    following = date((index + 1) // 12, (index + 1) % 12 + 1, 1)
    return first, following - timedelta(days=1)


def year(number: int) -> Span:
    return date(number, 1, 1), date(number, 12, 31)


def week(day: date, later: int = 0) -> Span:
    """Monday to Sunday, so many weeks after that of ``day``."""
    monday = day + timedelta(days=7 * later - day.weekday())
    return monday, monday + timedelta(days=6)


def weekday(number: int, today: date, tense: int) -> Spans:
    """That day of the week (0: Monday) before or after ``today``."""
    ahead = (number - today.weekday()) % 7 or 7
    after, before = today + timedelta(days=ahead), today + timedelta(days=ahead - 7)
    if before == today:  # today itself may be meant
        return (*one(today), *one(after if tense >= 0 else today - _WEEK))
    return one(after) if tense > 0 else one(before) if tense < 0 else (*one(before), *one(after))


def named_weekday(number: int, which: int, today: date, tense: int, following: str) -> Spans:
    """“last”, “this” or “next” Friday, with ``which`` of -1, 0 or 1.

    ``following`` says what “next” is: the day in the next “week”, the “coming” one, or unsure.
    """
    day = week(today, which)[0] + timedelta(days=number)
    coming = today + timedelta(days=(number - today.weekday() - 1) % 7 + 1)
    if which == 0:
        if day == today or (day > today and tense >= 0) or (day < today and tense < 0):
            return one(day)
        if tense:
            return one(day + tense * _WEEK)
        return (*one(day), *one(day + _WEEK))
    if which == -1:
        latest = coming - _WEEK if coming - _WEEK < today else coming - 2 * _WEEK
        # Of yesterday people say “yesterday”.
        return one(latest) if (today - latest).days > 1 else (*one(latest), *one(latest - _WEEK))
    if which == 1:
        if following == "coming" or day == coming:
            return (
                one(coming) if (coming - today).days > 1 else (*one(coming), *one(coming + _WEEK))
            )
        return one(day) if following == "week" else (*one(coming), *one(day))
    return one(day)


def weekend(which: int, today: date, following: str) -> Spans:
    saturday = week(today, which)[0] + timedelta(days=5)
    span = saturday, saturday + timedelta(days=1)
    if which != 1 or following == "week" or today.weekday() >= 5:
        return (span,)
    coming = span[0] - _WEEK, span[1] - _WEEK
    return (coming,) if following == "coming" else (coming, span)


def season(first_month: int, number: int) -> Span:
    """The season of three months that begins in that year."""
    first = date(number, first_month, 1)
    return first, month(first, 2)[1]


def some_season(first_month: int, today: date, tense: int) -> Spans:
    years = (season(first_month, today.year + n) for n in (-2, -1, 0, 1, 2))
    return _nearest([*years], today, tense)


def named_season(first_month: int, which: int, today: date, following: str) -> Spans:
    """“last”, “this” or “next” summer."""
    around = [season(first_month, today.year + n) for n in (-2, -1, 0, 1, 2)]
    now = next((span for span in around if span[0] <= today <= span[1]), None)
    if which == 0:
        return (now or around[2],)
    if which < 0:
        return ([span for span in around if span[1] < today][which],)
    coming = [span for span in around if span[0] > today]
    if which == 1 and following != "coming" and coming[0][1].year == today.year:
        return coming[0], coming[1]  # that of this year is “this” one to many, but not to all
    return (coming[which - 1],)


def feast(name: str, number: int) -> Span:
    """A feast in that year: “12-25”, or “easter” and days after it, such as “easter-2”."""
    if name.startswith("easter"):
        day = easter(number) + timedelta(days=int(name.removeprefix("easter") or 0))
    else:
        day = date(number, int(name[:2]), int(name[3:]))
    return day, day


def some_feast(name: str, today: date, tense: int) -> Spans:
    return _nearest([feast(name, today.year + n) for n in (-1, 0, 1)], today, tense)


def named_feast(name: str, which: int, today: date) -> Spans:
    around = [feast(name, today.year + n) for n in (-2, -1, 0, 1, 2)]
    if which == 0:
        return (around[2],)
    if which < 0:
        return ([span for span in around if span[1] < today][which],)
    coming = [span for span in around if span[0] > today]
    return (coming[0], coming[1]) if coming[0][0].year == today.year else (coming[which - 1],)


def easter(number: int) -> date:
    """Easter Sunday of the Gregorian calendar (Meeus, Astronomical Algorithms, chapter 8)."""
    golden, century, rest = number % 19, number // 100, number % 100
    epact = (
        19 * golden + century - century // 4 - (century - (century + 8) // 25 + 1) // 3 + 15
    ) % 30
    to_sunday = (32 + 2 * (century % 4) + 2 * (rest // 4) - epact - rest % 4) % 7
    shift = (golden + 11 * epact + 22 * to_sunday) // 451
    index = epact + to_sunday - 7 * shift + 114
    return date(number, index // 31, index % 31 + 1)


def some_month(number: int, today: date, tense: int) -> Spans:
    """The month of that number (from 1) before, around or after ``today``."""
    return _nearest(
        [month(date(today.year + n, number, 1)) for n in (-1, 0, 1)], today, tense, edge=7
    )


def some_date(number: int, day: int, today: date, tense: int) -> Spans:
    """That day of that month, in the year that is meant; 29 February only where there is one."""
    of_years = (date(today.year + n, number, 1) for n in range(-8, 9))
    days = [first.replace(day=day) for first in of_years if day <= month(first)[1].day]
    return _nearest([(day, day) for day in days], today, tense)


def day_of_month(day: int, today: date, tense: int) -> Spans:
    """The 20th of this month or the one beside it; months that are too short have none."""
    of_months = (month(today, n) for n in range(-2, 3))
    days = [first.replace(day=day) for first, last in of_months if day <= last.day]
    if today in days:  # it may be meant, and would rather be called “today”
        beside = days[days.index(today) + (1 if tense >= 0 else -1)]
        return (*one(today), *one(beside))
    return _nearest([(day, day) for day in days], today, tense)


def _nearest(spans: list[Span], today: date, tense: int, edge: int = 0) -> Spans:
    """The last before or the first after ``today``, by the tense; both if that is not known.

    One around today is meant by both, unless today is within ``edge`` days of its end.
    """
    before = [span for span in spans if span[0] <= today]
    after = [span for span in spans if span[1] >= today]
    if not before or not after:
        return ()
    past, to_come = before[-1], after[0]
    if past == to_come:
        if tense < 0 and (today - past[0]).days < edge:
            return before[-2], past
        if tense > 0 and (past[1] - today).days < edge:
            return past, after[1]
        return (past,)
    return ((past if tense < 0 else to_come),) if tense else (past, to_come)


def apart(today: date, amount: float, unit: int) -> tuple[Span, Span]:
    """What is ``amount`` units of so many days from ``today``, and what may be meant by it.

    Days and weeks lead to a day, months to a month and years to a year.
    """
    if unit < 28:
        day = today + timedelta(days=round(amount * unit))
        slack = timedelta(days=unit // 2)
        return (day, day), (day - slack, day + slack)
    months = amount * round(unit / 30.4)
    if unit > 300 and amount == int(amount):
        span = year(today.year + int(amount))
    else:
        span = month(today, round(months))
    slack = timedelta(days=unit // 2)
    middle = today.toordinal() + round(amount * unit)
    wide = date.fromordinal(middle) - slack, date.fromordinal(middle) + slack
    return span, (min(span[0], wide[0]), max(span[1], wide[1]))
