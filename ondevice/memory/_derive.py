"""Keeps the facts in line with the texts that they are read from."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import datetime

import msgspec

from ondevice.memory import _cubes
from ondevice.memory._endings import over_by
from ondevice.memory._fact_reader import Fact
from ondevice.memory._facts import find_facts, hints, not_understood, sentence_of
from ondevice.memory._forget import forget
from ondevice.memory._lessons import find_lessons
from ondevice.memory._profile import refresh as refresh_profile
from ondevice.memory._recall import GATE
from ondevice.memory._records import POSITION_BITS, Cube, Found, Hit, Unread
from ondevice.store import Connection, Row

_NAME = re.compile(r"[^\W\d_]{2,}")
READ = "read by a model"  # a tag of facts that no rule has found
#: What is hinted at → its facts, which may be only proposed.
_TOPICS: dict[str, tuple[str, ...]] = {
    "home": ("home",),
    "job": ("work", "employer"),
    "partner": (),
}
_HINTS = 3  # memories that hint at it, the latest ones
CORRECTION = "correction"  # a tag of what corrects another memory and does not name it


def derive(
    connection: Connection,
    cube_id: int,
    typed: str,
    at: datetime,
    *,
    alone: bool | None = None,
) -> list[Cube]:
    """Store the facts and lessons that are in ``typed``, and return those that are new.

    A fact that is known gets one more evidence, a new value of a topic supersedes the old one,
    what is said to be over is outdated, and a fact that only rested on what this cube said before
    an edit is forgotten. What is not certain is proposed. What is found are those that rules
    catch; what else is stated is left for a model to read. ``alone`` is as in
    :func:`find_lessons`.
    """
    connection.execute("DELETE FROM unread WHERE cube_id = ?", (cube_id,))
    ended_before = _take_back_endings(connection, cube_id)
    lessons = list(find_lessons(typed, alone=alone))
    left = [s for s in not_understood(typed) if not any(find_lessons(s, alone=True))]
    if left:
        connection.execute("INSERT INTO unread VALUES (?, ?)", (cube_id, "\n".join(left)))
    found = {(fact.topic, fact.certain): fact for fact in (*find_facts(typed), *lessons)}
    said = {fact.content for fact in found.values()}
    resting = connection.execute(
        "SELECT cube.id, content FROM link JOIN cube ON cube.id = from_id "
        "WHERE to_id = ?1 AND link.kind = 'evidence' AND NOT EXISTS ("
        "SELECT 1 FROM link AS other WHERE other.from_id = cube.id "
        "AND other.kind = 'evidence' AND other.to_id <> ?1)",
        (cube_id,),
    ).fetchall()
    if gone := [row["id"] for row in resting if row["content"] not in said]:
        forget(connection, gone)
    new = add_facts(connection, found.values(), cube_id, at)
    over = over_by(connection, typed, cube_id, at)
    new += add_facts(connection, over.instead, cube_id, at)
    for fact_id in over.ended:
        _end(connection, fact_id, cube_id)
    if over.corrected is not None:
        _cubes.link(connection, cube_id, "related", _first(connection, over.corrected))
        _cubes.tag(connection, cube_id, [CORRECTION])
    _cubes.tag(connection, cube_id, sorted(hints(typed)))
    if over.ended or ended_before:
        refresh_profile(connection, datetime.now().astimezone())
    return new


def _first(connection: Connection, corrected: int) -> int:
    """What a memory that is corrected had corrected itself, or that memory."""
    row = connection.execute(
        "SELECT to_id FROM link JOIN tag ON cube_id = from_id AND name = ? "
        "WHERE from_id = ? AND kind = 'related' AND to_id < from_id ORDER BY to_id DESC",
        (CORRECTION, corrected),
    ).fetchone()
    return row["to_id"] if row else corrected


def _end(connection: Connection, fact_id: int, said: int) -> None:
    """Let a fact be outdated by what the cube ``said``; a proposal is not waiting any more."""
    if _cubes.get(connection, fact_id).status == "proposed":
        _cubes.set_status(connection, fact_id, "archived")
    else:
        _cubes.supersede(connection, said, fact_id)


def _take_back_endings(connection: Connection, cube_id: int) -> bool:
    """Let the facts hold again that were outdated by what this cube said."""
    connection.execute(
        "UPDATE cube SET status = 'active' WHERE status = 'superseded' "
        "AND kind IN ('fact', 'lesson') "
        "AND id IN (SELECT to_id FROM link WHERE from_id = ?1 AND kind = 'supersedes') "
        "AND NOT EXISTS (SELECT 1 FROM cube AS other "
        "WHERE other.topic = cube.topic AND other.status = 'active')",
        (cube_id,),
    )
    taken_back = connection.execute(
        "DELETE FROM link WHERE from_id = ?1 AND kind = 'supersedes' "
        "AND to_id IN (SELECT id FROM cube WHERE kind IN ('fact', 'lesson'))",
        (cube_id,),
    )
    return taken_back.rowcount > 0


def add_facts(
    connection: Connection, facts: Iterable[Fact], evidence: int, at: datetime
) -> list[Cube]:
    """Store the facts that the cube ``evidence`` states, and return those that are new."""
    new = [_store(connection, fact, evidence, at) for fact in facts]
    if any(fact_id is not None for fact_id in new):
        refresh_profile(connection, datetime.now().astimezone())
    return _cubes.get_many(connection, [fact_id for fact_id in new if fact_id is not None])


def accept(connection: Connection, fact_id: int) -> None:
    """Let a proposed fact hold; it takes the place of an older one of its topic."""
    fact = _cubes.get(connection, fact_id)
    current = _current(connection, fact.topic)
    _cubes.set_status(connection, fact_id, "active")
    if current is not None:
        _supersede_older(connection, fact_id, fact.event_at, current)
    refresh_profile(connection, datetime.now().astimezone())


def stated_in(connection: Connection, facts: Iterable[Cube]) -> dict[int, str]:
    """For each of these facts the sentence that it was read from, where that is still there."""
    sentences = {}
    for fact in facts:
        for row in connection.execute(
            "SELECT content FROM link JOIN cube ON cube.id = to_id "
            "WHERE from_id = ? AND link.kind = 'evidence' ORDER BY to_id DESC",
            (fact.id,),
        ):
            if sentence := sentence_of(fact.content, row["content"]):
                sentences[fact.id] = sentence
                break
    return sentences


def unread(connection: Connection) -> Unread | None:
    """The latest statements that no model has read, or None."""
    row = connection.execute(
        "SELECT cube_id, statements, event_at FROM unread JOIN cube ON id = cube_id "
        "ORDER BY written_at DESC, cube_id DESC LIMIT 1"
    ).fetchone()
    return row and Unread(
        cube_id=row["cube_id"],
        text=row["statements"],
        at=_cubes.moment(row["event_at"]),
    )


def store_reading(connection: Connection, text: Unread, facts: Iterable[Fact]) -> list[Cube]:
    """Propose what a model has found in ``text``, and return what is new.

    Nothing is stored if the text has been edited or forgotten meanwhile.
    """
    done = connection.execute(
        "DELETE FROM unread WHERE cube_id = ? AND statements = ?", (text.cube_id, text.text)
    )
    proposed = [replace(fact, certain=False) for fact in facts]
    new = add_facts(connection, proposed, text.cube_id, text.at) if done.rowcount else []
    for fact in new:
        _cubes.tag(connection, fact.id, [READ])
    return new


def _store(connection: Connection, fact: Fact, evidence: int, at: datetime) -> int | None:
    """The id of a new cube for ``fact``; None when it is known already, or was rejected."""
    current = _current(connection, fact.topic)
    if current is not None and current["content"].lower() == fact.content.lower():
        _cubes.link(connection, current["id"], "evidence", evidence)
        return None
    proposed = rejected = None
    for row in connection.execute(
        "SELECT id, status, content FROM cube WHERE topic = ? "
        "AND status IN ('proposed', 'archived') ORDER BY id",
        (fact.topic,),
    ):
        if row["content"].lower() == fact.content.lower():
            proposed, rejected = (
                (row["id"], rejected) if row["status"] == "proposed" else (proposed, row["id"])
            )
    if proposed is not None:
        _cubes.link(connection, proposed, "evidence", evidence)
        if fact.certain:
            accept(connection, proposed)
        return proposed if fact.certain else None
    if rejected is not None and not fact.certain:
        return None
    fact_id = _cubes.insert(
        connection,
        _cubes.open_source(connection, "facts"),
        fact.kind,
        fact.content,
        event_at=at,
        written_at=datetime.now().astimezone(),
        topic=fact.topic,
    )
    _cubes.link(connection, fact_id, "evidence", evidence)
    if not fact.certain:
        _cubes.set_status(connection, fact_id, "proposed")
    elif current is not None:
        _supersede_older(connection, fact_id, at, current)
    return fact_id


def _current(connection: Connection, topic: str | None) -> Row | None:
    """What holds of this topic."""
    row: Row | None = connection.execute(
        "SELECT id, content, event_at FROM cube WHERE topic = ? AND status = 'active'", (topic,)
    ).fetchone()
    return row


def _supersede_older(connection: Connection, fact_id: int, at: datetime, current: Row) -> None:
    if _cubes.moment(current["event_at"]) <= at:
        _cubes.supersede(connection, fact_id, current["id"])
    else:  # an older text that came later
        _cubes.supersede(connection, current["id"], fact_id)


def names(connection: Connection) -> frozenset[str]:
    """The names of the user's people and animals, in lower case."""
    rows = connection.execute(
        "SELECT content FROM cube WHERE topic >= 'name of ' AND topic < 'name of!' "
        "AND kind = 'fact' AND status IN ('active', 'proposed', 'superseded')"
    )
    return frozenset(
        word.lower()
        for row in rows
        for word in _NAME.findall(row["content"].partition("called")[2])
    )


