"""How threads that compute wait for each other: spinning, or asleep while others want the cores.

Threads meet at hundreds of barriers a token. On a quiet machine they meet at once, and to spin is
fastest: 88 tokens a second of the 135M on two cores, and 40 with threads that sleep. Where another
program has a core, a thread waits for one that is not running, and by spinning it takes the core
that the other one needs: 1 to 20 tokens a second, and 35 to 45 with threads that sleep.

libgomp (GNU's OpenMP, with which llama.cpp is built on Linux) reads once, at start, how it is to
wait. But it hardly spins while it has more threads than there are cores (``do_spin`` in its
``config/linux/wait.h``): a team of threads that do nothing has all others sleep, until it ends.

While others want every core, threads that sleep share fewer cores: as many as they get the time of
anyway. Beside two programs that want both of two cores, the 0.5B then writes 14 to 16 tokens a
second, always. Spread over both cores it writes 8 to 16, as the system happens to place its threads
(fast where it puts both on one core and the other programs on the other one), and with a core for
each thread 9: each waits for the one whose core another program has.

Tried as well: ``OMP_WAIT_POLICY`` and ``GOMP_SPINCOUNT`` (for good, not for a while); and one
thread while others compute, which gives 45 with a program on each core and 76 with a program on one
of two, but attention is summed up in as many parts as there are threads, so a reply would depend on
what else the machine does.
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Literal

from ondevice.system.cores import ThreadTimes, idle_seconds

_LOOK_S = {"spinning": 0.1, "asleep": 0.5, "together": 0.5}  # between two looks
# Of the time in which threads want a core, what they wait for one. Measured with programs that
# compute a part of the time: up to a quarter, spinning is the faster of the two.
_SLEEP_SHARE, _SPIN_SHARE = 0.25, 0.15
_IDLE_SHARE = 0.1  # of the cores' time: with more of it idle, nobody else wants all of them
_APART_S = 5.0  # after cores were found idle, before fewer of them are used again

#: How threads wait: asleep on any core, or asleep "together" on fewer cores than there are.
WaitPolicy = Literal["spinning", "asleep", "together"]


class Waiting:
    """Chooses how threads wait, by how long they had to wait for a core: ``with waiting: …``.

    Looks only within the block. Where the threads are not libgomp's, or the system does not tell
    how long they waited, nothing changes. There should be one of these in a process.
    """

    def __init__(self) -> None:
        self.policy: WaitPolicy = "spinning"
        self._done = threading.Event()
        self._looking: threading.Thread | None = None
        self._idle_team: _IdleTeam | None = None
        self._turn = 0  # of the cores, the first that threads share next time

    def __enter__(self) -> None:
        if _libgomp() is None:
            return
        self._done.clear()
        self._looking = threading.Thread(target=self._look, name="waiting", daemon=True)
        self._looking.start()

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._looking is not None:
            self._done.set()
            self._looking.join()
            self._looking = None

    def _look(self) -> None:
        every = sorted(os.sched_getaffinity(0))  # of this thread, which is never moved
        apart_until = 0.0
        times, idle, at = ThreadTimes.now(), idle_seconds(every), time.monotonic()
        while not self._done.wait(_LOOK_S[self.policy]):
            before = times, idle, at
            times, idle, at = ThreadTimes.now(), idle_seconds(every), time.monotonic()
            waited = times.waited_share(before[0])
            policy = best_policy(
                self.policy, waited, (idle - before[1]) / (at - before[2]) / len(every)
            )
            if self.policy == "together" and policy == "asleep":
                _move_threads(every)
                apart_until = at + _APART_S
            elif policy == "together" and self.policy == "asleep":
                n_cores = max(1, int(len(every) * (1 - waited)))
                if at < apart_until or n_cores == len(every):
                    continue
                _move_threads([every[(self._turn + n) % len(every)] for n in range(n_cores)])
                self._turn += n_cores
            self.policy = policy
            if policy != "spinning" and self._idle_team is None:
                self._idle_team = _IdleTeam()
            elif policy == "spinning" and self._idle_team is not None:
                self._idle_team.end()
                self._idle_team = None
        if self.policy == "together":
            _move_threads(every)
            self.policy = "asleep"


def best_policy(policy: WaitPolicy, waited_share: float, idle_share: float) -> WaitPolicy:
    """How threads had better wait, given how they do.

    ``waited_share`` is what they waited for a core, of the time in which they wanted one, and
    ``idle_share`` what nobody used, of all cores' time.
    """
    match policy:
        case "spinning":
            return "asleep" if waited_share > _SLEEP_SHARE else "spinning"
        case "asleep" if waited_share <= _SPIN_SHARE:
            return "spinning"
        case _:  # together, they wait for each other, which says nothing about other programs
            return "asleep" if idle_share > _IDLE_SHARE else "together"


def _move_threads(cpus: Iterable[int]) -> None:
    """Have all threads of this process run on ``cpus``, but for the one that calls."""
    for task in Path("/proc/self/task").iterdir():
        if int(task.name) != threading.get_native_id():
            with suppress(OSError):  # a thread that has ended
                os.sched_setaffinity(int(task.name), cpus)


class _IdleTeam:
    """A team of libgomp's with more threads than there are cores, which do nothing."""

    def __init__(self) -> None:
        self._ended = threading.Event()
        started = threading.Event()
        self._thread = threading.Thread(target=self._hold, args=(started,), daemon=True)
        self._thread.start()
        started.wait()

    def _hold(self, started: threading.Event) -> None:
        libgomp = _libgomp()
        assert libgomp is not None
        # What its threads do: a function that takes nothing and changes nothing.
        nothing = ctypes.cast(libgomp.omp_get_thread_num, ctypes.c_void_p)
        libgomp.GOMP_parallel(nothing, None, libgomp.omp_get_num_procs() + 1, 0)
        started.set()
        self._ended.wait()  # they are kept until the thread that made them ends

    def end(self) -> None:
        self._ended.set()
        self._thread.join()


@cache
def _libgomp() -> ctypes.CDLL | None:
    """The one that is loaded, if any."""
    try:
        maps = Path("/proc/self/maps").read_text()
    except OSError:  # not Linux
        return None
    paths = [line.split(maxsplit=5)[-1] for line in maps.splitlines() if "libgomp" in line]
    if not paths:
        return None
    library = ctypes.CDLL(paths[0])
    library.GOMP_parallel.argtypes = (
        ctypes.c_void_p,
        ctypes.c_void_p,
        ctypes.c_uint,
        ctypes.c_uint,
    )
    library.GOMP_parallel.restype = None
    return library
