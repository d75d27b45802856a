"""Shows what is remembered and where it comes from, and forgets it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.content import Content

from ondevice.errors import OndeviceError
from ondevice.memory import Cube, Memory
from ondevice.terminal import printable
from tui.screens.dialogs import ChoiceScreen, LineScreen
from tui.screens.finder import Finder
from tui.widgets.memories import provenance

_LISTED = 100


class MemoryScreen(Finder[Cube, tuple[bool, Cube | None]]):
    """Dismissed with whether anything changed, and the memory whose origin is wanted, if any."""

    HELP = """\
## Memory

What you typed is remembered, and what was read from it. Type words to search. Enter goes to the
message that a memory comes from.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "edit", "Correct", id="memory.edit"),
        Binding("f3", "history", "History", id="memory.history"),
        Binding("f8", "forget", "Forget", id="memory.forget"),
    ]

    def __init__(self, memory: Memory, words: str = "") -> None:
        super().__init__("Memory", "Enter origin · F2 correct · F3 history · F8 forget", words)
        self._memory = memory
        self._changed = False

    def find(self, words: str) -> list[Cube]:
        if words.strip():
            return [hit.cube for hit in self._memory.search(words, limit=_LISTED).hits]
        cubes = self._memory.latest(limit=_LISTED)
        return [cube for cube in cubes if cube.status != "deleted"]

    def nothing(self, words: str) -> str:
        return "Nothing has these words." if words.strip() else "Nothing is remembered yet."

    def line(self, item: Cube) -> Content:
        no_longer = ", no longer so" if item.status == "superseded" else ""
        content = " ".join(printable(item.content).split())
        when = f"{item.event_at:%d %b %Y}"
        about = f"{item.label} · {when} · {provenance(item)}{no_longer}"
        return Content.assemble(f"{content}\n", (about, "dim"))

    def key(self, item: Cube) -> int:
        return item.id

    def choose(self, item: Cube) -> None:
        self._go_to_origin(item)

    def action_close(self) -> None:
        self.dismiss((self._changed, None))

    @work
    async def _go_to_origin(self, cube: Cube) -> None:
        """The message it is, or that it was read from."""
        history = await asyncio.to_thread(self._memory.history, cube.id)
        evidence = [link.to_id for link in history.links if link.kind == "evidence"]
        for origin in [cube, *await asyncio.to_thread(self._memory.cubes, evidence)]:
            if origin.message_id is not None:
                self.dismiss((self._changed, origin))
                return
        self.notify(f"It comes from {provenance(cube)}, not from a chat.")

    @work
    async def action_edit(self) -> None:
        if cube := self.pointed_at:
            content = await self.app.push_screen_wait(LineScreen("Correct", cube.content))
            if content and content != cube.content:
                await self._do(lambda: self._memory.edit(cube.id, content))

    @work
    async def action_history(self) -> None:
        if cube := self.pointed_at:
            history = await asyncio.to_thread(self._memory.history, cube.id)
            lines = [
                *(f"{v.written_at:%d %b %Y}: {v.content}" for v in history.versions),
                *(f"{c.event_at:%d %b %Y}: {c.content}" for c in reversed(history.earlier)),
                f"{cube.event_at:%d %b %Y}: {cube.content}",
                *(f"{c.event_at:%d %b %Y}: {c.content}" for c in history.later),
            ]
            await self.app.push_screen_wait(ChoiceScreen("\n".join(lines), "Close"))

    @work
    async def action_forget(self) -> None:
        if cube := self.pointed_at:
            going = await asyncio.to_thread(self._memory.going, [cube.id])
            lines = "\n".join(f"- {one.content}" for one in going)
            question = f"Forget for good, in the chats as well?\n{lines}"
            answer = await self.app.push_screen_wait(ChoiceScreen(question, "Keep", "Forget"))
            if answer:
                await self._do(lambda: self._memory.forget([cube.id]))

    async def _do(self, change: Callable[[], object]) -> None:
        try:
            await asyncio.to_thread(change)
        except OndeviceError as error:
            self.notify(str(error), severity="error")
        self._changed = True
        self.look()
