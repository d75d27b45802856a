"""What 500 kills and 100 power failures do to the memory: nothing, all figures but the first are 0.

A worker adds notes and files, edits, forgets, keeps facts that a model has read, exports, imports,
makes backups and changes the passphrase until SIGKILL ends it at a random moment; 100 of the kills
come while an old store is brought up to date. Then a disk (a VFS of apsw's SQLite) drops what was
not synced. After each, what was acknowledged has to be there, the rest all or nothing, SQLite and
FTS5 find the store sound, and what was forgotten is in no file.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import frame

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

import torture

FAULTS = ("lost", "half_done", "unsound", "resurrected")


def measure(quick: bool) -> tuple[frame.Figures, frame.Runs]:
    part = 10 if quick else 1
    figures: frame.Figures = {}
    for name, ruin, count in (
        ("kills", torture.kills, 400 // part),
        ("kills_in_migration", torture.kills_in_migration, 100 // part),
        ("power_failures", torture.power_failures, 100 // part),
    ):
        with TemporaryDirectory(prefix="ondevice-bench-") as folder:
            found: Counter[str] = Counter()
            for done, faults in enumerate(ruin(Path(folder), count), start=1):
                found += faults
                if done % 20 == 0:
                    frame.say(f"{name}: {done} of {count}, {dict(found)}")
        figures |= {name: float(count)}
        figures |= {f"{name}_{fault}": float(found[fault]) for fault in FAULTS}
    return figures, []


if __name__ == "__main__":
    frame.run(__doc__, measure)
