"""What the memory makes of single messages: facts, lessons, proposals, and what ends them.

The cases are a folder with ``facts.json``; our own, in more languages, are in
``bench/texts/memory_facts.json``. The rules were written with its first half in view.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import frame

from ondevice.memory import Cube, Memory, Status
from ondevice.store import Connection, Database

_OWN = Path(__file__).with_name("texts") / "memory_facts.json"

Cases = dict[str, list[Any]]


class _Undone(Exception):
    """Takes a message back once it has been looked at."""


class _Made(NamedTuple):
    """What a message has made."""

    cubes: list[Cube]

    def has(self, kind: str, *statuses: Status, value: str = "") -> bool:
        return any(
            cube.kind == kind
            and cube.status in statuses
            and value.casefold() in cube.content.casefold()
            for cube in self.cubes
        )


def measure(cases: Path | None, conversations: Path | None, quick: bool) -> dict[str, float]:
    """The figures of the cases, and of our own with the name of their half before them."""
    own: dict[str, Cases] = json.loads(_OWN.read_text("utf-8"))
    figures: dict[str, float] = {}
    with TemporaryDirectory(prefix="ondevice-bench-") as folder:
        database = Database(Path(folder) / "store.db")
        memory = Memory(database)
        if cases is not None:
            figures |= _figures(memory, json.loads((cases / "facts.json").read_text("utf-8")))
        for half, ours in own.items():
            figures |= {f"{half}_{name}": value for name, value in _figures(memory, ours).items()}
        database.close()
    halves = [figures[f"{half}_retractions"] for half in own]
    return {"retractions": frame.mean(halves)} | figures


def _figures(memory: Memory, cases: Cases) -> dict[str, float]:
    false = [_made(memory, [text]) for text in cases["says_nothing_about_the_user"]]
    lessons = [_made(memory, [text]) for text in cases["no_lesson"]]
    true = [(_made(memory, [case["message"]]), case["value"]) for case in cases["states_a_fact"]]
    figures = {
        "false_facts": _share(made.has("fact", "active") for made in false),
        "false_facts_proposed": _share(made.has("fact", "proposed") for made in false),
        "false_lessons": _share(made.has("lesson", "active") for made in lessons),
        "true_facts": _share(
            made.has("fact", "active", "proposed", value=value) for made, value in true
        ),
        "true_facts_in_effect": _share(
            made.has("fact", "active", value=value) for made, value in true
        ),
    }
    if "retractions" in cases:
        figures["retractions"] = _share(_is_over(memory, case) for case in cases["retractions"])
    return figures


def _is_over(memory: Memory, case: dict[str, str]) -> bool:
    made = _made(memory, [case["before"], case["message"]])
    gone = not any(made.has(kind, "active", value=case["gone"]) for kind in ("fact", "lesson"))
    was = any(made.has(kind, "superseded", value=case["gone"]) for kind in ("fact", "lesson"))
    return was and gone and ("value" not in case or made.has("fact", "active", value=case["value"]))


def _made(memory: Memory, messages: Iterable[str]) -> _Made:
    """What these messages of one conversation make in an empty store."""
    made: list[Cube] = []
    with suppress(_Undone), memory.database.write() as connection:
        connection.execute(
            "INSERT INTO conversation(id, system, created_at, updated_at) "
            "VALUES (1, '', '2026-01-01', '2026-01-01')"
        )
        for number, text in enumerate(messages, start=1):
            _say(memory, connection, number, text)
        made += memory.latest()
        raise _Undone
    return _Made(made)


def _say(memory: Memory, connection: Connection, number: int, text: str) -> None:
    connection.execute(
        "INSERT INTO message(id, conversation_id, position, role, content, created_at) "
        "VALUES (?1, 1, ?1, 'user', ?2, '2026-01-01')",
        (number, text),
    )
    memory.remember_turn(connection, conversation_id=1, message_id=number, text=text)


def _share(of: Iterable[bool]) -> float:
    return frame.mean(map(float, of))
