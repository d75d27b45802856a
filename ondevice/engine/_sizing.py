"""Keeps the weights as large as there is room for, while the engine works and while it waits."""

from __future__ import annotations

import os
import queue
import threading
import time
import traceback
from collections.abc import Callable

from msgspec.structs import replace

from ondevice.engine._drafting import SmallModel
from ondevice.errors import OndeviceError
from ondevice.holding.way import Weights
from ondevice.messages import Sizing
from ondevice.ram.available import AvailableRam
from ondevice.ram.glance import Glance
from ondevice.ram.pressure import WAVERING, Governor, room_for_weights
from ondevice.ram.process import of_process

_LOOK_S = 0.1  # between two looks at what is available
# While nothing is computed: between two glances at whether that has changed. Nobody takes memory
# faster than that, so while there is plenty they may be as far apart and tell as soon.
_LEAST_S, _MOST_S = 0.1, 0.5
_TAKEN = 10_000_000_000  # bytes a second
_SELDOM_S = 5.0  # between two looks while nothing does
_WORKING_S = 1.0  # for so long after a pass the next one may come: buffers are taken, and weights
_PATIENCE_S = 5.0  # for weights to make room
_TELL_S = 1.0  # between two reports of room that has changed, and nothing else
_GRAIN = 1_000_000  # bytes by which it must have changed for that


