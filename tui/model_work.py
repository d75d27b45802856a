"""Downloads, packings and measurements; they go on when the screen that began them is closed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from ondevice.errors import DownloadCancelled, OndeviceError, PackCancelled
from tui.background import in_thread

if TYPE_CHECKING:
    from ondevice.holding.speeds import Speeds
    from ondevice.models import InstalledModel, PackNews, PullProgress

Kind = Literal["download", "pack"]

_SURE = 1.0  # seconds after which a speed means something


@dataclass
class ModelJob:
    """What is done to one model."""

    kind: Kind
    doing: str = ""
    """In a word, such as "downloading"."""
    done: float | None = None
    """Of what is being done, 0 … 1; None: nobody knows yet."""
    done_bytes: int = 0
    total_bytes: int = 0
    """0: it is not a matter of bytes, or not known yet."""
    error: str = ""
    """Why it has failed."""
    ended: bool = False
    cancel: threading.Event = field(default_factory=threading.Event)
    _began: tuple[float, float] | None = None

    def show(self, doing: str, done: float | None) -> None:
        """It has come so far."""
        if doing != self.doing or self._began is None:
            self._began = (time.monotonic(), done or 0.0) if done is not None else None
        self.doing, self.done = doing, done

    @property
    def seconds_left(self) -> float | None:
        """Of what is being done, at the speed so far; None: too early to tell."""
        if self._began is None or self.done is None:
            return None
        seconds, gained = time.monotonic() - self._began[0], self.done - self._began[1]
        return seconds * (1 - self.done) / gained if seconds > _SURE and gained > 0 else None

    @property
    def bytes_per_second(self) -> float:
        """Of a download so far; 0: too early to tell, or no matter of bytes."""
        left = self.seconds_left
        return (self.total_bytes - self.done_bytes) / left if left else 0.0


class ModelWork:
    """``run`` starts a coroutine; ``on_done`` gets each model that has become ready.

    ``on_failed`` gets the name of each that has not, what was done to it, and why. ``on_measured``
    gets the machine's speeds, or why they could not be measured.
    """

    def __init__(
        self,
        run: Callable[[Coroutine[Any, Any, None]], object],
        on_done: Callable[[InstalledModel, Kind], None],
        on_failed: Callable[[str, Kind, str], None],
        on_measured: Callable[[Speeds | str], None],
    ) -> None:
        self.jobs: dict[str, ModelJob] = {}
        """Name of the model → what is done to it; a job that has failed stays until the next."""
        self._run = run
        self._on_done = on_done
        self._on_failed = on_failed
        self._on_measured = on_measured
        self.measuring = False
        """Whether the machine's speeds are being measured."""

    def download(self, name: str) -> None:
        """Download a model, unless that is under way; go on with what was stopped."""
        if not self.busy(name):
            self.jobs[name] = job = ModelJob("download")
            self._run(self._download(name, job))

    def pack(self, model: InstalledModel) -> None:
        """Pack a model, unless that is under way; go on with what was stopped."""
        if not self.busy(model.name):
            self.jobs[model.name] = job = ModelJob("pack")
            self._run(self._pack(model, job))

    def busy(self, name: str) -> bool:
        """Whether anything is done to this model."""
        return name in self.jobs and not self.jobs[name].ended

    def measure(self) -> bool:
        """Measure the machine's speeds; whether that was not under way already."""
        if self.measuring:
            return False
        self.measuring = True
        self._run(self._measure())
        return True

    async def _measure(self) -> None:
        from ondevice.planning import measuring  # noqa: PLC0415 - a faster start

        cancel = threading.Event()

        async def show(_: list[object]) -> None:
            """There is nothing to show on the way."""

        try:
            measured = await in_thread(lambda _: measuring.measure(cancel), show, cancel.set)
        except OndeviceError as error:
            self._on_measured(str(error))
        else:
            self._on_measured(measured)
        finally:
            self.measuring = False

    def stop(self, name: str) -> None:
        """End it; what is done is kept."""
        self.jobs[name].cancel.set()

    async def _download(self, name: str, job: ModelJob) -> None:
        from ondevice import models  # noqa: PLC0415 - a faster start

        async def show(news: list[PullProgress]) -> None:
            job.done_bytes, job.total_bytes = news[-1].done_bytes, news[-1].total_bytes
            known = job.total_bytes > 0
            job.show("downloading", job.done_bytes / job.total_bytes if known else None)

        await self._do(name, job, lambda put: models.pull(name, put, job.cancel), show)

    async def _pack(self, model: InstalledModel, job: ModelJob) -> None:
        from ondevice import models  # noqa: PLC0415 - a faster start

        async def show(news: list[PackNews]) -> None:
            job.show(news[-1].stage, news[-1].done)

        await self._do(model.name, job, lambda put: models.pack(model, put, job.cancel), show)

    async def _do(
        self,
        name: str,
        job: ModelJob,
        work: Callable[[Callable[[Any], None]], InstalledModel],
        show: Callable[[list[Any]], Coroutine[Any, Any, None]],
    ) -> None:
        try:
            model = await in_thread(work, show, job.cancel.set)
        except (DownloadCancelled, PackCancelled):
            del self.jobs[name]
        except OndeviceError as error:
            job.error = str(error)
            self._on_failed(name, job.kind, job.error)
        else:
            del self.jobs[name]
            self._on_done(model, job.kind)
        finally:
            job.ended = True
