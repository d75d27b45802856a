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

from ondevice.memory._language import Language, language_called
from ondevice.memory._values import fold
from ondevice.memory._words import forms, language_of, like, words_alike

#: Letters of a stem that all forms of a word have: but so many at its end, and so many at least.
_ENDING, _LEAST = 2, 3


class Stem:
    """The stems of one language, and what is written before a word as one with it."""

    def __init__(self, algorithm: str, prefixes: tuple[str, ...], compounds: bool) -> None:
        self.name = algorithm
        self.compounds = compounds
        self._stemmer = Stemmer.Stemmer(algorithm)
        self.prefixes = ("", *prefixes)

    def __call__(self, word: str) -> str:
        return fold(self._stemmer.stemWord(word))


def stemmer_of(text: str) -> Stem | None:
    """What gives the stem of a word in the language of ``text``; None where the index does it."""
    return _stemmer(language_of(text))


def same_stem(word: str, of: str) -> Callable[[str], bool]:
    """What says of another word whether it is a form of ``word``, in the language called ``of``."""
    stem = _stemmer(language_called(of)) if of else None
    if stem is None or len(word) < _LEAST:
        return lambda other: False
    root = stem(word)
    return lambda other: stem(other) == root


def _stemmer(language: Language | None) -> Stem | None:
    if language is None or not language.search.snowball:
        return None
    search = language.search
    return _stem(search.snowball, search.prefixes, search.compounds)


@cache
def _stem(algorithm: str, prefixes: str, compounds: bool) -> Stem:
    return Stem(algorithm, tuple(prefixes.split()), compounds)


def stems_of(stem: Stem, word: str, terms: Iterable[str]) -> frozenset[str]:
    """The stems of ``word`` and of the ``terms`` that the index has for it."""
    return frozenset(map(stem, (*forms(word), *terms)))


def like_stem(stem: Stem | None, word: str, of: str = "") -> list[str]:
    """:func:`like`, also for a form of a word that is in the table: “dzieciom” for “dzieci”."""
    return like(word, of) or (_like_stems(stem).get(stem(word), []) if stem else [])


@cache
def _like_stems(stem: Stem) -> dict[str, list[str]]:
    return {stem(word): others for word, others in words_alike(stem.name).items()}


def beginnings(stem: Stem, words: Iterable[str]) -> set[str]:
    """What the terms of the index begin with that may have the stem of one of the ``words``.

    A stem may begin with another letter than its word: in Arabic, one without hamza.
    """
    return {
        prefix + whole[: max(_LEAST, len(whole) - _ENDING)]
        for word in words
        for whole in (fold(word), stem(word))
        if len(whole) >= _LEAST
        for prefix in stem.prefixes
    }
