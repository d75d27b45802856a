"""The RAM of the limit as a bar."""

from __future__ import annotations

from textual.content import Content
from textual.reactive import reactive
from textual.widget import Widget

from ondevice.messages import Sizing


class RamBar(Widget):
    """The weights, what more there is room for, and the rest of the limit."""

    sizing: reactive[Sizing | None] = reactive(None)

    def render(self) -> Content:
        if self.sizing is None:
            return Content()
        width, sizing = self.content_size.width, self.sizing
        total = max(sizing.limit_bytes, sizing.resident_bytes, 1)
        room = max(0, min(sizing.room_bytes, total) - sizing.resident_bytes)
        # What there is of something is to be seen, be it ever so little of the limit.
        full = max(round(width * sizing.resident_bytes / total), sizing.resident_bytes > 0)
        free = min(round(width * room / total), width - full)
        return Content.assemble(
            ("█" * full, "$success"),
            ("░" * free, "$primary"),
            ("·" * (width - full - free), "$text-muted"),
        )
