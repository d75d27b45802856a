"""Decides for each tensor of a model whether its bytes stay in RAM or are read for each pass."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from ondevice.disk.reader import PAGE, Span
from ondevice.errors import MemoryShortError
from ondevice.gguf import GGUFFile, TensorInfo
from ondevice.holding.experts.blocks import ExpertBlock, ExpertMatrix, slots_bytes, with_slots
from ondevice.text import size

_LEAST_STREAMED = 256 << 10  # bytes of a tensor; below that a read costs more than its bytes
_LEAST_EXPERT = 16 << 10  # bytes of one expert in a tensor, for the same reason; few are read
_RING_ENTRIES = 3  # the largest tensor that many times: one is computed with, the others arrive
_RING_BYTES = 48 << 20  # at most that, but two entries at least
_SLICE_ROWS = 64  # a slice of the output layer has a multiple: so many a kernel may take at once
_PART_BITS = 50  # of an address within a part of a model
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True)
class Placement:
    """Where each tensor's bytes are while the model computes."""

    on_file: tuple[TensorInfo, ...]  # mapped: the system keeps the rows it thinks best
    pinned: tuple[TensorInfo, ...]  # in RAM for good
    streamed: tuple[TensorInfo, ...]  # read for each pass, in the order of use as far as known
    ring_bytes: int  # RAM through which they pass
    pinned_bytes: int  # RAM for those that are pinned, in whole pages
    experts: tuple[ExpertBlock, ...] = ()  # read when they are needed, and kept for a while

    @cached_property
    def resident_bytes(self) -> int:
        """RAM that this takes: never more than the budget."""
        return self.own_bytes + self.pinned_bytes

    @cached_property
    def own_bytes(self) -> int:
        """Of these, bytes that are memory of the process, and not pages of files."""
        return self.ring_bytes + slots_bytes(self.experts)

    @cached_property
    def streamed_bytes(self) -> int:
        """Bytes to read for each pass, experts left out."""
        return sum(tensor.n_bytes for tensor in self.streamed)

    @cached_property
    def absent_bytes(self) -> int:
        """Bytes that are not in RAM: the streamed ones, and the experts without a slot."""
        return self.streamed_bytes + sum(block.absent_bytes for block in self.experts)


def pages_bytes(tensors: Iterable[TensorInfo]) -> int:
    """RAM for these tensors: the pages of their files that they are in."""
    n_pages, part, end = 0, -1, 0
    for tensor in sorted(tensors, key=attrgetter("part", "offset")):
        if tensor.part != part:
            part, end = tensor.part, 0
        first, last = tensor.offset // PAGE, (tensor.offset + tensor.n_bytes - 1) // PAGE
        n_pages += max(0, last + 1 - max(first, end))
        end = max(end, last + 1)
    return n_pages * PAGE


