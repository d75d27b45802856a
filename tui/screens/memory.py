"""Shows what is remembered and where it comes from; corrects, archives, forgets and pauses it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from pathlib import PurePath
from typing import ClassVar

from rich.cells import cell_len
from textual import work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.visual import VisualType

from ondevice.chats import Message
from ondevice.errors import OndeviceError
from ondevice.memory import Cube, History, Kind, Memory, Status, tells
from ondevice.text import printable
from tui import days
from tui.screens.dialogs import ChoiceScreen, LineScreen
from tui.screens.finder import Finder
from tui.widgets.full_width import FullWidth
from tui.widgets.memories import origin, sentence

_LISTED = 100
_LOOKED_AT = 500  # of the latest that may turn out to be questions
_ALL: tuple[Status, ...] = ("active", "proposed", "superseded")
_KINDS: tuple[Kind, ...] = ("fact", "lesson", "turn", "note", "document")  # a profile repeats facts
_PROPOSED = "Proposed: is this so?"
_USED = "Used by the reply"
_ASKED = "What you asked"
#: Name of a filter → the kinds and states of what it lets through.
_FILTERS: dict[str, tuple[tuple[Kind, ...], tuple[Status, ...]]] = {
    "Everything": (_KINDS, _ALL),
    "What you said": (("turn",), _ALL),
    "Facts": (("fact", "lesson"), _ALL),
    "Proposed": (("fact",), ("proposed",)),
    "Notes": (("note",), _ALL),
    "Documents": (("document",), _ALL),
    "Outdated": ((*_KINDS, "profile"), ("superseded",)),
    "Archived": ((*_KINDS, "profile"), ("archived",)),
    _ASKED: (("turn",), _ALL),
    "Profile": (("profile",), ("active",)),
}
_BLANKED = 5  # texts that are named before a memory is forgotten
_NARROW = 30  # cells of a memory beside its date
_READ = "read by a model"  # the tag of facts that no rule has found
_KEYS = "F2 correct · F3 history · F4 filter · F5 {pause} · F6 archive · F8 forget"
_KEYS_OF_NOTHING = "F4 filter · F5 {pause} · Esc closes"
_KEYS_OF_PROPOSAL = "F7 accept · F6 reject · F2 correct · F3 history · F8 forget"
_GROUPS = {
    "fact": "Facts",
    "lesson": "How you like replies",
    "turn": "What you said",
    "note": "Notes and files",
    "document": "Notes and files",
    "profile": "Profile",
}
#: In the order in which they are shown.
_ORDER = (_PROPOSED, *dict.fromkeys(_GROUPS.values()), _ASKED)


class MemoryScreen(Finder[Cube | str, tuple[bool, Cube | None]]):
    """Dismissed with whether anything changed, and the memory whose origin is wanted, if any.

    It lists memories in groups; a text among them is the heading of one. What the user has only
    asked for is no memory: it is listed where it is searched for, so that it can be forgotten.

    ``asked`` is a message: shown at first is what was recalled with it, and why.
    """

    HELP = """\
## Memory

