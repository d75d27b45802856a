"""The app's side of the engine process: starts it, asks it, and survives its death."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import msgspec

from ondevice import errors, paths
from ondevice.engine.messages import (
    Answer,
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
    Record,
    Resize,
    Shutdown,
    Sizing,
    decode_answer,
    encode,
)
from ondevice.errors import EngineDied, EngineError, OndeviceError, UsageError

_SHUTDOWN_S = 2.0  # after which a process that does not end is killed
_LOG_LIMIT = 4_000_000  # bytes; a longer log is begun anew at start
_SIGNALS = {
    "SIGKILL": "the operating system killed it, most likely because memory ran out",
    "SIGABRT": "llama.cpp gave up on an internal error",
    "SIGSEGV": "it crashed in native code",
    "SIGBUS": "the model file changed or vanished while it was in use, or its disk failed",
    "SIGILL": "this processor lacks an instruction that llama.cpp was built for",
}


class Engine:
    """A model in a process of its own; see :class:`ondevice.engine.EngineLike`.

    The process starts with the first load. Use as a context manager, or call :meth:`close`.
    ``log`` is the file for what native code says; the default is ``engine.log`` in the log folder.
    """

    def __init__(self, log: Path | None = None) -> None:
        self._log = log or paths.log_dir() / "engine.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._loaded: Loaded | None = None
        self._load: Load | None = None  # what to load again after a crash
        self._sizing: Sizing | None = None
        self._heard: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()  # None: it has ended
        self._busy = threading.Lock()
        self._writing = threading.Lock()

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
        return self._sizing

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    def load(self, request: Load, on_progress: Callable[[float], None] | None = None) -> Loaded:
        with self._exclusive():
            return self._do_load(request, on_progress)

    def generate(self, request: Generate) -> Generator[Event, None, None]:
        with self._exclusive():
            answers = self._ask(request)
            try:
                for answer in answers:
                    if isinstance(answer, Event):
                        yield answer
            except GeneratorExit:
                # The caller lost interest; the next request must not meet the rest of this reply.
                self.cancel()
                for _ in answers:
                    pass
                raise

    def embed(self, texts: Sequence[str]) -> Embedded:
        """A vector of length 1 for each text of at most 512 tokens."""
        with self._exclusive():
            for answer in self._ask(Embed(texts=tuple(texts))):
                if isinstance(answer, Embedded):
                    return answer
        raise AssertionError("the answers end with Embedded or an error")

    def resize(self, budget: int | None) -> None:
        if self._process is not None:
            self._send(Resize(budget=budget))

    def cancel(self) -> None:
        with contextlib.suppress(EngineDied):
            self._send(Cancel())

    def close(self) -> None:
        process, self._process, self._loaded = self._process, None, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            _pipe(process.stdin).write(encode(Shutdown()))
            _pipe(process.stdin).close()
        try:
            process.wait(_SHUTDOWN_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _pipe(process.stdout).close()

    # --------------------------------------------------------------------- internals

    @contextlib.contextmanager
    def _exclusive(self) -> Generator[None, None, None]:
        if not self._busy.acquire(blocking=False):
            raise UsageError("The engine is busy with another request.")
        try:
            yield
        finally:
            self._busy.release()

    def _ask(self, request: Generate | Embed) -> Iterator[Answer]:
        if self._process is None:
            if self._load is None:
                raise UsageError("No model is loaded.")
            self._do_load(self._load, None)
        self._send(request)
        return self._answers()

    def _do_load(self, request: Load, on_progress: Callable[[float], None] | None) -> Loaded:
        self._loaded = self._sizing = None
        if self._process is None:
            self._start()
        self._send(request)
        for answer in self._answers():
            if isinstance(answer, Loading) and on_progress:
                on_progress(answer.fraction)
            elif isinstance(answer, Loaded):
                self._loaded, self._load = answer, request
        assert self._loaded is not None
        return self._loaded

    def _start(self) -> None:
        paths.ensure_private(self._log.parent)
        grown = self._log.exists() and self._log.stat().st_size > _LOG_LIMIT
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if grown else os.O_APPEND)
        log = os.open(self._log, flags, 0o600)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ondevice.engine._worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                # An abort would have gdb, where there is one, describe itself at length.
                env={**os.environ, "GGML_NO_BACKTRACE": "1"},
                # Ctrl+C in the terminal is for the app, which then cancels.
                start_new_session=True,
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as error:
            raise EngineError(f"The engine process cannot be started: {error}.") from error
        finally:
            os.close(log)
        self._heard = queue.SimpleQueue()
        listening = (_pipe(self._process.stdout), self._heard)
        threading.Thread(target=self._listen, args=listening, name="engine", daemon=True).start()

    def _listen(self, answers: IO[bytes], heard: queue.SimpleQueue[Answer | None]) -> None:
        """Take down what the process says, until it has ended; some of it comes unasked."""
        with contextlib.suppress(msgspec.MsgspecError, ValueError):
            for line in answers:
                answer = decode_answer(line)
                if isinstance(answer, Sizing):
                    self._sizing = answer
                else:
                    heard.put(answer)
        heard.put(None)

    def _send(self, record: Record) -> None:
        process = self._process
        if process is None:
            raise EngineDied("The engine is not running.")
        try:
            with self._writing:
                _pipe(process.stdin).write(encode(record))
                _pipe(process.stdin).flush()
        except (OSError, ValueError):
            # Whoever reads the answers meets the end of the stream and says why.
            return

    def _answers(self) -> Iterator[Answer]:
        """The answers to one request, up to and with the one that completes it.

        Raises what a ``Failed`` carries, or :class:`EngineDied`.
        """
        process = self._process
        assert process is not None
        while (answer := self._heard.get()) is not None:
            if isinstance(answer, Failed):
                raise errors.BY_NAME.get(answer.error, OndeviceError)(answer.message)
            yield answer
            if isinstance(answer, Loaded | Finished | Embedded):
                return
        raise self._died(process)

    def _died(self, process: subprocess.Popen[bytes]) -> EngineDied:
        closed_by_us = self._process is None
        self._process = self._loaded = self._sizing = None
        process.kill()
        code = process.wait()
        for pipe in (process.stdin, process.stdout):
            with contextlib.suppress(OSError):
                _pipe(pipe).close()
        if closed_by_us:
            return EngineDied("The engine was closed.")
        why = f"it ended with code {code}"
        if code < 0:
            name = signal.Signals(-code).name
            why = _SIGNALS.get(name, f"it was ended by {name}")
        return EngineDied(
            f"The engine stopped unexpectedly: {why}. The conversation is kept; the engine starts "
            f"again with the next message. Details are in {self._log}."
        )


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None
    return stream
