"""Finds which facts and lessons are over by what the user said: retractions and corrections.

“I quit my job at Bosch” ends the fact that says Bosch, “I moved out” one of any value, “no, I meant
Bonn” gives the fact that was read last another value, and “you can write longer answers again”
ends a lesson. “Sorry, it's the 11th” in another chat names nothing: it is about the latest memory
that has a value of that kind, and is quoted along with it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from ondevice.memory import _cubes
from ondevice.memory._dates import about
from ondevice.memory._fact_reader import Correction, Ending, Fact, corrected
from ondevice.memory._facts import find_endings
from ondevice.memory._lessons import topics_in
from ondevice.memory._records import POSITION_BITS
from ondevice.memory._values import fold, is_known_place
from ondevice.store import Connection, Row

_WORD = re.compile(r"[^\W\d_]{4,}")
_DIGIT = re.compile(r"\d")
_LATEST = 50  # memories among which is what a correction is about
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
    corrected = (_corrected(connection, said.value, cube_id, at) for said in corrections)
    return Over(
        tuple(sorted(ended)),
        tuple(filter(None, instead)),
        next(filter(None, corrected), None),
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


def _corrected(connection: Connection, value: str, cube_id: int, at: datetime) -> int | None:
    """The latest memory that was told before and has a value of the same kind."""
    kinds = _kinds_in(value, at)
    if not kinds:
        return None
    before = connection.execute(
        "SELECT id, content, event_at FROM cube WHERE event_at <= ? AND id <> ? AND status = "
        "'active' AND kind IN ('turn', 'note') ORDER BY event_at DESC, id DESC LIMIT ?",
        (_cubes.text_of(at), cube_id, _LATEST),
    )
    for row in before:
        if not kinds.isdisjoint(_kinds_in(row["content"], _cubes.moment(row["event_at"]))):
            found: int = row["id"]
            return found
    return None


def _kinds_in(text: str, said: datetime) -> set[str]:
    """Which kinds of values are in ``text``: a day, a number, a place."""
    kinds = {"day"} if about(text, said.date()) else set()
    if not kinds and _DIGIT.search(text):
        kinds.add("number")
    if any(word[0].isupper() and is_known_place(word) for word in _WORD.findall(text)):
        kinds.add("place")
    return kinds


def _active(connection: Connection, kind: str, without_evidence: int) -> list[Row]:
    """Facts or lessons that hold or are proposed, but those that the cube itself states."""
    return connection.execute(
        "SELECT id, topic, content, event_at FROM cube WHERE topic IS NOT NULL AND kind = ? "
        "AND status IN ('active', 'proposed') AND NOT EXISTS (SELECT 1 FROM link "
        "WHERE from_id = cube.id AND link.kind = 'evidence' AND to_id = ?)",
        (kind, without_evidence),
    ).fetchall()
