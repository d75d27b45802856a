"""Reads out of what the user typed how replies should be (lessons, after Dynamic Cheatsheet).

As with facts: few rules and safe ones. A lesson is the user's own sentence. It is one if it is
meant for all replies (“always”, “from now on”, “your answers are too long”), or if the whole
message says nothing else (“Answer shorter.”). “Make it shorter” is about one text and teaches
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

from ondevice.memory._asking import QUOTED, own_sentences, sets_task
from ondevice.memory._facts import Fact
from ondevice.memory._language import Language, Lessons, languages

_LONGEST = 160  # characters of a lesson
_LONGEST_TEXT = 4_000  # characters; longer texts were not typed to say how to reply


class _LessonReader:
    """What tells a lesson in one language, compiled."""

    def __init__(self, language: Language, lessons: Lessons) -> None:
        self._hearsay = language.compile(lessons.hearsay)
        self._opening = language.compile(rf"(?:(?:{lessons.opening})\b[ ,:]*)*")
        self._closing = language.compile(rf"[ ,]*(?:{lessons.closing})?[ .!…]*$")
        self._general = tuple(map(language.compile, lessons.general))
        self._alone = tuple(map(language.compile, lessons.alone))
        self._topics = {name: language.compile(words) for name, words in lessons.topics.items()}

    def topics_in(self, text: str) -> list[str]:
        """Which of the things that lessons can be about the text names."""
        return [name for name, words in self._topics.items() if words.search(text)]

    def read(self, sentence: str, alone: bool) -> Fact | None:
        """The lesson that the sentence is, or None."""
        wish = self._closing.sub("", sentence)
        wish = wish[self._opening.match(wish).end() :]  # type: ignore[union-attr]  # may be empty
        if not wish or len(wish) > _LONGEST or self._hearsay.search(sentence):
            return None
        if not any(rule.match(wish) for rule in (*self._general, *(self._alone if alone else ()))):
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
