"""Finds cubes by words, neighbourhood, speaker and day.

Lexical throughout. What an encoder would add, and for how much RAM, is in
docs/measurements/memory.md.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np
from numpy.typing import NDArray

from ondevice.memory import _cubes
from ondevice.memory._dates import Days, says_when
from ondevice.memory._match import Matches, match, places
from ondevice.memory._query import Query, anchor, read_query
from ondevice.memory._records import POSITION_BITS, Found, Hit, Kind, Status
from ondevice.memory._stems import like_stem, stemmer_of
from ondevice.memory._values import is_known_place
from ondevice.memory._words import WORD, is_measure, is_unspaced, language_name, title_of
from ondevice.store import Connection

_SPEAKER = 2.0  # factor for a cube of the one speaker whom the question names
_DAY = 1.0  # added to a factor of 1 for a day in the period asked for; twice for the very day
_WHEN = 1.3  # factor for a cube with a time expression, when the question asks for a time
_QUESTION = 0.75  # factor for a cube that asks something itself
_PRESENT = 0.05  # added to a factor of 1 for the newest of a series, in a question in the present
_NEWEST = 0.75  # of the score of the best of it, which the newest of them has at least
_SERIES = 0.9  # what says at least so much of the question as the best one is of a series with it
#: What was told after a series, and says at least so much of the best, is worth so much of it.
_LATER, _LATER_WORTH = 0.45, 0.3
_SUPERSEDED = 0.5  # factor for a cube that is no longer so; its inverse if that is asked for
_BY_DAY = 0.01  # score of a cube that has no word of the question, but is of the day it asks for
_FAR = date.max - timedelta(days=1)  # in the future
_TOLD = 0.5  # confidence with which an event counts as remembered
_TOLD_OF_PLACE = 0.3  # the same if it is at a place: who lives in Ghent has moved there
_LONGEST_PLACE = 6  # letters, where words are not spaced
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
    but: Collection[int] = (),
    rank_sources: bool = True,
    part_of: str = "",
    literally: bool = False,
) -> Found:
    """The cubes that answer ``text`` best; the same store and text give the same answer.

    Of equal ones the newest comes first, or the oldest if that is asked for. Empty ``kinds`` are
    all kinds; ``without_source`` is the id of a source to leave out, ``but`` these cubes of it.
    The language of a ``text`` of few words is told by the one that it is ``part_of``. For one that
    has only stop words, nothing is found unless it may be a title that is meant ``literally``.
    """
    anchored = _anchored(connection, text, today, without_source)
    query = anchored or read_query(text, today)
    if literally and not query.words and not query.days:
        query = replace(query, words=title_of(text))
    speakers = {word: names for word in query.words if (names := _speakers(connection, word))}
    words = [word for word in query.words if word not in speakers]
    if not words:  # nothing is asked but a name
        words, speakers = list(query.words), {}
    whole = part_of or text
    of, stem = language_name(whole), stemmer_of(whole)
    measures = (
        word
        for word in words
        if any(is_measure(each, of) for each in (word, *like_stem(stem, word, of)[:1]))
    )
    matches = match(connection, words, query.names_of_days.union(measures), stem, of)
    found = _weigh(
        connection,
        matches,
        query,
        speakers=_subject(query.words, speakers),
        wanted=lambda cube_id, kind, status: (
            status in statuses
            and (not kinds or kind in kinds)
            and (cube_id >> POSITION_BITS != without_source or cube_id in but)
        ),
    )
    best = [int(cube_id) for cube_id in found.ids[:limit]]
    lacking = (_lacks(matches, like, query.names_of_days) for like in found.like)
    return Found(
        hits=tuple(
            Hit(cube=cube, score=float(score), lacks=lacks)
            for cube, score, lacks in zip(
                _cubes.get_many(connection, best), found.scores, lacking, strict=False
            )
        ),
        sources=_rank_sources(
            found, matches.weights, _sources_naming(connection, list(speakers), without_source)
        )
        if rank_sources
        else (),
        confidence=_confidence(found),
        missing=matches.missing,
        is_about_it=bool(found.about.any()) or not best,
        asked=anchored.text if anchored else "",
    )


@dataclass(frozen=True)
class _Candidates:
    """Cubes that may answer, best first."""

    ids: NDArray[np.int64]  # (n,)
    scores: NDArray[np.float64]  # (n,)
    plain: NDArray[np.float64]  # (n,) scores without the factor for the speaker
    coverage: NDArray[np.float64]  # (n,)
    has: NDArray[np.bool_]  # (n, words) which words of the question the cube has
    like: NDArray[np.bool_]  # (n, words) the same, or others that are used for them
    about: NDArray[np.bool_]  # (n,) it has one that says what is asked about
    by_speaker: NDArray[np.bool_]  # (n,) all true when the question names none


def _anchored(
    connection: Connection, text: str, today: date, without_source: int | None
) -> Query | None:
    """A question about the days before or after an event that is remembered; None: it is not."""
    if (parts := anchor(text)) is None:
        return None
    asked, before, event = parts
    told = search(
        connection, event, today=today, limit=1, without_source=without_source, part_of=text
    )
    named = bool(told.hits) and _shares_place(event, told.hits[0].cube.content)
    if told.confidence < (_TOLD_OF_PLACE if named else _TOLD):
        return None
    day = told.hits[0].cube.event_at.date()
    span = (date.min, day - timedelta(days=1)) if before else (day, _FAR)
    query = read_query(asked, today)
    return replace(query, days=Days(spans=(span,)), asks_once=before, asks_last=before)


def _shares_place(event: str, content: str) -> bool:
    """Whether the name of a city or country in ``event`` is in ``content`` too."""
    said = content.lower()
    return any(
        len(name) > 1 and name in said and is_known_place(name)
        for word in WORD.findall(event.lower())
        for name in (
            (word[a:b] for a in range(len(word)) for b in range(a + 2, a + _LONGEST_PLACE))
            if is_unspaced(word)
            else (word,)
        )
    )


def _speakers(connection: Connection, word: str) -> frozenset[str]:
    """The speakers, in lower case, who are called ``word``, be it their name or the first of it."""
    rows = connection.execute(
        "SELECT DISTINCT speaker FROM cube WHERE speaker <> '' AND (speaker = ?1 COLLATE NOCASE "
        "OR (speaker > ?1 || ' ' COLLATE NOCASE AND speaker < ?1 || '!' COLLATE NOCASE))",
        (word,),
    )
    return frozenset(name.lower() for (name,) in rows)


def _subject(words: Sequence[str], speakers: dict[str, frozenset[str]]) -> frozenset[str]:
    """The speakers whom a question with these words is about: those named first.

    None if a second name follows at once: “Ana and Ben” are both meant.
    """
    named = [at for at, word in enumerate(words) if word in speakers]
    if not named or (len(named) > 1 and named[1] == named[0] + 1):
        return frozenset()
    return speakers[words[named[0]]]


def _weigh(
    connection: Connection,
    matches: Matches,
    query: Query,
    *,
    speakers: Collection[str],
    wanted: Callable[[int, Kind, Status], bool],
) -> _Candidates:
    """The best matches as they stand once speaker, day, status and form are looked at."""
    best = _best(matches.scores)
    place = dict(zip(matches.ids[best].tolist(), best.tolist(), strict=True))
    of_days = [cube_id for cube_id in _of_days(connection, query.days) if cube_id not in place]
    rows = [
        row
        for row in _cubes.marks(connection, [*place, *of_days])
        if wanted(row[0], row[1], row[2])
    ]
    ids = np.array([row[0] for row in rows], np.int64)
    outdated = _cubes.outdated(connection, [row[0] for row in rows])
    on_days = _on_days(connection, rows, query)
    factor = np.array([_factor(row, query, outdated) for row in rows]) * (1 + _DAY * on_days)
    said = np.array([_cubes.moment(row[4]).toordinal() for row in rows], np.int64)
    by_speaker = np.array([not speakers or row[3].lower() in speakers for row in rows], np.bool_)
    at = np.array([place.get(row[0], -1) for row in rows], np.int64)  # -1: of the days alone
    of_words = at >= 0
    if not len(matches.ids):
        score, coverage = np.full(len(ids), _BY_DAY), np.zeros(len(ids))
        has = like = np.zeros((len(ids), 0), np.bool_)
        about = ~of_words
    else:
        score = np.where(of_words, matches.scores[at], _BY_DAY)
        coverage = np.where(of_words, matches.coverage[at] * np.minimum(factor, 1.0), 0.0)
        has, like = (found[at] & of_words[:, None] for found in (matches.has, matches.like))
        about = matches.about[at] | ~of_words
    if query.by_day:  # and by no word that tells what it is about
        score = np.where(on_days > 0, 1 + _BY_DAY * score, _BY_DAY * score)
        coverage = np.where(on_days > 0, 1.0, _BY_DAY * coverage)
    # Of a series, that is of all that have as much of the question, one end is meant.
    series = of_words & (coverage > 0) & (coverage >= _SERIES * np.max(coverage, initial=0.0))
    series &= (on_days > 0) | (not query.asks_last)
    newness = _newness(said, series)
    asks_oldest = query.asks_once and not query.asks_last
    if query.asks_now or query.asks_once:
        score = np.where(series, score.max(where=series, initial=0.0), score)
        factor = factor * np.where(series, 1 + (1 - newness if asks_oldest else newness), 1.0)
    elif query.asks_present and series.any():
        factor = factor * np.where(series, 1 + _PRESENT * newness, 1.0)
        newest = series & (newness == 1)
        least = _NEWEST * np.max((score * factor)[series]) / factor
        score = np.where(newest, np.maximum(score, least), score)
    if (query.asks_now or query.asks_present) and series.any():
        # What has changed since is often told in another word: “sold the car”, “my Volvo”.
        most = np.max((score * factor)[series])
        later = of_words & (coverage >= _LATER * np.max(coverage)) & (said > np.max(said[series]))
        score = np.where(later, np.maximum(score, _LATER_WORTH * most / factor), score)
    plain = score * factor
    scores = plain * np.where(by_speaker & bool(speakers), _SPEAKER, 1.0)
    sign = 1 if asks_oldest else -1  # of equal ones the oldest first, or the newest
    order = np.lexsort((sign * ids, sign * said, -scores.round(9)))
    return _Candidates(
        ids[order],
        scores[order],
        plain[order],
        coverage[order],
        has[order],
        like[order],
        about[order],
        by_speaker[order],
    )


def _lacks(matches: Matches, like: NDArray[np.bool_], but: Collection[str]) -> tuple[str, ...]:
    """The words of the question, ``but`` these, that a cube has not, nor others used for them."""
    lacking = [words for words, said in zip(matches.words, like, strict=False) if not said]
    every = (*matches.missing, *(word for words in lacking for word in words))
    return tuple(word for word in every if word not in but)


def _best(scores: NDArray[np.float64]) -> NDArray[np.intp]:
    """The places of the highest scores, of equal ones the first."""
    if len(scores) > _CANDIDATES:
        least = np.partition(scores, -_CANDIDATES)[-_CANDIDATES]
        high = np.flatnonzero(scores >= least)
    else:
        high = np.arange(len(scores))
    return high[np.argsort(-scores[high], kind="stable")[:_CANDIDATES]]


def _of_days(connection: Connection, days: Days) -> list[int]:
    """Cubes of the days asked for, for a question such as “What did I do last Friday?”"""
    found = (
        _cubes.of_days(connection, first, min(last, _FAR), _CANDIDATES)
        for first, last in days.spans
    )
    return list(dict.fromkeys(cube_id for ids in found for cube_id in ids))


def _on_days(connection: Connection, rows: list[_cubes.Marks], query: Query) -> NDArray[np.float64]:
    """(n,) How well each cube is of the days asked for: 0, 1 for the period, 2 for the very day.

    By when it was said or by what it is about. If the question asks what was told, the second
    counts half.
    """
    if not query.days:
        return np.zeros(len(rows))
    abouts = _cubes.abouts(connection, [row[0] for row in rows])
    weight = 0.5 if query.asks_told else 1.0
    return np.array(
        [
            max(
                query.days.match(_cubes.moment(row[4]).date()),
                weight * query.days.match_span(*about) if (about := abouts.get(row[0])) else 0,
            )
            for row in rows
        ],
        np.float64,
    )


def _newness(days: NDArray[np.int64], counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """0 … 1 for each day: its place among those that are ``counted``, the newest being 1."""
    among = np.unique(days[counted])
    return np.searchsorted(among, days, side="right") / max(1, len(among))


def _factor(row: _cubes.Marks, query: Query, outdated: Collection[int]) -> float:
    cube_id, _, status, _, _, content = row
    factor = 1.0
    if query.asks_when and says_when(content):
        factor *= _WHEN
    if content.rstrip().endswith("?"):
        factor *= _QUESTION
    if status == "superseded" or cube_id in outdated:
        factor *= 1 / _SUPERSEDED if query.asks_once else _SUPERSEDED
    return factor


def _sources_naming(
    connection: Connection, names: list[str], without_source: int | None
) -> set[int]:
    """The sources in which one of these names is said."""
    found = (np.unique(places(connection, name) >> POSITION_BITS) for name in names)
    return {int(source) for sources in found for source in sources} - {without_source}


def _rank_sources(
    found: _Candidates, weights: NDArray[np.float64], naming: set[int]
) -> tuple[int, ...]:
    """Sources by their best cubes, and by how much of the question is said anywhere in them.

    The second finds sessions in which no single turn stands out. Of a question that names a
    speaker, only what that speaker says counts.
    """
    total = dict.fromkeys(sorted(naming), _MENTION)
    order = np.argsort(found.ids >> POSITION_BITS, kind="stable")  # each source's best come first
    sources, starts = np.unique((found.ids >> POSITION_BITS)[order], return_index=True)
    ends = np.append(starts, len(order))[1:]
    counted = found.has & found.by_speaker[:, None]
    for source, start, end in zip(sources.tolist(), starts.tolist(), ends.tolist(), strict=True):
        scores = found.scores[order[start : min(end, start + _SESSION_CUBES)]]
        said = counted[order[start:end]].any(axis=0)
        total[source] = (
            total.get(source, 0.0)
            + float(scores @ (1 / np.arange(1, len(scores) + 1)))
            + float(weights @ said)
        )
    return tuple(sorted(total, key=lambda source: (-total[source], source)))


def _confidence(found: _Candidates) -> float:
    coverage = np.max(found.coverage, where=found.by_speaker, initial=0.0)
    said = np.max(found.plain, where=found.by_speaker, initial=0.0)
    others = np.max(found.plain, where=~found.by_speaker, initial=0.0)
    return float(coverage * said / (said + others)) if said else 0.0
