"""How a reply comes along: for how long it is awaited, what slows it, what context it takes."""

from __future__ import annotations

import os
import time
from contextlib import suppress

import psutil

from ondevice.engine.messages import Chunk, Event, Finished, PromptProgress

_SLOW = 0.25  # of the cores: what others take from there on is felt
_BUSY = 0.9  # of the cores: where some are free, others take nothing away
_LOOK_S = 2.0  # over which that is told


class Progress:
    """Of the exchanges of one conversation."""

    def __init__(self, *, empty: bool) -> None:
        self.tokens: int | None = 0 if empty else None
        """Of the context, that the conversation takes; None: not known."""
        self.slowed = False
        """Whether other programs take cores from the model while it reads."""
        self._asked_at: float | None = None
        self._others: OtherPrograms | None = None

    def begin(self, pid: int | None) -> None:
        """A reply is wanted, of the engine process ``pid``."""
        self._asked_at = time.monotonic()
        self._others = OtherPrograms(pid) if pid else None

    def hear(self, event: Event) -> None:
        match event:
            case PromptProgress():
                self.tokens = event.reused + event.done
            case Chunk():
                self._asked_at, self.slowed = None, False
                if self.tokens is not None:
                    self.tokens += 1
            case Finished() if event.statistics.prompt_tokens:
                self.tokens = event.statistics.context_tokens

    def end(self) -> None:
        """No reply is wanted any more."""
        self._asked_at, self._others, self.slowed = None, None, False

    def look(self) -> None:
        """See what slows the engine down."""
        if self._asked_at is not None and self._others:
            self.slowed = self._others.are_felt()

    def describe(self, doing: str) -> str:
        """``doing``, and for how long already while no word has come."""
        if not doing or self._asked_at is None:
            return doing
        seconds = int(time.monotonic() - self._asked_at)
        return f"{doing}, {seconds} s" if seconds else doing


class OtherPrograms:
    """What other programs than this one and the engine take of the cores."""

    def __init__(self, pid: int) -> None:
        self._pids = (pid, os.getpid())
        self._at, self._idle, self._own = self._figures()
        self._felt = False

    def are_felt(self) -> bool:
        """Whether they take cores that the engine could use."""
        at, idle, own = self._figures()
        if (passed := at - self._at) >= _LOOK_S:
            cores = passed * (os.cpu_count() or 1)
            busy = 1 - (idle - self._idle) / cores
            self._felt = busy >= _BUSY and busy - (own - self._own) / cores >= _SLOW
            self._at, self._idle, self._own = at, idle, own
        return self._felt

    def _figures(self) -> tuple[float, float, float]:
        """Seconds: the clock, for which cores were idle, and for which they computed for us."""
        own = 0.0
        for pid in self._pids:
            with suppress(psutil.Error):
                ours = psutil.Process(pid).cpu_times()
                own += ours.user + ours.system
        times = psutil.cpu_times()
        return time.monotonic(), times.idle + getattr(times, "iowait", 0.0), own
