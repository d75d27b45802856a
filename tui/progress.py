"""How a reply comes along: for how long it is awaited, and what context it takes."""

from __future__ import annotations

import time

from ondevice.messages import Chunk, Event, Finished, PromptProgress


class Progress:
    """Of the exchanges of one conversation."""

    def __init__(self, *, empty: bool) -> None:
        self.tokens: int | None = 0 if empty else None
        """Of the context, that the conversation takes; None: not known."""
        self._asked_at: float | None = None

    def begin(self) -> None:
        """A reply is wanted."""
        self._asked_at = time.monotonic()

    def hear(self, event: Event) -> None:
        match event:
            case PromptProgress():
                self.tokens = event.reused + event.done
            case Chunk():
                self._asked_at = None
                if self.tokens is not None:
                    self.tokens += event.tokens
            case Finished() if event.statistics.prompt_tokens:
                self.tokens = event.statistics.context_tokens

    def end(self) -> None:
        """No reply is wanted any more."""
        self._asked_at = None

    def describe(self, doing: str) -> str:
        """``doing``, and for how long already while no word has come."""
        if not doing or self._asked_at is None:
            return doing
        seconds = int(time.monotonic() - self._asked_at)
        return f"{doing}, {seconds} s" if seconds else doing
