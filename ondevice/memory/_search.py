"""Finds cubes by words, neighbourhood, speaker and day.

Lexical throughout. An encoder (all-MiniLM-L6-v2, 8 bits) adds two points of recall to this for
90 MB of RAM; that is why there is none. docs/memory.md has the figures.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ondevice.memory import _cubes
from ondevice.memory._dates import TIME_EXPRESSION, Days
from ondevice.memory._match import Matches, match, places
from ondevice.memory._query import Query, anchor, read_query
from ondevice.memory._records import POSITION_BITS, Found, Hit, Kind, Status
from ondevice.store import Connection, Row

_SPEAKER = 2.0  # factor for a cube of the one speaker whom the question names
_DAY = 1.0  # added to a factor of 1 for a day in the period asked for; twice for the very day
_WHEN = 1.3  # factor for a cube with a time expression, when the question asks for a time
_QUESTION = 0.75  # factor for a cube that asks something itself
_SUPERSEDED = 0.5  # factor for a cube that is no longer so; its inverse if that is asked for
_BY_DAY = 0.01  # score of a cube that has no word of the question, but is of the day it asks for
_FAR = date.max - timedelta(days=1)  # in the future
_TOLD = 0.5  # confidence with which an event counts as remembered
_CANDIDATES = 600  # cubes whose rows are looked at
_SESSION_CUBES = 5  # best cubes that count for their source, the r-th one by 1/r
_MENTION = 0.5  # added to the score of a source in which a speaker whom the question names is named


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
    query = _anchored(connection, text, today, without_source) or read_query(text, today)
    speakers = [word for word in query.words if _is_speaker(connection, word)]
    words = [word for word in query.words if word not in speakers]
    if not words:  # nothing is asked but a name
        words, speakers = list(query.words), []
    matches = match(connection, words, optional=query.names_of_days)
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
        sources=_rank_sources(
            ranked, matches.weights, _sources_naming(connection, speakers, without_source)
        ),
        confidence=_confidence(scored),
    )


@dataclass(frozen=True)
class _Candidate:
    id: int
    score: float
    plain: float  # without the factor for the speaker
    coverage: float
    has: NDArray[np.bool_]  # (words,)
    by_speaker: bool  # always true when the question names none


def _anchored(
    connection: Connection, text: str, today: date, without_source: int | None
) -> Query | None:
    """A question about the days before or after an event that is remembered; None: it is not."""
    if (parts := anchor(text)) is None:
        return None
    asked, when, event = parts
    told = search(connection, event, today=today, limit=1, without_source=without_source)
    if told.confidence < _TOLD:
        return None
    day = told.hits[0].cube.event_at.date()
    before = when == "before"
    span = (date.min, day - timedelta(days=1)) if before else (day, _FAR)
    return replace(read_query(asked, today), days=Days(span=span), asks_once=before)


def _is_speaker(connection: Connection, word: str) -> bool:
    row = connection.execute(
        "SELECT 1 FROM cube WHERE speaker <> '' AND speaker = ? COLLATE NOCASE LIMIT 1", (word,)
    )
    return row.fetchone() is not None


def _weigh(
    connection: Connection,
    matches: Matches,
    query: Query,
    *,
    speaker: str | None,
) -> Iterator[tuple[Row, _Candidate]]:
    """The best matches as they stand once speaker, day, status and form are looked at."""
    best = np.lexsort((matches.ids, -matches.scores))[:_CANDIDATES]
    scores = {int(matches.ids[n]): float(matches.scores[n]) for n in best}
    found = {int(matches.ids[n]): n for n in best}
    for cube_id in _of_days(connection, query.days):
        scores.setdefault(cube_id, _BY_DAY)
    for row in _cubes.rows(connection, scores):
        factor = _factor(row, query)
        by_speaker = speaker is None or row["speaker"].lower() == speaker
        plain = scores[row["id"]] * factor
        n = found.get(row["id"])
        yield (
            row,
            _Candidate(
                id=row["id"],
                score=plain * (_SPEAKER if speaker and by_speaker else 1.0),
                plain=plain,
                coverage=0.0 if n is None else float(matches.coverage[n]) * min(factor, 1.0),
                has=np.zeros(len(matches.weights), np.bool_) if n is None else matches.has[n],
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
        factor *= 1 / _SUPERSEDED if query.asks_once else _SUPERSEDED
    return factor


def _sources_naming(
    connection: Connection, names: list[str], without_source: int | None
) -> set[int]:
    """The sources in which one of these names is said."""
    found = (np.unique(places(connection, name) >> POSITION_BITS) for name in names)
    return {int(source) for sources in found for source in sources} - {without_source}


def _rank_sources(
    ranked: list[_Candidate], weights: NDArray[np.float64], naming: set[int]
) -> tuple[int, ...]:
    """Sources by their best cubes, and by how much of the question is said anywhere in them.

    The second finds sessions in which no single turn stands out. Of a question that names a
    speaker, only what that speaker says counts.
    """
    best: dict[int, list[float]] = defaultdict(list)
    has: dict[int, NDArray[np.bool_]] = {}
    for candidate in ranked:
        source = candidate.id >> POSITION_BITS
        best[source].append(candidate.score)
        if candidate.by_speaker:
            has[source] = has[source] | candidate.has if source in has else candidate.has
    total = {source: _MENTION * (source in naming) for source in naming.union(best)}
    for source, scores in best.items():
        total[source] += sum(s / rank for rank, s in enumerate(scores[:_SESSION_CUBES], start=1))
    for source, words in has.items():
        total[source] += float(weights @ words)
    return tuple(sorted(total, key=lambda source: (-total[source], source)))


def _confidence(candidates: list[_Candidate]) -> float:
    coverage = max((c.coverage for c in candidates if c.by_speaker), default=0.0)
    said = max((c.plain for c in candidates if c.by_speaker), default=0.0)
    others = max((c.plain for c in candidates if not c.by_speaker), default=0.0)
    return coverage * said / (said + others) if said else 0.0
