"""Runs what blocks in a thread and shows what comes of it in batches, on the UI's own loop."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

# What comes faster is shown together. An engine on this machine computes on all cores, so that
# whatever the UI takes of one slows it down as a whole: drawing should take but a small part.
_LEAST, _MOST = 0.05, 0.15  # seconds between two batches
_SHARE = 0.03  # of a core's time that the UI may take, as long as that is not above _MOST
_PAUSE = 2  # times what it took to show the last batch: the rest of the app has its turn as well


async def end_of(work: asyncio.Future[Any]) -> None:
    """Wait for it: a user stops more than once, and so does an app that closes."""
    while not work.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([work])


async def in_thread(
    work: Callable[[Callable[[_Item], None]], _Result],
    show: Callable[[list[_Item]], Awaitable[None]],
    cancel: Callable[[], None],
) -> _Result:
    """Run ``work(put)`` in a thread and ``show`` what it puts, a batch at a time.

    Returns or raises what the work does, once all is shown. When the awaiting task is cancelled,
    ``cancel`` is called and the thread waited for, so that nothing goes on behind the app's back.
    """
    loop = asyncio.get_running_loop()
    pending: deque[_Item] = deque()
    news = asyncio.Event()

    waiting = False

    def put(item: _Item) -> None:
        pending.append(item)
        if waiting:  # otherwise it is seen anyway, and to wake the loop for each token costs
            loop.call_soon_threadsafe(news.set)

    spent_before = time.thread_time()
    thread = loop.run_in_executor(None, work, put)
    thread.add_done_callback(lambda _: news.set())
    try:
        while pending or not thread.done():
            waiting = True
            if not (pending or thread.done()):
                await news.wait()
            waiting = False
            news.clear()
            if batch := [pending.popleft() for _ in range(len(pending))]:
                started = loop.time()
                await show(batch)
                took = loop.time() - started
                # Layout and painting come after that, so they are seen with the next batch.
                spent, spent_before = time.thread_time() - spent_before, time.thread_time()
                fair = min(max(_LEAST, spent / _SHARE), _MOST)
                await asyncio.wait([thread], timeout=max(fair, _PAUSE * took))
    finally:
        if not thread.done():
            cancel()
        await end_of(thread)
        thread.exception()  # of no interest to whoever has cancelled, but asyncio wants it seen
    return thread.result()
