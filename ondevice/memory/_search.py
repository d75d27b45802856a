"""Finds cubes by words, neighbourhood, speaker and day.

Lexical throughout: BM25 over porter stems, where a word counts in the cube that has it and,
less, in the cubes around it, since an answer seldom repeats its question. An encoder
(all-MiniLM-L6-v2, 8 bits) adds two points of recall to this for 90 MB of RAM; that is why there
is none. docs/memory.md has the figures.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ondevice.memory import _cubes
from ondevice.memory._dates import TIME_EXPRESSION, Days
from ondevice.memory._query import Query, forms, read_query
from ondevice.memory._records import POSITION_BITS, Found, Hit, Kind, Status
from ondevice.store import Connection, Row

_K1 = 1.2  # BM25's usual value
#: Weight of a word in a cube that is so many places after the one that has it. Half as much
#: before it: an answer follows its question.
_NEIGHBOURS = {n: 1 / (1 + n) for n in (1, 2, 3)} | {-n: 0.5 / (1 + n) for n in (1, 2, 3)}
_SPEAKER = 2.0  # factor for a cube of the one speaker whom the question names
_DAY = 1.0  # added to a factor of 1 for a day in the period asked for; twice for the very day
_WHEN = 1.3  # factor for a cube with a time expression, when the question asks for a time
_QUESTION = 0.75  # factor for a cube that asks something itself
_SUPERSEDED = 0.5  # factor for a cube that is no longer so
_BY_DAY = 0.01  # score of a cube that has no word of the question, but is of the day it asks for
_POSTINGS = 20_000  # how many are read, rarest words first: bounds the time of a search
_CANDIDATES = 600  # cubes whose rows are looked at
_SESSION_CUBES = 5  # best cubes that make the score of their source, the r-th one by 1/r

_Term = tuple[str, ...]  # stems that count as one word
_Ids = NDArray[np.int64]
_Scores = NDArray[np.float64]


def search(
    connection: Connection,
    text: str,
    *,
    today: date,
    limit: int = 10,
    kinds: Collection[Kind] = (),
    statuses: Collection[Status] = ("active", "superseded"),
    without_source: int | None = None,
) -> Found:
    """The cubes that answer ``text`` best; the same store and text give the same answer.

    Empty ``kinds`` are all kinds; ``without_source`` is the id of a source to leave out.
    """
    query = read_query(text, today)
    speakers = [word for word in query.words if _is_speaker(connection, word)]
    matches = _match(
        connection,
        [word for word in query.words if word not in speakers],
        optional=query.names_of_days,
    )
    scored = [
        candidate
        for row, candidate in _weigh(
            connection, matches, query, speaker=speakers[0] if len(speakers) == 1 else None
        )
        if row["status"] in statuses
        and (not kinds or row["kind"] in kinds)
        and row["source_id"] != without_source
    ]
    ranked = sorted(scored, key=lambda c: (-c.score, c.id))
    cubes = _cubes.get_many(connection, [c.id for c in ranked[:limit]])
    return Found(
        hits=tuple(
            Hit(cube=cube, score=c.score) for cube, c in zip(cubes, ranked[:limit], strict=True)
        ),
        sources=_rank_sources(ranked),
        confidence=_confidence(scored),
    )


@dataclass(frozen=True)
class _Matches:
    ids: _Ids  # (n,) places that have a word, or are near one that has; some hold no cube
    scores: _Scores  # (n,) BM25 with neighbours
    coverage: _Scores  # (n,) 0 … 1: share of the question, by weight, that is in the cube itself


@dataclass(frozen=True)
class _Candidate:
    id: int
    score: float
    plain: float  # without the factor for the speaker
    coverage: float
    by_speaker: bool  # always true when the question names none


def _is_speaker(connection: Connection, word: str) -> bool:
    row = connection.execute(
        "SELECT 1 FROM cube WHERE speaker <> '' AND speaker = ? COLLATE NOCASE LIMIT 1", (word,)
    )
    return row.fetchone() is not None


def _match(connection: Connection, words: list[str], optional: Collection[str]) -> _Matches:
    """BM25 (Robertson and Zaragoza 2009, section 3.4) with one binary field per cube.

    Words that are ``optional`` count for coverage only in a cube that has them.
    """
    connection.execute(
        "CREATE VIRTUAL TABLE IF NOT EXISTS temp.memory_posting "
        "USING fts5vocab('main', 'memory_index', 'instance')"
    )
    connection.execute(
        "CREATE VIRTUAL TABLE IF NOT EXISTS temp.memory_term "
        "USING fts5vocab('main', 'memory_index', 'row')"
    )
    (count,) = connection.execute("SELECT count(*) FROM cube").fetchone()
    terms = {_stems(connection, forms(word)): word in optional for word in words}
    frequency = {term: _frequency(connection, term) for term in terms}
    weights = {
        term: math.log1p((max(count - n, 0) + 0.5) / (n + 0.5)) for term, n in frequency.items()
    }
    postings: dict[_Term, _Ids] = {}
    left = _POSTINGS
    for term in sorted(terms, key=lambda term: (frequency[term], term)):
        if frequency[term] and (not postings or frequency[term] <= left):
            postings[term] = _places(connection, term)
            left -= frequency[term]
    if not postings:
        return _Matches(np.empty(0, np.int64), np.empty(0), np.empty(0))
    ids = np.unique(np.concatenate([at + n for at in postings.values() for n in (0, *_NEIGHBOURS)]))
    scores, said = np.zeros(len(ids)), np.zeros(len(ids))
    asked = np.full(len(ids), math.fsum(weights[t] for t in terms if not terms[t]))
    for term, at in postings.items():
        frequencies = np.zeros(len(ids))
        for n, weight in ((0, 1.0), *_NEIGHBOURS.items()):
            frequencies[np.searchsorted(ids, at + n)] += weight
        scores += weights[term] * frequencies * (_K1 + 1) / (frequencies + _K1)
        said[np.searchsorted(ids, at)] += weights[term]
        if terms[term]:
            asked[np.searchsorted(ids, at)] += weights[term]
    return _Matches(ids, scores, np.divide(said, asked, out=said, where=asked > 0))


def _stems(connection: Connection, words: Iterable[str]) -> _Term:
    """What the index makes of ``words``, found out by its own tokenizer."""
    connection.execute(
        "CREATE VIRTUAL TABLE IF NOT EXISTS temp.memory_words "
        "USING fts5(content, tokenize='porter unicode61 remove_diacritics 2')"
    )
    connection.execute(
        "CREATE VIRTUAL TABLE IF NOT EXISTS temp.memory_stem "
        "USING fts5vocab('temp', 'memory_words', 'row')"
    )
    connection.execute("DELETE FROM temp.memory_words")
    connection.execute("INSERT INTO temp.memory_words VALUES (?)", (" ".join(words),))
    return tuple(row[0] for row in connection.execute("SELECT term FROM temp.memory_stem"))


def _frequency(connection: Connection, term: _Term) -> int:
    """In how many cubes the term is; one with two forms of it counts twice."""
    counts = (
        connection.execute("SELECT doc FROM temp.memory_term WHERE term = ?", (stem,)).fetchone()
        for stem in term
    )
    return sum(row[0] for row in counts if row is not None)


def _places(connection: Connection, term: _Term) -> _Ids:
    """The ids of the cubes with a form of the term, in order, each once."""
    found = (
        connection.execute("SELECT doc FROM temp.memory_posting WHERE term = ?", (stem,))
        for stem in term
    )
    return np.unique(np.fromiter((row[0] for rows in found for row in rows), np.int64))


def _weigh(
    connection: Connection,
    matches: _Matches,
    query: Query,
    *,
    speaker: str | None,
) -> Iterator[tuple[Row, _Candidate]]:
    """The best matches as they stand once speaker, day, status and form are looked at."""
    best = np.lexsort((matches.ids, -matches.scores))[:_CANDIDATES]
    scores = {int(matches.ids[n]): float(matches.scores[n]) for n in best}
    coverage = {int(matches.ids[n]): float(matches.coverage[n]) for n in best}
    for cube_id in _of_days(connection, query.days):
        scores.setdefault(cube_id, _BY_DAY)
    for row in _cubes.rows(connection, scores):
        factor = _factor(row, query)
        by_speaker = speaker is None or row["speaker"].lower() == speaker
        plain = scores[row["id"]] * factor
        yield (
            row,
            _Candidate(
                id=row["id"],
                score=plain * (_SPEAKER if speaker and by_speaker else 1.0),
                plain=plain,
                coverage=coverage.get(row["id"], 0.0) * min(factor, 1.0),
                by_speaker=by_speaker,
            ),
        )


def _of_days(connection: Connection, days: Days) -> list[int]:
    """Cubes of the days asked for, for a question such as “What did I do last Friday?”"""
    if days.period is None:
        return []
    first, last = days.period
    found = connection.execute(
        "SELECT id FROM cube WHERE event_at >= ? AND event_at < ? ORDER BY event_at LIMIT ?",
        (first.isoformat(), (last + timedelta(days=1)).isoformat(), _CANDIDATES),
    )
    return [row[0] for row in found]


def _factor(row: Row, query: Query) -> float:
    content = cast(str, row["content"])
    factor = 1.0
    if query.days:
        factor += _DAY * query.days.match(date.fromisoformat(row["event_at"][:10]))
    if query.asks_when and TIME_EXPRESSION.search(content):
        factor *= _WHEN
    if content.rstrip().endswith("?"):
        factor *= _QUESTION
    if row["status"] == "superseded":
        factor *= _SUPERSEDED
    return factor


def _rank_sources(ranked: list[_Candidate]) -> tuple[int, ...]:
    scores: dict[int, list[float]] = defaultdict(list)
    for candidate in ranked:
        scores[candidate.id >> POSITION_BITS].append(candidate.score)
    total = {
        source: sum(s / rank for rank, s in enumerate(best[:_SESSION_CUBES], start=1))
        for source, best in scores.items()
    }
    return tuple(sorted(total, key=lambda source: (-total[source], source)))


def _confidence(candidates: list[_Candidate]) -> float:
    coverage = max((c.coverage for c in candidates if c.by_speaker), default=0.0)
    said = max((c.plain for c in candidates if c.by_speaker), default=0.0)
    others = max((c.plain for c in candidates if not c.by_speaker), default=0.0)
    return coverage * said / (said + others) if said else 0.0
