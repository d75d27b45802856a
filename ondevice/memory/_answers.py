"""Tells whether a memory may answer a question, or is only about the same.

“My sister moved to Lyon” says much of what “What is my sister's job?” does, and does not answer it.
A memory may answer if it says every thing that the question names, and what the question asks for:
a name, a number, a day, a person, a place or a colour. Verbs are not looked for, as people use many
for the same, unless the language lists what is used for them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache

from ondevice.memory._concern import is_personal, names_in, owned_in, things_in
from ondevice.memory._dates import says_when
from ondevice.memory._language import NEVER, Language, languages, words_for_questions, words_in
from ondevice.memory._records import POSITION_BITS, Cube, Hit
from ondevice.memory._stems import like_stem, stemmer_of
from ondevice.memory._values import is_known_place, is_no_person
from ondevice.memory._words import (
    WORD,
    ends,
    forms,
    is_named,
    is_stop_word,
    language_of,
    like,
    words_of,
)

_MANY = 3  # of so many groups of words of a question an answer may leave one out
_GENITIVE = re.compile(r"(?<=\w)['’]s\b")
_OWNER = " ownerof "  # stands for it
_NEAR = 3  # places in a conversation between memories that are read together
_BEGINNING = 5  # letters that words have in common which are forms of one
_OF_NUMBER = 2  # words for less are articles in many languages
#: A word with a capital within a sentence, or at its beginning and set apart: “Rex, my dog”.
_CAPITAL = re.compile(r"(?<=[^\W_][,;] )[^\W\d_][\w’'-]+|(?<=[^\W_] )[^\W\d_][\w’'-]+")
_FIRST = re.compile(r"(?:^|(?<=[.!?] ))([^\W\d_]\w+)(?:,| \w+ (?=(\w+)))")
_POSSESSIVE = re.compile(r"['’]s?$")
_CASELESS = re.compile(r"[^\W\d_]")


def may_answer(text: str, hits: Sequence[Hit]) -> bool:
    """Whether one of the ``hits``, with those around it, may answer the question ``text``."""
    needed = _needed_words(text)
    asked = frozenset(word for words in needed for word in words)
    named = things_in(text)
    things = [word for word in words_of(text) if word in named and is_named(word)]
    kinds = _asked(text)
    for hit in hits:
        near = [other for other in hits if _belongs(other.cube, hit.cube)]
        texts = [ends(other.cube.content) for other in near]
        lacking = asked.intersection(*(other.lacks for other in near))
        if lacking:
            said = {word for content in texts for word in WORD.findall(content.lower())}
            lacking = frozenset(word for word in lacking if not is_said(word, said))
        if (
            sum(map(lacking.issuperset, needed)) <= len(needed) // _MANY
            and all(any(_tells(kind, content, asked) for content in texts) for kind in kinds)
            and any(_is_theirs(things, other.cube) for other in near)
        ):
            return True
    return False


def _belongs(other: Cube, cube: Cube) -> bool:
    """Whether the ``other`` is to be read together with the ``cube``."""
    return other is cube or (
        cube.kind == other.kind == "turn"
        and abs(other.id - cube.id) <= _NEAR
        and other.id >> POSITION_BITS == cube.id >> POSITION_BITS
    )


def _is_theirs(things: Collection[str], cube: Cube) -> bool:
    """Whether a memory may tell of the user's own what is asked of these: “my lawyer”."""
    if not things:
        return True
    content = ends(cube.content)
    lower = content.lower()
    if cube.kind != "turn":
        said = set(WORD.findall(lower))
        return any(is_said(thing, said) for thing in things)
    words = dict.fromkeys(word for thing in things for word in (*forms(thing), *like(thing)))
    return any(word in lower and is_personal(content, word) for word in words)


def _needed_words(text: str) -> list[frozenset[str]]:
    """Groups of words of the question ``text``: an answer says one of each, or another for it.

    Names, whatever the language lists other words for, and things: of the two words behind an
    article or an owner the first may be an adjective, the second a verb.
    """
    stem = stemmer_of(text)
    words = [word for word in words_of(text) if is_named(word) and word not in _implied()]
    sure = names_in(text) | owned_in(text) | _people()
    alone = {word for word in words if word in sure or like_stem(stem, word)}
    groups = [frozenset(phrase).intersection(words) for phrase in _phrases(text)]
    return [frozenset([word]) for word in words if word in alone] + [
        group for group in groups if group and alone.isdisjoint(group)
    ]


