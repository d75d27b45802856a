"""A small engine that plays scripts instead of a model, for tests of the user interface only."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path

from ondevice.errors import EngineDied, LoadCancelled, UsageError
from ondevice.messages import (
    Chunk,
    Event,
    Finished,
    FinishReason,
    Generate,
    Load,
    Loaded,
    Measure,
    Measured,
    Sizing,
    Statistics,
    with_context,
)


class Gate:
    """A place in a script where the engine waits until the test opens it, or for a cancel."""

    def __init__(self) -> None:
        self._open = threading.Event()

    def open(self) -> None:
        """Let the engine move on."""
        self._open.set()

    def opened(self, timeout: float | None = None) -> bool:
        """Wait until it is open, ``timeout`` seconds at most; whether it is."""
        return self._open.wait(timeout)


class Pause(Gate):
    """The engine takes so many seconds for what follows, unless it is cancelled."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def opened(self, timeout: float | None = None) -> bool:
        return super().opened(self._seconds if timeout is None else timeout)


#: A text is a chunk of the answer, a number the progress of a load; an error is raised.
Step = str | float | Event | Gate | Exception


class FakeEngine:
    """An :class:`ondevice.engine.EngineLike` without process and model.

    Each reply plays the next script of ``replies`` and each load the next of ``loads``; the last
    one is played again and again. What is asked for with a limit of tokens, as titles are, plays
    the next of ``asides``. ``requests`` is what has been asked. ``sizing`` is for the test to set.
    """

    def __init__(
        self,
        *replies: Sequence[Step],
        loads: Sequence[Sequence[Step]] = ((0.5, 1.0),),
        asides: Sequence[Sequence[Step]] = ((),),
    ) -> None:
        self.requests: list[Load | Generate] = []
        self.resizes: list[int | None] = []
        self.sizing: Sizing | None = None
        self.closed = False
        self._replies = deque(replies or [["Hello."]])
        self._loads = deque(loads)
        self._asides = deque(asides)
        self._loaded: Loaded | None = None
        self._last_load: Load | None = None
        self._busy = threading.Lock()
        self._cancelled = False
        self._gate: Gate | None = None

    @property
    def loaded(self) -> Loaded | None:
        return self._loaded

    @property
    def pid(self) -> int | None:
        return None

    def load(self, request: Load, on_progress: Callable[[float], None] | None = None) -> Loaded:
        with self._exclusive(request):
            self._loaded = None
            for step in self._play(self._loads):
                if on_progress and isinstance(step, float):
                    on_progress(step)
            if self._cancelled:
                raise LoadCancelled
            self._last_load = request
            return self._ready(request)

    def generate(self, request: Generate) -> Iterator[Event]:
        with self._exclusive(request):
            if self._last_load is None:
                raise UsageError("No model is loaded.")
            self._ready(self._last_load)
            reason: FinishReason = "stop"
            chunks = 0
            scripts = self._replies if request.max_tokens is None else self._asides
            for step in self._play(scripts):
                if isinstance(step, str):
                    yield Chunk(text=step)
                elif isinstance(step, Event):
                    self._loaded = with_context(self._loaded, step)
                    yield step
                chunks += isinstance(step, str | Chunk)
            if self._cancelled:
                reason = "cancelled"
            yield Finished(reason=reason, statistics=_statistics(chunks))

    def measure(self, request: Measure) -> Measured:
        """Each word is a token."""
        if self._last_load is None:
            raise UsageError("No model is loaded.")
        return Measured(
            tokens=sum(_words(turn.content) for turn in request.turns),
            n_ctx=(self._loaded or self._ready(self._last_load)).n_ctx,
            texts=tuple(map(_words, request.texts)),
        )

    def resize(self, budget: int | None) -> None:
        self.resizes.append(budget)

    def cancel(self) -> None:
        self._cancelled = True
        if self._gate:
            self._gate.open()

    def close(self) -> None:
        self.closed = True
        self.cancel()

    @contextlib.contextmanager
    def _exclusive(self, request: Load | Generate) -> Generator[None, None, None]:
        if not self._busy.acquire(blocking=False):
            raise UsageError("The engine is busy with another request.")
        self._cancelled = False
        self.requests.append(request)
        try:
            yield
        finally:
            self._busy.release()

    def _play(self, scripts: deque[Sequence[Step]]) -> Iterator[Step]:
        script = scripts.popleft() if len(scripts) > 1 else scripts[0]
        for step in script:
            if self._cancelled:
                return
            if isinstance(step, EngineDied):
                self._loaded = None
            if isinstance(step, Exception):
                raise step
            if isinstance(step, Gate):
                self._gate = step
                step.opened()
            yield step

    def _ready(self, request: Load) -> Loaded:
        self._loaded = Loaded(
            path=request.path,
            name=Path(request.path).stem,
            architecture="llama",
            quantization="Q4_K - Medium",
            n_params=135_000_000,
            n_layers=30,
            n_ctx=request.n_ctx or 4096,
            n_ctx_train=8192,
            weights_bytes=92_000_000,
            kv_bytes=94_000_000,
            compute_bytes=97_000_000,
            load_ms=500.0,
        )
        return self._loaded


def _words(text: str) -> int:
    return len(text.split())


def _statistics(chunks: int) -> Statistics:
    return Statistics(
        prompt_tokens=30,
        reused_tokens=0,
        prompt_ms=100.0,
        generated_tokens=chunks + 1,
        generated_ms=chunks * 20.0,
        context_tokens=31 + chunks,
        n_ctx=4096,
        peak_ram_bytes=300_000_000,
        seed=1,
    )
