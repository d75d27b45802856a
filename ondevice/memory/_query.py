"""Takes a question apart: what to look for, when it was, and whether it asks for a time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

from ondevice.memory._dates import Days, find_days
from ondevice.memory._words import words_of

#: “Where did I live before I moved?”: the days are those before the turn that tells of the move.
_ANCHOR = re.compile(r"\b(before|after|since) ((?:I|we|my|our)\b[^?.!,]+)", re.IGNORECASE)
_ONCE = re.compile(
    r"\b(?:used to|previous(?:ly)?|former(?:ly)?|earlier|originally|at first|no longer"
    r"|before (?:I|we|that|then|my|our)|old (?:home|house|flat|job|address|boss|employer|name))\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Query:
    """A question, taken apart."""

    words: tuple[str, ...]  # lower case, in order, each once, without stop words
    names_of_days: frozenset[str]  # those of the words that only say when it was
    days: Days
    asks_when: bool
    asks_once: bool  # what was so and is no longer


def read_query(text: str, today: date) -> Query:
    """Take ``text`` apart, with relative dates seen from ``today``."""
    days, rest = find_days(text, today)
    words = words_of(text)
    return Query(
        words=words,
        names_of_days=frozenset(words).difference(words_of(rest)),
        days=days,
        asks_when=text.lstrip().lower().startswith("when"),
        asks_once=_ONCE.search(text) is not None,
    )


def anchor(text: str) -> tuple[str, str, str] | None:
    """Of a question such as “Where did I live before I moved?” what it asks, “before”, the event.

    None for a question that names no event of the user's own life.
    """
    found = _ANCHOR.search(text)
    if found is None:
        return None
    asked = f"{text[: found.start()]} {text[found.end() :]}".strip(" ?.!,")
    return (asked, found[1].lower(), found[2]) if asked else None
