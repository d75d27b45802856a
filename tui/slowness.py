"""Finds out whether other programs slow a reply down, and what it would be without them."""

from __future__ import annotations

import time

from ondevice.messages import Load, Statistics
from ondevice.system.cores import ThreadTimes
from tui.shared_engine import SharedEngine

_EVERY = 1.0  # seconds between two looks
_SLOW_SHARE = 0.25  # of the time in which the engine wants a core, what it waits for one
_SLOWER = 0.8  # of the usual speed, below which it is worth a word
_READING = 8.0  # tokens a second, below which it is where nothing is known of that


class Slowness:
    """Looked at while a reply is written. Where the system does not tell (not Linux): never."""

    def __init__(self, engine: SharedEngine) -> None:
        self._engine = engine
        self._before: tuple[float, ThreadTimes] | None = None
        self._usual: float | None = None
        self._share = 0.0
        self.load: Load | None = None
        """How the model was loaded last."""

    def while_replying(self, per_second: float | None) -> float | None:
        """The usual tokens a second if other programs slow this reply down (0: not known).

        ``per_second`` None: the model still reads.
        """
        pid, now = self._engine.pid, time.monotonic()
        if pid is None:
            return None
        if self._before is None or now - self._before[0] >= _EVERY:
            times = ThreadTimes.now(pid)
            if self._before is not None:
                self._share = times.waited_share(self._before[1])
            self._before = now, times
        if per_second is None:
            return 0.0 if self._share >= _SLOW_SHARE else None
        return self._slowed(self._share, per_second)

    def after(self, took: Statistics | None) -> float | None:
        """The same of a reply that has ended."""
        slowed = self._slowed(took.waited_share, took.generated_per_second) if took else None
        self._before, self._share, self._usual = None, 0.0, None
        return slowed

    def _slowed(self, share: float, per_second: float) -> float | None:
        if share < _SLOW_SHARE:
            return None
        if self._usual is None:
            self._usual = self._find_usual()
        worth = _SLOWER * self._usual if self._usual else _READING
        return self._usual if per_second < worth else None

    def _find_usual(self) -> float:
        """What replies gave so far, else what was planned with measured speeds, else 0."""
        from ondevice.holding import speeds  # noqa: PLC0415 - a faster start
        from ondevice.planning import replies  # noqa: PLC0415 - likewise

        loaded = self._engine.loaded
        if loaded is None or self.load is None:
            return 0.0
        if seen := replies.of(replies.held(self.load, self._engine.sizing)):
            return seen.per_second
        measured = speeds.known() is not speeds.USUAL
        return loaded.expected.tokens_per_second if loaded.expected and measured else 0.0
