"""Tells what a question asks for, and whether a text tells that of whom it is asked.

That is a name, a number, an age, a price, a day, a person, a place, a home, a job, a sort or a
colour.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache

from ondevice.memory._ages import has_age, number_asked
from ondevice.memory._dates import names_days, says_when
from ondevice.memory._language import (
    NEVER,
    Language,
    any_of,
    language_called,
    languages,
    titles,
)
from ondevice.memory._stems import same_stem
from ondevice.memory._values import is_known_place, is_no_person
from ondevice.memory._whose import (
    Mention,
    Whom,
    is_same,
    people_in,
    sentences_of,
)
from ondevice.memory._words import (
    WORD,
    forms,
    is_named,
    is_stop_word,
    is_unspaced,
    kinds_of,
    language_of,
    like,
)

#: A kind of answer that is one of another kind too: who has a name, and whose home has a place.
_COVERS = {"name": "who", "home": "place", "age": "number", "cost": "number"}
#: Of these what a text has that tells them is the same as of others.
_TOLD_AS = {"home": "place", "age": "number", "cost": "number"}
_BEGINNING = 5  # letters that words have in common which are forms of one
_OF_NUMBER = 2  # words for less are articles in many languages
#: A word with a capital within a sentence, or at its beginning and set apart: “Rex, my dog”.
_CAPITAL = re.compile(
    r"(?<=[^\W_] \()[^\W\d_][\w’'-]+|(?<=[^\W_][,;] )[^\W\d_][\w’'-]+|(?<=[^\W_] )[^\W\d_][\w’'-]+"
)
_FIRST = re.compile(r"(?:^|(?<=[.!?] ))([^\W\d_]\w+)(?:,| \(| \w+ (?=(\w+)))")
_SUFFIX = re.compile(r"['’]\w*$")  # “Bursa'ya”
_POSSESSIVE = re.compile(r"['’]s?$")
#: A name of a thing that is no word: “BMW”, “ThinkPad”, “X20”.
_MARK = re.compile(r"\b(?=\w*[^\W\d_])(?:\w*[A-Z]\w*[A-Z]|\w+\d|\d+[^\W\d_])\w*")
_FEW_WORDS = 6  # of a text whose language may be that of the question
_STEM = 4  # letters of a word at least that forms of it begin with
_LETTER = re.compile(r"[^\W\d_]")


def asks_for(text: str) -> tuple[str, ...]:
    """The kinds of what the question asks for."""
    language = language_of(text)
    if language is None:
        return ()
    kinds = [kind for kind, pattern in _asks(language.name).items() if pattern.search(text)]
    if "number" in kinds:
        kinds += number_asked(text, language, _asks(language.name)["number"])
    covered = {_COVERS[kind] for kind in kinds if kind in _COVERS}
    return tuple(kind for kind in kinds if kind not in covered)


def tells(
    kind: str,
    text: str,
    needed: Collection[str],
    whom: Collection[Whom] | None,
    of: str,
    language: Language | None,
) -> bool:
    """Whether ``text`` has something of this kind, as far as its ``language`` is known.

    Whom it is asked of: nobody is the user, None somebody by their name.
    """
    if language is None and of and len(WORD.findall(text)) <= _FEW_WORDS:
        language = language_called(of)  # “Sam's boat leaks” has no word that tells it
    patterns = _told(language.name) if language else {}
    if language is None or _TOLD_AS.get(kind, kind) not in patterns:
        return True
    if kind == "age":
        numbers, place = (_numbers(), patterns["number"]), patterns.get("place")
        return any(
            has_age(one, language, whom, needed, numbers, place) for one in sentences_of(text)
        )
    if kind in ("home", "job"):  # where it tells of what is asked about
        text = "\n".join(sentences_with(needed, [text], of)) or text
    if kind == "home":
        return _has_home(text, language)
    whole = text
    if kind == "name" and whom:
        text = "\n".join(_sentences_about(whom, text))
    told_as = _TOLD_AS.get(kind, kind)
    if any(found[0].lower() not in needed for found in patterns[told_as].finditer(text)):
        return True
    match kind:
        case "number":
            return has_number(_dates().sub(" ", text))
        case "cost":  # “a second one, so that makes two” tells none
            return bool(re.search(r"\d", _dates().sub(" ", text)))
        case "day" | "span":
            return has_number(text) or says_when(text) or names_days(text)
        case "name" | "who":
            return _has_name(text, language, needed, of, whom, whole)
        case "sort":
            about = sentences_with(needed, [text], of)
            kinds = {kind for word in needed for kind in kinds_of(word)}
            return any(
                not kinds.isdisjoint(WORD.findall(sentence.lower()))
                or bool(_MARK.search(sentence))
                or (
                    not _nouns_have_capitals(language) and _has_name(sentence, language, needed, of)
                )
                for sentence in about
            )
        case "place":
            return any(
                word[0].isupper() and is_known_place(word) for word in _CAPITAL.findall(text)
            )
    return False


def _has_home(text: str, language: Language) -> bool:
    """Whether ``text`` names where somebody may live."""
    if not any(map(str.isupper, text)) or not any(map(str.islower, text)):
        return bool(_told(language.name)["place"].search(text))
    return any(
        is_known_place(_SUFFIX.sub("", found[0]))
        or (
            not _nouns_have_capitals(language)
            and _behind_preposition(text, found.start(), language)
        )
        for found in _CAPITAL.finditer(text)
        if found[0][0].isupper()
    )


def has_number(text: str) -> bool:
    """Whether a number is in ``text``, in figures or words."""
    return bool(_numbers().search(text))


def _has_name(
    text: str,
    language: Language,
    needed: Collection[str],
    of: str,
    whom: Collection[Whom] | None = (),
    whole: str = "",
) -> bool:
    """Whether a name is in ``text`` besides the words of the question; of somebody beside one.

    It is a part of the ``whole`` text, which shows whether names are written with capitals.
    """
    beside = bool(whom)
    of_others = {
        word.lower()
        for mention in (people_in(text) if whom else ())
        if not any(is_same(one, mention.whom) for one in whom or ())
        for word in WORD.findall(text[mention.end :])[:1]
    }
    if not any(map(str.isupper, _LETTER.findall(whole or text))):
        if not beside:  # in a script without capitals
            return all(letter == letter.upper() for letter in _LETTER.findall(text))
        return any(_name_may_follow(text, mention.end) for mention in people_in(text))
    first = [
        found[1]
        for found in _FIRST.finditer(text)
        if found[2] is None or found[2].lower() in articles_of(language.name)
    ]
    inner = [
        found[0]
        for found in _CAPITAL.finditer(text)
        if not (is_known_place(found[0]) and _behind_preposition(text, found.start(), language))
    ]
    names = [_POSSESSIVE.sub("", word) for word in (*inner, *first)]
    return any(
        name[0].isupper()
        and name.lower() not in needed
        and name.lower() not in of_others
        and name.lower().rstrip(".") not in titles()
        and not is_no_person(name, language)
        and not is_stop_word(name, language.name)
        and (
            not (beside or _nouns_have_capitals(language))
            or _is_beside(name, text, needed, language, of)
        )
        for name in names
    )


def _name_may_follow(text: str, at: int) -> bool:
    """Whether the word that stands there may be a name, where names have no capital."""
    language = language_of(text)
    if language and language.facts and not language.facts.spaced:
        return False
    word, *behind = WORD.findall(text[at:])[:2] or [""]
    place = _told(language.name).get("place") if language else None
    is_place = place and any(map(place.fullmatch, behind))
    number = _told(language.name).get("number") if language else None
    is_other = (
        is_stop_word(word)
        or not is_named(word, language.name if language else "")
        or is_place
        or _is_verb(word, language)
        or (number and number.fullmatch(word))
    )
    return bool(word) and not (is_other or word[0].isdigit())


def _sentences_about(whom: Collection[Whom], text: str) -> Iterator[str]:
    """The sentences that speak of these people, or of nobody after one that does."""

    def speaks_of_them(people: Iterable[Mention]) -> bool:
        return any(is_same(one, mention.whom) for one in whom for mention in people)

    about = not speaks_of_them(people_in(text))
    for sentence in sentences_of(text):
        if people := people_in(sentence):
            about = speaks_of_them(people)
        if about:
            yield sentence


def _is_verb(word: str, language: Language | None) -> bool:
    """Whether a word tells what somebody did, or how often."""
    return language is not None and _verbs(language.name).fullmatch(word) is not None


def _behind_preposition(text: str, at: int, language: Language) -> bool:
    pattern = _told(language.name).get("place")
    before = WORD.findall(text[:at])
    return bool(pattern and before and pattern.fullmatch(before[-1]))


def capitals_tell_names(of: str) -> bool:
    """Whether a capital makes a name of a word in the language called ``of``, as far as known."""
    return not of or not _nouns_have_capitals(language_called(of))


def _nouns_have_capitals(language: Language) -> bool:
    return bool(language.facts and not language.facts.capitals)


def _is_beside(name: str, text: str, needed: Iterable[str], language: Language, of: str) -> bool:
    """Whether ``name`` stands beside a word of the question, maybe with an article between."""
    asked = {form for word in needed for form in (*forms(word), *like(word, of))}
    words = [word.lower() for word in WORD.findall(text)]
    place = _told(language.name).get("place")
    bare = [
        word
        for word in words
        if word not in articles_of(language.name)
        and (word not in titles() or word in asked)
        and (
            _nouns_have_capitals(language)
            or not is_stop_word(word, language.name)
            or word in asked  # “son” is one in French
            or (place and place.fullmatch(word))
        )
    ]
    at = [n for n, word in enumerate(bare) if word == name.lower()]
    return any(
        is_said(other, asked)
        for n in at
        for other in bare[max(0, n - 1) : n + 2]
        if other != name.lower()
    )


def is_said(word: str, said: Collection[str], of: str = "") -> bool:
    """Whether a word is among these, or a form of it, or what means the same or begins alike.

    ``of``: see :func:`like`.
    """
    known = {word, *forms(word), *like(word, of)}
    is_form = same_stem(word, of)
    return not known.isdisjoint(said) or any(
        is_form(other)
        or (len(word) > _BEGINNING and other.startswith(word[:_BEGINNING]))
        or (len(word) >= _BEGINNING and other.endswith(word))
        or (len(other) >= _BEGINNING and word.endswith(other))
        for other in said
    )


def sentences_with(words: Collection[str], texts: Sequence[str], of: str) -> list[str]:
    """The sentences of the ``texts`` that have one of the ``words``, or another for it."""
    known = {form for word in words for form in (*forms(word), *like(word, of))}
    beginnings = tuple(word for word in known if len(word) >= _STEM)
    return [
        sentence
        for text in texts
        for sentence in sentences_of(text)
        if any(
            word in known
            or word.startswith(beginnings)
            or (is_unspaced(word) and any(part in word for part in known))
            for word in WORD.findall(sentence.lower())
        )
    ]


@cache
def _verbs(name: str) -> re.Pattern[str]:
    language = language_called(name)
    patterns: tuple[str, ...] = ()
    if language.dates:
        patterns = (language.dates.past, language.dates.usual)
    patterns += (r"\w{2,}ed|{past}",) if "past" in language.parts else ()
    return language.compile("|".join(filter(None, patterns)) or NEVER)


@cache
def _asks(name: str) -> dict[str, re.Pattern[str]]:
    language = language_called(name)
    asks = language.questions.asks if language.questions else {}
    return {kind: language.compile(pattern) for kind, pattern in asks.items()}


@cache
def _told(name: str) -> dict[str, re.Pattern[str]]:
    language = language_called(name)
    facts = language.facts
    tells = language.questions.tells if language.questions else {}
    whole = r"(?<!\w)(?:{})(?!\w)" if facts is None or facts.spaced else "{}"
    jobs = (facts.values.get("job", NEVER),) if facts else ()
    others = {"who": (*facts.people.values(), *jobs) if facts else (), "job": jobs}
    return {
        kind: language.compile(whole.replace("{}", "|".join((pattern, *others.get(kind, ())))))
        for kind, pattern in tells.items()
    }


@cache
def articles_of(name: str) -> frozenset[str]:
    """What stands before the name of a thing that is spoken of, and not asked for: no “which”."""
    language = language_called(name)
    if not language.questions or not language.questions.articles:
        return frozenset()
    which = language.compile("{question_word}")
    return frozenset(
        word for word in language.questions.articles.split() if not which.fullmatch(word)
    )


@cache
def _dates() -> re.Pattern[str]:
    """A day of a month, whose number tells no other; its year may: how old somebody is."""
    months = any_of(lambda language: "{months}" if language.dates else "")
    return re.compile(
        rf"\b\d{{1,2}}(?:[.º]|\w\w)?(?: (?:of|de|di))? (?:{months})\b"
        rf"|\b(?:{months}) (?:the )?\d{{1,2}}(?!\d)",
        re.IGNORECASE,
    )


@cache
def _numbers() -> re.Pattern[str]:
    words = [
        (word, language.dates.spaced)
        for language in languages()
        if language.dates
        for word, number in language.dates.numbers.items()
        if number >= _OF_NUMBER
    ]
    spaced = "|".join(re.escape(word) for word, is_spaced in words if is_spaced)
    others = "|".join(re.escape(word) for word, is_spaced in words if not is_spaced)
    return re.compile(rf"\d|(?<!\w)(?:{spaced or NEVER})(?!\w)|{others or NEVER}", re.IGNORECASE)


def is_somewhere(text: str) -> bool:
    """Whether ``text`` says that somebody is in a place: “My mum's in Derby”."""
    language = language_of(text)
    pattern = _told(language.name).get("home") if language else None
    return pattern is not None and bool(pattern.search(text))


def words_for_living(text: str, words: Iterable[str]) -> frozenset[str]:
    """Those of the ``words`` of a question for a home that ask for one: “live”."""
    language = language_of(text)
    asks = _asks(language.name)["home"] if language else re.compile(NEVER)
    return frozenset(word for word in words if not asks.search(text.lower().replace(word, "_")))
