"""Looks for texts that are to be forgotten in others, and takes them out of these.

A text is found with other capitals, line breaks, apostrophes and punctuation around it. One of less
than sixteen letters is looked for as whole words only, and not at all if it says too little to be
told from others: “yes”, “thank you”, “10”.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property

from ondevice.memory._asking import requests
from ondevice.memory._language import any_of, languages
from ondevice.memory._records import FORGOTTEN
from ondevice.memory._words import is_unspaced
from ondevice.store import VOWEL_SIGNS

_LONG = 16  # letters of a text that is not part of another one by chance
_LEAST = 4  # letters of a code or, where words are not spaced, of a text that is looked for
_NAME = 3  # letters
_EXACT = 2_000  # letters from which a text is found only as it was written: patterns take long
_FEW = 8  # texts that are each looked for by themselves

_WORD = re.compile(r"[^\W_]+")
#: Letters, digits and accents, but no apostrophe that is a letter to an index.
_INDEXED = re.compile("(?:(?!ʼ)[^\\W_]|[\u0300-\u036f])+")
_YEAR = re.compile(r"(?:19|20)\d\d")
_PUNCTUATION = " \t\r\n.,;:!?…。！？、，\"'“”„‘’«»()[]*_>"
_BETWEEN = r"[\s>]+"  # a quotation in Markdown is broken anew, with a “>” before each line
_PIECE = re.compile(rf"({_BETWEEN})|(['’ʼ])|.", re.DOTALL)


@dataclass(frozen=True)
class _ForgottenText:
    exact: str  # empty: it is found by the pattern
    pattern: re.Pattern[str]
    probe: str  # the longest run of letters that has only one form, in lower case
    words: tuple[str, ...]  # that stand as such in whatever quotes it, the longest first
    indexed: tuple[str, ...]  # the same, as an index has them
    whole: str

    @cached_property
    def plain(self) -> str:
        """See :func:`_plain`."""
        return _plain(self.whole)[0]

    def quoted_in(self, content: str) -> bool:
        if self.exact:
            return self.exact in content
        return self.pattern.search(content) is not None

    def taken_out_of(self, content: str) -> str:
        if self.exact:
            return content.replace(self.exact, FORGOTTEN)
        return self.pattern.sub(FORGOTTEN, content)

    def places_in(self, content: str) -> list[tuple[int, int]]:
        """Where it begins and ends in ``content``."""
        pattern = re.compile(re.escape(self.exact)) if self.exact else self.pattern
        return [found.span() for found in pattern.finditer(content)]

    @property
    def length(self) -> int:
        return len(self.exact or self.pattern.pattern)


class Quotations:
    """Some texts, to be looked for in others."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = tuple(filter(None, map(_read, dict.fromkeys(texts))))
        self._anywhere = [text for text in self._texts if not text.words]
        self._by_word: dict[str, list[_ForgottenText]] = {}
        for text in self._texts:
            if text.words:
                self._by_word.setdefault(text.words[0], []).append(text)

    def __bool__(self) -> bool:
        return bool(self._texts)

    @property
    def indexed(self) -> list[tuple[str, ...]]:
        """Of each text what an index has of whatever quotes it; none where that is not sure."""
        return [text.indexed for text in self._texts]

    @property
    def probes(self) -> list[str]:
        """Of each text a part that stands in whatever quotes it, as SQLite's lower() has it."""
        return [text.probe for text in self._texts]

    def quoted_in(self, content: str) -> bool:
        """Whether ``content`` has one of the texts in it."""
        return any(text.quoted_in(content) for text in self._candidates(content))

    def taken_out_of(self, content: str) -> str:
        """``content`` with :data:`FORGOTTEN` in place of each of the texts."""
        found = [text for text in self._candidates(content) if text.quoted_in(content)]
        # The longest first: a shorter one may be part of it.
        for text in sorted(found, key=lambda text: text.length, reverse=True):
            content = text.taken_out_of(content)
        return content

    def taken_out_of_growing(self, content: str) -> tuple[str, str]:
        """The same of a text that is being written, and apart the end of it that may become one."""
        at = self._begun_at(content)
        places = [place for text in self._texts for place in text.places_in(content)]
        for start, end in sorted(places, reverse=True):  # one of them is in whole or not at all
            if start < at < end:
                at = start
        return self.taken_out_of(content[:at]), content[at:]

    def taken_out_of_ended(self, content: str) -> str:
        """The same of a text that may end within one of them."""
        content = self.taken_out_of(content)
        at = self._begun_at(content)
        begun = len(content) - at >= _LEAST and says_something(content[at:])
        return content[:at] + FORGOTTEN if begun else content

    def _begun_at(self, content: str) -> int:
        """Where the end of ``content`` begins that is the beginning of one of the texts."""
        plain, places = _plain(content)
        wholes = {text.plain for text in self._texts}
        longest = max(map(len, wholes), default=0)
        for at in range(max(0, len(plain) - longest), len(plain)):
            if not (plain[at - 1 : at].isalnum() and not is_unspaced(plain[at])) and any(
                whole.startswith(plain[at : at + _LONG]) and whole.startswith(plain[at:])
                for whole in wholes
            ):
                return places[at]
        return len(content)

    def _candidates(self, content: str) -> Iterable[_ForgottenText]:
        if len(self._texts) <= _FEW:
            return self._texts
        words = self._by_word.keys() & set(_WORD.findall(content.lower()))
        return [*self._anywhere, *(text for word in words for text in self._by_word[word])]


