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
    get got now please thank thanks hello hi s t d m re ve ll don didn doesn isn wasn aren weren
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())

#: Of a text with more words, as many from its beginning and from its end: that is where a message
#: with something pasted into it says what is wanted.
_ENDS = 32

#: Forms of one word that a stemmer does not bring together.
_FORMS = """
begin began begun|bite bit bitten|blow blew blown|break broke broken|bring brought|build built
buy bought|catch caught|choose chose chosen|come came|dig dug|draw drew drawn|drink drank drunk
drive drove driven|eat ate eaten|fall fell fallen|feed fed|feel felt|fight fought|find found
fly flew flown|forget forgot forgotten|give gave given|go went gone|grow grew grown|hang hung
hear heard|hide hid hidden|hold held|keep kept|know knew known|lead led|leave left|lend lent
lose lost|make made|meet met|pay paid|ride rode ridden|ring rang rung|rise rose risen|run ran
say said|see saw seen|seek sought|sell sold|send sent|shake shook shaken|shoot shot|show shown
sing sang sung|sit sat|sleep slept|speak spoke spoken|spend spent|stand stood|steal stole stolen
swim swam swum|take took taken|teach taught|tear tore torn|tell told|think thought
throw threw thrown|understand understood|wake woke woken|wear wore worn|win won|write wrote written
child children|foot feet|life lives|man men|mouse mice|person people|tooth teeth|woman women
"""
_FORMS_OF = {form: group for group in map(str.split, re.split(r"[|\n]", _FORMS)) for form in group}


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
        names_of_days=frozenset(words).difference(_WORD.findall(rest.lower())),
        days=days,
        asks_when=text.lstrip().lower().startswith("when"),
        asks_once=_ONCE.search(text) is not None,
    )


def words_of(text: str) -> tuple[str, ...]:
    """What ``text`` is about: its words, lower case, in order, each once, without stop words."""
    words = tuple(dict.fromkeys(w for w in _WORD.findall(text.lower()) if w not in STOP_WORDS))
    return words if len(words) <= 2 * _ENDS else words[:_ENDS] + words[-_ENDS:]


def anchor(text: str) -> tuple[str, str, str] | None:
    """Of a question such as “Where did I live before I moved?” what it asks, “before”, the event.

    None for a question that names no event of the user's own life.
    """
    found = _ANCHOR.search(text)
    if found is None:
        return None
    asked = f"{text[: found.start()]} {text[found.end() :]}".strip(" ?.!,")
    return (asked, found[1].lower(), found[2]) if asked else None


def forms(word: str) -> list[str]:
    """``word`` with its irregular forms: “bought” is found by “buy”."""
    return _FORMS_OF.get(word, [word])
