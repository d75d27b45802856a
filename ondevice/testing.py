"""An engine that plays scripts in place of a model, for the tests of programs that use ondevice.

It needs no model, no process and no time, and it fails when you tell it to::

    from ondevice import Chunk, Generate, Load, Turn
    from ondevice.errors import EngineDied
    from ondevice.testing import FakeEngine

    engine = FakeEngine(["Hello, ", "world."], [EngineDied("It crashed.")])
    engine.load(Load(path="any.gguf"))
    events = engine.generate(Generate(turns=(Turn("user", "Hi"),)))
    assert "".join(e.text for e in events if isinstance(e, Chunk)) == "Hello, world."

The next request raises ``EngineDied``. Nothing here computes: what a real model says, how fast and
in how much RAM, only a real model tells.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from ondevice.errors import EngineDied, LoadCancelled, UsageError
from ondevice.messages import (
    Aside,
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
    """A place in a script where the engine waits until the test opens it, or a cancel comes."""

    def __init__(self) -> None:
        self._open = threading.Event()

    def open(self) -> None:
        """Let the engine go on."""
        self._open.set()

    def opened(self, timeout: float | None = None) -> bool:
        """Wait until it is open, at most ``timeout`` seconds. Whether it is open then."""
        return self._open.wait(timeout)


class Pause(Gate):
    """A place in a script where the engine takes some seconds, unless it is cancelled."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds

    def opened(self, timeout: float | None = None) -> bool:
        """Wait until the seconds are over, or a cancel comes. Whether one has come."""
        return super().opened(self._seconds if timeout is None else timeout)


#: What a script is made of. A text is a chunk of the answer; a number is the progress of a load, 0
#: to 1; an event, such as a ``Notice``, comes as it is; the engine waits at a :class:`Gate`; an
#: error is raised.
Step = str | float | Event | Gate | Exception


class FakeEngine:
    """An :class:`ondevice.EngineLike` without a process and without a model.

    Each reply plays the next script of ``replies``, and each load the next one of ``loads``; the
    last script is played again and again. With no script, each reply is "Hello.".

    What the app asks for itself, such as a title, is an :class:`ondevice.Aside` and plays the next
    script of ``asides``, so that it uses up no reply. By default an aside has an empty answer.

    Every reply ends with :class:`ondevice.Finished`, as a real one does; after :meth:`cancel` its
    reason is "cancelled". Two requests at once raise :class:`ondevice.UsageError`.
    """

    def __init__(
        self,
        *replies: Sequence[Step],
        loads: Sequence[Sequence[Step]] = ((0.5, 1.0),),
        asides: Sequence[Sequence[Step]] = ((),),
    ) -> None:
        self.requests: list[Load | Generate] = []
        """What was asked, in order."""
        self.resizes: list[int | None] = []
        """The budgets that :meth:`resize` was called with, in order."""
        self.sizing: Sizing | None = None
        """What the engine says of its RAM; for the test to set."""
        self.closed = False
        """Whether :meth:`close` was called."""
        self._replies = deque(replies or [["Hello."]])
        self._loads = deque(loads)
        self._asides = deque(asides)
        self._loaded: Loaded | None = None
        self._last_load: Load | None = None
        self._busy = threading.Lock()
        self._cancelled = False
        self._answer_now = self._is_thinking = self._has_cut = False
        self._gate: Gate | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def loaded(self) -> Loaded | None:
        """The model of the last load; None before one, and after :class:`EngineDied`."""
        return self._loaded

    @property
    def pid(self) -> int | None:
        """None: there is no process."""
        return None

    def load(self, request: Load, on_progress: Callable[[float], None] | None = None) -> Loaded:
        """Play the next script of ``loads``; any path will do, and no file is read."""
        with self._exclusive(request):
            self._loaded = None
            for step in self._play(self._loads):
                if on_progress and isinstance(step, float):
                    on_progress(step)
            if self._cancelled:
                raise LoadCancelled
            self._last_load = request
            return self._ready(request)

    def generate(self, request: Generate) -> Generator[Event, None, None]:
        """Play the next script of ``replies``, or of ``asides``."""
        with self._exclusive(request):
            if self._last_load is None:
                raise UsageError("No model is loaded.")
            self._ready(self._last_load)
            reason: FinishReason = "stop"
            chunks = 0
            scripts = self._replies if not isinstance(request, Aside) else self._asides
            for step in self._play(scripts):
                if isinstance(step, str):
                    yield Chunk(text=step)
                elif isinstance(step, Event):
                    self._loaded = with_context(self._loaded, step)
                    yield step
                chunks += isinstance(step, str | Chunk)
            if self._cancelled:
                reason = "cancelled"
            yield Finished(reason=reason, statistics=_statistics(chunks, cut=self._has_cut))

    def measure(self, request: Measure) -> Measured:
        """Count tokens: each word is one."""
        if self._last_load is None:
            raise UsageError("No model is loaded.")
        return Measured(
            tokens=sum(_words(turn.content) for turn in request.turns),
            n_ctx=(self._loaded or self._ready(self._last_load)).n_ctx,
            texts=tuple(map(_words, request.texts)),
        )

    def resize(self, budget: int | None) -> None:
        """Note the budget."""
        self.resizes.append(budget)

    def cancel(self) -> None:
        """End the script under way."""
        self._cancelled = True
        if self._gate:
            self._gate.open()

    def answer_now(self) -> None:
        """Leave out what the script under way has of thinking from here on, with its gates."""
        self._answer_now = True
        if self._is_thinking:
            self._has_cut = True
            if self._gate:
                self._gate.open()

    def close(self) -> None:
        """End the script under way, and note that the engine was closed."""
        self.closed = True
        self.cancel()

    @contextlib.contextmanager
    def _exclusive(self, request: Load | Generate) -> Generator[None, None, None]:
        if not self._busy.acquire(blocking=False):
            raise UsageError("The engine is busy with another request.")
        self._cancelled = self._answer_now = self._is_thinking = self._has_cut = False
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
                if not (self._answer_now and self._is_thinking):
                    step.opened()
            elif isinstance(step, str | Chunk):
                self._is_thinking = isinstance(step, Chunk) and step.part == "thinking"
                if self._answer_now and self._is_thinking:
                    self._has_cut = True
                    continue
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


def _statistics(chunks: int, *, cut: bool) -> Statistics:
    return Statistics(
        prompt_tokens=30,
        reused_tokens=0,
        prompt_ms=100.0,
        generated_tokens=chunks + 1 if chunks else 0,
        generated_ms=chunks * 20.0,
        context_tokens=31 + chunks if chunks else 0,
        n_ctx=4096,
        peak_ram_bytes=300_000_000,
        seed=1,
        thinking_cut=cut,
    )
