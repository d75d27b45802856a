"""Whatever is typed, clicked and resized: no error, no lost word, and what is shown is right."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import pytest
from random_user import Deed, deeds, play

_DEEDS = 300
_SHORTEN_S = 60.0


@pytest.mark.random
@pytest.mark.skipif(
    "ONDEVICE_SEED" not in os.environ,
    reason="what it finds depends on timing, too; ONDEVICE_SEED=N runs it",
)
def test_whatever_is_done_nothing_breaks_or_is_lost(
    rounds: Callable[[int], Iterator[Random]],
) -> None:
    for random in rounds(2):
        todo, replies = deeds(random, _DEEDS), str(random.random())
        if (error := what_fails(todo, replies)) is not None:
            few = "\n".join(map(repr, shortest(todo, replies, type(error))))
            raise AssertionError(f"{error!r} after\n{few}\nwith replies {replies}") from error


def what_fails(todo: Sequence[Deed], replies: str) -> Exception | None:
    with TemporaryDirectory() as folder:
        try:
            asyncio.run(play(todo, Path(folder), replies))
        except Exception as error:
            return error
        except asyncio.CancelledError as error:  # it could not even be closed
            return RuntimeError(f"the app hangs: {error!r}")
    return None


def shortest(todo: Sequence[Deed], replies: str, kind: type[Exception]) -> list[Deed]:
    """Fewer deeds after which it fails in this way, as far as they are found within a minute."""
    end, left, size = time.monotonic() + _SHORTEN_S, list(todo), len(todo) // 2
    while size and time.monotonic() < end:
        for start in range(0, len(left), size):
            fewer = left[:start] + left[start + size :]
            if time.monotonic() < end and isinstance(what_fails(fewer, replies), kind):
                left = fewer
                break
        else:
            size //= 2
    return left
