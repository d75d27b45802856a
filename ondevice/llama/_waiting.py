"""How many threads compute, and how they wait for each other, while others want the cores.

Threads meet at hundreds of barriers a token. On a quiet machine they meet at once, and to spin is
fastest: 88 tokens a second of the 135M on two cores, and 40 with threads that sleep. Where another
program has a core, a thread waits for one that is not running, and by spinning it takes the core
that the other one needs: 1 to 20 tokens a second, and 35 to 45 with threads that sleep.

So where what is computed does not depend on how many threads there are, there are only as many as
get a core: with a program on one of two cores, one thread writes 76 tokens a second. Other threads
sleep while they wait.

libgomp (GNU's OpenMP, with which llama.cpp is built on Linux) reads once, at start, how it is to
wait. But it hardly spins while it has more threads than there are cores (``do_spin`` in its
``config/linux/wait.h``): a team of threads that do nothing has all others sleep, until it ends.

Tried as well: ``OMP_WAIT_POLICY`` and ``GOMP_SPINCOUNT`` (for good, not for a while); and to move
threads that sleep to as many cores as they get the time of (beside two programs that want both of
two cores, the 0.5B wrote 14 to 16 tokens a second so, and 8 to 16 spread over both).
"""

from __future__ import annotations

import ctypes
import os
import threading
import time
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Literal

from ondevice.system.cores import ThreadTimes, free_seconds
from ondevice.system.kernel_files import lines_of

_LOOK_S = {"spinning": 0.1, "asleep": 0.5}  # between two looks
# Of the time in which threads want a core, what they wait for one. Measured with programs that
# compute a part of the time: up to a quarter, spinning is the faster of the two.
_SLEEP_SHARE, _SPIN_SHARE = 0.25, 0.15
_FREE = 0.75  # of a core: with more of it idle, one more thread gets one

WaitPolicy = Literal["spinning", "asleep"]  #: How threads wait.

_most = 0  # threads that should compute; 0: as many as are wanted
_asleep = False  # whether threads that wait sleep


def threads_now(wanted: int) -> int:
    """How many threads should compute, of so many."""
    return min(wanted, _most or wanted)


def are_asleep() -> bool:
    """Whether threads that wait sleep now."""
    return _asleep


class Waiting:
    """Chooses how many threads compute and how they wait, by how long they waited for a core.

    ``with waiting: …`` looks only within the block. Where the threads are not libgomp's, or the
    system does not tell how long they waited, nothing changes. There should be one of these in a
    process.
    """

    def __init__(self) -> None:
        self.policy: WaitPolicy = "spinning"
        self._done = threading.Event()
        self._looking: threading.Thread | None = None
        self._idle_team: _IdleTeam | None = None

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
        global _asleep, _most  # noqa: PLW0603 - of the process, as its threads are
        every = sorted(os.sched_getaffinity(0))
        times, idle, at = ThreadTimes.now(), free_seconds(every), time.monotonic()
        while not self._done.wait(_LOOK_S[self.policy]):
            before = times, idle, at
            times, idle, at = ThreadTimes.now(), free_seconds(every), time.monotonic()
            waited = times.waited_share(before[0])
            _most = best_count(
                _most or len(every), waited, (idle - before[1]) / (at - before[2]), len(every)
            )
            self.policy = best_policy(self.policy, waited)
            if self.policy == "asleep" and self._idle_team is None:
                self._idle_team = _IdleTeam()
            elif self.policy == "spinning" and self._idle_team is not None:
                self._idle_team.end()
                self._idle_team = None
            _asleep = self._idle_team is not None


def best_policy(policy: WaitPolicy, waited_share: float) -> WaitPolicy:
    """How threads had better wait, given how they do.

    ``waited_share`` is what they waited for a core, of the time in which they wanted one.
    """
    return (
        "asleep"
        if waited_share > (_SLEEP_SHARE if policy == "spinning" else _SPIN_SHARE)
        else ("spinning")
    )


def best_count(count: int, waited_share: float, idle_cores: float, n_cores: int) -> int:
    """How many threads had better compute, given how many do.

    ``idle_cores`` is what nobody used of the cores, such as 0.5 of one.
    """
    if waited_share > _SLEEP_SHARE:
        return max(1, int(count * (1 - waited_share)))
    return min(n_cores, count + int(idle_cores + 1 - _FREE))


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
        maps = lines_of(Path("/proc/self/maps"))
    except OSError:  # not Linux
        return None
    paths = [line.split(maxsplit=5)[-1] for line in maps if "libgomp" in line]
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
