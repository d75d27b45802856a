"""Tells whether a sentence says of the user what is asked of them: “Where do I live?”.

“Tom moved to Berlin” does not. “Moved to Berlin” does: who leaves out who it was means themselves.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache

from ondevice.memory._dates import without_times
from ondevice.memory._language import NEVER, language_called
from ondevice.memory._stems import same_stem
from ondevice.memory._told import capitals_tell_names
from ondevice.memory._values import is_known_place
from ondevice.memory._whose import people_in, users_and_others
from ondevice.memory._words import (
    WORD,
    forms,
    is_stop_word,
    is_unspaced,
    language_name,
    like,
    words_of,
)

_PARTICLE = re.compile("[にでへをと]$")  # of Japanese
_ENDING = re.compile(r"^\w{1,2}(?=\W)")  # of Korean, behind a word for somebody: “여동생은 ”
_MOST_BEFORE = 2  # words before the subject of a question
_STEM = 4  # letters of a word at least that forms of it begin with


def is_said_of_others(sentence: str, words: Collection[str], asked_in: str) -> bool:
    """Whether what the ``sentence`` says with one of the ``words`` of a question is said of others.

    Of whom it speaks last before that: “She told me that Tom moved”. If of nobody, what else is
    there is somebody, such as “Tom”. ``asked_in`` is the name of the question's language.
    """
    at, end = _place(sentence, words, asked_in)
    of = language_name(sentence) or asked_in
    if at < 0 or not of:
        return False
    users, others = users_and_others(sentence)
    mine = max((place for place in users if place <= end), default=-1)
    if mine > at:  # the verb says so itself: “vivo”
        return False
    before = sentence[:at]
    theirs = [place for place in others if place <= at]
    named = (*_names_in(before, of), *(mention.end for mention in people_in(before)))
    theirs += [
        place for place in named if not _names_or_things(_ENDING.sub("", before[place:]), of)
    ]
    if theirs or mine >= 0:
        return max(theirs, default=-1) > mine
    return _may_be_somebody(before, of)


def tells_of_user(question: str, words: Collection[str], asked_in: str) -> bool:
    """Whether a ``question`` of the user's tells by the way what they do: “Did I say I moved?”.

    Not if they are whom the question itself is about: “Can I move to Spain?”.
    """
    at, end = _place(question, words, asked_in)
    users, _ = users_and_others(question)
    last = max((place for place in users if at < 0 or place <= end), default=-1)
    return last >= 0 and not 0 < len(WORD.findall(question[:last])) - 1 <= _MOST_BEFORE


def _place(sentence: str, words: Collection[str], of: str) -> tuple[int, int]:
    """Where the first word in the ``sentence`` is that is one of these or means the same."""
    known = {form for word in words for form in (*forms(word), *like(word, of))}
    beginnings = tuple(word for word in known if len(word) >= _STEM)
    are_forms = [same_stem(word, of) for word in words]
    lower = sentence.lower()
    places = [(lower.find(word), len(word)) for word in known if is_unspaced(word)]
    places += [
        (found.start(), len(said))
        for found in WORD.finditer(lower)
        for said in (found[0],)
        if said in known
        or said.startswith(beginnings)
        or any(is_form(said) for is_form in are_forms)
    ]
    at, length = min(((at, length) for at, length in places if at >= 0), default=(-1, 0))
    return at, at + length


def _names_in(text: str, of: str) -> list[int]:
    """Where names of persons end in ``text``, but for its first word, which may be any."""
    words = list(WORD.finditer(text))[1:] if capitals_tell_names(of) else []
    return [
        word.end()
        for word in words
        if word[0][0].isupper() and not (is_known_place(word[0]) or is_stop_word(word[0], of))
    ]


def _names_or_things(text: str, of: str) -> list[str]:
    """The words of ``text`` that are no stop words, places or numbers."""
    return [
        word
        for word in WORD.findall(text)
        if not (is_stop_word(word, of) or word.isdigit() or _is_place(word))
    ]


def _is_place(word: str) -> bool:
    """Whether it names a place, maybe with an ending or a word before it: “부산에”, “在成都”."""
    starts = (0, 1) if is_unspaced(word) else (0,)
    ends = range(max(2, len(word) - 2), len(word) + 1)
    return any(is_known_place(word[start:end]) for start in starts for end in ends)


def _may_be_somebody(before: str, of: str) -> bool:
    """Whether the beginning of a sentence names somebody, besides times, places and greetings."""
    before = without_times(_opening(of).sub("", before, count=1))
    for word in _names_or_things(before, of):
        pieces = words_of(word) if is_unspaced(word) else (word,)
        # Where words are not spaced, a place or a thing may stand there too, with a particle.
        if any(len(piece) > 1 for piece in pieces) and not _PARTICLE.search(word):
            return True
    return False


@cache
def _opening(name: str) -> re.Pattern[str]:
    language = language_called(name)
    opening = language.pattern(language.facts.opening) if language.facts else NEVER
    end = r"(?!\w)" if language.facts and language.facts.spaced else ""
    return re.compile(rf"^(?:(?:{opening}){end}[ ,，、:!.–—-]*)*", re.IGNORECASE)