def _phrases(text: str) -> Iterator[Sequence[str]]:
    """The two words behind each article or owner, in lower case."""
    language = language_of(text)
    articles = _articles(language.name) if language else ()
    words = WORD.findall(_GENITIVE.sub(_OWNER, text.lower()))
    for at, word in enumerate(words[:-1]):
        if word == _OWNER.strip() or (word in articles and words[at + 1] not in articles):
            yield words[at + 1 : at + 3]


def is_said(word: str, said: Collection[str]) -> bool:
    """Whether a word, or one that means the same or has the same beginning, is among these."""
    known = {word, *forms(word), *like(word)}
    return not known.isdisjoint(said) or any(
        len(word) > _BEGINNING and other.startswith(word[:_BEGINNING]) for other in said
    )


def _asked(text: str) -> tuple[str, ...]:
    """The kinds of what the question asks for."""
    language = language_of(text)
    if language is None:
        return ()
    return tuple(kind for kind, pattern in _asks(language.name).items() if pattern.search(text))


def _tells(kind: str, text: str, needed: Collection[str]) -> bool:
    """Whether ``text`` has something of this kind, as far as its language is known."""
    language = language_of(text)
    patterns = _told(language.name) if language else {}
    if language is None or kind not in patterns:
        return True
    if any(found[0].lower() not in needed for found in patterns[kind].finditer(text)):
        return True
    match kind:
        case "number":
            return _has_number(text)
        case "day" | "span":
            return _has_number(text) or says_when(text)
        case "name" | "who":
            return _has_name(text, language, needed)
        case "place":
            return any(map(is_known_place, _CAPITAL.findall(text)))
    return False


def _has_number(text: str) -> bool:
    """Whether a number is in ``text``, in figures or words."""
    return bool(_numbers().search(text))


def _has_name(text: str, language: Language, needed: Collection[str]) -> bool:
    """Whether a name is in ``text`` besides the words of the question."""
    letters = _CASELESS.findall(text)
    if not any(map(str.isupper, letters)):  # of a script without capitals, or not written with them
        return True
    first = [
        found[1]
        for found in _FIRST.finditer(text)
        if found[2] is None or found[2].lower() in _articles(language.name)
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
        and not is_no_person(name, language)
        and not is_stop_word(name)
        and (not _nouns_have_capitals(language) or _is_beside(name, text, needed, language))
        for name in names
    )


def _behind_preposition(text: str, at: int, language: Language) -> bool:
    pattern = _told(language.name).get("place")
    before = WORD.findall(text[:at])
    return bool(pattern and before and pattern.fullmatch(before[-1]))


def _nouns_have_capitals(language: Language) -> bool:
    return bool(language.facts and not language.facts.capitals)


def _is_beside(name: str, text: str, needed: Iterable[str], language: Language) -> bool:
    """Whether ``name`` stands beside a word of the question, maybe with an article between."""
    words = [word.lower() for word in WORD.findall(text)]
    bare = [word for word in words if word not in _articles(language.name)]
    asked = {form for word in needed for form in (*forms(word), *like(word))}
    at = [n for n, word in enumerate(bare) if word == name.lower()]
    return any(
        is_said(other, asked)
        for n in at
        for other in bare[max(0, n - 1) : n + 2]
        if other != name.lower()
    )


@cache
def _asks(name: str) -> dict[str, re.Pattern[str]]:
    language = _named(name)
    asks = language.questions.asks if language.questions else {}
    return {kind: language.compile(pattern) for kind, pattern in asks.items()}


@cache
def _told(name: str) -> dict[str, re.Pattern[str]]:
    language = _named(name)
    facts = language.facts
    tells = language.questions.tells if language.questions else {}
    whole = r"(?<!\w)(?:{})(?!\w)" if facts is None or facts.spaced else "{}"
    people = (*facts.people.values(), facts.values.get("job", NEVER)) if facts else ()
    return {
        kind: language.compile(
            whole.replace("{}", "|".join((pattern, *(people if kind == "who" else ()))))
        )
        for kind, pattern in tells.items()
    }


@cache
def _articles(name: str) -> frozenset[str]:
    """What stands before the name of a thing that is spoken of, and not asked for: no “which”."""
    language = _named(name)
    if not language.questions or not language.questions.articles:
        return frozenset()
    which = language.compile("{question_word}")
    return frozenset(
        word for word in language.questions.articles.split() if not which.fullmatch(word)
    )


@cache
def _people() -> frozenset[str]:
    """Words for the user's people and animals where no article tells that they are things."""
    return frozenset(
        word
        for language in languages()
        if language.facts and not language.facts.spaced
        for pattern in language.facts.people.values()
        for word in words_in(pattern)
    )


@cache
def _implied() -> frozenset[str]:
    return words_for_questions(lambda questions: questions.implied)


def _named(name: str) -> Language:
    return next(language for language in languages() if language.name == name)


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
