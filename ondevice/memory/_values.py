"""Tells whether words are a value of the sort that a fact needs: a place, a name, a job, a date.

“I live in fear” and “I moved to Linux” have the form of a fact. What tells them from one is that
neither is a place.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ondevice.memory._language import (
    NEVER,
    FactPatterns,
    Language,
    any_of,
    language_called,
    languages,
    months_of,
    titles,
)

_PLACES = Path(__file__).with_name("language") / "places.txt"
_MOST_WORDS = 4


class Certainty(IntEnum):
    """How certain it is that words are such a value."""

    NO = 0
    POSSIBLY = 1
    CERTAINLY = 2


class Text(NamedTuple):
    """What is known of the text that a value stands in."""

    language: Language
    has_capitals: bool  # it is not written in small letters throughout


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ARTICLE = re.compile(
    r"(?:the|an?|der|die|das|den|dem|eine?[mnr]?|les?|la|l['’]|une?|el|los|las|una?|il|lo|gli|i|uno|"
    r"um|uma|os?|as?|de|het|een) ?(?<=[ '’])",
    re.IGNORECASE,
)
#: What people move to, come from and work with that has a name and is no place.
_THINGS = _words(
    """
    android azure aws chrome chatgpt claude codeberg debian discord django docker dvorak edge
    emacs excel fedora figma firefox gentoo github gitlab gmail go golang google icloud ios ipad
    iphone java javascript jira kotlin kubernetes linux mac macos mastodon minecraft neovim
    netflix notion obsidian oracle outlook postgres postgresql powerpoint proton python react
    reddit ruby rust safari signal slack spotify svelte swift teams telegram thunderbird tiktok
    typescript ubuntu unix vim vscode vue whatsapp wayland windows word wordpress x youtube zig
    zoom zsh bash arch nix nixos redis mongodb mysql sqlite plan team phase stage step level part
    room floor monday tuesday wednesday thursday friday saturday sunday hr it marketing sales
    management mars venus jupiter saturn narnia hogwarts mordor gotham valinor gondor atlantis oz
    utopia heaven hell hope denial fear paradise himmel hölle angst
    """
)
_PARTICLES = _words(
    """
    van der den de von zu zum da do dos di del la le el al bin ibn ben te
    """
)
_WORD = re.compile(r"[^\W_][^\W_'’-]*(?:['’-][^\W_]+)*\.?")
_NUMBER_WORD = re.compile(
    r"(?:teen|ty|zig|ßig|zehn|ante|enta|anta|tig|дцать|десят|сорок)\b|\b(?:two|three|four|five)\b"
)
_YEAR = re.compile(r"(?:19|20)\d\d")
_NUMERIC_DATE = re.compile(
    r"\d{1,4}[./-]\d{1,2}(?:[./-](?:\d{2,4})?)?|(?:\d{4}年)?\d{1,2}月\d{1,2}[日号]"
)
_RUSSIAN_END = re.compile(r"(?<=[а-яё]{3})[аеиоуыэюяйь]{1,2}$")


def check(sort: str, value: str, text: Text) -> Certainty:
    """How certain it is that ``value`` is one of this ``sort``, in a text of this kind."""
    words = value.split()
    if not words or len(value) > 60:
        return Certainty.NO
    facts = text.language.facts
    if facts and facts.not_values and _not_values(text.language.name).match(value):
        list_of = _LIST_OF.get(sort, sort)  # “peanuts”: an allergen, and no employer
        if not _known(text.language.name, list_of).fullmatch(fold_case(value)):
            return Certainty.NO
    return _CHECKS[sort](value, text)


def _place(value: str, text: Text) -> Certainty:
    bare = _ARTICLE.sub("", value, count=1) if _ARTICLE.match(value) else value
    if fold(bare).split()[0] in _THINGS or len(bare.split()) > _MOST_WORDS:
        return Certainty.NO
    capital = _is_name(bare)
    if is_known_place(bare) and (capital or not bare[0].islower() or not text.has_capitals):
        return Certainty.CERTAINLY
    if text.language.facts and not text.language.facts.spaced:
        return Certainty.POSSIBLY if len(bare) <= 10 else Certainty.NO
    if not capital:
        one_word = len(bare.split()) == 1 == len(value.split())
        return Certainty.POSSIBLY if one_word and not text.has_capitals else Certainty.NO
    return Certainty.POSSIBLY


def _named_place(value: str, text: Text) -> Certainty:
    """A place after words that only a place can follow."""
    fit = _place(value, text)
    if fit is Certainty.POSSIBLY and _has_capitals(text) and _is_name(value) and "'" not in value:
        return Certainty.CERTAINLY
    return fit


def _name(value: str, text: Text) -> Certainty:
    words = value.split()
    if any(map(str.isdigit, value)) or len(words) > _MOST_WORDS:
        return Certainty.NO
    if all(word.lower().rstrip(".") in titles() for word in words):  # “Mrs.”
        return Certainty.NO
    if _is_other_name(value, text.language) or fold(words[0]).rstrip("s") in _weekdays_and_months(
        text.language.name
    ):
        return Certainty.NO
    facts = text.language.facts
    if _unspaced().search(value):
        is_clause = value.endswith(("了", "的", "吗", "吧", "呢", "来"))
        return Certainty.CERTAINLY if len(value) <= 8 and not is_clause else Certainty.NO
    if not words[0][0].islower() and not words[0][0].isupper():  # a script without capitals
        return Certainty.CERTAINLY if len(words) <= 3 else Certainty.NO
    if _is_name(value):
        return Certainty.CERTAINLY if words[0] not in ("I", "Not") else Certainty.NO
    if text.has_capitals or len(words) > 3 or value.endswith(("ed", "ing")) or facts is None:
        return Certainty.NO
    return Certainty.POSSIBLY


def _capital_name(value: str, text: Text) -> Certainty:
    capital = _is_name(value) or (not value[0].isascii() and not value[0].islower())
    return _name(value, text) if capital else Certainty.NO


def _person(value: str, text: Text) -> Certainty:
    """The names of one or more people or animals."""
    fits = [_name(part, text) for part in _LIST.split(value)]
    return min(fits)


def _org(value: str, text: Text) -> Certainty:
    bare = _ARTICLE.sub("", value, count=1) if _ARTICLE.match(value) else value
    if (
        not bare
        or len(bare.split()) > _MOST_WORDS
        or fold(bare).split()[0] in _weekdays_and_months(text.language.name)
    ):
        return Certainty.NO
    if not text.language.facts or not text.language.facts.spaced:
        return Certainty.POSSIBLY if len(bare) <= 10 else Certainty.NO
    if bare[0].isupper():
        certain = _is_name(bare) or _has_capitals(text)
        return Certainty.CERTAINLY if certain else Certainty.POSSIBLY
    if bare != value:  # “a bank”
        return Certainty.POSSIBLY
    return Certainty.POSSIBLY if not text.has_capitals and len(bare.split()) == 1 else Certainty.NO


def _listed(sort: str) -> Callable[[str, Text], Certainty]:
    """What is in the list of this sort is one; other words may be, if they are few."""

    def fits(value: str, text: Text) -> Certainty:
        parts = _LIST.split(value)
        if all(_known(text.language.name, sort).search(fold_case(part)) for part in parts):
            return (
                Certainty.CERTAINLY
                if max(len(part.split()) for part in parts) <= _MOST_WORDS
                else Certainty.NO
            )
        return Certainty.POSSIBLY if len(value.split()) <= _MOST_WORDS else Certainty.NO

    return fits


def _only_listed(sort: str) -> Callable[[str, Text], Certainty]:
    """Only what is in the list of this sort is one."""
    fits = _listed(sort)
    return lambda value, text: (
        Certainty.CERTAINLY if fits(value, text) is Certainty.CERTAINLY else Certainty.NO
    )


def _date(value: str, text: Text) -> Certainty:
    if _NUMERIC_DATE.fullmatch(value) or (
        _has_month(value) and re.search(r"\d|[一二三四五六七八九十]", value)
    ):
        return Certainty.CERTAINLY if len(value.split()) <= 7 else Certainty.NO
    if _has_month(value):  # “in May”, “the third of May”
        return Certainty.CERTAINLY if len(value.split()) <= 7 else Certainty.NO
    return Certainty.NO


def _birth(value: str, text: Text) -> Certainty:
    return (
        Certainty.CERTAINLY
        if _YEAR.search(value) and len(value.split()) <= 6
        else _date(value, text)
    )


def _age(value: str, text: Text) -> Certainty:
    figures = re.sub(r"\D", "", value)
    if figures:
        return (
            Certainty.CERTAINLY if 3 <= int(figures) <= 119 else Certainty.NO
        )  # other digits too: ٣٠
    if re.search("[一二三四五六七八九十]", value):
        return Certainty.CERTAINLY
    return Certainty.POSSIBLY if _NUMBER_WORD.search(value) else Certainty.NO


def _anything(value: str, text: Text) -> Certainty:
    return Certainty.POSSIBLY if len(value.split()) <= _MOST_WORDS else Certainty.NO


def _favourite(value: str, text: Text) -> Certainty:
    words = value.split()
    if len(words) > _MOST_WORDS:
        return Certainty.NO
    return (
        Certainty.POSSIBLY if words[0].lower().endswith("ing") else Certainty.CERTAINLY
    )  # “is losing”


_LIST = re.compile(
    r", (?:and|und|et|y|e|en|и) |(?:,| and| und| et| y| e| en| ed| и| or| oder| ou| o)(?= )"
    r"|[、和と]"
)
_LIST_OF = {"avoided": "food"}  # where a list has another name than the sort
_CHECKS: dict[str, Callable[[str, Text], Certainty]] = {
    "place": _place,
    "named_place": _named_place,
    "name": _name,
    "capital_name": _capital_name,
    "person": _person,
    "org": _org,
    "work": _listed("job"),
    "job": _only_listed("job"),
    "trade": lambda value, text: (
        Certainty.CERTAINLY if len(value.split()) <= _MOST_WORDS else Certainty.NO
    ),
    "allergen": _listed("allergen"),
    "condition": _only_listed("condition"),
    "medicine": _only_listed("medicine"),
    "diet": _only_listed("diet"),
    "avoided": _only_listed("food"),
    "tongue": _only_listed("tongue"),
    "date": _date,
    "birth": _birth,
    "age": _age,
    "favourite": _favourite,
    "anything": _anything,
}


def is_list(value: str) -> bool:
    """Whether it is of several parts: “Ida and Ben”."""
    return len(_LIST.split(value)) > 1


def fold(text: str) -> str:
    """Without capitals and accents."""
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text.casefold())
        plain = "".join(c for c in decomposed if not "\u0300" <= c <= "\u036f")
        return unicodedata.normalize("NFC", plain)
    return text.casefold()


def fold_case(text: str) -> str:
    return text.strip().lower()


def is_known_place(value: str) -> bool:
    """Whether it is a city or country that the list of places has, in any language."""
    known = _places()
    name = fold(value)
    if name in known or (name.endswith(tuple("市省区县縣都府県")) and name[:-1] in known):
        return True
    if stem := _RUSSIAN_END.sub("", name) if re.search("[а-яё]$", name) else "":
        return any(stem + end in known for end in ("", "а", "я", "ь", "и", "ы", "о", "е", "ия"))
    return False


@cache
def _places() -> frozenset[str]:
    lines = _PLACES.read_text("utf-8").splitlines()
    return frozenset(map(fold, (line for line in lines if not line.startswith("#"))))


def facts_of(name: str) -> tuple[Language, FactPatterns]:
    """The language of this name, which must have such patterns, and these."""
    language = language_called(name)
    assert language.facts
    return language, language.facts


@cache
def _known(name: str, sort: str) -> re.Pattern[str]:
    """What finds a word of the language's list of this sort at the end of a value."""
    language, facts = facts_of(name)
    if sort not in facts.values:
        return re.compile("(?!)")
    edge = r"(?<!\w)" if facts.spaced else ""
    return re.compile(rf"{edge}(?:{language.pattern(facts.values[sort])})$")


