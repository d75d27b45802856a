"""Finds what a message is about that names nothing: “Whoops, it's the 19th”, “Down to 88!”.

It gives a memory another value, and is quoted along with it. Which one is a guess: the latest that
names the value that was wrong, or else one with the same beside its number (“£340”, “10時”), or
else one whose number is about as large, or else one with a value of the same kind. So nothing is
changed by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from typing import NamedTuple

from ondevice.memory import _cubes
from ondevice.memory._asking import asks
from ondevice.memory._concern import names_in
from ondevice.memory._dates import about
from ondevice.memory._language import NEVER, languages
from ondevice.memory._records import POSITION_BITS
from ondevice.memory._told import has_number
from ondevice.memory._values import is_known_place
from ondevice.memory._words import WORD, is_stop_word, is_unspaced
from ondevice.store import Connection

_LATEST = 50  # memories among which is what a message is about
_READ = 1_000  # characters of each
_LONGEST = 120  # characters of a message that says nothing else
_BRIEF = 4  # words of a value without anything like “it's” before it
_WITH = 6  # the same with something like it
_BRIEF_UNSPACED = 12  # letters of it, where words are not spaced
_GAP = r"[\s,.!:;–—…、，。！-]*"
_NOISE = "h+m+|u+h*m?|e+r+m?|a+r+g+h+|[ou]+[gh]+|a+h+"
_CLAUSE_END = re.compile(r"[,;:!?()\n–—，。、！；]|(?<!\d)\.|\.(?= [^\W\d_]{1,3}['’ ])")
_SPECIFIC = re.compile(r"\d+|(?<!\w)(?-i:[^\W\d_a-zß-ÿа-яё])[\w-]+")
_WHOLE = re.compile(r"(?<![\d.,:])\d{1,9}(?!\d)")
_CLOSE = 1.5  # times as large
_UNIT = re.compile(r"(?:([^\W\d_]+|[£$€#]) ?)?\d[\d.,:]*(?: ?([^\W\d_]+|[£$€%]))?")


class _RevisionRules(NamedTuple):
    """How a message begins that gives another value, in one language."""

    begins: re.Pattern[str]  # the group “revises”, or words that say nothing
    revised: re.Pattern[str]
    has_names: bool  # a word with a capital is one


@cache
def _rules() -> tuple[_RevisionRules, ...]:
    rules = []
    for language in languages():
        facts = language.facts
        if facts is None or not facts.revises:
            continue
        end = r"(?!\w)" if facts.spaced else ""
        begins = f"(?:(?P<revises>{facts.revises})|(?:{facts.opening}|{_NOISE})){end}{_GAP}"
        revised = rf"(?:(?:{facts.revised or NEVER})(?:(?<=['’])|{end or '(?=)'}) ?)*"
        begins_so, stands_between = language.compile(begins), language.compile(revised)
        rules.append(_RevisionRules(begins_so, stands_between, facts.capitals))
    return tuple(rules)


def revision_in(text: str) -> tuple[str, bool] | None:
    """The value that ``text`` gives to what was said before, and whether it may be a name.

    None if it is no such message.
    """
    text = " ".join(text.split())
    if len(text) > _LONGEST or asks(text):
        return None
    for rules in _rules():
        at, revises = 0, False
        while (found := rules.begins.match(text, at)) and found.end() > at:
            at, revises = found.end(), revises or found["revises"] is not None
        if not revises:
            continue
        revised = rules.revised.match(text, at)
        start = revised.end() if revised else at
        clause = _CLAUSE_END.split(text[start:], maxsplit=1)[0].split()
        few = _BRIEF if not any(map(is_unspaced, clause)) else 1
        is_brief = len(clause) <= few and len("".join(clause)) <= _BRIEF_UNSPACED * few
        if clause and (is_brief or (start > at and len(clause) <= _WITH)):
            return text[start:], rules.has_names and clause[0][0].isupper()
    return None


def revised_by(
    connection: Connection, text: str, cube_id: int, at: datetime, *, is_meant: bool
) -> int | None:
    """The memory to which the cube ``cube_id`` with this ``text`` gives another value, or None.

    Within a conversation “no, Paris” answers a question, unless it says what ``is_meant``.
    """
    found = revision_in(text)
    if found is None or (not is_meant and _is_amid_talk(connection, cube_id)):
        return None
    value, is_name = found
    kinds = kinds_in(value, at) or ({"name"} if is_name else set())
    return latest_like(connection, kinds, text, cube_id, at)


def latest_like(
    connection: Connection, kinds: set[str], text: str, cube_id: int, at: datetime
) -> int | None:
    """The memory before ``cube_id`` that it is about: of one of these kinds and most like it."""
    if not kinds:
        return None
    before = connection.execute(
        "SELECT id, content, event_at FROM cube WHERE event_at <= ? AND id <> ? AND status = "
        "'active' AND kind IN ('turn', 'note') ORDER BY event_at DESC, id DESC LIMIT ?",
        (_cubes.text_of(at), cube_id, _LATEST),
    )
    specific, units = {*_SPECIFIC.findall(text)}, {*_units(text)}
    best, most = None, -1
    for row in before:
        content = row["content"][:_READ]
        said = kinds_in(content, _cubes.moment(row["event_at"]))
        said |= {"number"} if has_number(content) else set()
        said |= {"name"} if names_in(content) else set()
        if kinds.isdisjoint(said):
            continue
        alike = 4 * (not specific.isdisjoint(_SPECIFIC.findall(content)))
        alike += 2 * (not units.isdisjoint(_units(content))) + _are_close(text, content)
        if alike > most:
            best, most = row["id"], alike
    return best


def kinds_in(text: str, said: datetime) -> set[str]:
    """Which kinds of values are in ``text``: a day, or else a number; a place."""
    kinds = {"day"} if about(text, said.date()) else set()
    if not kinds and has_number(text):
        kinds.add("number")
    if any(word[0].isupper() and is_known_place(word) for word in WORD.findall(text)):
        kinds.add("place")
    return kinds


def _are_close(text: str, other: str) -> bool:
    """Whether a number in the one is about as large as one in the other."""
    return any(
        one < _CLOSE * two and two < _CLOSE * one
        for one in map(int, _WHOLE.findall(text))
        for two in map(int, _WHOLE.findall(other))
    )


def _units(text: str) -> Iterator[str]:
    """What stands beside the numbers in ``text``: “£”, “euros”, “時”."""
    for found in _UNIT.finditer(text):
        for unit in filter(None, found.groups()):
            lower = unit.lower()
            if is_unspaced(lower):
                yield lower[0]
            elif not is_stop_word(lower):
                yield lower


def _is_amid_talk(connection: Connection, cube_id: int) -> bool:
    """Whether something else was said before it in the same conversation."""
    row = connection.execute(
        "SELECT 1 FROM cube JOIN source ON source.id = source_id "
        "WHERE source.kind = 'conversation' AND cube.id BETWEEN ?1 AND ?2 - 1 LIMIT 1",
        (cube_id >> POSITION_BITS << POSITION_BITS, cube_id),
    ).fetchone()
    return row is not None