What you write is remembered, and facts are taken from it. What is not certain is proposed, and not
used until you accept it with F7; F6 rejects it. Type to search. Enter opens the message that a
memory comes from. F3 shows its earlier versions and related memories. While memory is paused,
nothing in this chat or new ones is remembered.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("f2", "edit", "Correct", id="memory.edit"),
        Binding("f3", "history", "History", id="memory.history"),
        Binding("f4", "filter", "Filter", id="memory.filter"),
        Binding("f5", "pause", "Pause", id="memory.pause"),
        Binding("f6", "archive", "Archive", id="memory.archive"),
        Binding("f7", "accept", "Accept", id="memory.accept"),
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
        super().__init__("Memory", words)
        self._memory = memory
        self._paused = paused
        self._pause = pause
        self._asked = asked
        self._filter = _USED if asked else "Everything"
        self._why: dict[int, tuple[str, ...]] = {}
        self._replaced: dict[int, tuple[Cube | None, Cube | None]] = {}
        self._stated: dict[int, str] = {}
        self._changed = False
        self._listed: tuple[object, ...] = ()
        """What the list was last made of."""

    def on_mount(self) -> None:
        super().on_mount()
        self._entitle()
        self.follow_store(self._memory.database)

    # ------------------------------------------------------------------ the list

    def find(self, words: str) -> list[Cube | str]:
        cubes = self._found(words)
        self._replaced = self._memory.replaced([cube.id for cube in cubes])
        if self._filter == _USED:
            return [*cubes]
        self._stated = self._memory.stated_in(c for c in cubes if c.status == "proposed")
        groups: dict[str, list[Cube]] = {name: [] for name in _ORDER}
        for cube in cubes:
            asked = cube.kind == "turn" and not tells(cube.content)
            group = _PROPOSED if cube.status == "proposed" else _GROUPS[cube.kind]
            groups[_ASKED if asked else group].append(cube)
        if self._filter == _ASKED:
            groups = {_ASKED: groups[_ASKED]}
        elif not words.strip():
            del groups[_ASKED]
        if not words.strip():
            shown = {cube.id for cube in cubes}
            lessons = {_normalized(cube) for cube in groups[_GROUPS["lesson"]]}
            for name, inside in groups.items():
                groups[name] = [
                    cube
                    for cube in inside
                    if not (cube.kind == "turn" and _normalized(cube) in lessons)
                    and not (
                        (after := self._replaced.get(cube.id, (None, None))[1])
                        and after.id in shown
                    )
                ]
        lines: list[Cube | str] = []
        for name, inside in groups.items():
            space = "\n" if lines else ""
            lines += [f"{space}{name}", *inside[:_LISTED]] if inside else []
        return lines

    def _found(self, words: str) -> list[Cube]:
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

    def _list(self, items: Sequence[Cube | str], pointed_at: Cube | str | None = None) -> None:
        listed = (items, self._replaced, self._stated, self._why)
        if pointed_at is None or pointed_at != self.pointed_at or listed != self._listed:
            super()._list(items, pointed_at)  # else it stays where it has been scrolled to
        self._listed = listed

    def nothing(self, words: str) -> str:
        if words.strip():
            return "No matches."
        return (
            "Nothing is remembered yet."
            if self._filter == "Everything"
            else ("No memories of this kind.")
        )

    def is_heading(self, item: Cube | str) -> bool:
        return isinstance(item, str)

    def line(self, item: Cube | str) -> VisualType:
        return FullWidth(partial(self._line, item))

    def _line(self, item: Cube | str, width: int) -> Content:
        if isinstance(item, str):
            heading = item.strip() if self.has_class("-short") else item
            return Content.assemble((heading, "bold $text-accent"))
        when = days.said(item.event_at)
        right = f"{PurePath(item.source.name).name}, {when}" if item.kind == "document" else when
        about = ["archived"] if item.status == "archived" else []
        before, after = self._replaced.get(item.id, (None, None))
        if after or item.status == "superseded":
            about.append(f"replaced by: {sentence(after)}" if after else "outdated")
        elif before:
            about.append(f"replaces: {sentence(before)}")
        if item.id in self._stated:
            about.append(f"from “{printable(' '.join(self._stated[item.id].split()))}”")
        if self._filter == _USED:
            about += [origin(item), self._reason(item)]
        below = Content.styled(f"\n  {' · '.join(about)}" if about else "", "dim")
        right = printable(" ".join(right.split()))
        text = Content(sentence(item))
        room = width - cell_len(right) - 2
        if room < _NARROW:  # then it goes on below it
            return Content.assemble(text, (f"\n  {right}", "dim"), below)
        text = text.truncate(room, ellipsis=True)
        gap = " " * (room - text.cell_length + 2)
        return Content.assemble(text, gap, (right, "dim"), below)

    def _reason(self, cube: Cube) -> str:
        """Why the reply was given it."""
        if why := ", ".join(self._why.get(cube.id, ())):
            return f"matches {printable(why)}"
        return (
            "used in every reply" if cube.kind == "lesson" else ("near a match, or from that day")
        )

    def key(self, item: Cube | str) -> int | str:
        return item if isinstance(item, str) else item.id

    def choose(self, item: Cube | str) -> None:
        if isinstance(item, Cube):
            self._go_to_origin(item)

    def keys_for(self, item: Cube | str | None) -> str:
        if not isinstance(item, Cube):
            keys = _KEYS_OF_NOTHING
        else:
            keys = _KEYS_OF_PROPOSAL if item.status == "proposed" else _KEYS
        return keys.format(pause="resume" if self._paused() else "pause")

    @property
    def _cube(self) -> Cube | None:
        """The one that is highlighted."""
        item = self.pointed_at
        return item if isinstance(item, Cube) else None

    def action_close(self) -> None:
        self.dismiss((self._changed, None))

    def _entitle(self) -> None:
        paused = " (paused)" if self._paused() else ""
        shown = "" if self._filter == "Everything" else f": {self._filter.lower()}"
        self.dialog.border_title = f"Memory{shown}{paused}"

    @work
    async def action_filter(self) -> None:
        """Choose what is listed."""
        names = [*([_USED] if self._asked else []), *_FILTERS]
        question = ChoiceScreen("Show", *names, now=self._filter)
        chosen = await self.app.push_screen_wait(question)
        if chosen is not None:
            self._filter = names[chosen]
            self._entitle()
            self.update_list()

    async def action_pause(self) -> None:
        await self._pause()
        self._entitle()
        self.show_keys()

    # ------------------------------------------------------------------ one memory

    @work
    async def _go_to_origin(self, cube: Cube) -> None:
        """The message it is, or that it was read from."""
        history = await asyncio.to_thread(self._memory.history, cube.id)
        evidence = [link.to_id for link in history.links if link.kind == "evidence"]
        for told in [cube, *await asyncio.to_thread(self._memory.cubes, evidence)]:
            if told.message_id is not None:
                self.dismiss((self._changed, told))
                return
        self.notify("This memory does not come from a chat.")

    @work
    async def action_edit(self) -> None:
        if cube := self._cube:
            content = await self.app.push_screen_wait(LineScreen("Correct", cube.content))
            if content and content != cube.content:
                await self._do(lambda: self._memory.edit(cube.id, content))

    @work
    async def action_history(self) -> None:
        """Tell what it was before and what it is linked to; from there, the same of that."""
        cube = self._cube
        while cube:
            history = await asyncio.to_thread(self._memory.history, cube.id)
            linked = await asyncio.to_thread(_linked, self._memory, history)
            answers = [f"{how}: {sentence(other)}" for how, other in linked]
            told = "\n".join(_history_lines(history))
            chosen = await self.app.push_screen_wait(ChoiceScreen(told, "Close", *answers))
            cube = linked[chosen - 1][1] if chosen else None

    @work
    async def action_accept(self) -> None:
        """Let what is proposed be used."""
        if (cube := self._cube) and cube.status == "proposed":
            await self._do(lambda: self._memory.accept([cube.id]), self._next_proposal(cube))

    @work
    async def action_archive(self) -> None:
        """Let it not be recalled any more, or again; or reject what is proposed."""
        cube = self._cube
        if cube and cube.status == "proposed":
            await self._do(lambda: self._memory.reject([cube.id]), self._next_proposal(cube))
        elif cube:
            status: Status = "active" if cube.status == "archived" else "archived"
            await self._do(lambda: self._memory.set_status(cube.id, status))

    @work
    async def action_forget(self) -> None:
        if cube := self._cube:
            going = await asyncio.to_thread(self._memory.going, [cube.id])
            blanked = await asyncio.to_thread(self._memory.blanked, [cube.id])
            lines = [f"- {one.content}" for one in going]
            lines += ["Blanked in:"] if blanked else []
            lines += [f"- {one.where}: {one.text}" for one in blanked[:_BLANKED]]
            lines += [f"and {len(blanked) - _BLANKED} more"] if len(blanked) > _BLANKED else []
            question = "\n".join(["Forget for good, in the chats too?", *lines])
            answer = await self.app.push_screen_wait(ChoiceScreen(question, "Keep", "Forget"))
            if answer:
                await self._do(lambda: self._memory.forget([cube.id]))

    def _next_proposal(self, cube: Cube) -> Cube | None:
        """What is to be decided next: the proposal below this one, or else the one above."""
        items = list(self._items)
        place = items.index(cube)
        others = [*items[place + 1 :], *reversed(items[:place])]
        return next((c for c in others if isinstance(c, Cube) and c.status == "proposed"), None)

    async def _do(self, change: Callable[[], object], point_at: Cube | None = None) -> None:
        try:
            await asyncio.to_thread(change)
        except OndeviceError as error:
            self.notify(str(error), severity="error")
        self._changed = True
        self.update_list(point_at)