class Sizer:
    """Gives ``weights`` the RAM that there is room for, at most ``limit`` bytes for the process.

    ``beside`` is what everything but weights was planned to take, in bytes, that of ``drafter``
    included, which makes room when weights have as little as they can. ``tell`` is called when
    something has changed, mostly from a thread of its own. ``wake`` must have the thread that
    decodes call :meth:`settle` once it is idle; between two passes it calls that anyway.
    """

    def __init__(
        self,
        weights: Weights,
        limit: int | None,
        beside: int,
        tell: Callable[[Sizing], None],
        wake: Callable[[], None],
        drafter: SmallModel | None = None,
    ) -> None:
        self._weights = weights
        self._limit = limit
        self._beside = beside
        self._tell = tell
        self._wake = wake
        self._wish: int | None = None  # of the user, bytes
        self._wishes: queue.SimpleQueue[int | None] = queue.SimpleQueue()  # not looked at yet
        self._settled = True
        self._governor = Governor(
            weights.least_bytes, weights.most_bytes, min(weights.resident_bytes, weights.most_bytes)
        )
        self._drafter = drafter
        drafted = drafter.resident_bytes if drafter else 0
        self._drafts = Governor(0, drafted, drafted)
        self._told: Sizing | None = None
        self._told_at = 0.0
        self._looked_at = 0.0
        self._indifferent = 0  # bytes by which room may change before a look is worth while
        self._worked_at = 0.0
        self._glance = Glance()
        self._called = threading.Event()
        self._closed = False
        self._look()
        self._thread = threading.Thread(target=self._watch, name="sizing", daemon=True)
        self._thread.start()

    def resize(self, budget: int | None) -> None:
        """Take the user's wish, in bytes; None: decide alone. Any thread may call this."""
        self._wishes.put(budget)
        self._called.set()

    def has_room(self, n_bytes: int) -> bool:
        """Whether weights, and what drafts, could make room for so many bytes."""
        return n_bytes <= self._room()[0] - self._weights.least_bytes + self._drafted()

    def claim(self, n_bytes: int) -> bool:
        """Have weights make room for so many bytes more beside them, or fewer: negative.

        False: there is no such room, and nothing was changed. Like :meth:`settle`, between passes.
        """
        weights = self._weights
        if not self.has_room(n_bytes):
            return False
        self._beside += n_bytes
        end = time.monotonic() + _PATIENCE_S
        while weights.resident_bytes > WAVERING + (
            self._room()[0] if self._drafter else max(self._room()[0], weights.least_bytes)
        ):
            if time.monotonic() > end:
                self._beside -= n_bytes
                return False
            self._called.set()
            time.sleep(_LOOK_S / 10)
            self.settle()
        return True

    def has_spare(self, n_bytes: int) -> bool:
        """Whether so many bytes more could be taken without any weights making room."""
        return n_bytes <= self._room()[0] - self._weights.resident_bytes

    def settle(self) -> None:
        """Take up what was decided: between two passes, by the thread that decodes."""
        self._worked_at = time.monotonic()
        if self._settled:
            return
        try:
            drafted = self._drafts.budget
            if self._drafter:
                self._drafter.resize(drafted)
                if not self._drafter.resident_bytes:  # for good
                    self._beside -= self._drafts.most
                    self._drafter = None
            self._settled = self._weights.settle() and drafted == self._drafts.budget
        except OndeviceError:
            traceback.print_exc()  # into the log; what cannot be read fails the next reply as well
            self._settled = True

    def close(self) -> None:
        """Stop looking."""
        self._closed = True
        self._called.set()
        self._thread.join()
        self._glance.close()

    def _watch(self) -> None:
        while not self._closed:
            called = self._called.wait(self._pause_s())
            self._called.clear()
            if called or self._is_due():
                self._look()
                if not self._settled:
                    self._wake()

    def _pause_s(self) -> float:
        if self._is_at_work():
            return _LOOK_S
        return min(max(_LEAST_S, self._indifferent / _TAKEN), _MOST_S)

    def _is_at_work(self) -> bool:
        working = time.monotonic() - self._worked_at < _WORKING_S
        return working or not self._settled or self._governor.waits

    def _is_due(self) -> bool:
        """Whether a look could tell anything new. A glance tells as soon, for a tenth of it."""
        return (
            self._is_at_work()
            or time.monotonic() - self._looked_at > _SELDOM_S
            or self._glance.has_changed(max(self._indifferent, _GRAIN))
        )

    def _room(self) -> tuple[int, int, AvailableRam]:
        """See :func:`room_for_weights`."""
        used = of_process(os.getpid())
        assert used is not None
        own = self._weights.own_bytes
        mapped = self._weights.resident_bytes - own
        return room_for_weights(used, own, mapped, self._limit, self._beside - self._lent())

    def _drafted(self) -> int:
        """Bytes that the drafter's weights take."""
        drafter = self._drafter
        return drafter.resident_bytes if drafter else 0

    def _lent(self) -> int:
        """Bytes that the drafter has given back, and will have again when there is room."""
        return self._drafts.most - self._drafted() if self._drafter else 0

    def _look(self) -> None:
        weights, governor, now = self._weights, self._governor, time.monotonic()
        before = governor.budget
        self._looked_at = now
        self._glance.remember()
        room, spare, ram = self._room()
        while not self._wishes.empty():
            self._wish = wish = self._wishes.get()
            governor.most = weights.most_bytes
            if wish is not None:
                governor.most = max(weights.least_bytes, min(wish, weights.most_bytes))
                governor.budget = max(weights.least_bytes, min(wish, room))
        indifferent = []
        if self._drafter:
            drafts, before_drafts, lent = self._drafts, self._drafts.budget, self._lent()
            beside_least = self._drafted() + room - weights.least_bytes
            self._settled &= drafts.decide(beside_least, now) == before_drafts
            indifferent.append(drafts.indifferent(beside_least))
            room -= lent
        if governor.decide(room, now) != before:
            weights.aim(governor.budget)
            self._settled = False
        indifferent.append(governor.indifferent(room))
        self._indifferent = spare + min(indifferent)
        self._report(room, ram, now)

    def _report(self, room: int, ram: AvailableRam, now: float) -> None:
        """Tell what has changed: room alone, which always changes, only now and then."""
        weights = self._weights
        sizing = weights.describe(
            Sizing(
                budget=self._wish,
                resident_bytes=weights.resident_bytes,
                absent_bytes=weights.absent_bytes,
                streamed_bytes=weights.streamed_bytes,
                least_bytes=weights.least_bytes,
                most_bytes=weights.most_bytes,
                room_bytes=max(0, room),
                limit_bytes=min(ram.total, self._limit or ram.total),
                limit_source="the limit in your settings" if self._limit else ram.source,
                drafter_bytes=self._drafted(),
            )
        )
        told = self._told
        if (
            told
            and sizing == replace(told, room_bytes=sizing.room_bytes)
            and abs(sizing.room_bytes - told.room_bytes) < _GRAIN
        ):
            return
        changed = told is None or (told.budget, told.resident_bytes) != (
            sizing.budget,
            sizing.resident_bytes,
        )
        if changed or now - self._told_at >= _TELL_S:
            self._told, self._told_at = sizing, now
            self._tell(sizing)