def lessons(connection: Connection, without_source: int | None) -> list[Cube]:
    """What the user wants of replies, newest first, but what was said in ``without_source``."""
    ids = connection.execute(
        "SELECT id FROM cube WHERE topic >= 'replies: ' AND topic < 'replies;' "
        "AND kind = 'lesson' AND status = 'active' AND NOT EXISTS (SELECT 1 FROM link "
        "WHERE from_id = cube.id AND link.kind = 'evidence' AND to_id >> ?1 = ?2) "
        "ORDER BY event_at DESC, id DESC",
        (POSITION_BITS, without_source),
    )
    return _cubes.get_many(connection, [row["id"] for row in ids])


def with_corrections(
    connection: Connection,
    found: Found,
    without_source: int | None,
    but: Collection[int] = (),
) -> Found:
    """``found`` with what corrects one of them right behind it, which names nothing itself."""
    known = {hit.cube.id for hit in found.hits}
    corrections: dict[int, list[int]] = {}
    for row in connection.execute(
        "SELECT to_id, from_id FROM link JOIN tag ON cube_id = from_id AND name = ? "
        "WHERE kind = 'related' AND to_id IN (SELECT value FROM json_each(?)) ORDER BY from_id",
        (CORRECTION, json.dumps(list(known))),
    ):
        if row["from_id"] >> POSITION_BITS != without_source or row["from_id"] in but:
            corrections.setdefault(row["to_id"], []).append(row["from_id"])
    if not corrections:
        return found
    new = {one for ones in corrections.values() for one in ones}
    cubes = {cube.id: cube for cube in _cubes.get_many(connection, list(new))}
    hits: list[Hit] = []
    for hit in found.hits:
        if hit.cube.id in cubes:
            continue
        others = (cubes[one] for one in corrections.get(hit.cube.id, ()) if one in cubes)
        hits += (hit, *(msgspec.structs.replace(hit, cube=cube) for cube in others))
    return msgspec.structs.replace(found, hits=tuple(hits))


