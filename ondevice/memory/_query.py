"""Takes a question apart: what to look for, when it was, and whether it asks for a time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cache

from ondevice.memory._dates import Days, asks_by_day, days_of
from ondevice.memory._expressions import read
from ondevice.memory._language import Language, Questions, languages
from ondevice.memory._told import asks_for
from ondevice.memory._words import is_named, language_name, language_of, words_for, words_of


class _PastQuestions:
    """What questions for the past look like in one language, compiled."""

    def __init__(self, language: Language, questions: Questions) -> None:
        self.language = language.name
        self.when = questions.when
        self.anchor = language.compile(questions.anchor)
        self.once = language.compile(questions.once)
        self.now = language.compile(questions.now)
        self.present = language.compile(questions.present)


@cache
def _rules() -> tuple[_PastQuestions, ...]:
    return tuple(
        _PastQuestions(language, language.questions)
        for language in languages()
        if language.questions
    )


def _rules_for(text: str) -> tuple[_PastQuestions, ...]:
    """Those of the language of ``text``, or of all: “son” is “last” in Turkish."""
    language = language_of(text)
    own = (rules for rules in _rules() if language and rules.language == language.name)
    return tuple(own) or _rules()


@dataclass(frozen=True)
class Query:
    """A question, taken apart."""

    text: str
    words: tuple[str, ...]  # lower case, in order, each once, without stop words
    names_of_days: frozenset[str]  # those of the words that only say when it was: “originally”
    days: Days
    by_day: bool  # asks for nothing but what was or will be on the days
    asks_told: bool  # and for what was said on them
    asks_when: bool
    asks_once: bool  # what was so and is no longer
    asks_last: bool  # the last that was so before an event
    asks_now: bool  # expressly what is so now
    asks_present: bool  # in the present


def read_query(text: str, today: date) -> Query:
    """Take ``text`` apart, with relative dates seen from ``today``."""
    named = read(text, today)
    days, rest = days_of(text, named)
    words = words_meant(text)
    asked, own, told = asks_by_day(text, named) if days else (text, False, False)
    by_day = own and not words_of(asked)
    if by_day and days.spans:  # and not the rest of the month or the year
        days = Days(spans=days.spans)
    beginning = text.lstrip().lower()
    own_rules = _rules_for(text)
    once = asks_once(text)
    of_times = frozenset(
        word
        for rules in own_rules
        for pattern in (rules.once, rules.now)
        for found in pattern.finditer(text)
        for word in words_of(found[0])
    )
    names_of_days = of_times | frozenset(words).difference(words_of(rest) if days else words)
    return Query(
        text=text,
        words=words,
        names_of_days=names_of_days.intersection(words),
        days=days,
        by_day=by_day,
        asks_told=told,
        asks_when=any(beginning.startswith(rules.when) for rules in _rules()),
        asks_once=once,
        asks_last=False,
        asks_now=not once and any(rules.now.search(text) for rules in own_rules),
        asks_present=not once and any(rules.present.search(text) for rules in own_rules),
    )


def asks_once(text: str) -> bool:
    """Whether ``text`` asks what was so and is no longer."""
    return any(rules.once.search(text) for rules in _rules_for(text))


def without_once(text: str) -> str:
    """``text`` without the words which say that it is no longer so."""
    for rules in _rules_for(text):
        text = rules.once.sub(" ", text)
    return text


def words_meant(text: str) -> tuple[str, ...]:
    """The words of a question, with one for work if it asks for that by none: “do for a living”."""
    words, of = words_of(text), language_name(text)
    for_work = {word for meaning in ("job", "work") for word in words_for(meaning, of)}
    if not for_work.isdisjoint(words) or "job" not in asks_for(text):
        return words
    return (*(word for word in words if is_named(word, of)), *words_for("job", of)[:1])


def anchor(text: str) -> tuple[str, bool, str] | None:
    """Of a question such as “Where did I live before I moved?” what it asks, and the event.

    Between them, whether it asks for the days before it, or else for those after it. None for a
    question that names no event of the user's own life.
    """
    # The days are those before or after the turn that tells of the event.
    found = next(filter(None, (rules.anchor.search(text) for rules in _rules_for(text))), None)
    if found is None:
        return None
    asked = f"{text[: found.start()]} {text[found.end() :]}".strip(" ?.!,")
    return (asked, found["before"] is not None, found["event"]) if asked else None
