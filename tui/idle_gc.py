"""Takes garbage away little by little, when the event loop has nothing else to do."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

# Collections of the middle generation since the last full one: so many are worth the next
_MUCH = 4
_LITTLE_LATELY = 8  # where the last one found little, as it does while a reply is written
_TOO_MUCH = 12  # so many do not wait for a better moment
_LITTLE = 10_000  # objects
_NEVER = 1_000_000
_WAIT = 0.01  # seconds
_LATE = 0.002  # seconds by which a loop that is idle may be late


@contextmanager
def collected_when_idle(loop: asyncio.AbstractEventLoop, *, stays: bool) -> Iterator[None]:
    """Within this, full collections are small, and do not come in the middle of something.

    A message that was taken away is a thousand objects in cycles, at a microsecond each. Python by
    itself would wait for as many as a quarter of what lives, or with higher thresholds for millions
    of them, and then collect them while something is being drawn.

    ``stays``: the app is there for as long as the process, so it is not looked through again.
    """
    usual = gc.get_threshold()
    asked = frozen = False
    much = _MUCH

    def ask() -> None:
        loop.call_later(_WAIT, collect, loop.time() + _WAIT + _LATE)

    def collect(deadline: float) -> None:
        nonlocal asked, frozen, much
        if loop.time() > deadline and gc.get_count()[2] < _TOO_MUCH:
            ask()
            return
        asked = False
        _forget_drawn()
        much = _MUCH if gc.collect() > _LITTLE else _LITTLE_LATELY
        if stays and not frozen:
            frozen = True
            gc.freeze()

    def see(phase: Literal["start", "stop"], info: dict[str, int]) -> None:
        nonlocal asked  # in whatever thread
        if phase == "stop" and not asked and gc.get_count()[2] >= much:
            asked = True
            loop.call_soon_threadsafe(ask)

    gc.set_threshold(*usual[:2], _NEVER)
    gc.callbacks.append(see)
    try:
        yield
    finally:
        gc.callbacks.remove(see)
        gc.set_threshold(*usual)
        if frozen:
            gc.unfreeze()


def _forget_drawn() -> None:
    """Have Textual forget what was drawn of the last 1024 widgets: most of what there is.

    That is no public part of it: another version may have it elsewhere, and then collects slower.
    """
    with suppress(KeyError, AttributeError):
        sys.modules["textual._styles_cache"].StylesCache.get_inner_outer.cache_clear()