def _pages(tensors: Sequence[TensorInfo]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The first and the last page of each; those of different parts have different numbers."""
    places = [(t.part << _PART_BITS) + t.offset for t in tensors]
    ends = [place + t.n_bytes - 1 for place, t in zip(places, tensors, strict=True)]
    return np.array(places, np.int64) // PAGE, np.array(ends, np.int64) // PAGE


def _expert_bytes(tensor: TensorInfo) -> int:
    """Of one expert in this tensor."""
    return tensor.n_bytes // tensor.shape[2]


def _expert_matrix(tensor: TensorInfo) -> ExpertMatrix:
    """A tensor with the matrices of all experts, one after the other."""
    of_one, n_experts = _expert_bytes(tensor), tensor.shape[2]
    n_places = PAGE // math.gcd(of_one, PAGE)  # in a page, where experts may begin
    in_slot = max(
        Span.around(tensor.part, tensor.offset + of_one * expert, of_one).n_bytes
        for expert in range(min(n_places, n_experts))
    )
    return ExpertMatrix(tensor.name, tensor.block, n_experts, of_one, in_slot)


class Placements:
    """The placements of one model for every budget; what one took to find helps with the others."""

    def __init__(self, file: GGUFFile, *, predicts: bool = False) -> None:
        """``predicts``: the prediction block drafts, so it is pinned whatever the budget."""
        self._file = file
        drafting = file.prediction if predicts else frozenset[str]()
        unread = file.unread - drafting
        read = [t for t in file.tensors.values() if t.name not in unread]
        self._on_file = tuple(t for t in read if t.name in file.read_by_row)
        others = [t for t in read if t.name not in file.read_by_row]
        experts: dict[int, list[TensorInfo]] = {}
        candidates = []
        for (block, *_), tensor in sorted(
            ((_order_of_use(tensor), tensor) for tensor in others), key=lambda each: each[0]
        ):
            if tensor.name in drafting:
                continue
            of_experts = block != math.inf and file.holds_experts(tensor)
            if of_experts and _expert_bytes(tensor) >= _LEAST_EXPERT:
                experts.setdefault(int(block), []).append(tensor)
            elif block != math.inf and tensor.n_bytes >= _LEAST_STREAMED:
                candidates.append(tensor)
        #: The output layer in slices, which stand for it in every placement.
        self.output_slices = _slices(file, max((t.n_bytes for t in candidates), default=0))
        if self.output_slices:
            others = [t for t in others if t is not file.output_layer] + [*self.output_slices]
        self._others = tuple(others)
        #: Those that may be streamed, in order of use.
        self._candidates = [*candidates, *self.output_slices]
        #: The same, the first ones to give up first.
        self._to_give_up = [*_to_give_up(candidates), *self.output_slices[::-1]]
        #: The blocks of which not all experts need to be in RAM.
        self.experts = tuple(
            ExpertBlock(tuple(map(_expert_matrix, tensors))) for tensors in experts.values()
        )
        #: When each of them is given up: from how many on; experts are never pinned here.
        when = {t.name: number for number, t in enumerate(self._to_give_up)}
        when |= {m.name: -1 for block in self.experts for m in block.matrices}
        kept = len(self._to_give_up)
        self._others_when = np.array([when.get(t.name, kept) for t in self._others], np.int64)
        self._candidates_when = np.array([when[t.name] for t in self._candidates], np.int64)
        self._streaming: dict[int, Placement] = {}

    def within(self, budget_bytes: int) -> Placement:
        """As :func:`place`."""
        if self._whole.resident_bytes <= budget_bytes:
            return self._whole
        resident = self._that_streams(0)
        if resident.resident_bytes <= budget_bytes:
            room = budget_bytes - resident.resident_bytes + slots_bytes(self.experts)
            return replace(resident, experts=with_slots(self.experts, room))
        # More of them take less RAM, once the ring has been paid for.
        counts = range(1, len(self._candidates) + 1)
        found = bisect_left(counts, -budget_bytes, key=lambda count: -self._resident_bytes[count])
        if found < len(counts):
            return self._that_streams(counts[found])
        raise MemoryShortError(
            f"{self._file.path.name} needs at least {size(self.least_bytes)} of RAM for "
            "weights, even when the others are read from the disk for each token, but is limited "
            f"to {size(budget_bytes)}. Raise --ram, or choose a smaller model."
        )

    @cached_property
    def least_bytes(self) -> int:
        """The smallest budget with which the model runs at all."""
        return min(self._resident_bytes[-1], self.most_bytes)

    @property
    def most_bytes(self) -> int:
        """The budget with which all of the model is in RAM."""
        return self._whole.resident_bytes

    @cached_property
    def _whole(self) -> Placement:
        return Placement(
            on_file=self._on_file,
            pinned=self._others,
            streamed=(),
            ring_bytes=0,
            pinned_bytes=pages_bytes(self._others),
        )

    def _that_streams(self, count: int) -> Placement:
        """Streams so many, reads experts as needed and pins the others."""
        if count not in self._streaming:
            self._streaming[count] = Placement(
                on_file=self._on_file,
                pinned=tuple(compress(self._others, self._others_when >= count)),
                streamed=tuple(compress(self._candidates, self._candidates_when < count)),
                ring_bytes=self._ring_bytes[count],
                pinned_bytes=self._pinned_bytes[count],
                experts=with_slots(self.experts, slots_bytes(self.experts)),
            )
        return self._streaming[count]

    # What each number of streamed tensors takes, from none to all, is found in one go: a file may
    # have tens of thousands of them.

    @cached_property
    def _resident_bytes(self) -> list[int]:
        beside = self._that_streams(0).own_bytes - self._ring_bytes[0]
        return [
            beside + ring + pinned
            for ring, pinned in zip(self._ring_bytes, self._pinned_bytes, strict=True)
        ]

    @cached_property
    def _ring_bytes(self) -> list[int]:
        first, last = _pages(self._to_give_up)
        largest = np.maximum.accumulate((last + 1 - first) * PAGE)
        ring = np.maximum(np.minimum(_RING_ENTRIES * largest, _RING_BYTES), 2 * largest)
        return [0, *ring.tolist()]

    @cached_property
    def _pinned_bytes(self) -> list[int]:
        """Neighbours share the pages where they meet: the last one to go frees such a page."""
        never = len(self._to_give_up)
        when = self._others_when[self._others_when >= 0]
        first, last = _pages(list(compress(self._others, self._others_when >= 0)))
        outer, place = np.unique(np.concatenate([first, last]), return_inverse=True)
        last_to_go = np.zeros(len(outer), np.int64)
        np.maximum.at(last_to_go, place, np.tile(when, 2))
        freed = np.bincount(last_to_go, minlength=never + 1)
        freed += np.bincount(when, np.maximum(last - first - 1, 0), never + 1).astype(np.int64)
        left = freed.sum() - np.concatenate([[0], np.cumsum(freed[:never])])
        return [n_pages * PAGE for n_pages in left.tolist()]


def place(file: GGUFFile, budget_bytes: int) -> Placement:
    """The placement that reads least within ``budget_bytes`` of RAM for weights.

    What is pinned with a budget is also pinned with every larger one. What is streamed is spread
    evenly over the pass, so that there is something to compute while it is read, and always
    something to read while it computes. The output layer is given up last, from its end on. Experts
    come after what every token needs.

    Raises :class:`MemoryShortError` if even :func:`least_bytes` is more.
    """
    return Placements(file).within(budget_bytes)


def least_bytes(file: GGUFFile) -> int:
    """The smallest budget with which the model runs at all."""
    return Placements(file).least_bytes


def most_bytes(file: GGUFFile) -> int:
    """The budget with which all of the model is in RAM."""
    return Placements(file).most_bytes


def _to_give_up(tensors: list[TensorInfo]) -> list[TensorInfo]:
    """The tensors, which are in order of use, in the order in which they are given up.

    Small tensors are the dearest to read, so the largest ones go first. The first ones of any size
    are spread evenly over the pass: steps of the golden ratio, round and round.
    """
    sizes: dict[int, list[TensorInfo]] = {}
    for tensor in tensors:
        sizes.setdefault(tensor.n_bytes, []).append(tensor)
    return [
        sizes[size][index]
        for size in sorted(sizes, reverse=True)
        for index in sorted(range(len(sizes[size])), key=lambda index: (index * _GOLDEN) % 1)
    ]


def _slices(file: GGUFFile, most_bytes: int) -> tuple[TensorInfo, ...]:
    """The output layer as some rows after the other, each slice of at most ``most_bytes``.

    It is by far the largest tensor of a small model: as a whole it would never fit the ring. There
    are no slices if it is not larger than that, or if so few bytes hold no slice.
    """
    layer = file.output_layer
    if layer is None or len(layer.shape) != 2 or layer.n_bytes <= most_bytes:
        return ()
    columns, n_rows = layer.shape
    row_bytes = layer.n_bytes // n_rows
    step = most_bytes // row_bytes // _SLICE_ROWS * _SLICE_ROWS
    if not step:
        return ()
    return tuple(
        replace(
            layer,
            name=f"{layer.name}[{first}:]",
            shape=(columns, min(step, n_rows - first)),
            offset=layer.offset + first * row_bytes,
            n_bytes=min(step, n_rows - first) * row_bytes,
        )
        for first in range(0, n_rows, step)
    )


def _order_of_use(tensor: TensorInfo) -> tuple[float, bool, bool, int]:
    """A guess, good for most architectures; the first pass shows the true order."""
    block = tensor.block
    place = math.inf if block is None else block
    return place, "ffn" in tensor.name, "down" in tensor.name, tensor.offset


def spans(tensors: Iterable[TensorInfo]) -> list[tuple[Span, list[TensorInfo]]]:
    """The fewest spans that hold these tensors and nothing else, with what each of them holds."""
    groups: list[tuple[Span, list[TensorInfo]]] = []
    for tensor in sorted(tensors, key=lambda t: (t.part, t.offset)):
        own = Span.around(tensor.part, tensor.offset, tensor.n_bytes)
        if groups:
            span, members = groups[-1]
            if span.part == own.part and own.offset <= span.offset + span.n_bytes:
                end = own.offset + own.n_bytes
                members.append(tensor)
                groups[-1] = Span(span.part, span.offset, end - span.offset), members
                continue
        groups.append((own, [tensor]))
    return groups
