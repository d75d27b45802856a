"""The queue for the one engine: who has left makes room at once, who is slow holds up nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import closing
from http import HTTPStatus
from typing import Generic, TypeVar

from starlette.requests import Request

from ondevice.engine import Engine
from ondevice.errors import ModelFileError
from ondevice.messages import Embedded, Event, Generate
from ondevice.server._errors import ClientGone, Refused, busy
from ondevice.server._offer import Offer

_MAX_WAITING = 16  # requests; the next is told to come back later
_CANCEL_S = 0.2  # between two cancels: the first may come before there is something to cancel

_Result = TypeVar("_Result")


class QueuedJob(Generic[_Result]):
    """A piece of work of the engine. Iterate over what comes of it; what went wrong is raised.

    It goes on no matter how fast that is done. What has come waits in RAM: the text of one reply
    at most.
    """

    def __init__(self) -> None:
        self.model = ""  # the name of the one that is loaded, from when something has come
        self.is_over = False  # it was cancelled
        self._came: asyncio.Queue[_Result | Exception | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    def start(self, work: asyncio.Task[None]) -> None:
        self._task = work

    def put(self, what: _Result | Exception | None) -> None:
        """What came, from the thread that works; None at the end."""
        self._loop.call_soon_threadsafe(self._came.put_nowait, what)

    def cancel(self, why: Exception) -> None:
        """End it; who iterates meets ``why``."""
        if not self.is_over and self._task is not None and not self._task.done():
            self.is_over = True
            self._came.put_nowait(why)
            self._task.cancel()

    def leave_with(self, request: Request) -> asyncio.Task[None]:
        """Cancel it when the client of ``request``, whose body has been read, is gone."""

        async def watch() -> None:
            while (await request.receive())["type"] != "http.disconnect":
                pass
            self.cancel(ClientGone())

        return asyncio.create_task(watch())

    async def __aiter__(self) -> AsyncIterator[_Result]:
        while (what := await self._came.get()) is not None:
            if isinstance(what, Exception):
                raise what
            yield what


class EngineQueue:
    """The engine, for one request at a time."""

    def __init__(self, engine: Engine, offer: Offer) -> None:
        self._engine = engine
        self._offer = offer
        self._free = asyncio.Lock()
        self._jobs: dict[asyncio.Task[None], QueuedJob[Event] | QueuedJob[Embedded]] = {}
        self._stopped = False

    def check_room(self) -> None:
        """Raise :class:`Refused` if there are too many waiting already."""
        if self._stopped:
            raise Refused(HTTPStatus.SERVICE_UNAVAILABLE, "The server is stopping.")
        if len(self._jobs) > _MAX_WAITING:
            raise busy(f"{_MAX_WAITING} requests are already waiting. Try again later.")

    def reply(self, model: str, wanted: Generate) -> QueuedJob[Event]:
        """The events of a reply, of the model of this name."""
        job: QueuedJob[Event] = QueuedJob()

        def work() -> None:
            with closing(self._engine.generate(wanted)) as events:
                for event in events:
                    job.put(event)

        return self._add(job, model, work)

    def embed(self, model: str, texts: Sequence[str]) -> QueuedJob[Embedded]:
        """The vectors of texts."""
        job: QueuedJob[Embedded] = QueuedJob()
        return self._add(job, model, lambda: job.put(self._engine.embed(texts)))

    def stop(self) -> None:
        """End all that is under way, and begin nothing more."""
        self._stopped = True
        for job in list(self._jobs.values()):
            job.cancel(Refused(HTTPStatus.SERVICE_UNAVAILABLE, "The server was stopped."))

    # --------------------------------------------------------------------- internals

    def _add(self, job: _AnyJob, model: str, work: Callable[[], None]) -> _AnyJob:
        self.check_room()
        task = asyncio.create_task(self._run(job, model, work))
        job.start(task)
        self._jobs[task] = job
        task.add_done_callback(self._jobs.pop)
        return job

    async def _run(
        self, job: QueuedJob[Event] | QueuedJob[Embedded], model: str, work: Callable[[], None]
    ) -> None:
        def in_thread() -> None:
            job.model = self._offer.load(model)
            if not job.is_over:
                work()

        async with self._free:
            thread = asyncio.create_task(asyncio.to_thread(in_thread))
            try:
                await asyncio.wait([thread])  # which a cancel of the wait does not cancel
                thread.result()
            except asyncio.CancelledError:
                while not thread.done():
                    self._engine.cancel()
                    await asyncio.wait([thread], timeout=_CANCEL_S)
                thread.exception()  # whatever came of it, nobody waits for it
                raise
            except ModelFileError as error:  # it may have changed since it was loaded
                self._offer.forget()
                job.put(error)
            except Exception as error:
                job.put(error)
            else:
                job.put(None)


_AnyJob = TypeVar("_AnyJob", QueuedJob[Event], QueuedJob[Embedded])