def _plain(text: str) -> tuple[str, list[int]]:
    """``text`` as it is however it is quoted, and of each of its letters the place in ``text``."""
    plain, places = [], []
    for piece in _PIECE.finditer(text):
        letters = " " if piece[1] else "'" if piece[2] else piece[0].lower()
        plain.append(letters)
        places += [piece.start()] * len(letters)
    return "".join(plain), places


def says_something(content: str) -> bool:
    """Whether anything is left of a text apart from what was taken out of it."""
    return _WORD.search(content.replace(FORGOTTEN, "")) is not None


def _read(whole: str) -> _ForgottenText | None:
    """How to find a text; None: it says too little to be told from others."""
    text = whole.strip(_PUNCTUATION)
    is_long = len(text) >= _LONG
    if not text or not (is_long or _is_telling(text)):
        return None
    probe = _probe(text[:_EXACT])
    if len(text) > _EXACT:
        beginning = text[:_EXACT]
        return _ForgottenText(
            text,
            _NEVER,
            probe,
            _longest_first(_words(beginning)[1:-1]),
            _longest_first(_indexed(beginning)[1:-1]),
            text,
        )
    pattern = _BETWEEN.join(re.sub("['’ʼ]", "['’ʼ]", re.escape(part)) for part in text.split())
    words, indexed = _words(text), _indexed(text)
    if is_long:  # it is found in a longer word, too, so that nothing is overlooked
        words = [word for word in words if word not in (words[0], words[-1])]
        indexed = [word for word in indexed if word not in (indexed[0], indexed[-1])]
    else:
        before = "" if is_unspaced(text[0]) else r"(?<![^\W_])"
        after = "" if is_unspaced(text[-1]) else rf"(?![^\W_]|[{VOWEL_SIGNS}])"
        pattern = before + pattern + after
    if end := re.escape(whole.strip()[-1:].strip(text[-1])):
        pattern += f"(?:{end})?"
    is_name = _WORD.fullmatch(text) is not None and not is_long
    if is_name:
        pattern = pattern.replace(text, f"(?:{text}|{text.upper()})", 1)
    compiled = re.compile(pattern, re.NOFLAG if is_name else re.IGNORECASE)
    return _ForgottenText("", compiled, probe, _longest_first(words), _longest_first(indexed), text)


_NEVER = re.compile(r"(?!)")


def _words(text: str) -> list[str]:
    """The words that are words in an index as well: those of scripts with spaces."""
    return [word for word in _WORD.findall(text.lower()) if not any(map(is_unspaced, word))]


def _indexed(text: str) -> list[str]:
    """The words that are one word each to any index, which has them without accents."""
    parts = (part.strip(_PUNCTUATION) for part in text.split())
    return [part for part in parts if _INDEXED.fullmatch(part) and not any(map(is_unspaced, part))]


def _longest_first(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(words, key=len, reverse=True))


def _probe(text: str) -> str:
    # SQLite knows no capitals but A to Z, so other letters that have some are left out.
    only = "".join(c if c.isascii() or c.lower() == c.upper() else " " for c in text)
    return max(re.split(r"[\s'’ʼ>]+", only), key=len).lower()


def _is_telling(text: str) -> bool:
    """Whether a short text says enough not to be found where somebody else says the same."""
    words = _WORD.findall(text)
    if any(map(is_unspaced, words)):
        rest = _ordinary_unspaced().sub("", text)
        return sum(map(is_unspaced, text)) >= _LEAST and sum(map(is_unspaced, rest)) > 1
    if len(words) == 1:
        (word,) = words
        if any(map(str.isdigit, word)):
            return len(word) >= _LEAST and not _YEAR.fullmatch(word)
        return len(word) >= _NAME and word[0].isupper() and word.lower() not in _ordinary()
    return not requests(text) and any(word.lower() not in _ordinary() for word in words)


@cache
def _ordinary() -> frozenset[str]:
    """Words that tell nothing by themselves, of all languages."""
    return frozenset(
        word
        for language in languages()
        for words in (language.search.stop, language.forgetting.ordinary)
        for word in words.split()
    )


@cache
def _ordinary_unspaced() -> re.Pattern[str]:
    said = any_of(lambda language: language.forgetting.unspaced_ordinary)
    return re.compile(f"{said}|{any_of(lambda language: language.search.unspaced_stop)}")
