"""Shows what is remembered and where it comes from; corrects, archives, forgets and pauses it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from datetime import datetime
from typing import ClassVar

from textual import work
from textual.binding import Binding, BindingType
from textual.content import Content

from ondevice.chats import Message
from ondevice.errors import OndeviceError
from ondevice.memory import Cube, History, Kind, Memory, Status
from ondevice.terminal import printable
from tui.screens.dialogs import ChoiceScreen, LineScreen
from tui.screens.finder import Finder
from tui.widgets.memories import provenance

_LISTED = 100
_ALL: tuple[Status, ...] = ("active", "superseded")
_USED = "Used by the reply"
#: Name of a filter → the kinds (none: all) and states of what it lets through.
_FILTERS: dict[str, tuple[tuple[Kind, ...], tuple[Status, ...]]] = {
    "Everything": ((), _ALL),
    "What you said": (("turn",), _ALL),
    "Facts": (("fact", "profile", "lesson"), _ALL),
    "Notes": (("note",), _ALL),
    "Documents": (("document",), _ALL),
    "No longer so": ((), ("superseded",)),
    "Archived": ((), ("archived",)),
}


class MemoryScreen(Finder[Cube, tuple[bool, Cube | None]]):
    """Dismissed with whether anything changed, and the memory whose origin is wanted, if any.

    ``asked`` is a message: shown at first is what was recalled with it, and why.
    """

    HELP = """\
## Memory

What you typed is remembered, and what was read from it. Type words to search. Enter goes to the
message that a memory comes from. Pausing keeps this chat and new ones out of the memory.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "edit", "Correct", id="memory.edit"),
        Binding("f3", "history", "History", id="memory.history"),
        Binding("f4", "filter", "Filter", id="memory.filter"),
        Binding("f5", "pause", "Pause", id="memory.pause"),
        Binding("f6", "archive", "Archive", id="memory.archive"),
        Binding("f8", "forget", "Forget", id="memory.forget"),
    ]

    def __init__(
        self,
        memory: Memory,
        words: str,
        paused: Callable[[], bool],
        pause: Callable[[], Awaitable[None]],
        asked: Message | None = None,
    ) -> None:
        keys = "F2 correct · F3 history · F4 filter · F5 pause · F6 archive · F8 forget"
        super().__init__("Memory", keys, words)
        self._memory = memory
        self._paused = paused
        self._pause = pause
        self._asked = asked
        self._filter = _USED if asked else "Everything"
        self._why: dict[int, tuple[str, ...]] = {}
        self._changed = False

    def on_mount(self) -> None:
        super().on_mount()
        self._entitle()

    # ------------------------------------------------------------------ the list

    def find(self, words: str) -> list[Cube]:
        if self._filter == _USED and self._asked:
            ids = [cube.id for cube in self._asked.recalled]
            cubes = [cube for cube in self._memory.cubes(ids) if cube.status != "deleted"]
            shared = self._memory.shared_words(self._asked.content, cubes)
            self._why = {cube.id: said for cube, said in zip(cubes, shared, strict=True)}
            wanted = words.casefold().split()
            return [c for c in cubes if all(word in c.content.casefold() for word in wanted)]
        kinds, statuses = _FILTERS[self._filter]
        if words.strip():
            found = self._memory.search(words, limit=_LISTED, kinds=kinds, statuses=statuses)
            return [hit.cube for hit in found.hits]
        return _latest(self._memory, kinds, statuses)

    def nothing(self, words: str) -> str:
        if words.strip():
            return "Nothing has these words."
        return "Nothing is remembered yet." if self._filter == "Everything" else "There is none."

    def line(self, item: Cube) -> Content:
        about = [item.label, _day(item.event_at), provenance(item)]
        if item.status != "active":
            about.append({"superseded": "no longer so"}.get(item.status, item.status))
        if self._filter == _USED:
            why = ", ".join(self._why.get(item.id, ()))
            about.append(f"says {printable(why)}" if why else "said around what fits, or then")
        return Content.assemble(f"{_line(item.content)}\n", (" · ".join(about), "dim"))

    def key(self, item: Cube) -> int:
        return item.id

    def choose(self, item: Cube) -> None:
        self._go_to_origin(item)

    def action_close(self) -> None:
        self.dismiss((self._changed, None))

    def _entitle(self) -> None:
        paused = " (paused)" if self._paused() else ""
        shown = "" if self._filter == "Everything" else f": {self._filter.lower()}"
        self.query_one(".dialog").border_title = f"Memory{shown}{paused}"

    @work
    async def action_filter(self) -> None:
        """Choose what is listed."""
        names = [*([_USED] if self._asked else []), *_FILTERS]
        chosen = await self.app.push_screen_wait(ChoiceScreen("What to show?", *names))
        if chosen is not None:
            self._filter = names[chosen]
            self._entitle()
            self.look()

    async def action_pause(self) -> None:
        await self._pause()
        self._entitle()

    # ------------------------------------------------------------------ one memory

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
        """Tell what it was before and what it is linked to; from there, the same of that."""
        cube = self.pointed_at
        while cube:
            history = await asyncio.to_thread(self._memory.history, cube.id)
            linked = await asyncio.to_thread(_linked, self._memory, history)
            answers = [f"{how}: {_line(other.content)}" for how, other in linked]
            told = "\n".join(_told(history))
            chosen = await self.app.push_screen_wait(ChoiceScreen(told, "Close", *answers))
            cube = linked[chosen - 1][1] if chosen else None

    @work
    async def action_archive(self) -> None:
        """Let it not be recalled any more, or again."""
        if cube := self.pointed_at:
            status: Status = "active" if cube.status == "archived" else "archived"
            await self._do(lambda: self._memory.set_status(cube.id, status))

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


def _latest(memory: Memory, kinds: Collection[Kind], statuses: Collection[Status]) -> list[Cube]:
    """Of any of these kinds and states, the latest first."""
    found = [
        cube
        for kind in kinds or (None,)
        for status in statuses
        for cube in memory.latest(kind=kind, status=status, limit=_LISTED)
    ]
    return sorted(found, key=lambda cube: (cube.written_at, cube.id), reverse=True)[:_LISTED]


def _linked(memory: Memory, history: History) -> list[tuple[str, Cube]]:
    """What a memory is linked to, and how."""
    here = history.cube.id
    ways = {
        ("evidence", True): "rests on",
        ("evidence", False): "is why",
        ("supersedes", True): "replaces",
        ("supersedes", False): "is replaced by",
        ("related", True): "belongs with",
        ("related", False): "belongs with",
    }
    hows = {
        link.from_id + link.to_id - here: ways[link.kind, link.from_id == here]
        for link in history.links
    }
    return [(hows[cube.id], cube) for cube in memory.cubes(list(hows)) if cube.status != "deleted"]


def _told(history: History) -> list[str]:
    """What it said in the course of time, and what else is known of it."""
    cube = history.cube
    lines = [
        *(f"{_day(v.written_at)}: {v.content}" for v in history.versions),
        *(f"{_day(c.event_at)}: {c.content}" for c in reversed(history.earlier)),
        f"{_day(cube.event_at)}: {cube.content}",
        *(f"{_day(c.event_at)}: {c.content}" for c in history.later),
        "",
        f"{cube.label}, {provenance(cube)}, {cube.status}",
    ]
    return [*lines, f"Tags: {', '.join(history.tags)}"] if history.tags else lines


def _day(at: datetime) -> str:
    return f"{at:%d %b %Y}"


def _line(content: str) -> str:
    return " ".join(printable(content).split())
