"""The words of a text that say what it is about, in the languages that we know a little of."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache, lru_cache

from ondevice.memory._language import Alike, Language, any_of, language_called, languages, words_in
from ondevice.memory._values import fold
from ondevice.store import VOWEL_SIGNS
from ondevice.text import SOUTH_EAST, UNSPACED

#: A word, as the index has it: vowel signs of some scripts are no letters to a regular expression.
WORD = re.compile(rf"[{SOUTH_EAST}]+|(?:(?![{SOUTH_EAST}])[^\W_])+(?:[{VOWEL_SIGNS}]+[^\W_]*)*")
_SORT = re.compile(r"\{(\w+)\}")

#: Of a text with more words, as many from its beginning and from its end: that is where a message
#: with something pasted into it says what is wanted.
_ENDS = 32
_KNOWN = 4  # of so many words of a text one is a stop word, or its language is not known
_TITLE = 3  # words that somebody who searches for nothing else takes literally
_ELIDED = frozenset("dlmst")  # stand beside an apostrophe in several languages
#: What a number tells without naming it.
_NUMBERS = ("age", "cost")
_NONE: frozenset[str] = frozenset()
#: What people may mean by a relation of ``[facts.people]`` that is not that of one person.
WIDE = {
    "partner": {"wife", "husband", "girlfriend", "boyfriend", "fiancé"},
    "parents": {"mother", "father"},
    "siblings": {"brother", "sister", "twins"},
    "child": {"kids", "twins", "son", "daughter"},
    "kids": {"twins", "son", "daughter"},
    "twins": {"son", "daughter"},
    "pet": {"dog", "cat", "dogs", "cats", "horse", "rabbit", "hamster", "bird", "tortoise", "fish"},
    "dogs": {"dog"},
    "cats": {"cat"},
    "friend": {"best friend", "girlfriend", "boyfriend"},
    "boss": {"manager"},
}
#: What is before a word that does not begin a sentence, a line or a quotation.
_WITHIN = re.compile(r"[\w,;)’'] $")
#: Of a longer text, as many letters from its beginning and its end are looked at.
_READ = 10_000
_LONGEST = 500  # letters of a word, or signs in a row
_ENDLESS = re.compile(rf"(?<!\w)(\w{{{_LONGEST}}})\w+|(\W{{{_LONGEST}}})\W+")


def ends(text: str) -> str:
    """``text``, or of a very long one its beginning and its end: enough to know what it is about.

    What somebody types is shorter. The rules for words, facts and dates would take seconds, and so
    they would for thousands of letters or signs in a row, of which the first are left.
    """
    if len(text) > _LONGEST:
        text = _ENDLESS.sub(r"\1\2", text)
    return text if len(text) <= 2 * _READ else f"{text[:_READ]}\n{text[-_READ:]}"


def words_of(text: str) -> tuple[str, ...]:
    """What ``text`` is about: its words, lower case, in order, each once, without stop words.

    The stop words are those of the language that the text has most of them from, but for names
    such as Will and May. Where words are not spaced, each pair of neighbouring letters counts as
    one (as Lucene's CJK analyzer has it), and each three of them in scripts that write vowels.
    """
    all_words, counts = _read_words(text)
    language = counts.index(max(counts))
    stop_words = _stop_words()[language]
    if any(counts):
        stop_words -= _names(text, languages()[language])
    words = tuple(
        dict.fromkeys(
            piece
            for word in all_words
            if word not in stop_words
            for piece in (_pairs(word) if is_unspaced(word) else (word,))
        )
    )
    return words if len(words) <= 2 * _ENDS else words[:_ENDS] + words[-_ENDS:]


def title_of(text: str) -> tuple[str, ...]:
    """All words of a ``text`` of so few that it may be a name, such as “The Who”; else none."""
    words, _ = _read_words(text)
    return tuple(dict.fromkeys(words)) if len(words) <= _TITLE else ()


def _names(text: str, language: Language) -> frozenset[str]:
    """Words that are written like names within the sentences of ``text``, in lower case.

    None if all words are written so, nor those that the language may write so for politeness.
    """
    text = ends(text)
    within = [
        word[0]
        for word in WORD.finditer(text)
        if len(word[0]) > 1 and _WITHIN.search(text[max(0, word.start() - 3) : word.start()])
    ]
    names = [word for word in within if word[0].isupper()]
    if len(names) == len(within) > 1:
        return frozenset()
    return frozenset(map(_lower, names)).difference(language.search.polite.split())


def language_of(text: str) -> Language | None:
    """The one that ``text`` has most stop words of; None if it has none."""
    return next(iter(languages_of(text)), None)


def languages_of(text: str) -> list[Language]:
    """Those that ``text`` has most stop words of, by rank: of few words they may be several."""
    _, counts = _read_words(text)
    most = max(counts)
    return [one for one, count in zip(languages(), counts, strict=True) if count == most > 0]


def language_name(text: str) -> str:
    """The name of :func:`language_of`; empty if it cannot be told."""
    language = language_of(text)
    return language.name if language else ""


def is_foreign(text: str) -> bool:
    """Whether ``text`` is of a language of which nothing is known, as far as it can be told."""
    words, counts = _read_words(text)
    return _KNOWN * max(counts) < len(words)


def _lower(text: str) -> str:
    """In small letters, of which none is two: “İ” would be an “i” and a dot that parts the word."""
    return text.replace("İ", "i").lower()


def _read_words(text: str) -> tuple[list[str], list[int]]:
    """All words, and how many of them are stop words of each language."""
    words = [part for word in WORD.findall(_lower(ends(text))) for part in _runs().findall(word)]
    counts = [0] * len(languages())
    of_languages = _languages_of_stop_words()
    for word in words:
        for number in of_languages.get(word, ()):
            counts[number] += 1
    for number, endings in _endings_of_names():
        for ending in endings.findall(_lower(ends(text))):
            counts[number] += 1
            for other in of_languages.get(ending, ()):
                counts[other] -= 1
    if not text.isascii():
        unspaced = [word for word in words if is_unspaced(word)]
        spaced = [word for word in words if not is_unspaced(word)]
        of_text = [number for number, letters in _letters() if any(map(letters.search, unspaced))]
        for number, letters in _letters():
            counts[number] += sum(bool(letters.search(word)) for word in spaced)
            counts[number] += len(unspaced) * (number in of_text[:1])
    return words, counts


def _pairs(run: str) -> list[str]:
    """``run`` without what it has for stop words, as overlapping pairs of letters, or threes."""
    parts = [part for part in _between().split(run) if part]
    size = 3 if _south_east().match(run) else 2
    return [part[n : n + size] for part in parts for n in range(max(1, len(part) - size + 1))]


def is_unspaced(word: str) -> bool:
    """Whether ``word`` is of a script in which words are to be looked for within others."""
    return _unspaced().match(word) is not None


@lru_cache(maxsize=10_000)
def forms(word: str) -> list[str]:
    """``word`` with its irregular forms and other spellings: “buy” finds “bought”."""
    spelled = (new for old, to in _spellings() if (new := old.sub(to, word)) != word)
    return _forms().get(word) or list(dict.fromkeys((word, *spelled)))


def like(word: str, of: str = "") -> list[str]:
    """Other words, of any language, that are used for what ``word`` means: “boss” for “manager”.

    ``of`` is the name of the language of the question that has it: what means something else in
    that one is left out, such as “make”, a husband in Swedish.
    """
    found, other = _like(), _false_friends(of)
    meant = (form for form in (*forms(word), word[:-1]) if form in found and form not in other)
    alike = found.get(next(meant, ""), [])
    return alike if other.isdisjoint(alike) else [each for each in alike if each not in other]


@cache
def words_for(meaning: str, name: str) -> tuple[str, ...]:
    """The words of the language of this ``name`` for this."""
    return tuple(_alike(meaning, name).words) if name else ()


@cache
def words_used_for(meaning: str, name: str) -> tuple[str, ...]:
    """:func:`words_for`, and those that are used for it."""
    return (*words_for(meaning, name), *_alike(meaning, name).others) if name else ()


def kinds_of(word: str) -> frozenset[str]:
    """Words, of any language, for what is a ``word``: “greyhound” for “dog”."""
    return next((_kinds()[form] for form in (*forms(word), word[:-1]) if form in _kinds()), _NONE)


def words_alike(snowball: str) -> dict[str, list[str]]:
    """The words for which others are found, of the language that has this stemmer, and those."""
    own = {
        word
        for language in languages()
        if language.search.snowball == snowball
        for words in language.search.like.values()
        for word in Alike.of(words).words
    }
    return {word: _like()[word] for word in own}


def is_stop_word(word: str, of: str = "") -> bool:
    """Whether ``word`` says nothing about what is looked for, in any language, or in this one.

    “Ben” is “I” in Turkish.
    """
    return any(
        word.lower() in stop
        for language, stop in zip(languages(), _stop_words(), strict=True)
        if of in ("", language.name)
    )


def is_named(word: str, of: str = "") -> bool:
    """Whether a text that tells what ``word`` asks for would say it: no text calls red a colour.

    ``of``: see :func:`like`. “Race” is a breed in French, and something else in English.
    """
    return word not in _unsaid() or (word in _differing(of) and word not in _own_unsaid(of))


def is_measure(word: str, of: str = "") -> bool:
    """Whether ``word`` says what a number is of, which may stand alone: “years”, “cost”."""
    return word in _measures() and word not in _differing(of)


@cache  # and not while starting: they take some milliseconds
def _runs() -> re.Pattern[str]:
    """What is spaced and what is not, in one word after another."""
    return re.compile(rf"[{UNSPACED}]+|[^{UNSPACED}]+")


@cache
def _unspaced() -> re.Pattern[str]:
    return re.compile(f"[{UNSPACED}]")


@cache
def _south_east() -> re.Pattern[str]:
    return re.compile(f"[{SOUTH_EAST}]")


@cache
def _stop_words() -> tuple[frozenset[str], ...]:
    """Of each language the words that say nothing about what is looked for."""
    return tuple(frozenset(WORD.findall(language.search.stop)) for language in languages())


@cache
def _languages_of_stop_words() -> dict[str, tuple[int, ...]]:
    """Of which languages each stop word is: their numbers."""
    found: dict[str, tuple[int, ...]] = {}
    for number, stop in enumerate(_stop_words()):
        for word in stop - _ELIDED:
            found[word] = (*found.get(word, ()), number)
    return found


@cache
def _endings_of_names() -> tuple[tuple[int, re.Pattern[str]], ...]:
    """What stands behind a name and an apostrophe in one language, with its number."""
    return tuple(
        (number, re.compile(rf"(?<=\w\w['’])(?:{'|'.join(language.search.endings.split())})(?!\w)"))
        for number, language in enumerate(languages())
        if language.search.endings
    )


@cache
def _letters() -> tuple[tuple[int, re.Pattern[str]], ...]:
    """The letters that only one language has, with its number."""
    return tuple(
        (number, re.compile(f"[{language.search.letters}]"))
        for number, language in enumerate(languages())
        if language.search.letters
    )


@cache
def _between() -> re.Pattern[str]:
    """What stop words are where words are not spaced."""
    return re.compile(any_of(lambda language: language.search.unspaced_stop))


@cache
def _forms() -> dict[str, list[str]]:
    """Each word that a stemmer does not bring together with its forms, and these."""
    groups = (
        group.split()
        for language in languages()
        for group in re.split(r"[|\n]", language.search.forms)
    )
    return {form: group for group in groups for form in group}


@cache
def _spellings() -> tuple[tuple[re.Pattern[str], str], ...]:
    return tuple(
        (re.compile(pattern), to)
        for language in languages()
        for pattern, to in language.search.spellings
    )


def _own_words(language: Language, meaning: str) -> list[str]:
    return Alike.of(language.search.like.get(meaning, "")).words


@cache
def _unsaid() -> frozenset[str]:
    listed = (word for language in languages() for word in language.search.unsaid.split())
    return _pieces(listed) | _measures()


@cache
def _own_unsaid(name: str) -> frozenset[str]:
    named = (language for language in languages() if language.name == name)
    return frozenset(word for language in named for word in language.search.unsaid.split())


@cache
def _measures() -> frozenset[str]:
    """What stands for how old or dear something is, and how long: the number alone tells it."""
    return _pieces(
        word
        for language in languages()
        for words in (
            *(_own_words(language, meaning) for meaning in _NUMBERS),
            language.dates.units if language.dates and language.dates.spaced else (),
        )
        for word in words
    )


def _pieces(words: Iterable[str]) -> frozenset[str]:
    """The ``words``, in a script without spaces as a search has them."""
    return frozenset(
        piece for word in words for piece in (_pairs(word) if is_unspaced(word) else (word,))
    )


def _with_values(language: Language, words: str) -> str:
    """``words`` with each value of a kind of fact for its name: the jobs for “{job}”."""
    values = language.facts.values if language.facts else {}
    return _SORT.sub(lambda found: " ".join(words_in(values.get(found[1], ""))), words)


@cache
def _meanings() -> dict[str, list[Alike]]:
    """What is in ``[search.like]`` under each name, of one language after the other, and people."""
    found: dict[str, list[Alike]] = {}
    for language in languages():
        for meaning, words in language.search.like.items():
            found.setdefault(meaning, []).append(Alike.of(_with_values(language, words)))
    for relation, people in _words_for_people().items():
        narrower = (word for other in WIDE.get(relation, ()) for word in _words_for_people()[other])
        found.setdefault(relation, []).append(Alike(people, list(narrower), []))
    return found


@cache
def _words_for_people() -> dict[str, list[str]]:
    """What each relation of ``[facts.people]`` is called in all languages, but for stop words."""
    found: dict[str, list[str]] = {}
    for language in languages():
        for relation, pattern in language.facts.people.items() if language.facts else ():
            words = (word for word in words_in(pattern) if not is_stop_word(word))
            found.setdefault(relation, []).extend(words)
    return found


def _alike(meaning: str, name: str) -> Alike:
    return Alike.of(language_called(name).search.like.get(meaning, ""))


@cache
def _like() -> dict[str, list[str]]:
    """Each word that has a meaning in ``[search.like]``, with all words to be found for it."""
    found: dict[str, list[str]] = {}
    for listed in _meanings().values():
        words = [word for one in listed for word in one.words]
        others = [word for one in listed for word in (*one.others, *one.kinds)]
        for word in words:
            found.setdefault(word, []).extend([*words, *others])
    return {word: list(dict.fromkeys(alike)) for word, alike in found.items()}


@cache
def _differing(name: str) -> frozenset[str]:
    named = (language for language in languages() if language.name == name)
    return frozenset(word for language in named for word in language.search.differs.split())


@cache
def _false_friends(name: str) -> frozenset[str]:
    """The words that mean something else in this language than in another that lists them."""
    for language, stop_words in zip(languages(), _stop_words(), strict=True):
        if language.name == name:
            own = {
                word
                for listed in language.search.like.values()
                for words in Alike.of(_with_values(language, listed))
                for word in words
            }
            return stop_words.union(language.search.differs.split(), _found_as_stop_words()) - own
    return _found_as_stop_words()


@cache
def _found_as_stop_words() -> frozenset[str]:
    """Words with accents that the index, which has none, takes for “is” and the like: “iş”."""
    alike = {word for words in _like().values() for word in words}
    return frozenset(word for word in alike if fold(word) != word and is_stop_word(fold(word)))


@cache
def _kinds() -> dict[str, frozenset[str]]:
    """Each word that has a meaning in ``[search.like]``, with all words for a kind of it."""
    found: dict[str, frozenset[str]] = {}
    for listed in _meanings().values():
        if kinds := frozenset(word for one in listed for word in one.kinds):
            found |= {word: kinds for one in listed for word in one.words}
    return found
