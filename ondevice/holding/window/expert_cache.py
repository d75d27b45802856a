"""Which experts of a block stay in RAM: those that recent tokens used most."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

#: A use counts this much of one a token later. Measured (docs/measurements/window.md): with less
#: the cache forgets what is often used, with more it clings to topics that are over.
AGEING = 0.85
_TOO_LARGE = 1e200


class ExpertCache:
    """Maps experts to slots, of which there are fewer; evicts the least used, by ageing counts.

    (LFU with ageing; of equals the one that was used less recently goes.)
    """

    def __init__(self, n_experts: int, n_slots: int) -> None:
        self.n_experts, self.n_slots = n_experts, n_slots
        #: expert → slot.
        self.slots: dict[int, int] = {}
        # Instead of all counts getting smaller with each token, what a use adds gets larger.
        self._counts = [0.0] * n_experts
        self._one = 1.0

    def note(self, tokens: Iterable[Sequence[int]]) -> None:
        """Count the experts that each of these tokens uses."""
        for experts in tokens:
            self._one /= AGEING
            for expert in experts:
                self._counts[expert] += self._one
        if self._one > _TOO_LARGE:
            self._counts = [count / self._one for count in self._counts]
            self._one = 1.0

    def most_used(self, experts: Iterable[int]) -> list[int]:
        """As many of them as there are slots."""
        return sorted(experts, key=self._counts.__getitem__, reverse=True)[: self.n_slots]

    def admit(self, experts: Collection[int], keep: Collection[int]) -> dict[int, int]:
        """Give slots to experts that have none: expert → slot. None of ``keep`` is evicted."""
        excess = len(self.slots) + len(experts) - self.n_slots
        if excess > 0:
            leaving = sorted(self.slots.keys() - keep, key=self._counts.__getitem__)
            for expert in leaving[:excess]:
                del self.slots[expert]
        free = sorted(set(range(self.n_slots)) - set(self.slots.values()))
        admitted = dict(zip(experts, free, strict=False))
        self.slots |= admitted
        return admitted

    def resize(self, n_slots: int) -> dict[int, int]:
        """Keep the most used experts in so many slots: old slot → new slot."""
        self.n_slots = n_slots
        before = self.slots
        self.slots = {expert: slot for slot, expert in enumerate(self.most_used(before))}
        return {before[expert]: slot for expert, slot in self.slots.items()}

    def remove(self, experts: Iterable[int]) -> None:
        """Free the slots of these experts."""
        for expert in experts:
            self.slots.pop(expert, None)

    def clear(self) -> None:
        """Free all slots; what was counted is kept."""
        self.slots.clear()
