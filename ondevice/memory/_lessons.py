"""Reads out of what the user typed how replies should be (lessons, after Dynamic Cheatsheet).

As with facts: few rules and safe ones. A lesson is the user's own sentence. It is one if it is
meant for all replies (“always”, “from now on”, “your answers are too long”), or if the whole
message says nothing else (“Answer shorter.”). “Make it shorter” is about one text and teaches
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache, cached_property
from typing import NamedTuple

from ondevice.memory._asking import QUOTED, own_sentences, sets_task
from ondevice.memory._fact_reader import Fact
from ondevice.memory._language import Language, Lessons, languages

_LONGEST = 160  # characters of a lesson
_LONGEST_TEXT = 4_000  # characters; longer texts were not typed to say how to reply


class _Patterns(NamedTuple):
    """What tells a lesson in one language, compiled."""

    hearsay: re.Pattern[str]
    opening: re.Pattern[str]
    closing: re.Pattern[str]
    general: tuple[re.Pattern[str], ...]
    alone: tuple[re.Pattern[str], ...]


class _LessonReader:
    """Reads lessons in one language; most texts have no sign of one, and need no more than that."""

    def __init__(self, language: Language, lessons: Lessons) -> None:
        self._language = language
        self._lessons = lessons
        self._sign = language.compile(lessons.sign)
        self._topics = {name: language.compile(words) for name, words in lessons.topics.items()}

    @cached_property
    def _patterns(self) -> _Patterns:
        compile_, lessons = self._language.compile, self._lessons
        return _Patterns(
            hearsay=compile_(lessons.hearsay),
            opening=compile_(rf"(?:(?:{lessons.opening})\b[ ,:]*)*"),
            closing=compile_(rf"[ ,]*(?:{lessons.closing})?[ .!…]*$"),
            general=tuple(map(compile_, lessons.general)),
            alone=tuple(map(compile_, lessons.alone)),
        )

    def topics_in(self, text: str) -> list[str]:
        """Which of the things that lessons can be about the text names."""
        return [name for name, words in self._topics.items() if words.search(text)]

    def read(self, sentence: str, alone: bool) -> Fact | None:
        """The lesson that the sentence is, or None."""
        if not self._sign.search(sentence):
            return None
        patterns = self._patterns
        wish = patterns.closing.sub("", sentence)
        wish = wish[patterns.opening.match(wish).end() :]  # type: ignore[union-attr]  # may be empty
        if not wish or len(wish) > _LONGEST or patterns.hearsay.search(sentence):
            return None
        rules = (*patterns.general, *(patterns.alone if alone else ()))
        if not any(rule.match(wish) for rule in rules):
            return None
        topic = next(iter(self.topics_in(wish)), wish.lower())
        return Fact(f"replies: {topic}", f"{wish[0].upper()}{wish[1:]}.", "lesson")


@cache
def _rules() -> tuple[_LessonReader, ...]:
    return tuple(
        _LessonReader(language, language.lessons) for language in languages() if language.lessons
    )


def topics_in(text: str) -> set[str]:
    """Which of the things that lessons can be about the text names, in any language."""
    return {topic for language in _rules() for topic in language.topics_in(text)}


def find_lessons(text: str, *, alone: bool | None = None) -> Iterator[Fact]:
    """What the user wants of replies, in ``text``, which they typed themselves.

    ``alone``: whether each sentence stands for itself, as in a note that was asked to be
    remembered; or whether it belongs to something else. None: it does if there is only one.
    """
    if len(text) > _LONGEST_TEXT or sets_task(text):
        return
    sentences = own_sentences(text)
    if alone is None:
        alone = sentences == [text.strip()] and len(text) <= _LONGEST
    for sentence in sentences:
        if sentence.endswith(("?", "？")) or QUOTED in sentence:
            continue
        lessons = (language.read(sentence, alone) for language in _rules())
        if lesson := next(filter(None, lessons), None):
            yield lesson
