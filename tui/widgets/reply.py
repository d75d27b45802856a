"""What the model said: its thinking, its answer, and a word on how it ended if not well."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from ondevice.chats import Message
from ondevice.memory import Cube
from ondevice.messages import Chunk, Event, Finished, FinishReason, Statistics
from ondevice.text import printable
from tui.widgets.memories import Memories
from tui.widgets.message import MessageView
from tui.widgets.reply_text import ReplyBody
from tui.widgets.thinking import Thinking

_ENDINGS: dict[FinishReason | None, str] = {
    None: "Unfinished.",  # it was interrupted, or another window is writing it
    "cancelled": "Stopped.",
    "length": "Cut short.",
}
_WHY_FULL = "the context is full."
_WHY_ENDLESS = "the model repeated itself. Ask in other words, or choose another model."
_FULL = 0.95  # of a context, in which a reply ends for want of room


class Reply(MessageView):
    """An earlier reply, or without ``message`` one that is to come; ``recalled`` helped it.

    Its model is on the ``server``, or on this device.
    """

    HELP = f"""\
{MessageView.HELP}
## Code in a reply

`b` copies the code block in view; press it again for the one before. `w` turns line wrapping off
and on; when it is off, Shift+Right and Shift+Left scroll long lines.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("w", "screen.wrap_code", "Wrap code", show=False, id="message.wrap_code"),
        Binding("shift+right", "screen.shift_code(8)", show=False, id="message.code_right"),
        Binding("shift+left", "screen.shift_code(-8)", show=False, id="message.code_left"),
    ]

    def __init__(
        self,
        message: Message | None = None,
        recalled: Sequence[Cube] = (),
        server: str | None = None,
    ) -> None:
        self._about, self._ending = Static(classes="about"), Static("…", classes="ending")
        self._text = ReplyBody(message.content if message else "")
        self._ended = message is not None
        super().__init__(message)
        self.doing = "reading"
        """In a word, while it is under way."""
        self.statistics: Statistics | None = None
        """Once it has come to its end."""
        self._recalled = recalled
        self._server = message.server if message else server
        self._thinking: Thinking | None = None
        self._ended_as: FinishReason | None = None
        self._first_chunk_at = 0.0
        self._tokens = 0  # of all chunks but the first
        if message:
            self.end(message.finish_reason, message.statistics)

    def compose(self) -> ComposeResult:
        yield from self.name_speaker((self.message and self.message.model) or "Reply")
        if self.message and self.message.thinking:
            figures = self.message.statistics
            cut = figures is not None and figures.thinking_cut
            self._thinking = Thinking(self.message.thinking, cut=cut)
            yield self._thinking
        yield self._text
        # Most have no need of these two, and a jump in a long chat makes many replies.
        if self._ending.display:
            yield self._ending
        if self._about.display:
            yield self._about
        if self._recalled:
            yield Memories(self._recalled, self._server)
        yield from super().compose()

    @property
    def texts(self) -> Sequence[Widget]:
        return [self._text]

    def shows(self, message: Message) -> bool:
        """Also one that it has written itself, which it then need not be made anew for."""
        thought = self._thinking.source if self._thinking else ""
        return super().shows(message) or (
            self._text.source == printable(message.content)
            and thought == printable(message.thinking).strip()
            and self._ended_as == message.finish_reason
            and not message.attachments
            and message.summary == (self.message and self.message.summary)
        )

    def uses(self, memories: Sequence[Cube]) -> bool:
        """Whether it tells that it had these: fewer once some were forgotten."""
        return [cube.id for cube in self._recalled] == [cube.id for cube in memories]

    async def go_on(self) -> None:
        """More is to come."""
        self._ended, self._tokens, self._first_chunk_at = False, 0, 0.0
        self._show_about()
        self._ending.update("…")
        self._ending.display = True
        self._place(self._ending, self._text)

    @property
    def source(self) -> str:
        """What has come of the answer."""
        return self._text.source

    @property
    def begun(self) -> bool:
        """Whether anything of it has come."""
        return self._first_chunk_at > 0 or self.message is not None

    @property
    def per_second(self) -> float | None:
        """Tokens that come in a second."""
        seconds = time.monotonic() - self._first_chunk_at
        return self._tokens / seconds if self._tokens > 0 and seconds > 0.2 else None

    async def show(self, events: Sequence[Event]) -> None:
        """Draw what has come."""
        for part in ("thinking", "answer"):
            chunks = [e for e in events if isinstance(e, Chunk) and e.part == part]
            if chunks:
                self._ending.display = False
                self._tokens += sum(chunk.tokens for chunk in chunks)
                if not self._first_chunk_at:
                    self._first_chunk_at = time.monotonic()
                    self._tokens = sum(chunk.tokens for chunk in chunks[1:])
                text = "".join(chunk.text for chunk in chunks)
                await (self._think if part == "thinking" else self._answer)(text)
        for event in events:
            if isinstance(event, Finished):
                self.statistics = event.statistics
                if self._thinking and event.statistics.thinking_cut:
                    self._thinking.say_cut()
                self.end(event.reason, event.statistics)

    async def finish(self) -> None:
        """Draw the whole once more, now that no more will come."""
        await self._text.finish()
        if self._thinking:
            await self._thinking.finish()

    def end(self, reason: FinishReason | None, figures: Statistics | None = None) -> None:
        """Say how it ended; None: it has not, as far as is known."""
        self._ended_as = reason
        told = _ENDINGS.get(reason, "")
        if reason == "length" and figures and figures.n_ctx:
            is_full = figures.context_tokens >= _FULL * figures.n_ctx
            told = f"Cut short: {_WHY_FULL if is_full else _WHY_ENDLESS}"
        self._ending.update(told)
        self._ending.display = reason in _ENDINGS
        self._place(self._ending, self._text)
        if not self._ended:
            self._ended = True
            self._show_about()

    def message_changed(self) -> None:
        self._show_about()

    def watch_has_focus(self, value: bool) -> None:
        super().watch_has_focus(value)
        self._show_about()

    def _show_about(self) -> None:
        """Say at its end which model wrote it and how fast, and to whom points at it, more."""
        told = self.message if self._ended else None
        text = about(told, in_full=self.has_focus) if told else ""
        self._about.update(Content(printable(text)))
        self._about.display = bool(text)
        self._place(self._about, self._ending if self._ending.is_attached else self._text)
        self.set_class(bool(text), "-about")

    def _place(self, part: Widget, after: Widget) -> None:
        """Have a part that was not needed until now."""
        if part.display and after.is_attached and not part.is_attached:
            self.mount(part, after=after)

    async def _think(self, text: str) -> None:
        self.doing = "thinking"
        if self._thinking is None:
            self._thinking = Thinking()
            await self.mount(self._thinking, before=self._text)
        await self._thinking.write(text)

    async def _answer(self, text: str) -> None:
        self.doing = "answering"
        if self._thinking:
            await self._thinking.finish()
        await self._text.write(text)


def about(message: Message, *, in_full: bool) -> str:
    """Which model wrote it, how fast and for how long; empty: nothing of that is known."""
    parts = [message.model or ""]
    if figures := message.statistics:
        if speed := figures.generated_per_second:
            parts.append(f"{speed:.{int(speed < 10)}f} tokens/s")
        parts.append(_time((figures.prompt_ms + figures.generated_ms) / 1e3))
        if in_full:
            read = figures.prompt_tokens - figures.reused_tokens
            parts.append(f"{figures.generated_tokens:,} tokens written, {read:,} read")
    if any(parts) and in_full:
        parts.append(f"{message.created_at.astimezone():%Y-%m-%d %H:%M}")
    return " · ".join(filter(None, parts))


def _time(seconds: float) -> str:
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
