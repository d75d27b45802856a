"""How true the memory is for the one who uses it: facts, days, silence, forgetting, speed.

``--cases`` names a folder with ``facts.json``, ``ordinary.json``, ``secrets.json`` and
``abilities.json``, ``--conversations`` a file in the format of LoCoMo; what they are needed for is
left out without them. Figures with ``own_``, ``held_`` or the like before their names are of the
probes in ``bench/texts``. What each figure means stands in the module that measures it.
"""

from __future__ import annotations

from pathlib import Path

import frame
import memory_use_facts
import memory_use_forget
import memory_use_recall
import memory_use_scale
import memory_use_time


def measure(
    quick: bool, cases: Path | None, conversations: Path | None
) -> tuple[frame.Figures, frame.Runs]:
    figures: frame.Figures = {}
    runs: frame.Runs = []
    for part in (
        memory_use_facts,
        memory_use_time,
        memory_use_recall,
        memory_use_forget,
        memory_use_scale,
    ):
        frame.say(part.__name__.removeprefix("memory_use_"))
        found = part.measure(cases, conversations, quick)
        figures |= found
        runs.append(found)
    return figures, runs


if __name__ == "__main__":
    frame.run(
        __doc__,
        measure,
        {"cases": "folder of probes", "conversations": "file of conversations with questions"},
    )
