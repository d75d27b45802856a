"""Tells how old somebody is said to be, which is told by no other number of theirs.

“My uncle pays 640 euros” has a number, and does not answer “How old is my uncle?”.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from functools import cache

from ondevice.memory._language import NEVER, Language, language_called
from ondevice.memory._whose import Whom, is_of_others, is_same, mentions_user, people_in
from ondevice.memory._words import WORD, is_measure, words_of, words_used_for

#: Before a number: “Bia de 7”.
_CAPITAL_BEFORE = re.compile(r"(?-i:[^\W\d_a-zß-ÿа-яё])[\w’'-]+ \w+ $")
_WORD_BEHIND = re.compile(r"\w*(?: \w+)?")


def number_asked(text: str, language: Language, asks: re.Pattern[str]) -> list[str]:
    """Of a question for a number whether it asks for an “age” (“cuántos años”) or a “cost”."""
    asked = asks.search(text)
    behind = _WORD_BEHIND.match(text, asked.end()) if asked else None
    said = text[asked.start() : behind.end()].lower() if asked and behind else ""
    if any(word in said for word in words_used_for("age", language.name)):
        return ["age"]
    costs = words_used_for("cost", language.name)
    return [] if set(costs).isdisjoint(words_of(text)) else ["cost"]


def has_age(
    sentence: str,
    language: Language,
    whom: Collection[Whom] | None,
    names: Collection[str],
    numbers: Sequence[re.Pattern[str]],
    place: re.Pattern[str] | None,
) -> bool:
    """Whether the ``sentence`` says how old these people are, or when they were born.

    Nobody is the user; None is somebody with one of the ``names``. A number is that of the person
    who stands last before it: “Ada is 5, my nephew is 8”. Behind a word for a ``place`` it is none.
    """
    found = list(_numbers_in(sentence, language, numbers, place))
    if not found:
        return False
    if whom is not None and not whom:
        return not is_of_others(sentence)
    people = [(mention.start, mention.whom) for mention in people_in(sentence)]
    called = [word.start() for word in WORD.finditer(sentence) if word[0].lower() in names]
    return any(_is_theirs(at, sentence, language, whom, people, called) for at in found)


def _is_theirs(
    at: int,
    sentence: str,
    language: Language,
    whom: Collection[Whom] | None,
    people: Sequence[tuple[int, Whom]],
    called: Sequence[int],
) -> bool:
    """Whether a number that stands there is of the people who are asked for."""
    before = [other for other in people if other[0] < at]
    named = [start for start in called if start < at]
    if not (before or named):  # “He is 8.” goes on with whom the sentence before is about
        return not mentions_user(sentence) and (bool(whom) or _has_others(sentence, language))
    if whom:
        return bool(before) and any(is_same(one, before[-1][1]) for one in whom)
    return bool(named) and not any(named[-1] < start for start, _ in before)


def _numbers_in(
    sentence: str,
    language: Language,
    numbers: Sequence[re.Pattern[str]],
    place: re.Pattern[str] | None,
) -> Iterator[int]:
    """Where numbers are in the ``sentence`` that may be somebody's age."""
    words = {*words_used_for("age", language.name), *words_used_for("birthday", language.name)}
    spaced = language.facts is None or language.facts.spaced
    said = WORD.findall(sentence.lower()) if spaced else sentence
    if any(word in said for word in words):
        yield from (found.start() for pattern in numbers for found in pattern.finditer(sentence))
        return
    for found in _bare_number(language.name).finditer(sentence):
        word = "".join(WORD.findall(sentence[: found.start()])[-1:])
        is_other = (place and place.fullmatch(word)) or is_measure(word.lower())
        if not is_other or _CAPITAL_BEFORE.search(sentence, 0, found.start()):
            yield found.start()


def _has_others(sentence: str, language: Language) -> bool:
    """Whether a word like “she” is in it, which stands for somebody named before."""
    pronouns = language.pronouns.others.split() if language.pronouns else ()
    return not pronouns or not set(pronouns).isdisjoint(WORD.findall(sentence.lower()))


@cache
def _bare_number(name: str) -> re.Pattern[str]:
    """A number of which nothing is said to be so many: “she is 34”, “Ben (8)”, “I was 6 when …”."""
    language = language_called(name)
    facts, questions = language.facts, language.questions
    also = facts.lists if facts and facts.lists else NEVER
    when = "|".join(map(re.escape, questions.when)) if questions else ""
    return re.compile(
        rf"(?<![\w.,:/$€£#-])\d{{1,2}}(?=\s*(?:[;!?)]|[.,](?!\d)|$)| (?:{also}|{when or NEVER}) )",
        re.IGNORECASE,
    )
