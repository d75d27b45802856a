"""How well the memory knows which days a sentence is about, and finds by them.

``dates_right`` and ``dates_wrong`` are the shares of sentences whose days are worked out rightly
and wrongly; of the others nothing is said. They are those of ``bench/texts/memory_dates.json``, in
ten languages, some of which name no day, and those of ``abilities.json`` in the folder of cases
whose answer is a day.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

from ondevice.memory import _expressions

PROBES = Path(__file__).parent / "texts" / "memory_dates.json"
FIRST_DAY = date(2026, 1, 5)  # of the turns in the cases
DAY = re.compile(r"\d{4}-\d\d-\d\d")

Span = tuple[date, date]


def measure(cases: Path | None, conversations: Path | None, quick: bool) -> dict[str, float]:
    del conversations, quick
    probes = json.loads(PROBES.read_text("utf-8"))
    outcomes = [(probe["half"], outcome(probe)) for probe in probes]
    if cases is not None:
        outcomes += [("cases", each) for each in of_cases(cases / "abilities.json")]
    of_all = Counter(each for _, each in outcomes)
    held = Counter(each for half, each in outcomes if half == "held")
    return {
        "dates_right": of_all["right"] / of_all.total(),
        "dates_wrong": of_all["wrong"] / of_all.total(),
        "dates_held_right": held["right"] / held.total(),
        "dates_held_wrong": held["wrong"] / held.total(),
    }


def outcome(probe: dict[str, str | None]) -> str:
    """“right”, “wrong”, or “silent” where there is an answer and none was given."""
    text, said, first, last = (probe[name] for name in ("text", "said", "first", "last"))
    assert text is not None and said is not None
    span = worked_out(text, date.fromisoformat(said))
    right = (date.fromisoformat(first), date.fromisoformat(last)) if first and last else None
    return "right" if span == right else "silent" if span is None else "wrong"


def worked_out(text: str, said: date) -> Span | None:
    """First and last of the days that ``text`` names for certain, seen from when it was said."""
    spans = [
        each.spans[0]
        for each in _expressions.read(text, said)
        if len(each.spans) == 1 and not each.vague
    ]
    return (min(first for first, _ in spans), max(last for _, last in spans)) if spans else None


def of_cases(file: Path) -> list[str]:
    """The same for the turns whose answer is a day."""
    if not file.exists():
        return []
    outcomes = []
    for case in json.loads(file.read_text("utf-8")).get("time", ()):
        answer = DAY.search(case["answer"])
        turn = case["turns"][-1]
        span = worked_out(turn["text"], FIRST_DAY + timedelta(days=turn["day"]))
        if answer is None:
            continue
        day = date.fromisoformat(answer[0])
        outcomes.append("silent" if span is None else "right" if span == (day, day) else "wrong")
    return outcomes
