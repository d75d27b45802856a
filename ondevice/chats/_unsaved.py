"""Replies whose end could not be saved: they wait in RAM until it can."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ondevice.errors import StoreError, StoreUnwritable

if TYPE_CHECKING:
    from ondevice.chats._draft import ReplyDraft


class UnsavedReplies:
    """May be used from any thread."""

    def __init__(self) -> None:
        self._drafts: list[ReplyDraft] = []
        self._saving = threading.Lock()

    def __len__(self) -> int:
        return len(self._drafts)

    def add(self, draft: ReplyDraft) -> None:
        """Try it again with the next :meth:`save`."""
        self._drafts.append(draft)

    def save(self) -> dict[int, int]:
        """Save them in the order in which they were written.

        Returns those that were not in the store at all: the message each of them answers, and its
        own id. Raises :class:`StoreUnwritable` if it is too early for that.
        """
        begun: dict[int, int] = {}
        with self._saving:
            while self._drafts:
                draft = self._drafts[0]
                was_stored = draft.message_id is not None
                try:
                    draft.close()
                except StoreUnwritable:
                    raise
                except StoreError:  # its chat was deleted
                    pass
                del self._drafts[0]
                if not was_stored and draft.message_id is not None and draft.parent_id is not None:
                    begun[draft.parent_id] = draft.message_id
        return begun
