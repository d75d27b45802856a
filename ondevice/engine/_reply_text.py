"""From the bytes of sampled tokens to chunks of text: UTF-8, thinking and stop strings."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from ondevice.markup import (
    CHANNELS,
    SECTIONS,
    Channels,
    Part,
    Section,
    closed_section,
    heading_part,
    open_message,
    open_section,
)
from ondevice.messages import Chunk

_LONGEST_HEADING = 200  # characters: what is longer is text


class ReplyText:
    """Splits a reply into thinking and answer and ends it before the first stop string.

    What could still become a mark or a stop string is held back until it is decided. ``prompt`` is
    the rendered prompt: some templates open the thinking themselves. Without one, the marks at the
    beginning of the reply decide.
    """

    def __init__(self, prompt: str = "", stop: Iterable[str] = ()) -> None:
        self.stopped = False
        self._stop = tuple(filter(None, stop))
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        #: What the text is, or None where marks may stand: at the beginning and between parts.
        self._part: Part | None = None
        self._section: Section | None = None  # the last one
        self._thought = False  # there was thinking before
        self._closing: tuple[str, ...] = ()  # marks that end the part
        self._answer_end = ""
        self._channels: Channels | None = None  # in which the reply is written
        if (section := open_section(prompt)) is not None:
            self._enter(section)
        elif (section := closed_section(prompt)) is not None:
            self._section, self._thought = section, True
        elif (message := open_message(prompt)) is not None:
            self._channels, self._part = message
            self._closing = self._channels.ends

    @property
    def part(self) -> Part | None:
        """What the text is now; None: that is not decided."""
        return self._part

    @property
    def thinking(self) -> Section | Channels | None:
        """How the thinking is written that is under way; None: none is."""
        return (self._channels or self._section) if self._part == "thinking" else None

    @property
    def is_undecided(self) -> bool:
        """Whether what came last may be the beginning of a mark."""
        return bool(self._held)

    def feed(self, data: bytes) -> list[Chunk]:
        """The chunks that ``data`` completes."""
        self._held += self._utf8.decode(data)
        return self._take()

    def finish(self) -> list[Chunk]:
        """The chunks that were held back; nothing follows.

        A character of which not all bytes came is left out.
        """
        return self._take(final=True)

    def _enter(self, section: Section) -> None:
        self._section = section
        self._part, self._closing = section.part, (section.closing,)
        self._answer_end = section.answer_end

    def _take(self, *, final: bool = False) -> list[Chunk]:
        chunks: list[Chunk] = []
        while not self.stopped:
            if self._part is None:
                found = self._heading(final) if self._channels else self._beginning(final)
                if not found:
                    break
                continue
            stops = self._stop if self._part == "answer" else ()
            text, mark = self._until((*stops, *self._closing), final)
            if text:
                chunks.append(Chunk(text=text, part=self._part))
            if mark is None:
                break
            if mark in stops:
                self.stopped = True
            else:
                self._thought = self._thought or self._part == "thinking"
                self._part, self._closing = None, ()
        return chunks

    def _beginning(self, final: bool) -> bool:
        """Finds out what comes next, if that can be told yet."""
        text = self._held.lstrip()
        for section in SECTIONS:
            if (section.at_start or self._thought) and text.startswith(section.opening):
                self._held = text.removeprefix(section.opening)
                self._enter(section)
                return True
        for channels in CHANNELS:
            if text.startswith(channels.begins):
                self._channels = channels
                return True
        openings = [s.opening for s in SECTIONS if s.at_start or self._thought]
        # Where the thinking was cut, some models end it once more themselves.
        again = (self._section.closing,) if self._section and self._thought else ()
        if again and text.startswith(again):
            self._held = text.removeprefix(again[0])
            return True
        marks = (*openings, *again, *(mark for c in CHANNELS for mark in c.begins))
        if not final and any(mark.startswith(text) for mark in marks):
            return False
        if self._thought:  # the white space between the thinking and the answer
            self._held = text
        self._part = "answer"
        self._closing = (self._answer_end,) if self._answer_end else ()
        return True

    def _heading(self, final: bool) -> bool:
        """Reads the heading of a message, if all of it is there."""
        assert self._channels is not None
        bodies = dict(self._channels.bodies)
        heading, mark = self._until(tuple(bodies), final=False, keep_all=True)
        if mark is not None:
            self._part = bodies[mark] or heading_part(self._channels, heading)
            self._closing = self._channels.ends
        elif len(self._held) > _LONGEST_HEADING:
            self._part, self._closing = "answer", self._channels.ends
        elif final:
            self._held = ""
        return self._part is not None

    def _until(
        self, marks: tuple[str, ...], final: bool, *, keep_all: bool = False
    ) -> tuple[str, str | None]:
        """Takes the held text before the first of ``marks`` and that mark; says which it was.

        Without one, what could be the beginning of a mark stays held unless ``final``, and all of
        it if ``keep_all``.
        """
        places = [(at, mark) for mark in marks if (at := self._held.find(mark)) >= 0]
        if places:
            at, mark = min(places)
            text, self._held = self._held[:at], self._held[at + len(mark) :]
            return text, mark
        if keep_all:
            return "", None
        keep = 0 if final else max((_overlap(self._held, mark) for mark in marks), default=0)
        end = len(self._held) - keep
        text, self._held = self._held[:end], self._held[end:]
        return text, None


def answer_of(reply: str) -> str:
    """``reply`` without thinking and marks, as it goes back to a model.

    What older versions and other programs have kept may have them.
    """
    if not reply.lstrip().startswith(_BEGINNINGS):
        return reply
    text = ReplyText()
    chunks = [*text.feed(reply.encode("utf-8", "replace")), *text.finish()]
    return "".join(chunk.text for chunk in chunks if chunk.part == "answer") or reply


_BEGINNINGS = (
    *(section.opening for section in SECTIONS if section.at_start),
    *(mark for channels in CHANNELS for mark in channels.begins),
)


def _overlap(text: str, mark: str) -> int:
    """Length of the longest end of ``text`` that begins ``mark``."""
    return next(
        (n for n in range(min(len(text), len(mark) - 1), 0, -1) if mark[:n] == text[-n:]), 0
    )
