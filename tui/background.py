"""Runs what blocks in a thread and shows what comes of it in batches, on the UI's own loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_FRAME = 0.05  # seconds: what comes faster is shown together
_PAUSE = 2  # times what it took to show the last batch: the rest of the app has its turn as well


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

    def put(item: _Item) -> None:
        pending.append(item)
        loop.call_soon_threadsafe(news.set)

    thread = loop.run_in_executor(None, work, put)
    thread.add_done_callback(lambda _: news.set())
    try:
        while pending or not thread.done():
            await news.wait()
            news.clear()
            if batch := [pending.popleft() for _ in range(len(pending))]:
                started = loop.time()
                await show(batch)
                await asyncio.sleep(max(_FRAME, _PAUSE * (loop.time() - started)))
    finally:
        if not thread.done():
            cancel()
        while not thread.done():  # an app that closes may cancel more than once
            with suppress(asyncio.CancelledError):
                await asyncio.wait([thread])
        thread.exception()  # of no interest to whoever has cancelled, but asyncio wants it seen
    return thread.result()
