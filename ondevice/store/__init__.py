"""The private store: one SQLite file, 0600 from creation, one writer, numbered migrations."""

from ondevice.store._database import Database
from ondevice.store._index import words_leave
from ondevice.store._salvage import Salvage
from ondevice.store._sqlite import Connection, Row
from ondevice.store._transient import TransientDatabase
from ondevice.store.migrations.m013_vowel_signs import TOKENIZER, VOWEL_SIGNS

__all__ = [
    "TOKENIZER",
    "VOWEL_SIGNS",
    "Connection",
    "Database",
    "Row",
    "Salvage",
    "TransientDatabase",
    "words_leave",
]
