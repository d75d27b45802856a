"""From the bytes of sampled tokens to chunks of text: UTF-8, thinking and stop strings."""

from __future__ import annotations

import codecs
from collections.abc import Iterable

from ondevice.engine.messages import Chunk

#: How reasoning models open and close their thinking.
THINKING_TAGS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"))


class ReplyText:
    """Splits a reply into thinking and answer and ends it before the first stop string.

    What could still become a tag or a stop string is held back until it is decided. ``prompt`` is
    the rendered prompt: some templates open the thinking themselves.
    """

    def __init__(self, prompt: str, stop: Iterable[str]) -> None:
        self.stopped = False
        self._stop = tuple(filter(None, stop))
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self._started = False  # text other than white space was seen, or the thinking is over
        self._skip_space = False  # between the thinking and the answer
        self._close: str | None = None  # the tag that ends the thinking under way
        for opening, closing in THINKING_TAGS:
            if prompt.rstrip().endswith(opening):
                self._close = closing

    def feed(self, data: bytes) -> list[Chunk]:
        """The chunks that ``data`` completes."""
        self._held += self._utf8.decode(data)
        return self._take()

    def finish(self) -> list[Chunk]:
        """The chunks that were held back; nothing follows."""
        self._held += self._utf8.decode(b"", final=True)
        return self._take(final=True)

    def _take(self, *, final: bool = False) -> list[Chunk]:
        chunks: list[Chunk] = []
        while not self.stopped:
            if self._close is not None:
                text, found = self._until((self._close,), final)
                if text:
                    chunks.append(Chunk(text=text, part="thinking"))
                if not found:
                    break
                self._close, self._started, self._skip_space = None, True, True
            elif not self._started:
                text = self._held.lstrip()
                for opening, closing in THINKING_TAGS:
                    if text.startswith(opening):
                        self._held, self._close = text.removeprefix(opening), closing
                if self._close is None:
                    undecided = any(opening.startswith(text) for opening, _ in THINKING_TAGS)
                    if undecided and not final:
                        break
                    self._started = True
            else:
                if self._skip_space:
                    self._held = self._held.lstrip()
                    self._skip_space = not self._held
                text, self.stopped = self._until(self._stop, final)
                if text:
                    chunks.append(Chunk(text=text))
                break
        return chunks

    def _until(self, marks: tuple[str, ...], final: bool) -> tuple[str, bool]:
        """Takes the held text before the first of ``marks`` and that mark; True if there was one.

        Without one, what could be the beginning of a mark stays held unless ``final``.
        """
        places = [(at, mark) for mark in marks if (at := self._held.find(mark)) >= 0]
        if places:
            at, mark = min(places)
            text, self._held = self._held[:at], self._held[at + len(mark) :]
            return text, True
        keep = 0 if final else max((_overlap(self._held, mark) for mark in marks), default=0)
        end = len(self._held) - keep
        text, self._held = self._held[:end], self._held[end:]
        return text, False


def _overlap(text: str, mark: str) -> int:
    """Length of the longest end of ``text`` that begins ``mark``."""
    return next(
        (n for n in range(min(len(text), len(mark) - 1), 0, -1) if mark[:n] == text[-n:]), 0
    )
