"""Tells whether a message is about the user, whose life only the memory knows, or about the world.

“What car do I have?” can be answered by what the user has told and by nothing else. “Where do I set
JAVA_HOME?” has the same form, and everybody could ask it. What each language has for the one and
the other is in ``[questions]`` of its file; a message may be of any language.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from functools import cache
from typing import Literal, NamedTuple

from ondevice.memory._asking import FOREIGN, QUESTION_MARKS, requests
from ondevice.memory._language import (
    NEVER,
    Language,
    Pattern,
    Questions,
    any_of,
    language_called,
    words_for_questions,
)
from ondevice.memory._words import WORD, is_foreign, language_name

#: ``user``: a question that only what the user has told can answer. ``perhaps``: the user is
#: mentioned. ``anybody``: likewise, but “I” and “we” may be anybody. ``particular``: a question
#: about somebody or something particular, maybe of theirs. ``world``: all else, such as tasks and
#: general knowledge.
Concern = Literal["user", "perhaps", "anybody", "particular", "world"]

#: What a task is about stands behind a colon or on the next lines: it is not what the user asks.
_MATERIAL = re.compile(r"[:：\n].*", re.DOTALL)
_CODE = re.compile(r"\w\([^)\s]|\w\(\)|[{}]|[=!<>]=|[a-z]_[a-z]|</?\w+>|\\\w|;\s*$", re.MULTILINE)
_GENITIVE = re.compile(r"(?<=\w)['’]s\b")
#: Of the people and animals of facts those whom a family has in common.
_AT_HOME = frozenset(
    {"son", "daughter", "child", "kids", "twins", "grandchild", "dog", "cat", "dogs", "cats"}
    | {"babysitter", "pet", "horse", "rabbit", "hamster", "bird", "tortoise", "guinea pig"}
)
#: Behind them if they are not the user's: “the dog next door”.
_OF_OTHERS = "of|von|de|del|di|van|du|des|der|next|across|opposite|upstairs|nebenan|gegenüber"
_WORD_OR_TWO = re.compile(r"\W*\w+(?: \w+)?\s*[?？]+")
#: A word with a capital within a sentence.
_NAME = re.compile(r"(?<=[^\W_][,;]\s)[^\W\d_]\w+|(?<=[^\W_]\s)[^\W\d_]\w+")


class _ConcernRules(NamedTuple):
    """The rules of all languages, compiled."""

    wish: re.Pattern[str]
    about_user: re.Pattern[str]
    advice: re.Pattern[str]
    general: re.Pattern[str]
    mentions: re.Pattern[str]
    first_person: re.Pattern[str]
    impersonal: re.Pattern[str]
    particular: re.Pattern[str]
    own: re.Pattern[str]
    verb_behind: re.Pattern[str]
    at_home: re.Pattern[str]


@cache
def _rules() -> _ConcernRules:
    def compiled(pattern_of: Callable[[Questions], Pattern]) -> re.Pattern[str]:
        pattern = any_of(lambda language: pattern_of(language.questions or Questions()))
        return re.compile(pattern or NEVER, re.IGNORECASE)

    return _ConcernRules(
        wish=compiled(lambda questions: questions.wish),
        about_user=compiled(lambda questions: questions.about_user),
        advice=compiled(lambda questions: questions.advice),
        general=compiled(lambda questions: questions.general),
        mentions=compiled(lambda questions: questions.mentions),
        first_person=compiled(lambda questions: questions.first_person),
        impersonal=compiled(lambda questions: questions.impersonal),
        particular=compiled(lambda questions: questions.particular),
        own=compiled(lambda questions: questions.own),
        verb_behind=compiled(lambda questions: questions.verb_behind),
        at_home=re.compile(any_of(_at_home), re.IGNORECASE),
    )


def _at_home(language: Language) -> Pattern:
    """What names family or animals as somebody does at whose home they are: “the twins”."""
    if not language.questions or not language.facts or language.questions.definite == NEVER:
        return ""
    who = "|".join(
        words for relation, words in language.facts.people.items() if relation in _AT_HOME
    )
    if not language.facts.spaced:
        return f"(?:{who})"
    article = (
        rf"(?:{language.questions.definite}) ?(?<=[ '’])" if language.questions.definite else ""
    )
    return rf"(?<!\w){article}(?:{who})(?!\w)(?! (?:{_OF_OTHERS})\b)"


def is_of_their_home(text: str, names: Collection[str]) -> bool:
    """Whether ``text`` asks about family or animals of the user, or one of these ``names``."""
    asked = _own_words(text)
    return not requests(text) and (
        bool(_rules().at_home.search(asked)) or not names_in(asked).isdisjoint(names)
    )


def concern_of(text: str) -> Concern:
    """What the message ``text`` is about."""
    rules = _rules()
    asked = rules.wish.sub(" ", _own_words(text))
    if _CODE.search(text) or rules.general.search(asked):
        return "world"
    advice = rules.advice.search(asked)
    if rules.about_user.search(asked) and not advice:
        return "user"
    if rules.mentions.search(asked):
        return "anybody" if advice or rules.impersonal.search(asked) else "perhaps"
    if rules.particular.search(asked) or _WORD_OR_TWO.fullmatch(asked):
        return "particular"
    if asked.rstrip().endswith(QUESTION_MARKS) and is_foreign(asked):
        return "anybody"  # nobody can tell whom it asks about
    return "world"


def names_in(text: str) -> frozenset[str]:
    """Words of ``text`` that are names by their capital, in lower case."""
    return frozenset(word.lower() for word in _NAME.findall(_own_words(text)) if word[0].isupper())


def things_in(text: str) -> frozenset[str]:
    """Words of ``text`` that name things, in lower case: with a capital, or behind an article.

    Or with an ending that makes them the user's.
    """
    asked = _own_words(text).lower()
    words = WORD.findall(_GENITIVE.sub("", asked))
    articles = _articles(language_name(text))
    behind = {
        word
        for at, article in enumerate(words)
        if article in articles
        for word in words[at + 1 : at + 3]
    }
    verbs = {found[found.lastindex or 0] for found in _rules().verb_behind.finditer(asked)}
    return names_in(text) | (behind - verbs) | owned_in(text)


def owned_in(text: str) -> frozenset[str]:
    """Words of ``text`` with an ending that makes them the user's, in lower case."""
    owned = _rules().own.finditer(_own_words(text).lower())
    return frozenset(word for found in owned for word in WORD.findall(found[0]))


def is_personal(sentence: str) -> bool:
    """Whether the ``sentence`` mentions who says it, or their family."""
    rules = _rules()
    return any(
        pattern.search(sentence) for pattern in (rules.mentions, rules.first_person, rules.at_home)
    )


@cache
def _articles(name: str) -> frozenset[str]:
    """Those of the language of this name, or of all if it has none: “I” is one in Italian."""
    questions = language_called(name).questions if name else None
    if questions and questions.articles:
        return frozenset(questions.articles.split())
    return words_for_questions(lambda questions: questions.articles)


def _own_words(text: str) -> str:
    """``text`` without what it quotes, and without what a task is about."""
    text = FOREIGN.sub(" ", text).strip()
    return _MATERIAL.sub("", text) if requests(text) else text
