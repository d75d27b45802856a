"""Reads the words for days in a text: “7 May 2023”, “on Friday”, “last spring”, “3 weeks ago”.

“On Friday” is a different day in “I met her on Friday” and in “I meet her on Friday”, so the tense
of the clause counts. What is not certain is told apart from what is. Libraries that were tried are
wrong too often (docs/measurements/memory.md).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from functools import cache

from ondevice.memory import _calendar
from ondevice.memory._calendar import Span, Spans
from ondevice.memory._language import (
    Dates,
    Language,
    forms_of,
    languages,
    months_of,
)

_ISO = re.compile(r"(?<![\d-])((?:19|20)\d\d)-(\d\d?)-(\d\d?)(?![\d-])")
_POINTS = re.compile(
    r"(?<![\w.,])(?<!ersion )(\d\d?)\.(\d\d?)\.((?:19|20)\d\d|\d\d)(?![\d]|[.,]\d)"
)
_SLASHES = re.compile(r"(?<![\d/-])(\d\d?)([/-])(\d\d?)\2((?:19|20)\d\d)(?![\d/-])")
_DIGIT = re.compile(r"\d")
_WORD = re.compile(r"[^\W\d_]+|\d+")
_SENTENCE_END = re.compile(r"[.!?;。！？；](?=\s|$)|[\n。！？；]")
_AND = 8  # characters at most between the days in a list, such as “ and on ”
_BESIDE = re.compile(r"[\s,(]*")

READ = 2_000  # characters of a text that are read for days: they stand at its beginning
_BEFORE = 60  # characters before words for days that say how they are meant
_AROUND = 200  # characters on either side of them in which their clause is looked for
_LONG = 14  # words of a clause; in a longer one without a verb that we know, its tense is not known


@dataclass(frozen=True)
class Expression:
    """Words that name days."""

    start: int
    end: int
    spans: Spans  # what may be meant; one, if that is certain
    wide: Span | None = None  # with the days around it that may be meant as well
    vague: bool = False  # “a few weeks ago”
    says_all: bool = False  # “7 May 2023”: nothing is to be worked out
    is_weekday: bool = False  # “on Friday”


class DateReader:
    """How days are spoken of in one language, compiled."""

    def __init__(self, language: Language, dates: Dates) -> None:
        self._dates = dates
        self._weekdays = forms_of(dates.weekdays)
        self._counts = dates.numbers | dates.about
        self._months = months_of(dates)
        self._edge = r"\b" if dates.spaced else ""
        near = f"{self._edge}(?P<near>{{near}}){self._edge}"
        months = frozenset(self._months)
        day_words = frozenset(self._weekdays)
        feasts, seasons = _words_in(dates.feasts), _words_in(dates.seasons)
        named = day_words | feasts | seasons | _words_in(dates.periods)
        units = _words_in(dates.units)
        figures = frozenset[str]()
        kinds: tuple[
            tuple[
                tuple[str, ...],
                Callable[[re.Match[str], date], Expression | None],
                frozenset[str],
            ],
            ...,
        ] = (
            ((near,), self._near_days, _words_in(dates.near)),
            (dates.last, self._named_days, named),
            (dates.ago, self._days_ago, units),
            (dates.ahead, self._days_ahead, units),
            (dates.weekday, self._some_weekday, day_words),
            (dates.feast, self._some_feast, feasts),
            (dates.date, self._some_date, months),
            (dates.figures, self._some_date, figures),
            (dates.day_alone, self._day_of_month, figures),
            (dates.in_month, self._some_month, months),
            (dates.in_season, self._some_season, seasons),
            (dates.in_year, self._of_year, figures),
        )
        self._kinds = [
            (language.compile(pattern), read, words)
            for patterns, read, words in kinds
            for pattern in patterns
        ]
        #: Words of which a text has at least one, or else a figure, if it speaks of days.
        self.triggers = frozenset[str]().union(*(words for _, _, words in kinds))
        self._known = self.triggers | frozenset(language.search.stop.split())
        self._every = language.compile(f"(?:{dates.every})$") if dates.every else None
        self._since = language.compile(f"(?:{dates.since})$") if dates.since else None
        self._due = language.compile(f"(?:{dates.due})$") if dates.due else None
        self._joins = language.compile(dates.joins) if dates.joins else None
        self._past, self._to_come, self._plans, self._either, self._usual = (
            language.compile(pattern or "(?!)")
            for pattern in (*(dates.past, dates.to_come, dates.plans, dates.either, dates.usual),)
        )
        self._month = language.compile(rf"{self._edge}({{sure_months}}){self._edge}")
        self._unsure = language.compile(dates.unsure_month) if dates.unsure_month else None
        self._season = language.compile(dates.season) if dates.season else None
        self.day = language.compile(dates.day)
        self.letters = re.compile(dates.letters)
        self.mine, self.doing, self.telling = (
            language.compile(pattern or "(?!)")
            for pattern in (dates.mine, dates.doing, dates.telling)
        )

    def expressions(self, text: str, words: frozenset[str], today: date) -> Iterator[Expression]:
        """All words for days in ``text``, which has these ``words``; some may overlap."""
        for pattern, read, needed in self._kinds:
            if self.spaced and needed and needed.isdisjoint(words):
                continue
            for found in pattern.finditer(text):
                try:
                    expression = read(found, today)
                except (ValueError, OverflowError):  # a day or a year that there is not
                    expression = None
                before = text[max(0, found.start() - _BEFORE) : found.start()].rstrip()
                if expression is None or (
                    not expression.says_all and self._every and self._every.search(before)
                ):
                    # Nor do words in it name days.
                    expression = _expression(found, (), is_weekday="weekday" in found.re.groupindex)
                yield expression

    def months(self, text: str) -> Iterator[tuple[re.Match[str], set[int]]]:
        """The words that name months or seasons, and their months, from 1."""
        for pattern in (self._month, self._unsure):
            for found in pattern.finditer(text) if pattern else ():
                yield found, {self._months[_named(found[found.lastindex or 0], self._months)]}
        for found in self._season.finditer(text) if self._season else ():
            first = self._dates.seasons[_named(found[1], self._dates.seasons)]
            yield found, {(first + n - 1) % 12 + 1 for n in range(3)}

    @property
    def spaced(self) -> bool:
        return self._dates.spaced

    def fits(self, words: frozenset[str]) -> int:
        """How many words of this language are among ``words``."""
        return len(self._known & words)

    # ------------------------------------------------------------- kinds of words for days

    def _near_days(self, found: re.Match[str], today: date) -> Expression:
        offset = self._dates.near[_named(found["near"], self._dates.near)]
        return _expression(found, _calendar.one(today + timedelta(days=offset)))

    def _named_days(self, found: re.Match[str], today: date) -> Expression:
        dates = self._dates
        word = _named(found["which"], [*dates.which, *dates.coming])
        coming = word in dates.coming
        which = 1 if coming else dates.which[word]
        following = "coming" if coming else dates.following
        unit = _named(
            found["unit"], [*self._weekdays, *dates.seasons, *dates.periods, *dates.feasts]
        )
        if unit in self._weekdays:
            number = self._weekdays[unit]
            spans = _calendar.named_weekday(number, which, today, self._tense(found), following)
        elif unit in dates.seasons:
            spans = _calendar.named_season(dates.seasons[unit], which, today, following)
        elif unit in dates.feasts:
            spans = _calendar.named_feast(dates.feasts[unit], which, today)
        else:
            period = dates.periods[unit]
            if period == "month":
                spans = (_calendar.month(today, which),)
            elif period == "year":
                spans = (_calendar.year(today.year + which),)
            elif period == "weekend":
                spans = _calendar.weekend(which, today, following)
            elif "weekday" in found.re.groupindex and found["weekday"]:
                number = self._weekdays[_named(found["weekday"], self._weekdays)]
                monday, _ = _calendar.week(today, which)
                spans = _calendar.one(monday + timedelta(days=number))
            else:
                spans = (_calendar.week(today, which),)
        return _expression(found, spans)

    def _days_ago(self, found: re.Match[str], today: date) -> Expression:
        return self._days_apart(found, today, -1)

    def _days_ahead(self, found: re.Match[str], today: date) -> Expression | None:
        # “In two days I read it all” was not two days from now.
        return None if self._tense(found) < 1 else self._days_apart(found, today, 1)

    def _days_apart(self, found: re.Match[str], today: date, direction: int) -> Expression:
        words = found["count"]
        if words is None:
            count = 1.0
        elif words.isdecimal():
            count = float(words)
        else:
            count = self._counts[_named(words, self._counts)]
        unit = self._dates.units[_named(found["unit"], self._dates.units)]
        span, wide = _calendar.apart(today, direction * count, unit)
        vague = words is not None and any(words.lower() == name for name in self._dates.about)
        if vague:
            slack = timedelta(days=round(count * unit / 2))
            wide = wide[0] - slack, wide[1] + slack
        return _expression(found, (span,), wide=wide, vague=vague)

    def _some_weekday(self, found: re.Match[str], today: date) -> Expression:
        number = self._weekdays[_named(found["weekday"], self._weekdays)]
        spans = _calendar.weekday(number, today, self._tense(found))
        return _expression(found, spans, is_weekday=True)

    def _some_feast(self, found: re.Match[str], today: date) -> Expression:
        name = self._dates.feasts[_named(found["feast"], self._dates.feasts)]
        if year := _year_of(found):
            return _expression(found, (_calendar.feast(name, year),))
        return _expression(found, _calendar.some_feast(name, today, self._tense(found)))

    def _some_date(self, found: re.Match[str], today: date) -> Expression:
        month, day = self._month_of(found), int(found["day"])
        year = _year_of(found)
        if year:
            spans = _calendar.one(date(year, month, day))
        else:
            spans = _calendar.some_date(month, day, today, self._tense(found))
        if "first" in found.re.groupindex:  # “3 to 10 August”
            first = int(found["first"])
            spans = tuple((last.replace(day=first), last) for _, last in spans if first < last.day)
        return _expression(found, spans, says_all=year is not None)

    def _day_of_month(self, found: re.Match[str], today: date) -> Expression | None:
        day = int(found["day"])
        if not 1 <= day <= 31:
            return None
        return _expression(found, _calendar.day_of_month(day, today, self._tense(found)))

    def _some_month(self, found: re.Match[str], today: date) -> Expression:
        month = self._month_of(found)
        if year := _year_of(found):
            return _expression(found, (_calendar.month(date(year, month, 1)),), says_all=True)
        return _expression(found, _calendar.some_month(month, today, self._tense(found)))

    def _some_season(self, found: re.Match[str], today: date) -> Expression:
        first = self._dates.seasons[_named(found["season"], self._dates.seasons)]
        if year := _year_of(found):
            return _expression(found, (_calendar.season(first, year),))
        return _expression(found, _calendar.some_season(first, today, self._tense(found)))

    def _of_year(self, found: re.Match[str], today: date) -> Expression:
        return _expression(found, (_calendar.year(int(found["year"])),), says_all=True)

    def _month_of(self, found: re.Match[str]) -> int:
        name = found["month"]
        return int(name) if name.isdecimal() else self._months[_named(name, self._months)]

    # ------------------------------------------------------------- tense

    def _tense(self, found: re.Match[str]) -> int:
        """Whether the words speak of what is to come (1) or of what was (-1); 0: unsure."""
        text, (start, end) = found.string, found.span()
        before = text[max(0, start - _BEFORE) : start].rstrip()
        if self._since and self._since.search(before):
            return -1
        if self._due and self._due.search(before):
            return 1
        first, last = max(0, start - _AROUND), min(len(text), end + _AROUND)
        ends = [each.end() for each in _SENTENCE_END.finditer(text, first, start)]
        first = ends[-1] if ends else first
        after = _SENTENCE_END.search(text, end, last)
        last = after.start() if after else last
        clause = self._clause(text, first, start, end, last)
        if len(_WORD.findall(clause)) < 2 and self._dates.spaced:
            clause = f"{text[first:start]} {text[end:last]}"
        if self._usual.search(clause):
            return 0
        was, will = (pattern.search(clause) for pattern in (self._past, self._to_come))
        if was:
            return 0 if will or self._plans.search(clause) else -1
        if will:
            return 1
        unsure = self._either.search(clause) or len(_WORD.findall(clause)) > _LONG
        return 0 if unsure else 1

    def _clause(self, text: str, first: int, start: int, end: int, last: int) -> str:
        """What stands around the words, without them, up to what joins it to other clauses."""
        if self._joins is None:
            return f"{text[first:start]} {text[end:last]}"
        joins = [join.end() for join in self._joins.finditer(text, first, start)]
        begin = joins[-1] if joins else first
        after = self._joins.search(text, end, last)
        return f"{text[begin:start]} {text[end : after.start() if after else last]}"


def _expression(
    found: re.Match[str],
    spans: Spans,
    *,
    wide: Span | None = None,
    vague: bool = False,
    says_all: bool = False,
    is_weekday: bool = False,
) -> Expression:
    start, end = found.span()
    return Expression(start, end, spans, wide, vague, says_all, is_weekday)


def _year_of(found: re.Match[str]) -> int | None:
    year = found["year"] if "year" in found.re.groupindex else None
    return int(year) if year else None


@cache
def _rules() -> tuple[DateReader, ...]:
    return tuple(DateReader(language, language.dates) for language in languages() if language.dates)


@cache
def _triggers() -> dict[str, tuple[int, ...]]:
    """The languages that each word for days is of: their places in :func:`_rules`.

    Two threads that ask for the rules at once may get two sets of them, of which one stays.
    """
    found: dict[str, tuple[int, ...]] = {}
    for place, rules in enumerate(_rules()):
        for word in rules.triggers if rules.spaced else ():
            found[word] = (*found.get(word, ()), place)
    return found


def _words_in(names: Iterable[str]) -> frozenset[str]:
    """A word of each of the names, the longest one."""
    return frozenset(max(_WORD.findall(name), key=len) for name in names)


def _able(text: str, words: frozenset[str]) -> list[DateReader]:
    """The languages in which ``text`` may speak of days, as far as it can be told.

    A word for a day in one language is another word in another: “hier” is “yesterday” or “here”.
    """
    every = _rules()
    unspaced = [
        rules
        for rules in (every if _unspaced().search(text) else ())
        if not rules.spaced and rules.letters.search(text)
    ][:1]
    triggers = _triggers()
    if _DIGIT.search(text):
        able = [rules for rules in every if rules.spaced]
    else:
        places = dict.fromkeys(place for word in words for place in triggers.get(word, ()))
        able = [every[place] for place in places]
    if not able:
        return unspaced
    fits = {rules: rules.fits(words) for rules in every if rules.spaced}
    most = max(fits.values())
    # Languages that are close share words: “dos” is Spanish for “two” and Portuguese for “of the”.
    return unspaced + [rules for rules in able if fits[rules] >= max(most - 1, min(most, 1))]


def readers_of(text: str) -> list[DateReader]:
    """The rules of the languages in which ``text`` may speak of days."""
    return _able(text, _words_of(text))


def _words_of(text: str) -> frozenset[str]:
    return frozenset(_WORD.findall(text.lower()))


def read(text: str, today: date) -> list[Expression]:
    """The words for days in ``text``, said or asked on ``today``, in order."""
    text = text[:READ]
    words = _words_of(text)
    found = [
        expression
        for rules in _able(text, words)
        for expression in rules.expressions(text, words, today)
    ]
    if _DIGIT.search(text):
        found += _in_figures(text)
    taken: list[Expression] = []
    for expression in sorted(found, key=lambda each: each.start - each.end):
        if all(expression.end <= each.start or each.end <= expression.start for each in taken):
            taken.append(expression)
    taken.sort(key=lambda each: each.start)
    for number in range(1, len(taken)):
        before, each = taken[number - 1 : number + 1]
        of_both = before.is_weekday and each.is_weekday and each.start - before.end <= _AND
        if of_both and not before.spans:  # “every Tuesday and Thursday”
            taken[number] = replace(each, spans=())
    return [
        each
        for before, each, after in zip((None, *taken), taken, (*taken[1:], None), strict=False)
        if each.spans and not (each.is_weekday and _dated(text, before, each, after))
    ]


def _dated(
    text: str, before: Expression | None, each: Expression, after: Expression | None
) -> bool:
    """Whether a date beside a day of the week says which one it is: “Friday, 20 June”."""
    for one, other in ((before, each), (each, after)):
        alike = one is None or other is None or (one.is_weekday and other.is_weekday)
        if one and other and not alike and _BESIDE.fullmatch(text, one.end, other.start):
            return True
    return False


def _in_figures(text: str) -> Iterator[Expression]:
    """“2026-06-20”, “20.06.2026”, “20/06/2026”, but not “03/04/2026”, which is two days."""
    for found in _ISO.finditer(text):
        if (day := _day(found[1], found[2], found[3])) is not None:
            yield _expression(found, _calendar.one(day), says_all=True)
    for found in _POINTS.finditer(text):
        year = found[3] if len(found[3]) == 4 else f"20{found[3]}"
        if len(found[3]) == 2 and (len(found[1]) == 1 or len(found[2]) == 1):
            continue  # a number of a version or a chapter
        if (day := _day(year, found[2], found[1])) is not None:
            yield _expression(found, _calendar.one(day))
    for found in _SLASHES.finditer(text):
        days = {_day(found[4], *order) for order in ((found[3], found[1]), (found[1], found[3]))}
        spans = tuple((day, day) for day in sorted(day for day in days if day))
        if spans:
            yield _expression(found, spans)


def _day(year: str, month: str, day: str) -> date | None:
    try:
        return date(int(year), int(month), int(day))
    except ValueError:
        return None


def _named(word: str, names: Iterable[str]) -> str:
    """The one of ``names`` that a pattern of them has found as ``word``."""
    if (lower := word.lower()) in names:
        return lower
    # To a pattern “ſ” is an “s” as well, and “ı” an “i”.
    return next(name for name in names if re.fullmatch(re.escape(name), word, re.IGNORECASE))


@cache  # and not while starting: such ranges take milliseconds
def _unspaced() -> re.Pattern[str]:
    return re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
