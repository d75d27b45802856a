"""The app's side of the engine process: starts it, asks it, and survives its death."""

from __future__ import annotations

import contextlib
import itertools
import math
import os
import queue
import signal
import time
import weakref
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from ondevice import errors, paths
from ondevice.checking import check
from ondevice.engine._process import WOKEN, EngineProcess
from ondevice.errors import EngineDied, LoadCancelled, OndeviceError, UsageError
from ondevice.messages import (
    Answer,
    AnswerNow,
    Cancel,
    Embed,
    Embedded,
    Event,
    Failed,
    Finished,
    Generate,
    Load,
    Loaded,
    Loading,
    Measure,
    Measured,
    Notice,
    Resize,
    Sizing,
    Statistics,
    with_context,
)

_OBEY_S = 2.0  # after which a process that does not obey a cancel is ended
_SIGNALS = {
    "SIGKILL": "the operating system killed it, most likely because memory ran out",
    "SIGABRT": "llama.cpp stopped on an internal error",
    "SIGSEGV": "it crashed in native code",
    "SIGBUS": "the model file changed or vanished while it was in use, or its disk failed",
    "SIGILL": "this processor lacks an instruction that llama.cpp was built for",
}
#: What a process dies of by its own fault, and would again. (Windows has codes of its own.)
_CRASHES = {"SIGABRT", "SIGSEGV", "SIGILL", "SIGFPE", "SIGTRAP", "SIGSYS"}


_Asked = Load | Generate | Embed | Measure


class _Call:
    """One use of the engine: from when somebody has it to when he lets go of it."""

    def __init__(self) -> None:
        self.number: int | None = None  # of the request under way
        self.cancelled_at: float | None = None  # on the monotonic clock

    def cancel(self) -> None:
        self.cancelled_at = self.cancelled_at or time.monotonic()

    def is_cancelled(self) -> bool:
        return self.cancelled_at is not None

    @property
    def patience_s(self) -> float | None:
        """Seconds in which an answer must come; None: it may take its time."""
        if self.cancelled_at is None:
            return None
        return max(0.0, self.cancelled_at + _OBEY_S - time.monotonic())


