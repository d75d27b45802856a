"""Which experts of a block stay in RAM: those that the router ranked highest for recent tokens."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

import numpy as np

#: A rank counts this much of one a token later. Measured (docs/measurements/window.md): with less
#: the cache forgets what is often used, with more it clings to topics that are over.
AGEING = 0.85


class ExpertCache:
    """Maps experts to slots, of which there are fewer; evicts those that are worth least.

    An expert that was nearly used is likely to be used soon. So its worth is the ageing sum of the
    negative logarithms of its ranks, and not of its uses.
    """

    def __init__(self, n_experts: int, n_slots: int) -> None:
        self.n_experts, self.n_slots = n_experts, n_slots
        #: expert → slot.
        self.slots: dict[int, int] = {}
        self._gains = -np.log(np.arange(1, n_experts + 1))  # by rank
        self._worth = np.zeros(n_experts)

    def note(self, rankings: Iterable[Sequence[int]]) -> None:
        """Take note of experts in the order in which the router prefers them, for each token.

        Those that are left out come after the others, one as good as the other.
        """
        for experts in rankings:
            ranked = len(experts)
            others = self._gains[ranked:]
            gains = np.full(self.n_experts, others.mean() if others.size else 0.0)
            gains[experts] = self._gains[:ranked]
            self._worth = self._worth * AGEING + gains

    def most_worth(self, experts: Iterable[int]) -> list[int]:
        """As many of them as there are slots."""
        return sorted(experts, key=self._worth.tolist().__getitem__, reverse=True)[: self.n_slots]

    def admit(self, experts: Collection[int], keep: Collection[int]) -> dict[int, int]:
        """Give slots to experts that have none: expert → slot. None of ``keep`` is evicted."""
        excess = len(self.slots) + len(experts) - self.n_slots
        if excess > 0:
            leaving = sorted(self.slots.keys() - keep, key=self._worth.tolist().__getitem__)
            for expert in leaving[:excess]:
                del self.slots[expert]
        free = sorted(set(range(self.n_slots)) - set(self.slots.values()))
        admitted = dict(zip(experts, free, strict=False))
        self.slots |= admitted
        return admitted

    def resize(self, n_slots: int) -> dict[int, int]:
        """Keep the experts that are worth most in so many slots: old slot → new slot."""
        self.n_slots = n_slots
        before = self.slots
        self.slots = {expert: slot for slot, expert in enumerate(self.most_worth(before))}
        return {before[expert]: slot for expert, slot in self.slots.items()}

    def remove(self, experts: Iterable[int]) -> None:
        """Free the slots of these experts."""
        for expert in experts:
            self.slots.pop(expert, None)

    def clear(self) -> None:
        """Free all slots; what they were worth is kept."""
        self.slots.clear()
