"""Finds which facts and lessons are over by what the user said: retractions and corrections.

“I quit my job at Bosch” ends the fact that says Bosch, “I moved out” one of any value, “no, I meant
Bonn” gives the fact that was read last another value, and “you can write longer answers again”
ends a lesson. What a correction that names nothing is about finds ``_revisions.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from ondevice.memory import _cubes
from ondevice.memory._fact_reader import Correction, Ending, Fact, corrected
from ondevice.memory._facts import find_endings
from ondevice.memory._lessons import topics_in
from ondevice.memory._records import POSITION_BITS
from ondevice.memory._revisions import revised_by
from ondevice.memory._values import fold
from ondevice.store import Connection, Row

_WORD = re.compile(r"[^\W\d_]{4,}")
_STEM = 5  # letters of a word that tell two words for one


@dataclass(frozen=True)
class Over:
    """What is no longer so, and what is so instead."""

    ended: tuple[int, ...]
    instead: tuple[Fact, ...] = ()
    corrected: int | None = None  # the memory that a correction is about


def over_by(connection: Connection, typed: str, cube_id: int, at: datetime) -> Over:
    """What is over by a text of the cube ``cube_id``, which was said ``at`` that time."""
    endings, corrections, allowed = find_endings(typed)
    ended = {row["id"] for ending in endings for row in _ended(connection, ending, cube_id, at)}
    ended |= {row["id"] for said in allowed for row in _allowed(connection, said, cube_id)}
    instead = (_instead(connection, correction, cube_id) for correction in corrections)
    return Over(
        tuple(sorted(ended)),
        tuple(filter(None, instead)),
        revised_by(connection, typed, cube_id, at, is_meant=bool(corrections)),
    )


def _ended(connection: Connection, ending: Ending, cube_id: int, at: datetime) -> Iterator[Row]:
    wanted = fold(ending.value)
    before = _stated_by(connection, cube_id - 1) if ending.just_said else frozenset()
    for row in _active(connection, "fact", cube_id):
        topic = row["topic"]
        begins = any(
            topic == beginning or topic.startswith((f"{beginning} ", f"{beginning}:"))
            for beginning in ending.topics
        )
        of_another = " of " in topic and not topic.startswith("name of ")
        if not begins or of_another or _cubes.moment(row["event_at"]) > at:
            continue
        if ending.just_said and row["id"] not in before:
            continue
        if not wanted or re.search(rf"(?<!\w){re.escape(_stem(wanted))}", fold(row["content"])):
            yield row


def _stated_by(connection: Connection, cube_id: int) -> frozenset[int]:
    """The facts that the cube states."""
    rows = connection.execute(
        "SELECT from_id FROM link WHERE to_id = ? AND kind = 'evidence'", (cube_id,)
    )
    return frozenset(row["from_id"] for row in rows)


def _stem(value: str) -> str:
    """The value without an article and without an ending, which differ with the sentence."""
    words = value.split()
    last = words[-1] if words else value
    return last[: max(3, len(last) - 2)] if len(last) > _STEM else last


def _allowed(connection: Connection, said: str, cube_id: int) -> Iterator[Row]:
    topics = topics_in(said)
    words = {fold(word)[:_STEM] for word in _WORD.findall(said)}
    for row in _active(connection, "lesson", cube_id):
        about = row["topic"].removeprefix("replies: ")
        shared = words & {fold(word)[:_STEM] for word in _WORD.findall(row["content"])}
        if about in topics or shared - _OF_REPLIES:
            yield row


#: Words of most lessons, which do not tell which one is meant.
_OF_REPLIES = frozenset(
    {"answe", "alway", "never", "repli", "reply", "respo", "write", "pleas", "your", "with"}
    | {"that", "this", "when", "them", "again", "futur", "antwo", "immer", "schre"}
)


def _instead(connection: Connection, correction: Correction, cube_id: int) -> Fact | None:
    """The fact that was read last in the same conversation, with the value that was meant."""
    row = connection.execute(
        "SELECT cube.topic FROM link JOIN cube ON cube.id = from_id WHERE link.kind = 'evidence' "
        "AND to_id BETWEEN ?1 AND ?2 - 1 AND cube.kind = 'fact' AND cube.status = 'active' "
        "ORDER BY to_id DESC, cube.id DESC LIMIT 1",
        (cube_id >> POSITION_BITS << POSITION_BITS, cube_id),
    ).fetchone()
    return corrected(row["topic"], correction) if row else None


def _active(connection: Connection, kind: str, without_evidence: int) -> list[Row]:
    """Facts or lessons that hold or are proposed, but those that the cube itself states."""
    return connection.execute(
        "SELECT id, topic, content, event_at FROM cube WHERE topic IS NOT NULL AND kind = ? "
        "AND status IN ('active', 'proposed') AND NOT EXISTS (SELECT 1 FROM link "
        "WHERE from_id = cube.id AND link.kind = 'evidence' AND to_id = ?)",
        (kind, without_evidence),
    ).fetchall()
