"""Has the cursor stand still once nobody has typed for a while.

A cursor that blinks is drawn twice a second, and that is most of what an app does that waits.
"""

from __future__ import annotations

import time

from textual.app import App
from textual.widgets import Input, TextArea

STILL_AFTER = 5.0  # seconds without any input


class Cursor:
    """To be told of all input, and asked now and then to stand still."""

    def __init__(self, app: App[None]) -> None:
        self._app = app
        self._moved_at = time.monotonic()
        self._still: set[Input | TextArea] = set()

    def move(self) -> None:
        """There was some input: it blinks again."""
        self._moved_at = time.monotonic()
        while self._still:
            self._still.pop().cursor_blink = True

    def rest(self) -> None:
        """It blinks no longer if it is time for that."""
        focused = self._app.focused
        is_late = time.monotonic() - self._moved_at >= STILL_AFTER
        if is_late and isinstance(focused, Input | TextArea) and focused.cursor_blink:
            focused.cursor_blink = False
            self._still.add(focused)
