"""Keeps the facts in line with the texts that they are read from."""

from __future__ import annotations

from datetime import datetime

from ondevice.memory import _cubes
from ondevice.memory._facts import Fact, find_facts
from ondevice.memory._forget import forget
from ondevice.memory._records import Cube
from ondevice.store import Connection


def derive(connection: Connection, cube_id: int, content: str, at: datetime) -> list[Cube]:
    """Store the facts that the user states in ``content``, and return those that are new.

    A fact that is known gets one more evidence, a new value of a topic supersedes the old one,
    and a fact that only rested on what this cube said before an edit is forgotten.
    """
    found = {fact.topic: fact for fact in find_facts(content)}
    said = {fact.content for fact in found.values()}
    resting = connection.execute(
        "SELECT cube.id, content FROM link JOIN cube ON cube.id = from_id "
        "WHERE to_id = ?1 AND link.kind = 'evidence' AND NOT EXISTS ("
        "SELECT 1 FROM link AS other WHERE other.from_id = cube.id "
        "AND other.kind = 'evidence' AND other.to_id <> ?1)",
        (cube_id,),
    ).fetchall()
    forget(connection, [row["id"] for row in resting if row["content"] not in said])
    new = [_store(connection, fact, cube_id, at) for fact in found.values()]
    return _cubes.get_many(connection, [fact_id for fact_id in new if fact_id is not None])


def _store(connection: Connection, fact: Fact, evidence: int, at: datetime) -> int | None:
    """The id of a new cube for ``fact``; None when it is known already."""
    current = connection.execute(
        "SELECT id, content, event_at FROM cube WHERE topic = ? AND status = 'active'",
        (fact.topic,),
    ).fetchone()
    if current is not None and current["content"].lower() == fact.content.lower():
        _cubes.link(connection, current["id"], "evidence", evidence)
        return None
    fact_id = _cubes.insert(
        connection,
        _cubes.open_source(connection, "facts"),
        "fact",
        fact.content,
        event_at=at,
        written_at=datetime.now().astimezone(),
        topic=fact.topic,
    )
    _cubes.link(connection, fact_id, "evidence", evidence)
    if current is not None:
        if datetime.fromisoformat(current["event_at"]) <= at:
            _cubes.supersede(connection, fact_id, current["id"])
        else:  # an older text that came later
            _cubes.supersede(connection, current["id"], fact_id)
    return fact_id
