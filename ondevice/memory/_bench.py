"""Measures search on conversations whose questions name the turns that answer them.

The format is that of LoCoMo's conversations with corrected evidence: a JSON list of
conversations, each with ``turns`` (id, session, when, speaker, text) and ``questions``
(question, category, evidence as ids of turns, answerable). Of a turn only id and text are needed,
of a question only the question; a turn without a day is of the day of the one before it.
"""

from __future__ import annotations

import math
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from datetime import date, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
import numpy as np

from ondevice.errors import FileError
from ondevice.memory import _cubes
from ondevice.memory._dates import find_days
from ondevice.memory._search import search
from ondevice.store import Database
from ondevice.text import reason

_LIMIT = 20  # turns that a search gives
_TIME = re.compile(r"(?:T|\b)\d{1,2}:\d\d(?::\d\d)?\S*", re.IGNORECASE)
_SLASHES = re.compile(r"\b(\d{4})/(\d\d)/(\d\d)\b")
_NO_DAY = datetime(2000, 1, 1, 12).astimezone()  # of turns of which nobody says when they were

_Name = str | int


class BenchTurn(msgspec.Struct, frozen=True):
    id: _Name
    text: str
    session: _Name = ""
    when: str | None = None
    speaker: str | None = None


class Question(msgspec.Struct, frozen=True):
    question: str
    evidence: tuple[_Name, ...] | None = ()
    category: _Name | None = None
    answerable: bool | None = True


class BenchConversation(msgspec.Struct, frozen=True):
    turns: tuple[BenchTurn, ...]
    questions: tuple[Question, ...]
    id: _Name = ""


class Report(msgspec.Struct, frozen=True):
    figures: dict[str, float]  # means over the answerable questions; latency and AUC over all
    by_category: dict[str, dict[str, float]]  # over all questions of it that name evidence
    questions: int  # all of them
    turns: int


def run(file: Path, progress: Callable[[str], None] = lambda line: None) -> Report:
    """Search for each question of ``file`` in the store of its own conversation.

    Raises :class:`FileError` when the file has another format.
    """
    try:
        conversations = msgspec.json.decode(file.read_bytes(), type=tuple[BenchConversation, ...])
    except (OSError, msgspec.DecodeError) as error:
        raise FileError(
            f"{file} cannot be read as conversations with questions: {reason(error)}."
        ) from error
    outcomes: list[_Outcome] = []
    for conversation in conversations:
        progress(f"{conversation.id}: {len(conversation.questions)} questions")
        with TemporaryDirectory(prefix="ondevice-bench-") as folder:
            database = Database(Path(folder) / "store.db")
            try:
                outcomes += _ask(database, conversation)
            finally:
                database.close()
    if not any(outcome.answerable and outcome.figures for outcome in outcomes):
        raise FileError(f"{file} has no answerable question with evidence.")
    by_category = defaultdict(list)
    for outcome in outcomes:
        by_category[outcome.category].append(outcome)
    return Report(
        figures=_means(o for o in outcomes if o.answerable)
        | {
            "p50_ms": float(np.percentile([o.milliseconds for o in outcomes], 50)),
            "p95_ms": float(np.percentile([o.milliseconds for o in outcomes], 95)),
        }
        | _abstention(outcomes),
        by_category={
            name: _means(by_category[name])
            for name in sorted(by_category)
            if any(outcome.figures for outcome in by_category[name])
        },
        questions=len(outcomes),
        turns=sum(len(conversation.turns) for conversation in conversations),
    )


class _Outcome(msgspec.Struct, frozen=True):
    category: str
    answerable: bool
    figures: dict[str, float]  # none when the question names no evidence
    confidence: float
    milliseconds: float


def _ask(database: Database, conversation: BenchConversation) -> list[_Outcome]:
    cubes: dict[_Name, int] = {}  # id of the turn → id of the cube
    sessions: dict[_Name, int] = {}
    at, last = _NO_DAY, date.min
    with database.write() as connection:
        for turn in conversation.turns:
            if turn.session not in sessions:
                name = str(turn.session)
                sessions[turn.session] = _cubes.open_source(
                    connection, "conversation", name, uid=f"session {name}"
                )
            at = _day(turn.when or "") or at
            last = max(last, at.date())
            cubes[turn.id] = _cubes.insert(
                connection,
                sessions[turn.session],
                "turn",
                turn.text,
                event_at=at,
                written_at=at,
                speaker=turn.speaker or "",
            )
    session_of = {turn.id: sessions[turn.session] for turn in conversation.turns}
    outcomes = []
    for question in conversation.questions:
        evidence = [turn for turn in question.evidence or () if turn in cubes]
        with database.read() as connection:
            start = time.perf_counter()
            found = search(connection, question.question, today=last, limit=_LIMIT)
            milliseconds = (time.perf_counter() - start) * 1e3
        ranked = [hit.cube.id for hit in found.hits]
        outcomes.append(
            _Outcome(
                category="none" if question.category is None else str(question.category),
                answerable=question.answerable is not False,
                figures=_figures(
                    ranked,
                    {cubes[turn] for turn in evidence},
                    found.sources,
                    {session_of[turn] for turn in evidence},
                )
                if evidence
                else {},
                confidence=found.confidence,
                milliseconds=milliseconds,
            )
        )
    return outcomes


def _day(when: str) -> datetime | None:
    """The day in a text such as “1:56 pm on 8 May, 2023” or “2023-05-08 13:56”, at noon."""
    without_time = _TIME.sub(" ", _SLASHES.sub(r"\1-\2-\3", when))
    days, _ = find_days(without_time, _NO_DAY.date())
    if days.period is None or days.period[0] != days.period[1]:
        return None
    day, _ = days.period
    return datetime(day.year, day.month, day.day, 12).astimezone()


def _figures(
    ranked: list[int], evidence: set[int], sources: tuple[int, ...], sessions: set[int]
) -> dict[str, float]:
    def found(count: int) -> int:
        return len(evidence.intersection(ranked[:count]))

    gain = sum(
        1 / math.log2(rank + 1) for rank, cube in enumerate(ranked[:10], 1) if cube in evidence
    )
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(10, len(evidence)) + 1))
    return {
        **{f"recall@{count}": found(count) / len(evidence) for count in (5, 10, 20)},
        **{f"recall_all@{count}": float(found(count) == len(evidence)) for count in (5, 10)},
        "ndcg@10": gain / best,
        "session_recall@5": len(sessions.intersection(sources[:5])) / len(sessions),
    }


def _means(outcomes: Iterable[_Outcome]) -> dict[str, float]:
    figures = [outcome.figures for outcome in outcomes if outcome.figures]
    return {name: float(np.mean([f[name] for f in figures])) for name in figures[0]}


def _abstention(outcomes: list[_Outcome]) -> dict[str, float]:
    """The chance that an answerable question scores higher than one that is not (AUC)."""
    yes = np.array([o.confidence for o in outcomes if o.answerable])[:, None]
    no = np.array([o.confidence for o in outcomes if not o.answerable])
    if not no.size:
        return {}
    return {"abstention_auc": float(np.mean((yes > no) + (yes == no) / 2))}