def _latest(memory: Memory, kinds: Collection[Kind], statuses: Collection[Status]) -> list[Cube]:
    """Of any of these kinds and states, the latest first."""
    found = [
        cube
        for kind in kinds
        for status in statuses
        for cube in memory.latest(kind=kind, status=status, limit=_LOOKED_AT)
    ]
    return sorted(found, key=lambda cube: (cube.written_at, cube.id), reverse=True)


def _normalized(cube: Cube) -> str:
    """Its words, to tell whether two say the very same."""
    return sentence(cube).casefold().rstrip(".! ")


def _linked(memory: Memory, history: History) -> list[tuple[str, Cube]]:
    """What a memory is linked to, and how."""
    here = history.cube.id
    ways = {
        ("evidence", True): "based on",
        ("evidence", False): "supports",
        ("supersedes", True): "replaces",
        ("supersedes", False): "replaced by",
        ("related", True): "see also",
        ("related", False): "see also",
    }
    hows = {
        link.from_id + link.to_id - here: ways[link.kind, link.from_id == here]
        for link in history.links
    }
    return [(hows[cube.id], cube) for cube in memory.cubes(list(hows)) if cube.status != "deleted"]


def _history_lines(history: History) -> list[str]:
    """What it said in the course of time, and what else is known of it."""
    cube = history.cube
    lines = [
        *(f"{days.said(v.written_at)}: {v.content}" for v in history.versions),
        *(f"{days.said(c.event_at)}: {sentence(c)}" for c in reversed(history.earlier)),
        f"{days.said(cube.event_at)}: {sentence(cube)}",
        *(f"{days.said(c.event_at)}: {sentence(c)}" for c in history.later),
    ]
    told = [f"{line[0].upper()}{line[1:]}" for line in lines]
    about = origin(cube)
    known = [f"{about[0].upper()}{about[1:]}"]
    if _READ in history.tags:
        known.append("found by the model in what you wrote")
    if cube.status != "active":
        known.append({"superseded": "outdated"}.get(cube.status, cube.status))
    tags = [tag for tag in history.tags if tag != _READ]
    tagged = [f"Tags: {', '.join(tags)}"] if tags else []
    return [*told, "", f"{', '.join(known)}.", *tagged]
