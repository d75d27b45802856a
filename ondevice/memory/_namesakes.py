"""Tells people and places of one first name apart: “Sam Reyes” is not “Sam Okafor”.

By capitals, so not in scripts that have none, and not in languages that write all nouns with them.
Somebody who is only called “Sam” may be either.
"""

from __future__ import annotations

import re

import msgspec

from ondevice.memory._concern import names_in
from ondevice.memory._records import Found
from ondevice.memory._told import capitals_tell_names
from ondevice.memory._words import WORD, is_stop_word, language_name

_PAIR = re.compile(r"(?=\b([^\W\d_][\w-]+) ([^\W\d_][\w-]+))")
_ROOT = 3  # letters that forms of a name have in common at least
_ENDING = 2  # letters of an ending at most
_MOST_CAPITALS = 0.5  # of the words; with more, capitals do not tell names


def without_namesakes(text: str, found: Found) -> Found:
    """``found`` without what is about a namesake of whom the question ``text`` names in full."""
    if not capitals_tell_names(language_name(text)):
        return found
    named = names_in(text)
    pairs = [pair for pair in _pairs(text) if named.issuperset(pair)]
    if not pairs:
        return found
    asked = {word.lower() for word in WORD.findall(text)}
    hits = [
        hit
        for hit in found.hits
        if not any(_is_of_namesake(pair, hit.cube.content, asked) for pair in pairs)
    ]
    if len(hits) == len(found.hits):
        return found
    return msgspec.structs.replace(found, hits=tuple(hits))


def _pairs(text: str) -> list[tuple[str, str]]:
    """Two words with capitals, one right behind the other, in lower case."""
    return [
        (first.lower(), second.lower())
        for first, second in _PAIR.findall(text)
        if first[0].isupper() and second[0].isupper()
        if not (is_stop_word(first.lower()) or is_stop_word(second.lower()))
    ]


def _is_of_namesake(pair: tuple[str, str], content: str, asked: set[str]) -> bool:
    words = WORD.findall(content)
    if sum(word[0].isupper() for word in words) > _MOST_CAPITALS * len(words) + 2:
        return False
    if any(_are_alike(pair[1], word.lower()) for word in words):
        return False
    behind = [second for first, second in _pairs(content) if _are_alike(pair[0], first)]
    alone = sum(_are_alike(pair[0], word.lower()) for word in words) > len(behind)
    return bool(behind) and not alone and asked.isdisjoint(behind)


def _are_alike(name: str, other: str) -> bool:
    """Whether they may be forms of one name."""
    root = max(_ROOT, min(len(name), len(other)) - _ENDING)
    return name == other or name[:root] == other[:root]
