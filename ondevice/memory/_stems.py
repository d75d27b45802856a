"""Brings the forms of a word together, in languages whose endings the index does not know.

The index has words without accents and, whatever their language, as Porter's English stemmer
leaves them. Snowball's stemmer (Porter 2001) for the language of a question says which of these
are forms of the same word, so that what is stored need not be of one language. Of 140
pairs of forms, 20 in each of seven languages, the index has 41 as one word, and this finds 119; an
index of Snowball's stems of the text itself would have 116.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache

import Stemmer

from ondevice.memory._values import fold
from ondevice.memory._words import forms, language_of

#: Letters of a stem that all forms of a word have: but so many at its end, and so many at least.
_ENDING, _LEAST = 2, 3

Stem = Callable[[str], str]


def stemmer_of(text: str) -> Stem | None:
    """What gives the stem of a word in the language of ``text``; None where the index does it."""
    language = language_of(text)
    return _stem(language.search.snowball) if language and language.search.snowball else None


@cache
def _stem(algorithm: str) -> Stem:
    stemmer = Stemmer.Stemmer(algorithm)
    return lambda word: fold(stemmer.stemWord(word))


def stems_of(stem: Stem, word: str, terms: Iterable[str]) -> frozenset[str]:
    """The stems of ``word`` and of the ``terms`` that the index has for it."""
    return frozenset(map(stem, (*forms(word), *terms)))


def beginnings(stems: Iterable[str]) -> set[str]:
    """What the terms of the index begin with that may have one of the ``stems``."""
    return {stem[: max(_LEAST, len(stem) - _ENDING)] for stem in stems if len(stem) >= _LEAST}
