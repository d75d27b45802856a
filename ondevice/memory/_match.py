"""Looks up in the index which cubes have which words of a question, and scores them by BM25.

A word counts in the cube that has it and, less, in the cubes around it, since an answer seldom
repeats its question.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ondevice.memory._spelling import misspelt
from ondevice.memory._stems import Stem, beginnings, like_stem, stemmer_of, stems_of
from ondevice.memory._values import fold
from ondevice.memory._words import forms, is_named, is_stop_word, is_unspaced, like, words_of
from ondevice.store import TOKENIZER, VOWEL_SIGNS, Connection

_K1 = 1.2  # BM25's usual value
#: Weight of a word in a cube that is so many places after the one that has it. Half as much
#: before it: an answer follows its question.
_NEIGHBOURS = {n: 1 / (1 + n) for n in (1, 2, 3)} | {-n: 0.5 / (1 + n) for n in (1, 2, 3)}
_POSTINGS = 12_000  # how many are read, rarest words first: bounds the time of a search
_FEW = 100  # cubes that there are as if at least, or in a new store every word would be frequent
_LOOKED_AT = 2000  # terms of the index that begin like a word
_PART = 4  # letters of a part of a word
_SCANNED = 20_000  # cubes: all terms of their index are read in 40 ms
_MISSPELT = 3  # words of a question that are looked for as others: 2 ms each
_RARE = 200  # cubes that a word is in at most which ties them together

#: What a word counts that is used for the one in the question, such as “boss” for “manager”: little
#: among others, and half when it is to be told whether anything answers.
_LIKE, _LIKE_SAID = 0.2, 0.5

_TRIGRAM = 3  # letters
_WITHOUT_SIGNS = dict.fromkeys(map(ord, VOWEL_SIGNS))  # which are no letters to str.isalpha

_Term = tuple[str, ...]  # stems that count as one word
_Ids = NDArray[np.int64]
_Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Matches:
    ids: _Ids  # (n,) places that have a word, or are near one that has; some hold no cube
    scores: _Scores  # (n,) BM25 with neighbours
    #: (n,) 0 … 1: share of the question, by weight, that is in the cube itself; less for a word
    #: that is only like the one in the question
    coverage: _Scores
    has: NDArray[np.bool_]  # (n, words) which words of the question are in the cube itself
    like: NDArray[np.bool_]  # (n, words) the same, or words that are used for them
    words: tuple[tuple[str, ...], ...]  # those that each column stands for
    #: (n,) whether the cube has a word of what is asked about, or one like it: of “What is my mum
    #: called?” not “called” alone
    about: NDArray[np.bool_]
    weights: _Scores  # (words,)
    missing: tuple[str, ...]  # words of the question that no cube has, nor anything like them


def match(
    connection: Connection,
    words: Sequence[str],
    optional: Collection[str],
    stem: Stem | None,
    of: str = "",
) -> Matches:
    """BM25 (Robertson and Zaragoza 2009, section 3.4) with one binary field per cube.

    Words that are ``optional`` count for coverage only in a cube that has them. What has the same
    ``stem`` is one word. ``of`` is the name of the language of the words, if it is known.
    """
    (count,) = connection.execute("SELECT number FROM cube_count").fetchone()
    found = _terms(connection, words, stem)
    terms = {term: word in optional for term, word in zip(found, words, strict=True)}
    frequency = {term: _frequency(connection, term) for term in terms}
    weights = {term: _weight(count, n) for term, n in frequency.items()}
    postings: dict[_Term, _Ids] = {}
    left = _POSTINGS
    for term in sorted(terms, key=lambda term: (frequency[term], term)):
        if frequency[term] and (not postings or frequency[term] <= left):
            postings[term] = _places(connection, term)
            left -= frequency[term]
    alike = _alike(connection, dict(zip(found, words, strict=True)), stem, left, count, of)
    for term in alike:
        postings.setdefault(term, np.empty(0, np.int64))
    missing = tuple(
        word
        for term, word in zip(found, words, strict=True)
        if not (frequency[term] or term in alike or word in optional) and is_named(word, of)
    )
    if not postings:
        none, no_ids, no_words = np.empty(0), np.empty(0, np.int64), np.empty((0, 0), np.bool_)
        return Matches(no_ids, none, none, no_words, no_words, (), np.empty(0, np.bool_), none, ())
    every = [*postings.values(), *alike.values()]
    ids = _each_once([at + n for at in every for n in (0, *_NEIGHBOURS)])
    scores = np.zeros(len(ids))
    has = np.zeros((len(ids), len(postings)), np.bool_)
    like = has.copy()
    said = np.zeros(len(ids))
    naming = {term for term, word in zip(found, words, strict=True) if not is_named(word, of)}
    naming = set() if naming.issuperset(terms) else naming
    about = np.zeros(len(ids), np.bool_)
    asked = np.full(len(ids), math.fsum(weights[t] for t in terms if not terms[t]))
    for n_term, (term, at) in enumerate(postings.items()):
        frequencies = np.zeros(len(ids))
        part = np.zeros(len(ids))  # of the word, that the cube itself has
        for places_of, worth, share in ((alike.get(term), _LIKE, _LIKE_SAID), (at, 1.0, 1.0)):
            if places_of is None:
                continue
            part[np.searchsorted(ids, places_of)] = share
            for n, weight in ((0, 1.0), *_NEIGHBOURS.items()):
                frequencies[np.searchsorted(ids, places_of + n)] += worth * weight
        scores += weights[term] * frequencies * (_K1 + 1) / (frequencies + _K1)
        has[np.searchsorted(ids, at), n_term] = True
        like[:, n_term] = part > 0
        said += weights[term] * part
        about |= (part > 0) & (term not in naming)
        if terms[term]:
            asked[part > 0] += weights[term]
    of_terms = np.array([weights[term] for term in postings])
    coverage = np.divide(said, asked, out=said, where=asked > 0)
    columns = tuple(
        tuple(word for other, word in zip(found, words, strict=True) if other == term)
        for term in postings
    )
    return Matches(ids, scores, coverage, has, like, columns, about, of_terms, missing)


def _alike(
    connection: Connection,
    words: dict[_Term, str],
    stem: Stem | None,
    most: int,
    count: int,
    of: str,
) -> dict[_Term, _Ids]:
    """For terms whose words have others that are used for them: where those are."""
    found: dict[_Term, _Ids] = {}
    asked = {term: like_stem(stem, word, of) for term, word in words.items()}
    parts: dict[str, list[str]] = {}
    if stem and stem.compounds:
        unknown = (w for t, w in words.items() if not (is_unspaced(w) or _frequency(connection, t)))
        parts = _compounds(connection, unknown, count)
    strange = (t for t, w in words.items() if not (parts.get(w) or is_unspaced(w)))
    parts |= _meant(connection, [words[t] for t in strange if not _frequency(connection, t)])
    asked = {term: others for term, others in asked.items() if others or parts.get(words[term])}
    spaced = [[other for other in others if not is_unspaced(other)] for others in asked.values()]
    for (term, others), stems in zip(asked.items(), _stems(connection, spaced), strict=True):
        new = [tuple(stem for stem in (*stems, *parts.get(words[term], ())) if stem not in term)]
        new += [(other[:_TRIGRAM],) for other in others if is_unspaced(other) and other not in term]
        frequency = sum(_frequency(connection, alike) for alike in new if alike)
        if 0 < frequency <= most:
            found[term] = _each_once([_places(connection, alike) for alike in new if alike])
            most -= frequency
    return found


def _parts(word: str) -> list[tuple[str, str]]:
    """Words that it may be made of: “Rad” and “Schloss”."""
    return [
        (word[:at].removesuffix(joint), word[at:])
        for at in range(_PART, len(word) - _PART + 1)
        for joint in ("", "s", "n")
        if word[:at].endswith(joint)
    ]


def _compounds(connection: Connection, words: Iterable[str], count: int) -> dict[str, list[str]]:
    """For each word terms of the index that it is made of, or is a part of.

    Those of which it is a part are looked for among all, so only in an index of few cubes.
    """
    whole = {word: folded for word in words if (folded := fold(word)).isalpha()}
    whole = {word: folded for word, folded in whole.items() if len(folded) >= _PART}
    if not whole:
        return {}
    _open_vocabulary(connection)
    halves = {half for word in whole.values() for pair in _parts(word) for half in pair}
    known = {
        term
        for (term,) in connection.execute(
            "SELECT term FROM json_each(?) CROSS JOIN temp.memory_term ON term = value",
            (json.dumps(sorted(halves)),),
        )
    }
    longer: list[str] = []
    if count <= _SCANNED:
        patterns = [pattern for word in whole.values() for pattern in (f"%{word}", f"{word}_%")]
        longer = [
            term
            for (term,) in connection.execute(
                "SELECT term FROM temp.memory_term WHERE "
                + " OR ".join(["term LIKE ?"] * len(patterns)),
                patterns,
            )
        ]
    return {
        word: [
            *(half for pair in _parts(folded) if known.issuperset(pair) for half in pair),
            *[term for term in longer if term.endswith(folded) or term.startswith(folded)][:_FEW],
        ]
        for word, folded in whole.items()
    }


def _meant(connection: Connection, words: Iterable[str]) -> dict[str, list[str]]:
    """For each misspelt word the terms of the index for what was meant, or for others like that."""
    found = {}
    for word in islice(words, _MISSPELT):
        if slips := misspelt(fold(word)):
            others = (other for slip in slips for other in like(slip) if not is_unspaced(other))
            (terms,) = _stems(connection, [[*slips, *others]])
            known = connection.execute(
                "SELECT term FROM json_each(?) CROSS JOIN temp.memory_term ON term = value",
                (json.dumps(terms),),
            )
            found[word] = [term for (term,) in known][:_FEW]
    return found


def _weight(count: int, frequency: int) -> float:
    """Of a word that is in so many of ``count`` cubes: inverse document frequency."""
    count = max(count, _FEW)
    return math.log1p((max(count - frequency, 0) + 0.5) / (frequency + 0.5))


def places(connection: Connection, word: str) -> _Ids:
    """The ids of the cubes with ``word``, in order; none when it is in too many."""
    (term,) = _terms(connection, [word])
    few = _frequency(connection, term) <= _POSTINGS
    return _places(connection, term) if few else np.empty(0, np.int64)


def rare_words(connection: Connection, words: Sequence[str]) -> list[tuple[str, float, list[int]]]:
    """Each of ``words`` with its weight and the ids of the cubes that have it, if they are few."""
    (count,) = connection.execute("SELECT number FROM cube_count").fetchone()
    found = []
    for word, term in zip(words, _terms(connection, words), strict=True):
        frequency = _frequency(connection, term)
        at = _places(connection, term).tolist() if frequency <= _RARE else []
        found.append((word, _weight(count, frequency), at))
    return found


def shared_words(connection: Connection, text: str, content: str) -> tuple[str, ...]:
    """The words of ``text`` that ``content`` says, in any form that a search finds."""
    words, stem = words_of(text), stemmer_of(text)
    said, *asked = _stems(connection, [[content], *map(forms, words)])
    has = set(said).union(map(stem, said) if stem else ())
    return tuple(
        word
        for word, term in zip(words, asked, strict=True)
        if not has.isdisjoint(stems_of(stem, word, term) if stem else term)
        or (is_unspaced(word) and word in content)
    )


def _terms(connection: Connection, words: Sequence[str], stem: Stem | None = None) -> list[_Term]:
    """What to look up in the index for each word; one without spaces stands for itself."""
    return [
        (word,) if is_unspaced(word) else _with_stem(connection, word, terms, stem)
        for word, terms in zip(words, _stems(connection, map(forms, words)), strict=True)
    ]


def _with_stem(connection: Connection, word: str, terms: _Term, stem: Stem | None) -> _Term:
    """``terms`` with all of the index that are forms of the same word."""
    if stem is None or not word.translate(_WITHOUT_SIGNS).isalpha():
        return terms
    _open_vocabulary(connection)
    stems = stems_of(stem, word, terms)
    found = {
        term
        for beginning in beginnings(stem, (*forms(word), *terms))
        for (term,) in connection.execute(
            "SELECT term FROM temp.memory_term WHERE term >= ? AND term < ? LIMIT ?",
            (beginning, beginning + "\U0010ffff", _LOOKED_AT),
        )
        if stem(term) in stems and not is_stop_word(term)  # “more” is no form of “moro”
    }
    return tuple(sorted(found.union(terms)))


def _stems(connection: Connection, groups: Iterable[Iterable[str]]) -> list[_Term]:
    """What the index makes of each group of words, found out by its own tokenizer."""
    connection.execute(
        "CREATE VIRTUAL TABLE IF NOT EXISTS temp.memory_words "
        f'USING fts5(content, tokenize="{TOKENIZER}")'
    )
    connection.execute(
        "CREATE VIRTUAL TABLE IF NOT EXISTS temp.memory_stem "
        "USING fts5vocab('temp', 'memory_words', 'instance')"
    )
    connection.execute("DELETE FROM temp.memory_words")
    stems: list[list[str]] = []
    for number, words in enumerate(groups):
        connection.execute(
            "INSERT INTO temp.memory_words(rowid, content) VALUES (?, ?)", (number, " ".join(words))
        )
        stems.append([])
    for term, number in connection.execute(
        "SELECT DISTINCT term, doc FROM temp.memory_stem ORDER BY term"
    ):
        stems[number].append(term)
    return [tuple(terms) for terms in stems]


def _open_vocabulary(connection: Connection) -> None:
    for name, index, kind in (
        ("memory_term", "memory_index", "row"),
        ("memory_posting", "memory_index", "instance"),
        ("memory_trigram_term", "memory_trigram", "row"),
        ("memory_trigram_posting", "memory_trigram", "instance"),
    ):
        connection.execute(
            f"CREATE VIRTUAL TABLE IF NOT EXISTS temp.{name} "
            f"USING fts5vocab('main', '{index}', '{kind}')"
        )


def _frequency(connection: Connection, term: _Term) -> int:
    """In how many cubes the term is; one with two forms of it counts twice."""
    _open_vocabulary(connection)
    if _is_unspaced_term(term):
        (count,) = connection.execute(
            "SELECT coalesce(sum(doc), 0) FROM temp.memory_trigram_term "
            "WHERE term >= ? AND term < ?",
            _trigrams(term),
        ).fetchone()
        return int(count)
    (count,) = connection.execute(
        "SELECT coalesce(sum(doc), 0) FROM json_each(?) "
        "CROSS JOIN temp.memory_term ON term = value",
        (json.dumps(term),),
    ).fetchone()
    return int(count) + len(_within(connection, term))


def _places(connection: Connection, term: _Term) -> _Ids:
    """The ids of the cubes with a form of the term, in order, each once."""
    _open_vocabulary(connection)
    # One text of numbers for all rows: three times as fast as a row for each.
    if _is_unspaced_term(term):
        found = connection.execute(
            "SELECT coalesce(group_concat(doc), '') FROM temp.memory_trigram_posting "
            "WHERE term >= ? AND term < ?",
            _trigrams(term),
        )
    else:
        found = connection.execute(
            "SELECT group_concat(doc) FROM json_each(?) "
            "CROSS JOIN temp.memory_posting ON term = value GROUP BY value",
            (json.dumps(term),),
        )
    listed = [np.fromstring(ids, np.int64, sep=",") for (ids,) in found if ids]
    within = () if _is_unspaced_term(term) else (_within(connection, term),)
    return _each_once([*listed, *within])


def _within(connection: Connection, term: _Term) -> _Ids:
    """The cubes that have a form of the term within letters that are not spaced: “和Kevin吃饭”.

    Those that have each three letters of it that follow one another.
    """
    found = []
    if connection.execute("SELECT 1 FROM temp.memory_trigram_term LIMIT 1").fetchone():
        for stem in term:
            parts = {stem[n : n + _TRIGRAM] for n in range(len(stem) - _TRIGRAM + 1)}
            (ids,) = connection.execute(
                "SELECT group_concat(doc) FROM (SELECT doc FROM json_each(?1) "
                "CROSS JOIN temp.memory_trigram_posting ON term = value "
                "GROUP BY doc HAVING count(*) = ?2)",
                (json.dumps(sorted(parts)), len(parts)),
            ).fetchone()
            found += [np.fromstring(ids, np.int64, sep=",")] if ids else []
    return _each_once(found)


def _is_unspaced_term(term: _Term) -> bool:
    return len(term) == 1 and is_unspaced(term[0])


def _trigrams(term: _Term) -> tuple[str, str]:
    """The first and the end of the trigrams that begin with a word of at most three letters."""
    return term[0], term[0] + "\U0010ffff"


def _each_once(ids: list[_Ids]) -> _Ids:
    """All ids in order, each once. They come sorted, which makes this faster than np.unique."""
    merged = np.concatenate([np.empty(0, np.int64), *ids])
    merged.sort(kind="stable")
    first = np.ones(len(merged), np.bool_)
    np.not_equal(merged[1:], merged[:-1], out=first[1:])
    return merged[first]
