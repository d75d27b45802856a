"""Somebody who does anything at all at the terminal, and what must be true whatever he does.

A run is a list of steps, so that one that fails can be played again and made shorter.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, chdir, suppress
from pathlib import Path
from random import Random
from typing import Any

from textual import events
from textual.driver import Driver
from textual.geometry import Size
from textual.message_pump import MessagePump
from textual.worker import WorkerFailed

from ondevice.chats import Chats, reply
from ondevice.config import Settings
from ondevice.errors import EngineDied, EngineError, OndeviceError
from ondevice.messages import Load, Sampling
from ondevice.store import Database
from ondevice.testing import FakeEngine, Pause, Step
from ondevice.text import printable
from tui.app import OndeviceApp
from tui.screens.chat import ChatScreen
from tui.screens.dialogs import ChoiceScreen, TextScreen

Deed = tuple[str, Any]  # what is done, and what with
_PATIENCE = 20.0  # seconds, on a busy machine
_SIZES = [(80, 24), (20, 5), (40, 12), (60, 15), (120, 40), (200, 50), (33, 9)]
_KEYS = [
    *["enter", "escape", "up", "down", "left", "right", "tab", "shift+tab", "space"] * 3,
    *["ctrl+up", "ctrl+down", "pageup", "pagedown", "home", "end", "ctrl+home", "ctrl+end"] * 2,
    *["backspace", "delete", "ctrl+w", "ctrl+u", "ctrl+k", "ctrl+z", "ctrl+x", "shift+left"],
    *["f1", "f2", "f3", "f4", "f5", "f6", "f8", "ctrl+c", "ctrl+d", "ctrl+e", "ctrl+j"],
    *["ctrl+n", "ctrl+r", "ctrl+o", "ctrl+l", "ctrl+g", "ctrl+p", "ctrl+f", "ctrl+a", "ctrl+t"],
    *["ctrl+pagedown", "ctrl+pageup", "alt+enter", "shift+enter", "ctrl+b", "n", "N", "y"],
    *"ergcbqma/@",
]
_COMMANDS = [
    *["new", "close", "chats", "find", "rename x", "pin", "archive", "delete", "edit", "again"],
    *["continue", "copy", "code", "quote", "stop", "remember this", "forget", "memory", "used"],
    *["pause", "private", "private", "models", "ram", "persona", "settings", "set", "help"],
    *["compact", "compact undo", "compact edit", "answer", "export chat.md", "export chat.json"],
    *["export .", "import chat.json", "import undo", "import nothing", "set app.linear true"],
    *["set app.linear false", "set memory false", "set memory true", "guide", "quot", "nonsense"],
    *["chats w", "find words", "find w", "memory w", "forget w", "compact what", "chats 好的"],
]
#: What is written in other scripts, from right to left, with joined, wide and broken characters.
_SCRIPTS = [
    *[
        "שלום עולם, 12:30 ",
        "مرحبا ١٢٣ (test) ",
        "नमस्ते दुनिया ",
        "สวัสดีครับ ข้าวผัด ",
        "你好，世界。",
        "こんにちは",
    ],
    *[
        "👩‍👩‍👧‍👦 🇩🇪 👍🏽 ",
        "e\u0301\u0301\u0301 ",
        "\u202eabc\u202c ",
        "\u200b\u200d\ufeff ",
        "𝔘𝔫𝔦 ",
        "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢ ",
    ],
    *["I live in Lisbon. ", "My sister is called Ana. ", "Always answer briefly. ", "a" * 3000],
]
_FILES = {
    "notes.md": b"# Notes\n\nSome words.\n" * 40,
    "with space.txt": "Grüße, 好的\n".encode(),
    "picture.png": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "empty.txt": b"",
    "latin.txt": b"caf\xe9\n",
    "binary.dat": bytes(range(256)) * 9,
}
_MENTIONS = ["@notes.md", '@"with space.txt"', "@picture.png", "@empty.txt", "@latin.txt"]
_MENTIONS += ["@binary.dat", "@gone.txt", "@.", "@user", "@notes.md @notes.md @latin.txt"]
#: What is done one key after the other, so that it leads somewhere.
_WAYS = [
    *[["ctrl+up", "ctrl+up", key] for key in "ergcbqmawsu"],
    *[["ctrl+up", key] for key in ("e", "r", "g", "left", "right", "enter", "w", "shift+right")],
    *[
        ["ctrl+r", *"word", "down", "enter", "n", "n", "N"],
        ["ctrl+f", *"some", "enter", "n", "enter"],
    ],
    *[["ctrl+r", key] for key in ("f2", "f3", "f4", "f5", "f8")],
    *[["ctrl+r", "f8", "down", "enter"], ["ctrl+r", "down", "f8", "down", "down", "enter"]],
    *[["ctrl+o", key] for key in ("f2", "f3", "f4", "f5", "f6", "f7", "enter", "down")],
    *[["ctrl+o", "f8", "down", "enter"], ["ctrl+o", "f2", *"more", "enter"]],
    *[["f4", "down", "enter"], ["ctrl+l", "f2"], ["ctrl+l", "f3"], ["ctrl+l", "f8"]],
    *[["ctrl+g", "right", "left", "a"], ["f2", *"theme", "enter", "down", "enter"], ["f2", "f8"]],
    *[["ctrl+p", *"delete", "enter"], ["up", "up", "down"], ["ctrl+n", "ctrl+n", "f6", "f4"]],
]
#: What another window does to one of the chats.
_ELSEWHERE = [
    *["say", "say", "say", "rename", "delete", "edit", "reply", "show", "pause", "archive", "pin"],
    *["summarise", "forget", "import", "cut"],
]
# What takes away what was typed because the user wants it to: no draft is lost by these.
_ERASING = {
    *["backspace", "delete", "ctrl+w", "ctrl+u", "ctrl+k", "ctrl+z", "ctrl+y", "ctrl+x"],
    *["ctrl+c", "ctrl+d", "f8", "ctrl+p"],  # f8 deletes a chat, and so may the palette
}
_SELECTING = {"shift+left", "ctrl+a"}
#: What asks whether to delete, on a busy machine after so many more deeds at most.
_ASKING = {"f8", "ctrl+p"}
_LATE = 15
_CODE = "```python\n" + "".join(f"value_{n} = {n} * 'x'  # more\n" for n in range(300)) + "```\n"
_PROSE = ["Some **bold** words, ", "`code`.\n\n", "- one\n- two\n\n", "| a | b |\n|-|-|\n", "<br> "]
_PIECES = [*_PROSE, *_PROSE, "$x^2$ ", "word " * 60, "好的 🙂 ", "# Title\n\n", _CODE]


def script(random: Random) -> list[Step]:
    """A reply at some speed, which may fail."""
    speed = random.choice((0.0, 0.001, 0.01, 0.05))
    steps: list[Step] = []
    for _ in range(random.choice((1, 3, 30))):
        steps += [random.choice(_PIECES), Pause(random.random() * speed)]
    if random.random() < 0.2:
        steps.append(random.choice((EngineDied("The engine ended."), EngineError("It failed."))))
    return steps


def deeds(random: Random, count: int) -> list[Deed]:
    """What is done in one run. Each word that is typed is another one."""
    done: list[Deed] = []
    for number in range(count):
        word = f"w{number}w "
        at = (random.random(), random.random())
        if random.random() < 0.04:
            done += [("key", key) for key in random.choice(_WAYS)]
            continue
        kinds: list[tuple[int, Deed]] = [
            (30, ("key", random.choice(_KEYS))),
            (14, ("type", word)),
            (14, ("say", word)),
            (8, ("command", random.choice(_COMMANDS))),
            (6, ("key", "escape")),
            (3, ("paste", word + random.choice(("", "line\n" * 40, "\x1b[31mé\udcff\r\n")))),
            (1, ("paste", word + "A line of many words. \n" * random.choice((100, 45_000)))),
            (3, ("say", word + random.choice(_SCRIPTS))),
            (2, ("type", word + random.choice(_SCRIPTS))),
            (2, (random.choice(("say", "type")), word + random.choice(_MENTIONS) + " ")),
            (6, ("click", at)),
            (5, ("wheel", (*at, random.choice((-1, 1)) * random.choice((1, 5, 40))))),
            (2, ("drag", (*at, random.random(), random.random()))),
            (3, ("resize", random.choice(_SIZES))),
            (6, ("elsewhere", (random.choice(_ELSEWHERE), number))),
            (1, ("disk", random.choice(("full", "room", "room", "no model", "model")))),
            (3, ("rest", random.random() / 5)),
            (1, ("check", None)),
            (1, ("quit", None)),
        ]
        weights, choices = zip(*kinds, strict=True)
        done += random.choices(choices, weights)
    return done


async def play(todo: Sequence[Deed], folder: Path, seed: str) -> None:
    """Do it all to the app with a new store; raises whatever goes wrong."""
    (folder / "Tiny-1B.gguf").touch()
    path = folder / "store.db"
    for name, content in _FILES.items():
        (folder / name).write_bytes(content)
    with chdir(folder):
        await _play(todo, path, seed)


async def _play(todo: Sequence[Deed], path: Path, seed: str) -> None:
    folder = path.parent
    user, place = _RandomUser(Random(seed), Chats(Database(path))), 0
    while place < len(todo):
        database = Database(path)
        try:
            async with user.at(Chats(database), folder / "Tiny-1B.gguf"):
                while place < len(todo) and not user.app._exit:
                    await user.does(todo[place])
                    place += 1
                if not user.app._exit:
                    await user.looks_at_all()
        finally:
            database.close()
        user.has_lost_nothing()
    user.other.database.close()


class _RandomUser:
    def __init__(self, random: Random, other: Chats) -> None:
        self.other = other
        """The same store, as another process has it."""
        self.app: OndeviceApp
        self._model: Path
        self._errors: list[Exception] = []
        self._random = random
        self._typed: dict[str, bool] = {}
        """Words that are in a prompt and not in the store, and whether they are private."""
        self._done: list[Deed] = []
        """Since the app was last looked at."""
        self._latest = deque[Deed](maxlen=12)
        """To be told where something is wrong."""
        self._is_full = False
        """Whether the store cannot grow."""
        self._may_go = False
        """Whether what is in the prompt may be gone with the next key, for it is selected, say."""
        self._n_done = self._asked_until = 0
        """How many deeds; and after how many of them a question is open that a key asked for."""

    @asynccontextmanager
    async def at(self, chats: Chats, model: Path) -> AsyncIterator[None]:
        self._model, self._is_full = model, False
        engine = FakeEngine(*(script(self._random) for _ in range(99)), loads=[[0.1, 1.0]])
        headings = chats.headings()
        earlier = chats.load(headings[0].id) if headings else None
        self.app = app = OndeviceApp(engine, chats, Settings(model=str(model)), earlier)
        handle = app._handle_exception

        def take_note(error: Exception) -> None:  # also of what the app survives
            cause = error.error if isinstance(error, WorkerFailed) else error
            if not isinstance(cause, OndeviceError):
                self._errors.append(error)
            handle(error)

        app._handle_exception = take_note  # type: ignore[method-assign]
        async with app.run_test(size=(80, 24), notifications=True):
            yield
        if self._errors:
            raise self._errors[0]

    @property
    def _driver(self) -> Driver:
        assert self.app._driver
        return self.app._driver

    @property
    def chat(self) -> ChatScreen:
        screen = self.app.screen_stack[0]
        assert isinstance(screen, ChatScreen)
        return screen

    # ------------------------------------------------------------------ doing

    async def does(self, deed: Deed) -> None:
        if self._errors:
            raise self._errors[0]
        what, how = deed
        self._n_done += 1
        if what == "key" and how in _ASKING:
            self._asked_until = self._n_done + _LATE
        self._done.append(deed)
        self._latest.append((what, how[:60] if isinstance(how, str) else how))
        match what:
            case "key":
                self._press(how)
            case "type" | "say" | "command":
                keys = f"/{how}" if what == "command" else how
                self._press(*("space" if c == " " else c for c in keys))
                if what != "type":
                    self._press("enter")
            case "paste":
                self._send(events.Paste(how))
            case "click" | "drag":
                self._mouse(events.MouseDown, *how[:2])
                self._mouse(events.MouseMove, *how[-2:])
                self._mouse(events.MouseUp, *how[-2:])
            case "wheel":
                x, y, count = how
                kind = events.MouseScrollDown if count > 0 else events.MouseScrollUp
                for _ in range(abs(count)):
                    self._mouse(kind, x, y)
            case "resize":
                self._driver._size = how
                self._send(events.Resize(Size(*how), Size(*how)))
            case "elsewhere":
                await asyncio.to_thread(self._elsewhere, *how)
            case "disk":
                self._disk(how)
            case "rest":
                await asyncio.sleep(how)
            case "check":
                await self.looks_at_all()
            case "quit":
                self._press("ctrl+q")
                await self._drawn()
        if self._random.random() < 0.6:  # the others come in quick succession
            await self._drawn()
            await self._look_at_drafts()

    def _press(self, *keys: str) -> None:
        for key in keys:
            name = {"/": "slash", "@": "at"}.get(key, key)
            character = " " if key == "space" else key if len(key) == 1 else None
            self._send(events.Key(name, character))

    def _mouse(self, kind: type[events.MouseEvent], x: float, y: float) -> None:
        column, row = int(x * self.app.size.width), int(y * self.app.size.height)
        moved = kind is events.MouseMove
        self._send(kind(None, column, row, 0, 0, 0 if moved else 1, False, False, False))

    def _send(self, event: events.Event) -> None:
        if not self.app._exit:
            self._driver.process_message(event)

    def _disk(self, what: str) -> None:
        """It is full, or not any more; the model is moved away, or back."""
        model = self._model
        if what == "no model":
            model.unlink(missing_ok=True)
        elif what == "model":
            model.touch()
        else:
            self._is_full = what == "full"
            with suppress(OndeviceError), self.chat.store.database.read() as connection:
                most = 1 if self._is_full else 1 << 30  # not below what it has
                connection.execute(f"PRAGMA max_page_count={most}").fetchall()

    def _elsewhere(self, what: str, number: int) -> None:
        headings = self.other.headings()
        if headings:
            id_ = headings[number % min(3, len(headings))].id
            with suppress(OndeviceError):
                self._changes(what, number, id_)

    def _changes(self, what: str, number: int, id_: int) -> None:
        chats, messages = self.other, self.other.load(id_).messages
        one = messages[number % len(messages)] if messages else None
        match what:
            case "say":
                chats.say(id_, f"Said elsewhere, {number}.")
            case "rename":
                chats.rename(id_, f"Called so elsewhere, {number}")
            case "delete":
                chats.delete(id_, forget=number % 2 == 0)
            case "edit" if one and one.role == "user":
                chats.say(id_, f"Edited elsewhere, {number}.", instead_of=one.id)
            case "reply" | "cut" if messages:
                engine = FakeEngine(["Replied elsewhere, ", Pause(0.2), f"{number}."])
                engine.load(Load(path="other.gguf"))
                events = reply(chats, engine, id_, Sampling())
                for _ in events:
                    if what == "cut":
                        break
                events.close()  # type: ignore[attr-defined]
            case "show" if one and len(one.versions) > 1:
                chats.show(one.versions[number % len(one.versions)])
            case "pause":
                chats.pause(id_, number % 2 == 0)
            case "archive":
                chats.archive(id_, number % 2 == 0)
            case "pin":
                chats.pin(id_, number % 2 == 0)
            case "summarise" if one:
                chats.summarise(one.id, f"Notes, {number}.", of=[one])
                chats.use_summary(one.id, number % 3 > 0)
            case "forget":
                chats.memory.forget([cube.id for cube in chats.memory.latest(limit=1)])
            case "import":
                file = chats.database.path.with_name("elsewhere.json")
                chats.export_all([id_], file, replace=True)
                chats.import_(file)

    # ------------------------------------------------------------------ looking

    async def _drawn(self) -> None:
        """Wait until what was done has been taken, however busy the machine is, and drawn."""
        # What had the focus hands keys on to the prompt, and waits while that reads files.
        had_focus = self.app.focused if self.app.screen_stack else None
        await self._taken(self.app)
        if not self.app._exit and self.app.screen_stack:
            has_focus = self.app.focused or self.app.screen
            for part in (had_focus or has_focus).ancestors_with_self:
                await self._taken(part)
            await self._taken(has_focus)
        drawn = asyncio.Event()
        if not self.app._exit and self.app.screen.call_after_refresh(drawn.set):
            with suppress(TimeoutError):
                await asyncio.wait_for(drawn.wait(), 1)

    async def _taken(self, by: MessagePump) -> None:
        """Wait until it has looked at all that it was sent; not for ever, for it may have ended."""
        taken = asyncio.Event()
        if by.call_later(taken.set):
            with suppress(TimeoutError):
                await asyncio.wait_for(taken.wait(), _PATIENCE)

    async def looks_at_all(self) -> None:
        """Once nothing goes on: the app answers, drafts are there, transcripts are the store's."""
        self._disk("room")
        self._disk("model")
        await self._drawn()
        for _ in range(12):
            if self.app.screen is self.chat:
                break
            key = "ctrl+s" if isinstance(self.app.screen, TextScreen) else "escape"
            self._done.append(("key", key))
            self._press(key)
            await self._drawn()
        assert self.app._exit or self.app.screen is self.chat, f"{self.app.screen} does not close"
        await self._until(self._why_busy)
        await self._look_at_drafts()
        await self._until(self._why_not_as_stored)
        self.chat.set_focus(self.chat.prompt)
        self.chat.prompt.text += " "
        before = self.chat.prompt.text
        self.chat.prompt.move_cursor(self.chat.prompt.document.end)
        self._press("x")
        await self._until(
            # What was clicked before may open only now, and gets it then.
            lambda: (
                "x does nothing"
                if self.app.screen is self.chat and self.chat.prompt.text == before
                else ""
            )
        )

    async def _until(self, why_not: Callable[[], str]) -> None:
        end = time.monotonic() + _PATIENCE
        while (why := why_not()) and not self.app._exit:
            if self._errors:
                raise self._errors[0]
            assert time.monotonic() < end, why
            await asyncio.sleep(0.02)

    def _why_busy(self) -> str:
        for one in self.chat.conversations:
            one.stop()  # and what was queued, when that begins
        return " ".join(f"{one.doing!r} goes on" for one in self.chat.conversations if one.replying)

    def _why_not_as_stored(self) -> str:
        for one in self.chat.conversations:
            if one.id_in_store is None or not one.display:
                continue  # what is not shown is looked at when it is
            try:
                stored = one.store.load(one.id_in_store)
            except OndeviceError:
                continue  # deleted elsewhere
            ids = [message.id for message in stored.messages]
            texts = {message.id: message.content for message in stored.messages}
            shown = [view.message for view in one.views if view.message]
            mounted = [message.id for message in shown]
            start = ids.index(mounted[0]) if mounted and mounted[0] in ids else 0
            if (ids and not mounted) or mounted != ids[start : start + len(mounted)]:
                return f"of the messages {ids} are shown {mounted} after {[*self._latest]}"
            if wrong := [m.id for m in shown if m.content != texts[m.id]]:
                pairs = [(m.content[:99], texts[m.id][:99]) for m in shown if m.id in wrong]
                return f"messages {wrong} have other texts: {pairs} after {[*self._latest]}"
        return ""

    # ------------------------------------------------------------------ drafts

    async def _look_at_drafts(self) -> None:
        """What was typed is there still, or is in a store, unless the user has taken it away."""
        if self.app._exit:
            return
        erased = self._may_go or any(map(_erases, self._done))
        pointed = any(what in ("click", "drag") for what, _ in self._done)  # may still take effect
        self._done = []
        shown, private = self._unsent()
        unsent = dict.fromkeys(_WORD.findall(shown), False)
        unsent |= dict.fromkeys(_WORD.findall(private), True)
        gone = [] if erased else [word for word in self._typed if word not in unsent]
        await self._until(lambda: self._why_lost(gone))
        self._typed = unsent
        prompt = self.chat.prompt
        asked = isinstance(self.app.screen, ChoiceScreen)
        at_work = prompt.revised or prompt.text.startswith("/") or not prompt.selection.is_empty
        late = self._n_done < self._asked_until
        self._may_go = bool(asked or late or at_work or pointed or prompt.completions.display)

    def has_lost_nothing(self) -> None:
        """After the end of the app: what was half typed will be there again."""
        gone = self._may_go or self._is_full or any(map(_erases, self._done))
        words = [] if gone else [word for word, private in self._typed.items() if not private]
        self._done, self._typed, self._may_go = [], {}, False
        stored = _texts(self.other.database)
        assert not (lost := [word for word in words if not _has(stored, word)]), (
            f"{lost} is lost after {[*self._latest]}"
        )

    def _unsent(self) -> tuple[str, str]:
        """All that was typed and not sent: what the store may have, and what it may not."""
        found: dict[bool, list[str]] = {True: [], False: []}
        for one in self.chat.conversations:
            kept = found[one.store is self.chat.store]
            kept += [str(value) for name, value in vars(one).items() if name in _DRAFTS]
            if one is self.chat.conversation:
                kept.append(str(self.chat.prompt.typed))  # with what was pasted
        return "\n".join(found[True]), "\n".join(found[False])

    def _why_lost(self, words: Sequence[str]) -> str:
        if not words:
            return ""
        stores = {one.store for one in self.chat.conversations} | {self.other}
        prompt = self.chat.prompt  # Up and Down bring it back, or Undo what a line stood for
        recalled = f"{vars(prompt._history)} {vars(prompt._pastes)}"
        stored = [_texts(store.database) for store in stores]
        everywhere = "\n".join([*self._unsent(), recalled, *stored])
        lost = [word for word in words if not _has(everywhere, word)]
        text = f"{prompt.text[:200]!r} on {self.app.screen}"
        return f"{lost} is lost; the prompt has {text} after {[*self._latest]}" if lost else ""


