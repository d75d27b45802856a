"""Finds the word that a misspelt one was meant to be, among words that are known."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

_LETTERS = "abcdefghijklmnopqrstuvwxyz"
_VOWELS = "aeiouy"
_SHORT = 5  # letters of a word of which few others have the same letters: “hosue”
_SHORTEST = 6  # the same of a word of which few others are one slip away
_LONG = 8  # the same, if the slip is another vowel: “calender”, but “ballot” is no “ballet”
_LONGEST = 30  # letters of a word


@lru_cache(maxsize=100)
def misspelt(word: str) -> frozenset[str]:
    """The words in the place of which somebody may have written ``word``.

    There are none for a short one, and none for more letters than words have: DNA, “haaaa…”.
    Letters that changed places, one too many or missing, or another vowel: another consonant
    mostly makes another word, and so does another first or last letter.
    """
    if not (_SHORT <= len(word) <= _LONGEST and word.isascii() and word.isalpha()):
        return frozenset()
    ends = (word[0], word[-1])
    return frozenset(other for other in _slips(word) if (other[0], other[-1]) == ends) - {word}


def _slips(word: str) -> Iterator[str]:
    for at in range(len(word)):
        before, letter, behind = word[:at], word[at], word[at + 1 :]
        if len(word) >= _SHORTEST:
            yield before + behind
            yield from (word[: at + 1] + other + behind for other in _LETTERS)
        for apart in (0, 1):  # “recieve”, “bycicle”
            if len(behind) > apart:
                between, other = behind[:apart], behind[apart]
                yield before + other + between + letter + behind[apart + 1 :]
        if letter in _VOWELS and len(word) >= _LONG:
            yield from (before + other + behind for other in _VOWELS)
