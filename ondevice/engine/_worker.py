"""The engine process: reads requests from standard input, answers on standard output.

A crash, an abort in native code or the OOM killer ends this process and not the app. What native
code prints goes to the log file, which is the process's standard error.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import signal
import sys
import threading
import time
import traceback
from functools import partial
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ondevice import llama
from ondevice.engine import _registry
from ondevice.engine._loading import HeldModel, load_model
from ondevice.engine._room import Room
from ondevice.engine._session import Session
from ondevice.errors import LoadCancelled, OndeviceError, UsageError
from ondevice.messages import (
    UNASKED,
    AnswerNow,
    BrokenLine,
    Cancel,
    Embed,
    Expected,
    Failed,
    Generate,
    Load,
    Loaded,
    Loading,
    Measure,
    Record,
    Resize,
    Shutdown,
    Sizing,
    decode_request,
    encode,
)
from ondevice.system import crashes
from ondevice.text import reason

_PR_SET_PDEATHSIG = 1  # of Linux's prctl(2)
_INTERRUPT_S = 0.5  # after which a cancel does not wait for the end of a token
_OOM_SCORE_ADJ = "800"  # of 1000: when memory runs out, the engine goes and the app stays


class _Wake(NamedTuple):
    """Nothing is asked for, but there may be more or less room for weights."""


class _Job(NamedTuple):
    request: Load | Generate | Embed | Measure | _Wake
    number: int = UNASKED
    cancel: threading.Event = threading.Event()  # one that nobody sets
    answer_now: threading.Event = threading.Event()  # likewise


class Worker:
    """Does one job after the other; another thread takes requests, so that Cancel gets through."""

    def __init__(self, requests: BinaryIO, answers: BinaryIO) -> None:
        self._requests = requests
        self._answers = answers
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._held: HeldModel | None = None
        self._session: Session | None = None
        self._room: Room | None = None
        self._sending = threading.Lock()
        self._interrupting = threading.Lock()
        self._job: _Job | None = None  # the one that is being done, or was last
        self._waiting = llama.Waiting()

    def run(self) -> None:
        """Work until Shutdown or until the app is gone; either ends the process."""
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        while True:
            job = self._jobs.get()
            with self._interrupting:
                self._job = job
                llama.interrupt(False)
            try:
                match job.request:
                    case Load():
                        self._send(self._load(job), job.number)
                        with self._waiting:
                            self._loaded_session.rest(lambda: not self._jobs.empty())
                    case Generate():
                        with self._waiting:
                            for event in self._loaded_session.reply(
                                job.request,
                                job.cancel,
                                partial(self._send, number=job.number),
                                job.answer_now,
                            ):
                                self._send(event, job.number)
                            self._loaded_session.rest(lambda: not self._jobs.empty())
                    case Embed():
                        with self._waiting:
                            done = self._loaded_session.embed(job.request.texts, job.cancel)
                        self._send(done, job.number)
                    case Measure():
                        with self._waiting:
                            measured = self._loaded_session.measure(job.request, job.cancel)
                            self._send(measured, job.number)
                            self._loaded_session.rest(lambda: not self._jobs.empty())
                    case _Wake() if self._session is not None:
                        self._session.between_passes()
            except OndeviceError as error:
                self._send(Failed(error=type(error).__name__, message=str(error)), job.number)
            except llama.Interrupted:
                self._send(Failed(error="LoadCancelled", message=str(LoadCancelled())), job.number)
            except BrokenPipeError:
                return  # the app is gone
            except Exception as error:
                traceback.print_exc()
                told = reason(error) if isinstance(error, OSError) else repr(error)
                what = f"The engine met an error of its own: {told}. Its log says more."
                self._send(Failed(error="EngineError", message=what), job.number)

    def _listen(self) -> None:
        under_way = _Job(_Wake())
        try:
            for line in self._requests:
                try:
                    number, request = decode_request(line)
                except BrokenLine as error:
                    what = f"The engine does not understand what it was asked: {error}."
                    self._send(Failed(error="UsageError", message=what), error.number)
                    continue
                match request:
                    case Cancel():
                        if number == under_way.number:
                            under_way.cancel.set()
                            late = threading.Timer(_INTERRUPT_S, self._interrupt, [under_way])
                            late.daemon = True
                            late.start()
                    case AnswerNow():
                        if number == under_way.number:
                            under_way.answer_now.set()
                    case Resize():
                        if (room := self._room) is not None:
                            room.resize(request.budget)
                    case Shutdown():
                        break
                    case _:
                        under_way = _Job(request, number, threading.Event(), threading.Event())
                        self._jobs.put(under_way)
        finally:
            # The main thread may be deep in native code, and nothing here needs to be saved.
            os._exit(0)

    def _interrupt(self, job: _Job) -> None:
        """End what is being computed if it is still for this job.

        Between two tokens a cancel costs nothing. In the middle of one, recurrent models lose what
        they have computed since their last batch, so this comes only when a token takes long.
        """
        with self._interrupting:
            if self._job is job:
                llama.interrupt(True)

    def _send(self, record: Record, number: int = UNASKED) -> None:
        line = encode(record, number)
        with self._sending:
            self._answers.write(line)
            self._answers.flush()

    def _load(self, job: _Job) -> Loaded:
        request = job.request
        assert isinstance(request, Load)
        started = time.perf_counter()
        self._unload()
        self._held = held = load_model(
            request, lambda f: self._send(Loading(fraction=f), job.number), job.cancel
        )
        self._room = Room(held, request.ram, self._report, self._wake)
        self._session = Session(held, self._room)
        return Loaded(
            path=str(held.plan.file.path),
            name=held.plan.file.name,
            architecture=held.plan.file.architecture,
            quantization=held.plan.file.quantization,
            n_params=held.model.n_params,
            n_layers=held.model.n_layers,
            n_ctx=held.context.n_ctx,
            n_ctx_train=held.model.n_ctx_train,
            weights_bytes=held.model.size_bytes,
            kv_type=held.plan.kv_type,
            plan=held.why,
            expected=Expected(
                peak_bytes=held.plan.peak_bytes,
                tokens_per_second=held.plan.tokens_per_second,
                first_token_s=held.plan.first_token_s,
                quality=held.plan.quality,
            ),
            streamed_bytes=held.weights.streamed_bytes,
            kv_bytes=held.context.kv_bytes,
            compute_bytes=held.context.compute_bytes,
            load_ms=(time.perf_counter() - started) * 1e3,
        )

    def _report(self, sizing: Sizing) -> None:
        """Let the app know, and other programs."""
        self._send(sizing)
        if self._held is not None:
            with contextlib.suppress(OSError):  # such as a full disk: it is only for show
                _registry.tell(str(self._held.plan.file.path.resolve()), sizing)

    def _wake(self) -> None:
        """Have the main thread look at its room, should it be waiting for a job."""
        if self._jobs.empty():
            self._jobs.put(_Job(_Wake()))

    def _unload(self) -> None:
        if self._room is not None:
            self._room.close()
            self._room = None
        if self._session is not None:
            self._session.close()
        if self._held is not None:
            self._held.close()
        self._session = self._held = None

    @property
    def _loaded_session(self) -> Session:
        if self._session is None:
            raise UsageError("No model is loaded.")
        return self._session


def main() -> None:
    """Entry point of ``python -m ondevice.engine._worker``."""
    # Native code may print; only records may reach the pipe.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    _end_with_parent()
    crashes.leave_no_core()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # it ends, and not with a Python error
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE_ADJ)
    try:
        llama.start(sys.stderr)
        Worker(sys.stdin.buffer, answers).run()
    except BaseException:
        traceback.print_exc()
        raise
    finally:
        sys.stderr.flush()
        os._exit(1)  # not in good order: the listening thread holds standard input


def _end_with_parent() -> None:
    """Have Linux kill this process once the thread that started it is gone.

    The listening thread sees the end of its input, but not while this process is stopped, or while
    one piece of Python's own C code takes for ever. What started us keeps its thread.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    main()