def with_hints(
    connection: Connection,
    found: Found,
    kinds: Collection[str],
    without_source: int | None,
    but: Collection[int] = (),
) -> Found:
    """``found`` with the latest that tell by the way of the user's home or job, if that is asked.

    So do the turns that facts rest on which are only proposed.
    """
    rows = connection.execute(
        "SELECT cube.id FROM cube WHERE status = 'active' AND kind IN ('turn', 'note') AND id IN ("
        "SELECT cube_id FROM tag WHERE name IN (SELECT value FROM json_each(?1)) UNION "
        "SELECT to_id FROM cube AS fact JOIN link ON from_id = fact.id AND link.kind = 'evidence' "
        "WHERE fact.status = 'proposed' AND topic IN (SELECT value FROM json_each(?2))) "
        "ORDER BY event_at DESC, id DESC LIMIT ?3",
        (
            json.dumps([kind for kind in kinds if kind in _TOPICS]),
            json.dumps([topic for kind in kinds for topic in _TOPICS.get(kind, ())]),
            _HINTS,
        ),
    )
    ids = [
        row["id"]
        for row in rows
        if row["id"] >> POSITION_BITS != without_source or row["id"] in but
    ]
    if not ids:
        return found
    score = found.hits[0].score if found.hits else 1.0
    hits = [Hit(cube=cube, score=score) for cube in _cubes.get_many(connection, ids)]
    hits += [hit for hit in found.hits if hit.cube.id not in ids]
    return msgspec.structs.replace(
        found, hits=tuple(hits), confidence=max(found.confidence, GATE), is_about_it=True
    )


def with_evidence(
    connection: Connection,
    found: Found,
    without_source: int | None,
    but: Collection[int] = (),
) -> Found:
    """``found`` with the turns that they rest on in place of the facts that a model has read.

    Such a fact is a key to what was said, not a better way to say it.
    """
    evidence: dict[int, list[int]] = {}
    for row in connection.execute(
        "SELECT from_id, to_id FROM link JOIN tag ON cube_id = from_id AND name = ? "
        "WHERE kind = 'evidence' AND from_id IN (SELECT value FROM json_each(?)) ORDER BY to_id",
        (READ, json.dumps([hit.cube.id for hit in found.hits])),
    ):
        evidence.setdefault(row["from_id"], []).append(row["to_id"])
    scores: dict[int, float] = {}
    lacks: dict[int, tuple[str, ...]] = {}
    for hit in found.hits:
        for cube_id in evidence.get(hit.cube.id, [hit.cube.id]):
            if cube_id >> POSITION_BITS != without_source or cube_id in but:
                scores.setdefault(cube_id, hit.score)
                lacks[cube_id] = tuple(
                    word for word in lacks.get(cube_id, hit.lacks) if word in hit.lacks
                )
    cubes = _cubes.get_many(connection, list(scores))
    hits = tuple(Hit(cube=cube, score=scores[cube.id], lacks=lacks[cube.id]) for cube in cubes)
    return msgspec.structs.replace(found, hits=hits)
