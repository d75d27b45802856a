"""Takes a question apart: what to look for, when it was, and whether it asks for a time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date

from ondevice.memory._dates import Days, find_days

_WORD = re.compile(r"[^\W_]+")

#: Words that questions are made of and that say nothing about what is looked for.
_STOP_WORDS = """
    a an the and or but if of at by for with about to from in on into onto as
    is are was were be been being am do does did doing done have has had having
    will would can could should shall may might must not no nor so than then too very just
    i me my mine myself we our ours us you your yours he him his she her hers it its
    they them their theirs this that these those there here such own same both each any some
    what which who whom whose when where why how more most other ever
    get got s t d m re ve ll don didn doesn isn wasn aren weren
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())


@dataclass(frozen=True)
class Query:
    """A question, taken apart."""

    words: tuple[str, ...]  # lower case, in order, each once, without stop words and dates
    days: Days
    asks_when: bool


def read_query(text: str, today: date) -> Query:
    """Take ``text`` apart, with relative dates seen from ``today``."""
    days, rest = find_days(text, today)
    words = dict.fromkeys(w for w in _WORD.findall(rest.lower()) if w not in STOP_WORDS)
    return Query(tuple(words), days, text.lstrip().lower().startswith("when"))
