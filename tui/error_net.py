"""One net for what nobody foresaw: the app goes on and says so; where it was is in a log."""

from __future__ import annotations

import asyncio
import os
import time
import traceback
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from textual._callback import invoke
from textual.dom import DOMNode
from textual.geometry import Region
from textual.message import Message
from textual.message_pump import MessagePump
from textual.screen import Screen
from textual.strip import Strip
from textual.visual import Visual, visualize
from textual.widget import Widget
from textual.worker import WorkerFailed

from ondevice import paths
from ondevice.errors import OndeviceError
from ondevice.paths import ensure_private
from tui.textual_gaps import MISSED, is_going

if TYPE_CHECKING:
    from textual.app import App

_MOST = 256 * 1024  # bytes of the log; the older half goes when it is full
_FRAMES, _CAUSES = 40, 5
_AGAIN = 10.0  # seconds in which the same is not said or written again
_HOPELESS, _WITHIN = 30, 5.0  # so many errors in so many seconds


class ErrorNet:
    """What has been caught; ``log`` gets the places, but no values and none of the texts."""

    def __init__(self, log: Path | None = None) -> None:
        self.log = log or paths.log_dir() / "app.log"
        self.unforeseen = 0
        """How many errors were caught that are not ours."""
        self._times: deque[float] = deque(maxlen=_HOPELESS)
        self._said: dict[str, float] = {}

    def catch(self, error: BaseException) -> str | None:
        """What to tell the user; None: that was said a moment ago."""
        if isinstance(error, WorkerFailed):
            error = error.error
        self._times.append(time.monotonic())
        if isinstance(error, OndeviceError):
            return None if self._again(str(error)) else str(error)
        self.unforeseen += 1
        if self._again(_place(error)):
            return None
        where = f" Details are in {self.log}." if self._write(error) else ""
        sentence = f"Something went wrong in the app, but nothing you typed is lost.{where}"
        return None if self._again(sentence) else sentence

    @property
    def hopeless(self) -> bool:
        """Whether errors come so fast that the app cannot go on."""
        return len(self._times) == _HOPELESS and self._times[-1] - self._times[0] < _WITHIN

    def _again(self, what: str) -> bool:
        now, before = time.monotonic(), self._said.get(what)
        self._said[what] = now
        return before is not None and now - before < _AGAIN

    def _write(self, error: BaseException) -> bool:
        try:
            ensure_private(self.log.parent)
            if self.log.exists() and self.log.stat().st_size > _MOST:
                self.log.write_bytes(self.log.read_bytes()[-_MOST // 2 :])
            handle = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
                file.write(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC\n{report(error)}\n")
        except OSError:
            return False
        return True


def _place(error: BaseException) -> str:
    last = traceback.extract_tb(error.__traceback__)[-1:]
    return " ".join([str(type(error)), *(f"{frame.filename}:{frame.lineno}" for frame in last)])


def report(error: BaseException) -> str:
    """Where the error was raised, and by what. What it says is left out: it may quote a chat."""
    lines: list[str] = []
    one: BaseException | None = error
    for _ in range(_CAUSES):
        if one is None:
            break
        lines.append(f"{type(one).__module__}.{type(one).__qualname__}")
        if isinstance(one, OSError) and one.errno:
            lines.append(f"  {os.strerror(one.errno)}")
        frames = traceback.extract_tb(one.__traceback__)
        lines += [
            f"  {frame.filename}:{frame.lineno} in {frame.name}\n    {frame.line}"
            for frame in frames[-_FRAMES:]
        ]
        one = one.__cause__ or one.__context__
    return "\n".join(lines) + "\n"


def spread() -> None:
    """Have every part of an app that has a ``net`` go on after an error of its own.

    Textual ends the part in which it was raised, and with it the app. What cannot be drawn is left
    empty: otherwise nothing on the screen would be drawn. What is being taken away may fail.
    """
    dispatch = MessagePump._dispatch_message
    render, render_lines = Widget._render, Widget.render_lines

    def caught(pump: MessagePump, error: Exception) -> None:
        app: App[Any] = pump.app
        if not hasattr(app, "net"):
            raise error
        app._handle_exception(error)

    async def dispatch_safely(self: MessagePump, message: Message) -> None:
        try:
            await dispatch(self, message)
        except asyncio.CancelledError:
            # Where only what was waited for was cancelled, such as the closing of a screen that
            # another one has closed, Textual would take it for the end of this part, or the app.
            if (task := asyncio.current_task()) is None or task.cancelling():
                raise
        except MISSED as error:
            if not (isinstance(self, DOMNode) and is_going(self)):
                caught(self, error)
        except Exception as error:
            caught(self, error)

    async def call_back_safely(self: Screen[Any]) -> None:
        """Also those that come after one that fails, which Textual would leave out."""
        callbacks = self._callbacks[:]
        self._callbacks.clear()
        for callback, pump in callbacks:
            with pump._context():
                try:
                    await invoke(callback)
                except MISSED as error:
                    if not (isinstance(pump, DOMNode) and is_going(pump)):
                        caught(pump, error)
                except Exception as error:
                    caught(pump, error)

    def render_safely(self: Widget) -> Visual:
        try:
            return render(self)
        except Exception as error:
            if not is_going(self):
                caught(self, error)
            return visualize(self, "")

    def render_lines_safely(self: Widget, crop: Region) -> list[Strip]:
        try:
            return render_lines(self, crop)
        except Exception as error:
            if not is_going(self):
                caught(self, error)
            return [Strip.blank(crop.width)] * crop.height

    setattr(MessagePump, "_dispatch_message", dispatch_safely)  # noqa: B010 - there is no hook
    if hasattr(Screen, "_invoke_and_clear_callbacks"):
        setattr(Screen, "_invoke_and_clear_callbacks", call_back_safely)  # noqa: B010
    setattr(Widget, "_render", render_safely)  # noqa: B010
    setattr(Widget, "render_lines", render_lines_safely)  # noqa: B010


with suppress(AttributeError):  # another Textual: then such an error ends the app, in good order
    spread()
