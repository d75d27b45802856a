"""How long the memory takes with 100,000 cubes in it: to open, to search, to write.

The cubes are made of invented words whose frequencies fall as in ordinary language (Zipf), five
hundred to a conversation. How well search finds is measured by “ondevice memory bench FILE”.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import frame
import numpy as np

from ondevice.memory import Memory, _cubes
from ondevice.store import Database

WORDS = 30_000  # of the invented language
STOP_WORDS = 100  # its most frequent ones, which no question is made of
LENGTH = 25  # words of a cube
PER_CONVERSATION = 500
SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]


def measure(quick: bool) -> tuple[frame.Figures, frame.Runs]:
    cubes, times = (10_000, 100) if quick else (100_000, 500)
    random = np.random.default_rng(0)
    with TemporaryDirectory(prefix="ondevice-bench-") as folder:
        path = Path(folder) / "store.db"
        database = Database(path)
        frame.say(f"writing {cubes} cubes")
        fill(database, cubes, random)
        database.close()

        opening = [measured(lambda: Database(path).close()) for _ in range(times // 5)]
        database = Database(path)
        memory = Memory(database)
        questions = [text(random, int(n), STOP_WORDS) for n in random.integers(2, 9, times)]
        notes = [text(random, LENGTH) for _ in range(2 * times)]
        searching = [measured(memory.search, q) for q in questions]
        durable = [measured(memory.add, n) for n in notes[:times]]
        with database.read() as connection:
            connection.execute("PRAGMA synchronous=OFF")
        writing = [measured(memory.add, n) for n in notes[times:]]
        forgetting = [
            measured(memory.forget, [cube.id]) for cube in memory.latest(limit=times // 10)
        ]
        size = path.stat().st_size
        database.close()
    figures = {"cubes": float(cubes), "bytes_per_cube": size / cubes}
    for name, runs in (
        ("open", opening),
        ("search", searching),
        ("write_without_fsync", writing),
        ("write", durable),
        ("forget_without_fsync", forgetting),
    ):
        figures |= {f"{name}_p{p}_ms": float(np.percentile(runs, p)) for p in (50, 95)}
    return figures, []


def fill(database: Database, cubes: int, random: np.random.Generator) -> None:
    start = datetime(2020, 1, 1, tzinfo=UTC)
    with database.write() as connection:
        for number in range(cubes):
            if number % PER_CONVERSATION == 0:
                source = _cubes.open_source(connection, "conversation", uid=str(number))
            at = start + timedelta(hours=number / 2)
            _cubes.insert(
                connection, source, "turn", text(random, LENGTH), event_at=at, written_at=at
            )


def text(random: np.random.Generator, length: int, first: int = 0) -> str:
    """Words whose rank is distributed as 1/rank, from the one of rank ``first`` on."""
    ranks = first + (WORDS - first) ** random.random(length) - 1
    return " ".join(word(int(rank)) for rank in ranks)


def word(rank: int) -> str:
    high, low = divmod(rank, len(SYLLABLES))
    return SYLLABLES[low] + (word(high - 1) if high else "")


def measured(run: Callable[..., object], *arguments: object) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    run(*arguments)
    return (time.perf_counter() - start) * 1e3


if __name__ == "__main__":
    frame.run(__doc__, measure)