class Engine:
    """A model in a process of its own; see :class:`ondevice.engine.EngineLike`.

    The process starts with the first load. Use as a context manager, or call :meth:`close`; an
    engine that is forgotten, or whose program ends, ends its process as well. ``log`` is the file
    for what native code says; the default is ``engine.log`` in the log folder.

    After a fork it is of use only to the process that started it.

    Whatever way a request is left, be it an exception thrown into it or Ctrl+C, it is cancelled,
    and the next one gets its own answers. A cancel that is not obeyed within two seconds ends the
    process; the next request starts it again with the same model.
    """

    def __init__(self, log: str | os.PathLike[str] | None = None) -> None:
        self._log = Path(log) if log else paths.log_dir() / "engine.log"
        self._process: EngineProcess | None = None
        self._loaded: Loaded | None = None
        self._load: Load | None = None  # what to load again after a death
        self._proven = False  # whether that model has completed a reply since it was loaded
        self._refusal = "No model is loaded."
        self._closed = False
        self._numbers = itertools.count(1)
        self._calls: dict[str, _Call] = {}  # "now": who has the engine
        self._forgotten = weakref.finalize(self, lambda: None)

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
        return self._loaded

    @property
    def sizing(self) -> Sizing | None:
        return process.sizing if (process := self._process) else None

    @property
    def pid(self) -> int | None:
        return process.pid if (process := self._process) else None

    def load(self, request: Load, on_progress: Callable[[float], None] | None = None) -> Loaded:
        request = check(request, Load)
        with self._call() as call:
            self._load, self._refusal = None, "No model is loaded."
            return self._do_load(call, request, on_progress)

    def generate(self, request: Generate) -> Generator[Event, None, None]:
        request = check(request, Generate)
        with self._call() as call:
            self._load_again(call)
            # Closed at once: an exception may be held for long, and with it what it went through.
            with contextlib.closing(self._ask(call, request)) as answers:
                for answer in answers:
                    if isinstance(answer, Finished):
                        self._remember(answer.statistics, is_kept=request.keep is not None)
                    if isinstance(answer, Event):
                        yield answer

    def embed(self, texts: Sequence[str]) -> Embedded:
        """A vector of length 1 for each text of at most 512 tokens."""
        several = isinstance(texts, Iterable) and not isinstance(texts, str)
        request = check(Embed(texts=tuple(texts) if several else texts), Embed)  # type: ignore[arg-type]
        with self._call() as call:
            self._load_again(call)
            with contextlib.closing(self._ask(call, request)) as answers:
                for answer in answers:
                    if isinstance(answer, Embedded):
                        return answer
        raise AssertionError("the answers end with Embedded or an error")

    def measure(self, request: Measure) -> Measured:
        request = check(request, Measure)
        with self._call() as call:
            self._load_again(call)
            with contextlib.closing(self._ask(call, request)) as answers:
                for answer in answers:
                    if isinstance(answer, Measured):
                        return answer
        raise AssertionError("the answers end with Measured or an error")

    def resize(self, budget: int | None) -> None:
        request = check(Resize(budget=budget), Resize)
        if (process := self._process) is not None:
            process.send(request)

    def cancel(self) -> None:
        if (call := self._calls.get("now")) is not None:
            call.cancel()
            if (process := self._process) is not None:
                if (number := call.number) is not None:
                    process.send(Cancel(), number)
                process.wake()

    def answer_now(self) -> None:
        call, process = self._calls.get("now"), self._process
        if process is not None and call is not None and (number := call.number) is not None:
            process.send(AnswerNow(), number)

    def close(self) -> None:
        self._closed = True
        process, self._process, self._loaded = self._process, None, None
        if process is not None:
            process.close()

    # --------------------------------------------------------------------- internals

    @contextlib.contextmanager
    def _call(self) -> Generator[_Call, None, None]:
        if self._closed:
            raise UsageError("The engine is closed.")
        if (process := self._process) is not None and not process.is_of_this_process:
            raise UsageError("The engine was started before a fork. Start one in this process.")
        call = _Call()
        try:
            # Not a lock: Ctrl+C right after one was taken would leave it taken.
            if self._calls.setdefault("now", call) is not call:
                raise UsageError("The engine is busy with another request.")
            yield call
        finally:
            if "now" in self._calls and self._calls["now"] is call:
                del self._calls["now"]

    def _remember(self, took: Statistics, *, is_kept: bool) -> None:
        """What the next plans need: how fast the model was, and what its KV cache is kept in."""
        from ondevice.planning import kv_before, replies  # noqa: PLC0415 - the app starts without

        if self._load is None:
            return
        if is_kept and self._loaded and not self._load.is_remote:
            kv_before.record(self._load.path, self._loaded.kv_type)
        held = replies.held(self._load, self.sizing)
        planned = self._loaded.expected if self._loaded else None
        expected = planned.tokens_per_second if planned else 0.0
        replies.record(
            held,
            took.generated_tokens,
            took.generated_per_second,
            took.waited_share,
            expected or math.inf,
        )

    def _load_again(self, call: _Call) -> None:
        """Have the model there again that has gone with its process, or in a cancelled load."""
        if self._loaded is None or self._process is None:
            if self._load is None:
                raise UsageError(self._refusal)
            self._do_load(call, self._load, None)

    def _do_load(
        self, call: _Call, request: Load, on_progress: Callable[[float], None] | None
    ) -> Loaded:
        self._loaded = None
        self._proven = False
        if self._process is None:
            self._start()
        with contextlib.closing(self._ask(call, request)) as answers:
            for answer in answers:
                if isinstance(answer, Loading) and on_progress:
                    on_progress(answer.fraction)
                elif isinstance(answer, Loaded):
                    self._loaded, self._load = answer, request
                    return answer
        raise AssertionError("the answers end with Loaded or an error")

    def _start(self) -> None:
        self._process = process = EngineProcess(self._log)
        self._forgotten.detach()
        self._forgotten = weakref.finalize(self, process.end)
        try:
            process.start()
        except BaseException:
            self._end(process)
            raise

    def _end(self, process: EngineProcess) -> int | None:
        """End a process that is of no more use; returns its exit code."""
        if self._process is process:
            self._process = None
        self._loaded = None
        return process.end()

    def _ask(self, call: _Call, request: _Asked) -> Generator[Answer, None, None]:
        """The answers to one request, up to and with the one that completes it.

        Raises what a ``Failed`` carries, :class:`EngineDied`, and :class:`LoadCancelled`.
        """
        process = self._process
        if process is None:
            raise EngineDied("The engine was closed.")
        complete = False
        try:
            call.number = number = next(self._numbers)
            if not call.is_cancelled():
                process.send(request, number)
                if call.is_cancelled():  # it may have overtaken the request
                    process.send(Cancel(), number)
            else:
                complete = True
                yield from _cancelled(request, self._loaded)
                return
            while not complete:
                try:
                    answer = self._hear(process, call)
                except queue.Empty:
                    complete = True
                    self._end(process)
                    told = "The engine did not respond, so it was stopped. "
                    yield Notice(text=f"{told}It restarts with your next message.")
                    yield from _cancelled(request, self._loaded)
                    return
                if answer is None:
                    complete = True
                    raise self._died(process, request)
                if isinstance(answer, Failed):
                    complete = True
                    raise errors.BY_NAME.get(answer.error, OndeviceError)(answer.message)
                if isinstance(answer, Loaded | Finished | Embedded | Measured):
                    complete = True
                    if not isinstance(answer, Measured):
                        self._proven = not isinstance(answer, Loaded)
                self._loaded = with_context(self._loaded, answer)
                yield answer
        finally:
            if not complete:
                self._give_up(process, call)
            call.number = None

    def _hear(self, process: EngineProcess, call: _Call) -> Answer | None:
        """The next answer to the request under way; None: the process has ended.

        Raises :class:`queue.Empty` when a cancel was not obeyed.
        """
        while True:
            number, answer = process.hear(call.patience_s)
            if number != WOKEN and (answer is None or number == call.number):
                return answer

    def _give_up(self, process: EngineProcess, call: _Call) -> None:
        """Nobody wants the rest of the answers: have the request end, or else the process."""
        try:
            call.cancel()
            if call.number is not None:
                process.send(Cancel(), call.number)
            last = Loaded | Finished | Embedded | Measured | Failed | None
            while not isinstance(self._hear(process, call), last):
                pass
        except queue.Empty:
            self._end(process)
        except BaseException:  # such as another Ctrl+C: there is no more time
            self._end(process)
            raise

    def _died(self, process: EngineProcess, request: _Asked) -> EngineDied:
        closed_by_us = self._closed
        code = self._end(process)
        if closed_by_us:
            return EngineDied("The engine was closed.")
        name = _signal_name(code)
        why = f"it was killed by {name}" if name else f"it exited with code {code}"
        why = _SIGNALS.get(name or "", why)
        details = f"Details are in {self._log}." if self._log.is_file() else ""
        loading = isinstance(request, Load)
        loaded = request if isinstance(request, Load) else self._load
        file = Path(loaded.path).name if loaded else "the model"
        ruled = isinstance(request, Generate) and (request.grammar or request.json_schema)
        if name in _CRASHES and (loading or not (self._proven or ruled)):
            # It would die of it again with each message.
            when = f"while it loaded {file}" if loading else f"in the first reply of {file}"
            self._load = None
            self._refusal = (
                f"No model is loaded: the engine crashed {when}. Choose another model, or "
                "load it again."
            )
            return EngineDied(
                f"The engine crashed {when}: {why}. The file may be damaged, or of a kind "
                "that cannot run here, so it is not loaded again. Choose another model. "
                f"Your chat is kept. {details}".rstrip()
            )
        if self._load is None:
            return EngineDied(
                f"The engine stopped unexpectedly while it loaded {file}: {why}. Your "
                f"chat is kept. Load it again, or choose another model. {details}".rstrip()
            )
        cause = " The grammar or the schema may be the cause." if ruled and name in _CRASHES else ""
        return EngineDied(
            f"The engine stopped unexpectedly: {why}.{cause} Your chat is kept, and the "
            f"engine restarts with your next message. {details}".rstrip()
        )


def _cancelled(request: _Asked, loaded: Loaded | None) -> Generator[Answer, None, None]:
    """How a request ends that was cancelled, where the process does not say so itself."""
    match request:
        case Load():
            raise LoadCancelled
        case Embed() | Measure():
            raise UsageError("Cancelled.")
        case Generate():
            yield Finished(
                reason="cancelled",
                statistics=Statistics(
                    prompt_tokens=0,
                    reused_tokens=0,
                    prompt_ms=0.0,
                    generated_tokens=0,
                    generated_ms=0.0,
                    context_tokens=0,
                    n_ctx=loaded.n_ctx if loaded else 0,
                    peak_ram_bytes=0,
                    seed=request.sampling.seed or 0,
                ),
            )


def _signal_name(code: int | None) -> str | None:
    """The signal that a process with this exit code has died of."""
    if os.name == "nt" and code is not None and code not in (0, 1):
        return "SIGSEGV" if code == 0xC0000005 else "SIGABRT" if code == 3 else None
    if code is None or code >= 0:
        return None
    try:
        return signal.Signals(-code).name
    except ValueError:  # the system has more of them than Python has names
        return f"signal {-code}"
