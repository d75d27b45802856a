"""Numbered steps from an empty file to the current schema; a released step never changes."""

from __future__ import annotations

from collections.abc import Callable

from ondevice.store._sqlite import Connection
from ondevice.store.migrations import (
    m001_conversations,
    m002_memory,
    m003_branches,
    m004_unread,
    m005_lessons,
    m006_windows,
    m007_imports,
    m008_proposals,
    m009_about,
    m010_memory_index,
    m011_summaries,
    m012_state_keys,
    m013_vowel_signs,
    m014_words_of_chats,
    m015_south_east,
)

#: Applied in order; ``PRAGMA user_version`` is how many have been.
MIGRATIONS: tuple[Callable[[Connection], None], ...] = (
    m001_conversations.migrate,
    m002_memory.migrate,
    m003_branches.migrate,
    m004_unread.migrate,
    m005_lessons.migrate,
    m006_windows.migrate,
    m007_imports.migrate,
    m008_proposals.migrate,
    m009_about.migrate,
    m010_memory_index.migrate,
    m011_summaries.migrate,
    m012_state_keys.migrate,
    m013_vowel_signs.migrate,
    m014_words_of_chats.migrate,
    m015_south_east.migrate,
)
