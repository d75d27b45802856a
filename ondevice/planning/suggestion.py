"""Names a model that would run where another one does not."""

from __future__ import annotations

from ondevice.models import Recipe, catalogue
from ondevice.ram.available import AvailableRam
from ondevice.text import size

BESIDE_WEIGHTS = 250_000_000  # bytes: about what context, buffers and engine take
# With a short context and most of the weights read from the disk.
_LEAST_BESIDE, _LEAST_SHARE = 100_000_000, 0.2


def instead(ram: AvailableRam) -> str:
    """A sentence that says which model of the catalogue fits, or what is missing for any."""
    fitting = [r for r in catalogue() if r.size_bytes + BESIDE_WEIGHTS <= ram.usable]
    if fitting:
        largest = max(fitting, key=lambda recipe: recipe.size_bytes)
        return f"{largest.title} fits: ondevice models pull {largest.name}"
    smallest = min(catalogue(), key=lambda recipe: recipe.size_bytes)
    missing = _least(smallest) - ram.usable
    if missing <= 0:
        return (
            f"{smallest.title} runs, with a part of it read from the disk: "
            f"ondevice models pull {smallest.name}"
        )
    return (
        f"No model in the catalogue runs in that: the smallest, {smallest.title}, needs about "
        f"{size(missing)} more. Close other programs, or raise --ram."
    )


def _least(recipe: Recipe) -> int:
    return int(recipe.size_bytes * _LEAST_SHARE) + _LEAST_BESIDE
