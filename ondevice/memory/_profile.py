"""Condenses the active facts into a profile (after AI-native Memory: raw → statements → profile).

A few cubes, one for each side of a life: each is the facts of that side as one text, with these
facts as its evidence. When they change, the profile is written anew, and what it said before is
its history. It is what “What do you know about me?” is answered with; for anything else the facts
themselves are the better keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from functools import cache

from ondevice.memory import _cubes
from ondevice.memory._language import languages
from ondevice.store import Connection

_MOST = 12  # facts of one side, the latest ones: a small model is to read all of it

#: Title of the side → how the topics of its facts begin.
_SIDES = {
    "Who the user is": ("name", "home", "origin", "birth", "birthday"),
    "Work": ("work", "employer", "job"),
    "Health and food": ("allergy", "diet", "health"),
    "People and animals": ("name of", "family", "friend", "pet"),
    "Likes and skills": ("favourite", "likes", "dislikes", "hobby", "skill"),
    "Plans and dates": ("plan", "date", "event"),
    "Belongings and prices": ("belonging", "price"),
}
_SIDE_OF = {beginning: title for title, all_ in _SIDES.items() for beginning in all_}
_KEYS = re.compile(r" \([^()]*\)(?=\.)")  # what else a question may call it
_ABOUT_USER = re.compile(r"About the user: (.*)\.$", re.DOTALL)
_ABOUT = re.compile(r"About (.*\.)$", re.DOTALL)


def asks_for_profile(text: str) -> bool:
    """Whether ``text`` asks what is known about the user altogether."""
    return any(asked.search(text) for asked in _asked_for())


@cache
def _asked_for() -> tuple[re.Pattern[str], ...]:
    return tuple(
        language.compile(language.questions.profile)
        for language in languages()
        if language.questions
    )


def refresh(connection: Connection, now: datetime) -> None:
    """Bring the profile in line with the facts that are active."""
    facts: dict[str, list[tuple[int, str]]] = {title: [] for title in _SIDES}
    for row in connection.execute(
        "SELECT id, topic, content FROM cube WHERE kind = 'fact' AND status = 'active' "
        "AND topic IS NOT NULL ORDER BY event_at DESC, id DESC"
    ):
        title = _side(row["topic"])
        if title is not None and len(facts[title]) < _MOST:
            facts[title].append((row["id"], row["content"]))
    for title, found in facts.items():
        _write(connection, title, found, now)


def _write(
    connection: Connection, title: str, facts: Iterable[tuple[int, str]], now: datetime
) -> None:
    topic = f"profile: {title.lower()}"
    row, *others = connection.execute(
        "SELECT id, content FROM cube WHERE topic = ? AND kind = 'profile' AND status = 'active' "
        "ORDER BY id",
        (topic,),
    ).fetchall() or [None]
    for other in others:  # of another store, imported
        _cubes.supersede(connection, row["id"], other["id"])
    newest_last = list(facts)[::-1]
    if not newest_last:
        if row is not None:
            _cubes.set_status(connection, row["id"], "archived")
        return
    content = f"{title}: {' '.join(_sentence(fact) for _, fact in newest_last)}"
    if row is None:
        profile = _cubes.insert(
            connection,
            _cubes.open_source(connection, "facts"),
            "profile",
            content,
            event_at=now,
            written_at=now,
            topic=topic,
        )
    else:
        profile = row["id"]
        if row["content"] != content:
            _cubes.edit(connection, profile, content, now)
    for fact_id, _ in newest_last:
        _cubes.link(connection, profile, "evidence", fact_id)


def _side(topic: str) -> str | None:
    """The side of the user's life that a topic is of; None if it is of somebody else's."""
    first, _, rest = topic.partition(" ")
    first = first.rstrip(":")
    if first == "name" and rest.startswith("of "):
        return _SIDE_OF["name of"]
    if rest.startswith("of ") and not rest.startswith("of user"):
        return None
    return _SIDE_OF.get(first)


def _sentence(fact: str) -> str:
    """A fact without the words that are only there to find it by."""
    plain = _KEYS.sub("", fact)
    if found := _ABOUT_USER.match(plain):
        return f"In the user's words: “{found[1]}”."
    return f"{found[1][0].upper()}{found[1][1:]}" if (found := _ABOUT.match(plain)) else plain
