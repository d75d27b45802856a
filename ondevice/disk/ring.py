"""The ring: memory through which the streamed weights pass, in the order in which they are used.

A cyclic scan that is larger than a cache hits nothing in it, so nothing is cached here: what has
been used makes room at once for what comes next, and after the last weight of a pass comes the
first one of the next pass.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from ondevice.disk.reader import Arena, Reader, Reading, Span
from ondevice.gguf import TensorInfo


@dataclass(frozen=True, slots=True)
class _RingEntry:
    tensor: TensorInfo
    span: Span
    start: int  # bytes from the start of the arena
    reading: Reading

    @property
    def end(self) -> int:
        return self.start + self.span.n_bytes


class Ring:
    """Keeps reading ``order``, over and over, as far ahead as ``n_bytes`` of RAM allow.

    The order need not be the true one: the first pass shows that. It may name a tensor more than
    once, for models that go through some blocks again.
    """

    def __init__(self, reader: Reader, order: Sequence[TensorInfo], n_bytes: int) -> None:
        self._reader = reader
        self._order = list(order)
        self.n_bytes = n_bytes
        self._arena = Arena(n_bytes)
        self._entries: deque[_RingEntry] = deque()  # read or being read, the next to be used first
        self._next = 0  # index in the order: what is to be read next
        self._pass: list[TensorInfo] = []  # what this pass has used so far
        self._is_told = False  # where a pass begins
        self._last_pass: list[TensorInfo] = []
        self.wait_seconds = 0.0  # time in which the computing waited for the disk
        self._read_ahead()

    def stream(self, order: Sequence[TensorInfo]) -> None:
        """Read these from now on, from where the next use shows, and nothing else.

        If there are none, the memory is given back.
        """
        self.close()
        self._order = list(order)
        self._pass.clear()
        self._next = 0
        if not order:
            self._arena.release(0, self._arena.n_bytes)

    def begin_pass(self) -> None:
        """Take note that a pass begins. Who never says so cannot use a tensor twice in one."""
        self._is_told = True
        self._end_pass()

    def use(self, tensors: Sequence[TensorInfo]) -> list[int]:
        """The addresses of these tensors' bytes, which stay there until the next call.

        All that was used before must have been computed. Raises :class:`ModelFileError`.
        """
        self._note_order(tensors)
        wanted = {tensor.name for tensor in tensors}
        while self._entries and self._entries[0].tensor.name not in wanted:
            self._entries.popleft().reading.cancel()
        self._read_ahead()
        if not wanted <= {entry.tensor.name for entry in self._entries}:
            self._start_over(tensors)
        addresses = {}
        started = time.perf_counter()
        for entry in self._entries:
            if entry.tensor.name in wanted:
                entry.reading.wait()
                addresses[entry.tensor.name] = (
                    self._arena.address + entry.start + entry.tensor.offset - entry.span.offset
                )
        self.wait_seconds += time.perf_counter() - started
        return [addresses[tensor.name] for tensor in tensors]

    def close(self) -> None:
        """Return when nothing is written to the memory any more."""
        for entry in self._entries:
            entry.reading.cancel()
        self._entries.clear()

    def _note_order(self, tensors: Sequence[TensorInfo]) -> None:
        """Learn the order of use."""
        if not self._is_told and (not self._pass or tensors[0] in self._pass):
            self._end_pass()
        self._pass += [tensor for tensor in tensors if tensor not in self._pass[-1:]]

    def _end_pass(self) -> None:
        """Take over the order of the last pass, if it shows that; check the files."""
        used, self._pass = self._pass, []
        # A pass that was broken off tells little; one like the last one tells all, also that
        # some tensors are never used.
        whole = set(used) == set(self._order) or used == self._last_pass
        if used and whole and used != self._order:
            self._order = used
            self._restart(0)
        self._last_pass = used
        self._reader.check()

    def _start_over(self, tensors: Sequence[TensorInfo]) -> None:
        """Read these next: the order was another than thought, or the last pass was ended."""
        known = set(self._order)
        at = self._next
        for tensor in tensors:
            if tensor not in known:  # it was left out of a pass or two
                self._order.insert(at, tensor)
        first, *others = tensors
        for tensor in others:  # used at the same time, so they must come one after the other
            self._order.remove(tensor)
            self._order.insert(self._order.index(first) + 1, tensor)
        # Of several places the next one, as far as this pass has come.
        places = [index for index, tensor in enumerate(self._order) if tensor == first]
        come = len(self._pass) - len(tensors)
        self._restart(next((index for index in places if index >= come), places[0]))

    def _restart(self, index: int) -> None:
        self.close()
        self._next = index
        self._read_ahead()

    def _read_ahead(self) -> None:
        held = {entry.tensor.name for entry in self._entries}
        while (tensor := self._order[self._next]).name not in held:
            span = Span.around(tensor.part, tensor.offset, tensor.n_bytes)
            start = self._room_for(span.n_bytes)
            if start is None:
                return
            reading = self._reader.start(span, self._arena.view[start : start + span.n_bytes])
            self._entries.append(_RingEntry(tensor, span, start, reading))
            held.add(tensor.name)
            self._next = (self._next + 1) % len(self._order)

    def _room_for(self, n_bytes: int) -> int | None:
        """Where the next entry goes, bytes from the start of the arena; None: there is no room."""
        if not self._entries:
            return 0
        head, tail = self._entries[0].start, self._entries[-1].end
        if tail <= head:  # the entries wrap around the end of the arena
            return tail if n_bytes <= head - tail else None
        if n_bytes <= self._arena.n_bytes - tail:
            return tail
        return 0 if n_bytes <= head else None
