"""Says when something was as people do: “today”, “on Monday”, “in June”, “in June 2025”."""

from __future__ import annotations

from datetime import datetime

_WEEK = 7  # days
_MONTH = 31


def said(at: datetime, now: datetime | None = None) -> str:
    """When ``at`` was, seen from ``now``."""
    now = now or datetime.now().astimezone()
    day = at.astimezone(now.tzinfo)
    ago = (now.date() - day.date()).days
    if ago in (0, 1):
        return "yesterday" if ago else "today"
    if 0 < ago < _WEEK:
        return f"on {day:%A}"
    if 0 < ago < _MONTH:
        return f"on {day.day} {day:%B}"
    return f"in {day:%B}" if ago > 0 and day.year == now.year else f"in {day:%B %Y}"
