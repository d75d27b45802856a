"""What an engine would say of how a model is held."""

from __future__ import annotations

from ondevice import gguf
from ondevice.holding.window.placement import least_bytes, most_bytes, place
from ondevice.messages import Sizing


def sizing_of(file: gguf.GGUFFile, budget: int) -> Sizing:
    placed = place(file, budget)
    return Sizing(
        budget=None,
        resident_bytes=placed.resident_bytes,
        absent_bytes=placed.absent_bytes,
        streamed_bytes=placed.absent_bytes,
        least_bytes=least_bytes(file),
        most_bytes=most_bytes(file),
        room_bytes=2 * budget,
        limit_bytes=4 * budget,
        limit_source="all RAM of this machine",
    )
