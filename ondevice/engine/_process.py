"""The engine process as the app holds it: threads start it, write to it, and take down its answers.

Whoever asks only ever waits at a queue. So nothing that the process does or leaves undone, be it
that it is stopped or does not read, holds the app up for longer than the app will wait.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO

from ondevice import paths
from ondevice.errors import EngineError
from ondevice.messages import (
    UNASKED,
    Answer,
    BrokenLine,
    Failed,
    Record,
    Shutdown,
    Sizing,
    decode_answer,
    encode,
)
from ondevice.system import children
from ondevice.text import reason

_SHUTDOWN_S = 2.0  # after which a process that does not end is killed
_REAP_S = 5.0  # for the system to take a killed process away
_LOG_LIMIT = 4_000_000  # bytes; a longer log is begun anew at start

#: Stands for the number of a request where :meth:`EngineProcess.wake` was called.
WOKEN = -1


class EngineProcess:
    """One process, from :meth:`start` on. ``log`` is for what native code says."""

    def __init__(self, log: Path) -> None:
        #: How the weights are held now, as the process told last.
        self.sizing: Sizing | None = None
        self._log = log
        self._owner = os.getpid()
        self._starting = threading.Lock()
        self._ended = False
        self._process: subprocess.Popen[bytes] | None = None
        self._outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()  # None: no more
        self._heard: queue.SimpleQueue[tuple[int, Answer | None]] = queue.SimpleQueue()

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process else None

    @property
    def is_of_this_process(self) -> bool:
        """Whether its threads are here: a fork has none of them, and would wait for ever."""
        return os.getpid() == self._owner

    def start(self) -> None:
        """Raises :class:`EngineError`. After :meth:`end` nothing is started."""
        started: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()
        try:
            _start_thread("engine", self._attend, started)
        except RuntimeError as failure:
            started.put(failure)
        if error := started.get():
            raise EngineError(
                f"The engine process could not be started: {reason(error)}."
            ) from error

    def send(self, record: Record, number: int = UNASKED) -> None:
        """Have ``record`` written; whether it arrives, the answers will tell. Never waits."""
        self._outbox.put(encode(record, number))

    def hear(self, timeout: float | None) -> tuple[int, Answer | None]:
        """The number of a request and an answer to it; no answer: the process has ended.

        Raises :class:`queue.Empty` after ``timeout`` seconds.
        """
        return self._heard.get(timeout=timeout)

    def wake(self) -> None:
        """Have who waits in :meth:`hear` look around: there, the number is :data:`WOKEN`."""
        self._heard.put((WOKEN, None))

    def close(self) -> None:
        """Ask it to end, and end it if it does not; after a fork, leave it to its owner."""
        if not self.is_of_this_process:
            return
        with self._starting:
            self._ended = True
        self.send(Shutdown())
        self._outbox.put(None)
        if self._process is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_SHUTDOWN_S)
        self.end()

    def end(self) -> int | None:
        """End it at once; returns its exit code, None if it never ran or is another's."""
        if not self.is_of_this_process:
            return None
        with self._starting:
            self._ended = True
        self._outbox.put(None)
        if self._process is None:
            return None
        self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(_REAP_S)
        return None

    # --------------------------------------------------------------------- its threads

    def _attend(self, started: queue.SimpleQueue[Exception | None]) -> None:
        """Start the process and listen until it has ended.

        Linux ends it when the thread that started it ends, so that thread does nothing else.
        """
        process = None
        error = None
        with self._starting:
            if not self._ended:
                try:
                    self._process = process = _open(self._log)
                    _start_thread("to engine", _write, process.stdin, self._outbox)
                except Exception as failure:  # who waits for the process must not wait for ever
                    error = failure
                    if process is not None and process.stdin is not None:
                        process.stdin.close()
        started.put(error)
        if process is not None and process.stdout is not None:
            with process.stdout as answers:
                self._listen(answers)
            process.wait()
        self._heard.put((UNASKED, None))
        self._outbox.put(None)

    def _listen(self, answers: IO[bytes]) -> None:
        with contextlib.suppress(OSError, ValueError):
            for line in answers:
                try:
                    number, answer = decode_answer(line)
                except BrokenLine as error:
                    number = error.number
                    answer = Failed(
                        error="EngineError",
                        message=f"The engine gave an invalid answer: {error}. The model may be "
                        "damaged. Ask again, or choose another model.",
                    )
                if isinstance(answer, Sizing):
                    self.sizing = answer
                else:
                    self._heard.put((number, answer))


def _start_thread(name: str, work: Callable[..., None], *arguments: object) -> None:
    """Raises :class:`RuntimeError` where the system allows no more threads."""
    threading.Thread(target=work, args=arguments, name=name, daemon=True).start()


def _write(requests: IO[bytes], outbox: queue.SimpleQueue[bytes | None]) -> None:
    with contextlib.suppress(OSError), requests:  # that it has ended, its answers will tell
        while (line := outbox.get()) is not None:
            requests.write(line)
            requests.flush()


def _open(log: Path) -> subprocess.Popen[bytes]:
    errors_to = _open_log(log)
    try:
        return subprocess.Popen(
            [sys.executable, "-m", "ondevice.engine._worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors_to,
            env=_environment(),
            # Ctrl+C in the terminal is for the app, which then cancels.
            start_new_session=True,
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
    finally:
        os.close(errors_to)


def _environment() -> dict[str, str]:
    # An abort would have gdb, where there is one, describe itself at length.
    return children.environment(GGML_NO_BACKTRACE="1")


def _open_log(log: Path) -> int:
    """A descriptor to write on; where there can be no log, what is written goes nowhere."""
    try:
        paths.ensure_private(log.parent)
        grown = log.exists() and log.stat().st_size > _LOG_LIMIT
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if grown else os.O_APPEND)
        return os.open(log, flags, 0o600)
    except OSError:  # such as a disk that is full or may not be written to
        return os.open(os.devnull, os.O_WRONLY)
