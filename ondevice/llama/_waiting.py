"""How threads that compute wait for each other: spinning, or asleep while others want the cores.

Threads meet at hundreds of barriers a token. On a quiet machine they meet at once, and to spin is
fastest: 88 tokens a second of the 135M on two cores, and 40 with threads that sleep. Where another
program has a core, a thread waits for one that is not running, and by spinning it takes the core
that the other one needs: 1 to 20 tokens a second, and 35 to 45 with threads that sleep.

libgomp (GNU's OpenMP, with which llama.cpp is built on Linux) reads once, at start, how it is to
wait. But it hardly spins while it has more threads than there are cores (``do_spin`` in its
``config/linux/wait.h``): a team of threads that do nothing has all others sleep, until it ends.

Tried as well: ``OMP_WAIT_POLICY`` and ``GOMP_SPINCOUNT`` (for good, not for a while); one thread
while others compute, which gives 45 with a program on each core and 76 with a program on one of
two, but attention is summed up in as many parts as there are threads, so a reply would depend on
what else the machine does; and a core for each thread while they sleep, which gave the 0.5B beside
two programs that want both cores 8.7 to 9.6 tokens a second, and 10.4 to 13.8 where the system
placed them: it had both on one core half of the time, and the other programs on the other one.
"""

from __future__ import annotations

import ctypes
import threading
from functools import cache
from pathlib import Path
from types import TracebackType

from ondevice.system.cores import ThreadTimes

_LOOK_S = 0.1  # between two looks
# Of the time in which threads want a core, what they wait for one. Measured with programs that
# compute a part of the time: up to a quarter, spinning is the faster of the two.
_SLEEP_SHARE, _SPIN_SHARE = 0.25, 0.15


class Waiting:
    """Chooses how threads wait, by how long they had to wait for a core: ``with waiting: …``.

    Looks only within the block. Where the threads are not libgomp's, or the system does not tell
    how long they waited, nothing changes. There should be one of these in a process.
    """

    def __init__(self) -> None:
        self._done = threading.Event()
        self._looking: threading.Thread | None = None
        self._idle_team: _IdleTeam | None = None

    @property
    def asleep(self) -> bool:
        """Whether threads sleep while they wait."""
        return self._idle_team is not None

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
        before = ThreadTimes.now()
        while not self._done.wait(_LOOK_S):
            now = ThreadTimes.now()
            asleep = should_sleep(self.asleep, now.waited_share(before))
            before = now
            if asleep and self._idle_team is None:
                self._idle_team = _IdleTeam()
            elif not asleep and self._idle_team is not None:
                self._idle_team.end()
                self._idle_team = None


def should_sleep(asleep: bool, waited_share: float) -> bool:
    """Whether threads had better sleep, given whether they do now and what they waited."""
    return waited_share > (_SPIN_SHARE if asleep else _SLEEP_SHARE)


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