@cache
def _not_values(name: str) -> re.Pattern[str]:
    language, facts = facts_of(name)
    return language.compile(rf"(?:{facts.not_values})")


@cache
def _month() -> re.Pattern[str]:
    names = {
        name for language in languages() if language.dates for name in months_of(language.dates)
    }
    stated = any_of(
        lambda language: language.facts.values.get("month", "") if language.facts else ""
    )
    joined = "|".join(map(re.escape, sorted(names, key=len, reverse=True)))
    return re.compile(
        rf"(?<!\w)(?:{joined}|{stated})(?!\w)|[\d一二三四五六七八九十]月", re.IGNORECASE
    )


def _has_month(value: str) -> bool:
    return bool(_month().search(value))


@cache
def _weekdays_and_months(name: str) -> frozenset[str]:
    """Those of the language, or of all if it has none: Marco is a month in Portuguese."""
    known = [one for one in languages() if one.dates]
    return frozenset(
        fold(form)
        for language in [one for one in known if one.name == name] or known
        if language.dates
        for names in (*language.dates.weekdays, *language.dates.months)
        for form in names.split()
    )


def _is_other_name(value: str, language: Language) -> bool:
    """Whether it is a name, but of a thing or a people: “Linux”, “German”.

    In this language: “Frans” is French in Dutch, and a man's name in English.
    """
    return fold(value.split(maxsplit=1)[0]) in _THINGS or bool(
        _tongues(language.name).fullmatch(value.lower())
    )


def is_no_person(word: str, language: Language) -> bool:
    """Whether a word with a capital is one for a day, a month, a people, a language, a program."""
    return fold(word) in _weekdays_and_months(language.name) or _is_other_name(word, language)


@cache
def _tongues(name: str = "") -> re.Pattern[str]:
    """Languages and peoples, as one language calls them, or all."""
    return re.compile(
        any_of(
            lambda one: (
                one.facts.values.get("tongue", "") if one.facts and name in ("", one.name) else ""
            )
        )
        or NEVER
    )


def _is_name(value: str) -> bool:
    words = _WORD.findall(value)
    return (
        bool(words)
        and all(w[0].isupper() or w in _PARTICLES for w in words)
        and (words[-1][0].isupper())
    )


def _has_capitals(text: Text) -> bool:
    return bool(text.language.facts and text.language.facts.capitals)


@cache  # and not while starting: such ranges take milliseconds
def _unspaced() -> re.Pattern[str]:
    return re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
