"""How many experts of each block stay in RAM."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from ondevice.holding.cells import CellPart

#: The experts of a long prompt are needed all at once: one matrix of each is computed with while
#: the next one is read.
N_STAGES = 2


@dataclass(frozen=True, slots=True)
class ExpertMatrix:
    """A weight of the model that has a matrix of every expert of a block."""

    name: str
    block: int | None
    n_experts: int
    expert_bytes: int  # of one expert in the file
    slot_bytes: int  # RAM for one expert: whole pages, wherever it begins in the file


@dataclass(frozen=True)
class ExpertBlock:
    """The experts of one block, of which a token needs a few."""

    matrices: tuple[ExpertMatrix, ...]
    n_slots: int = 0  # experts that stay in RAM; which ones changes

    @property
    def n_experts(self) -> int:
        return self.matrices[0].n_experts

    @cached_property
    def bytes_per_slot(self) -> int:
        return sum(matrix.slot_bytes for matrix in self.matrices)

    @cached_property
    def expert_bytes(self) -> int:
        """Of all its experts."""
        return self.n_experts * sum(matrix.expert_bytes for matrix in self.matrices)

    @property
    def absent_bytes(self) -> int:
        """Of the experts without a slot."""
        return self.expert_bytes // self.n_experts * (self.n_experts - self.n_slots)

    def cells(self) -> list[CellPart]:
        """What of each weight is in RAM."""
        return [
            (m.block, m.n_experts * m.expert_bytes, self.n_slots * m.expert_bytes, "experts")
            for m in self.matrices
        ]


def slots_bytes(blocks: Sequence[ExpertBlock]) -> int:
    """RAM for the slots of these blocks. The stages lie in the same memory."""
    matrices = [matrix for block in blocks for matrix in block.matrices]
    stages = N_STAGES * max((m.n_experts * m.slot_bytes for m in matrices), default=0)
    return max(sum(block.n_slots * block.bytes_per_slot for block in blocks), stages)


def with_slots(blocks: Iterable[ExpertBlock], room: int) -> tuple[ExpertBlock, ...]:
    """The blocks with as many slots as fit: the same number for each, or one more."""
    blocks = tuple(blocks)
    all_bytes = sum(block.bytes_per_slot for block in blocks)
    level = room // max(1, all_bytes)
    room -= level * all_bytes
    found = []
    for block in blocks:
        more = block.bytes_per_slot <= room
        room -= more * block.bytes_per_slot
        found.append(replace(block, n_slots=min(level + more, block.n_experts)))
    return tuple(found)