_DRAFTS = {"draft", "typed", "queued"}
_WORD = re.compile(r"w\d+w")
_LETTERS = "".join(key for key in _KEYS if len(key) == 1)


def _has(text: str, word: str) -> bool:
    """Also where others were typed or pasted in the midst of the word, after a click there, though
    their first letter may have been a key of what was clicked; or single keys."""
    return word in text or re.search(_OTHERS.join(word), text) is not None


_TYPED = "|".join(re.escape(printable(text.strip())) for text in (*_SCRIPTS, *_MENTIONS))
_OTHERS = rf"(?:w?\d+w\s?|\[31mé\s?|{_TYPED}|[{_LETTERS}\s])*"


def _erases(deed: Deed) -> bool:
    what, how = deed
    return (
        (what == "key" and how in _ERASING | _SELECTING)
        or (what == "command" and how == "delete")
        or what in ("command", "drag")
    )


def _texts(database: Database) -> str:
    """All texts that the store holds, whatever its tables are."""
    found: list[str] = []
    with database.read() as connection:
        tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        for (table,) in tables.fetchall():
            if not re.search(r"_(data|idx|docsize|config|content)$", table):
                rows = connection.execute(f"SELECT * FROM [{table}]").fetchall()
                found += [value for row in rows for value in row if isinstance(value, str)]
    return "\n".join(found)
