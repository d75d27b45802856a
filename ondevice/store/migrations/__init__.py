"""Numbered steps from an empty file to the current schema; a released step never changes."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from ondevice.store.migrations import m001_conversations

#: Applied in order; ``PRAGMA user_version`` is how many have been.
MIGRATIONS: tuple[Callable[[sqlite3.Connection], None], ...] = (m001_conversations.migrate,)
