"""Times of messages: whatever a file says, only such as every clock and calendar can show."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime

# Local time before 1970 and after 3000 is an error on Windows, near the years 1 and 9999 anywhere.
_FIRST, _LAST = datetime(1971, 1, 1, tzinfo=UTC), datetime(3000, 1, 1, tzinfo=UTC)
_MILLISECONDS = 1e11  # as seconds: more than three thousand years


def sane(time: datetime) -> datetime | None:
    """The time in UTC, which it is meant in if it says no zone; None: it cannot be true."""
    try:
        time = time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
    except OverflowError:
        return None
    return time if _FIRST <= time < _LAST else None


def from_file(time: object) -> datetime | None:
    """A time as the services write it: seconds or ms since 1970, or a text in ISO 8601."""
    with suppress(ValueError, OverflowError, OSError):
        if isinstance(time, str):
            return sane(datetime.fromisoformat(time))
    with suppress(ValueError, OverflowError, OSError):
        if isinstance(time, int | float | str):
            seconds = float(time)
            return sane(
                datetime.fromtimestamp(seconds / (1000 if seconds > _MILLISECONDS else 1), UTC)
            )
    return None


def from_store(text: str) -> datetime:
    """The time that a column holds; 1971 for one that cannot be true, as a damaged one."""
    try:  # as it was written; there may be ten thousand to read
        time = datetime.fromisoformat(text)
        if time.tzinfo is UTC and _FIRST <= time < _LAST:
            return time
    except (TypeError, ValueError):
        pass
    return from_file(text) or _FIRST
