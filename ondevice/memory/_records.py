"""The records of the memory: cubes, where they come from, and what is known about them."""

from __future__ import annotations

from datetime import date, datetime
from typing import Literal

import msgspec

from ondevice.errors import UsageError

FORGOTTEN = "[forgotten]"
"""What stands in a conversation in place of a forgotten message."""

Kind = Literal["turn", "note", "fact", "profile", "lesson", "document"]
Status = Literal["active", "proposed", "superseded", "archived", "deleted"]
SourceKind = Literal["conversation", "document", "notes", "facts"]
LinkKind = Literal["evidence", "supersedes", "related"]

#: A cube's id is ``source << POSITION_BITS | position``, so its neighbours are at ±1.
POSITION_BITS = 32
POSITIONS = 1 << POSITION_BITS


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where cubes come from."""

    id: int
    uid: str  # the same in every store that a copy of it is imported into
    kind: SourceKind
    name: str  # title of the conversation, path of the document


class Cube(msgspec.Struct, frozen=True, kw_only=True):
    """One memory (after MemOS, section 3: content with its provenance and its state of life)."""

    id: int
    kind: Kind
    status: Status
    content: str  # empty once deleted
    speaker: str  # empty: the user
    topic: str | None  # what a fact is about; a new value supersedes the old one
    event_at: datetime  # when it was said, or was so
    about_from: date | None = None  # first and last of the days that it is about, where it tells
    about_to: date | None = None
    written_at: datetime  # when it came into the store
    version: int  # 1, 2, …
    message_id: int | None  # the very message, while its conversation is kept
    source: Source
    outdated: bool = False  # a turn or note: all facts that were read from it are superseded

    @property
    def label(self) -> str:
        """The id for people, such as ``3:17``: source and position."""
        return label(self.id)


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """What a cube said before it was edited."""

    number: int
    content: str
    event_at: datetime
    written_at: datetime


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """``from_id`` rests on, replaces or belongs with ``to_id``."""

    from_id: int
    kind: LinkKind
    to_id: int


class Hit(msgspec.Struct, frozen=True, kw_only=True):
    """A cube that a search found."""

    cube: Cube
    score: float  # higher is better; to be compared within one search only
    #: Words of the question, in lower case, that it does not say, nor others used for them.
    lacks: tuple[str, ...] = ()


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a search found, best first."""

    hits: tuple[Hit, ...]
    sources: tuple[int, ...]  # ids of sources, best first
    #: 0 … 1: how much of what was asked for the best cube itself says, and, where the question
    #: names a speaker, how much more that speaker says of it than others do.
    confidence: float
    missing: tuple[str, ...] = ()  # words of the question that no memory has, in lower case
    #: Some cube that was found says more of the question than words such as “name” and “called”.
    is_about_it: bool = True
    #: The question without an event that is remembered: of “Where did I live before I moved to
    #: Ghent?” the first part. Empty if it names none.
    asked: str = ""


class ReadTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A message of the user, read for what is to be remembered of it."""

    content: str  # without secrets
    typed: str  # the same without what was pasted; of a very long text its beginning and its end
    left_out: tuple[str, ...]  # kinds of secrets
    unwanted: bool = False  # it says of itself that it is not to be remembered


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """What came of storing a text."""

    cube: Cube
    facts: tuple[Cube, ...] = ()  # read from it, new ones only
    proposed: tuple[Cube, ...] = ()  # what may be facts, for the user to decide
    left_out: tuple[str, ...] = ()  # kinds of secrets that were not stored
    unwanted: bool = False  # nothing of it was stored, because it says that it is not to be


class History(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known about a cube."""

    cube: Cube
    tags: tuple[str, ...]
    versions: tuple[Version, ...]  # what it said before it was edited, oldest first
    earlier: tuple[Cube, ...]  # what it supersedes, newest first
    later: tuple[Cube, ...]  # what supersedes it, oldest first
    links: tuple[Link, ...]


class Blanked(msgspec.Struct, frozen=True, kw_only=True):
    """A text out of which a quotation is taken when that is forgotten."""

    where: str  # what it is to people, such as “message” or “system prompt”
    text: str  # as it then reads, around the place; of what is emptied: as it reads now


class MemoryStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """How much is remembered."""

    cubes: int
    by_kind: dict[str, int]
    by_status: dict[str, int]
    sources: int
    versions: int  # earlier ones
    links: int
    bytes: int  # of the store's file, conversations included
    encrypted: bool


class Unread(msgspec.Struct, frozen=True, kw_only=True):
    """What the user has stated and no model has read for facts yet."""

    cube_id: int
    text: str  # of what they typed: no code, no quotations, no questions
    at: datetime  # when it was said


def label(cube_id: int) -> str:
    """``3:17`` for position 17 of source 3."""
    return f"{cube_id >> POSITION_BITS}:{cube_id % POSITIONS}"


def parse_label(text: str) -> int:
    """The id of the cube that people call ``3:17``. Raises :class:`UsageError` otherwise."""
    source, _, position = text.partition(":")
    if not (source.isascii() and source.isdigit() and position.isascii() and position.isdigit()):
        raise UsageError(f"“{text}” is not the number of a memory, such as 3:17.")
    return int(source) << POSITION_BITS | int(position)
