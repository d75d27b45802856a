"""How long a search and the list take with a million memories, Chinese ones, and a huge message.

The memories are made of invented words whose frequencies fall as in ordinary language (Zipf); the
Chinese ones of letters drawn the same way. CPU time, which other programs on the machine change
less than time on the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import frame
import numpy as np
from memory import LENGTH, PER_CONVERSATION, STOP_WORDS, WORDS, text, word

from ondevice.chats import Chats
from ondevice.memory import Memory
from ondevice.memory._records import POSITION_BITS
from ondevice.store import Connection, Database

MANY, MANY_CHINESE = 1_000_000, 100_000
LETTERS = 4_000  # of the Chinese ones
CLAUSE = 18  # letters
MESSAGE = 5_000_000  # letters


def measure(cases: Path | None, conversations: Path | None, quick: bool) -> dict[str, float]:
    """``search_p95_ms``, ``list_p95_ms``, those of Chinese, and ``huge_message_ms``."""
    del cases, conversations  # the texts are made up
    share = 20 if quick else 1
    random = np.random.default_rng(0)
    vocabulary = np.array([word(rank) for rank in range(WORDS)])
    figures: dict[str, float] = {}

    def english() -> list[str]:
        ranks = WORDS ** random.random((MANY // share, LENGTH)) - 1
        return [" ".join(row) for row in vocabulary[ranks.astype(int)]]

    def chinese() -> list[str]:
        ranks = LETTERS ** random.random((MANY_CHINESE // share, CLAUSE)) - 1
        return ["".join(chr(0x4E00 + int(rank)) for rank in row) for row in ranks]

    with TemporaryDirectory(prefix="ondevice-bench-") as folder:
        for name, texts, questions in (
            ("", english(), [text(random, int(n), STOP_WORDS) for n in random.integers(2, 9, 100)]),
            ("chinese_", chinese(), None),
        ):
            database = Database(Path(folder) / f"{name}store.db")
            frame.say(f"writing {len(texts)} cubes")
            _fill(database, texts)
            memory = Memory(database)
            asked = questions or [texts[n][3:8] for n in random.integers(0, len(texts), 100)]
            searching = [_cpu(partial(memory.search, each)) for each in asked]
            listing = [_cpu(memory.latest) for _ in range(50)]
            figures[f"{name}search_p95_ms"] = float(np.percentile(searching, 95))
            figures[f"{name}list_p95_ms"] = float(np.percentile(listing, 95))
            database.close()
        figures["huge_message_ms"] = _huge_message(Path(folder) / "huge.db", MESSAGE // share)
    return figures


def _fill(database: Database, texts: list[str]) -> None:
    start = datetime(2020, 1, 1, tzinfo=UTC)
    with database.write() as connection:
        connection.executemany(
            "INSERT INTO source(id, uid, kind, name) VALUES (?1, ?1, 'conversation', '')",
            [(n + 1,) for n in range(-(-len(texts) // PER_CONVERSATION))],
        )
        connection.executemany(
            "INSERT INTO cube(id, kind, status, content, speaker, event_at, written_at, version) "
            "VALUES (?, 'turn', 'active', ?, '', ?, ?, 1)",
            (
                (
                    (n // PER_CONVERSATION + 1) << POSITION_BITS | n % PER_CONVERSATION,
                    content,
                    (at := (start + timedelta(minutes=3 * n)).isoformat(timespec="seconds")),
                    at,
                )
                for n, content in enumerate(texts)
            ),
        )


def _huge_message(path: Path, letters: int) -> float:
    """Milliseconds for which the store is locked while a message of so many letters is saved."""
    database = Database(path)
    locked: list[float] = []
    begin = database.write

    @contextmanager
    def write(*, patience: float | None = None) -> Iterator[Connection]:
        with begin(patience=patience) as connection:
            start = time.process_time()
            yield connection
            locked.append((time.process_time() - start) * 1e3)

    database.write = write  # type: ignore[method-assign]
    random = np.random.default_rng(1)
    chats = Chats(database)
    prose = (text(random, 2_000) + ".\n") * (letters // 10_000 + 1)
    chats.say(chats.create(), prose[:letters])
    database.close()
    return max(locked)


def _cpu(run: Callable[[], object]) -> float:
    """Milliseconds."""
    start = time.process_time()
    run()
    return (time.process_time() - start) * 1e3
