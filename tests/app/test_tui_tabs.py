"""Several conversations open at once: each goes on by itself, and nothing typed is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from itertools import permutations

from terminal_user import OpenApp

from ondevice.chats import Chats
from ondevice.messages import Keep, Measure, Measured
from ondevice.store import TransientDatabase
from ondevice.testing import FakeEngine, Gate
from tui.screens.chat import ChatScreen
from tui.widgets.conversation import Conversation
from tui.widgets.tab_bar import TabBar


class Measuring(FakeEngine):
    """Notes which conversations are said to be open."""

    def __init__(self, *replies: list[str]) -> None:
        super().__init__(*replies)
        self.opened: list[Keep] = []

    def measure(self, request: Measure) -> Measured:
        if request.keep:
            self.opened.append(request.keep)
        return super().measure(request)


async def test_a_reply_goes_on_while_another_chat_is_shown(chats: Chats, open_app: OpenApp) -> None:
    gate = Gate()
    async with open_app(FakeEngine(["One, ", gate, "two."], ["Blue."])) as user:
        await user.says("Count")
        await user.sees("One,")
        await user.pilot.press("ctrl+n")
        await user.sees("… Count")
        assert "One," not in user.screen
        assert "answering" not in user.status
        await user.says("Colour?")
        await user.until(lambda: "waiting" in user.status, "waiting")  # for the engine
        gate.open()
        await user.sees("Blue.")
        await user.is_idle()
        await user.pilot.press("f6")
        await user.sees("One, two.")
        assert "Blue." not in user.screen
    first, second = (chats.load(heading.id) for heading in reversed(chats.headings()))
    assert [message.content for message in first.messages] == ["Count", "One, two."]
    assert [message.content for message in second.messages] == ["Colour?", "Blue."]


async def test_what_is_being_typed_waits_in_its_tab(open_app: OpenApp) -> None:
    async with open_app(FakeEngine()) as user:
        await user.says("Hi")
        await user.is_idle()
        await user.pilot.press(*"half")
        await user.pilot.press("ctrl+n")
        assert user.prompt.text == ""
        await user.pilot.press(*"other")
        await user.pilot.press("ctrl+pageup")
        assert user.prompt.text == "half"
        await user.pilot.press("ctrl+pagedown")
        assert user.prompt.text == "other"


async def test_tabs_are_closed_and_clicked_on(open_app: OpenApp) -> None:
    async with open_app(FakeEngine(["One."], ["Two."], ["Three."])) as user:
        for word in ("first", "second", "third"):
            await user.says(word)
            await user.is_idle()
            await user.pilot.press("ctrl+n")
        await user.sees(" first  second  third  New chat")
        await user.pilot.click(TabBar, offset=(9, 0))
        await user.sees("Two.")
        await user.pilot.press("f4")
        await user.sees("One.")
        await user.sees(" first  third  New chat")
        for _ in range(3):
            await user.pilot.press("f4")
        await user.sees("The model runs on this device.")
        assert not user.pilot.app.screen.query_one(TabBar).display


async def test_an_open_chat_is_shown_and_not_opened_twice(chats: Chats, open_app: OpenApp) -> None:
    earlier = chats.create()
    chats.say(earlier, "An old question about Lisbon")
    async with open_app(FakeEngine()) as user:
        await user.says("Hi")
        await user.is_idle()
        for _ in range(2):
            await user.pilot.press("ctrl+r", *"lisbon")
            await user.sees("An old question about Lisbon")
            await user.pilot.press("enter")
            await user.sees("▌  An old question")
            await user.pilot.press("f6")
            await user.sees("Hello.")
        assert user.screen.splitlines()[0].count("An old question") == 1


async def test_a_deleted_chat_leaves_its_tab(chats: Chats, open_app: OpenApp) -> None:
    async with open_app(FakeEngine(["One."], ["Two."])) as user:
        await user.says("first")
        await user.is_idle()
        await user.pilot.press("ctrl+n")
        await user.says("second")
        await user.is_idle()
        await user.pilot.press("ctrl+r", "down", "f8")
        await user.sees("Delete “first”")
        await user.pilot.press("down", "enter")
        await user.until(lambda: len(chats.headings()) == 1, "gone")
        await user.pilot.press("escape")
        await user.until(lambda: "first" not in user.screen, "no other tab")
        await user.sees("Two.")


async def test_the_engine_learns_which_chat_is_open(chats: Chats, open_app: OpenApp) -> None:
    chats.limit_states(10**9)
    engine = Measuring(["One."], ["Two."])
    async with open_app(engine) as user:
        for word in ("first", "second"):
            await user.says(word)
            await user.is_idle()
            await user.pilot.press("ctrl+n")
        for key, word in (("f6", "first"), ("f6", "second"), ("f6", ""), ("shift+f6", "second")):
            engine.opened.clear()
            await user.pilot.press(key)
            if word:
                keep = chats.keep(next(h.id for h in chats.headings() if h.title == word))
                await user.until(partial(lambda keep: keep in engine.opened, keep), word)
            assert len(engine.opened) == bool(word)


#: What changes tabs; in a window, one may begin while another is under way.
CHANGES: dict[str, Callable[[ChatScreen, Chats], Awaitable[object]]] = {
    "new": lambda screen, _: screen.open(None),
    "private": lambda screen, _: screen.open(None, Chats(TransientDatabase())),
    "go to the first chat": lambda screen, chats: screen.go_to(chats.headings()[-1].id, None),
    "go to the second chat": lambda screen, chats: screen.go_to(chats.headings()[0].id, None),
    "close": lambda screen, _: screen.close(screen.conversation),
    "close the first": lambda screen, _: screen.close(screen.conversations[0]),
    "reload": lambda screen, _: screen.reload(),
    "look again": lambda screen, _: screen.refresh_from_store(),
}


async def test_changes_of_tabs_may_overlap(chats: Chats, open_app: OpenApp) -> None:
    for word in ("first", "second"):
        chats.say(chats.create(), word)
    async with open_app(FakeEngine()) as user:
        screen = user.pilot.app.screen
        assert isinstance(screen, ChatScreen)
        for names in permutations(CHANGES, 2):
            for start in ("go to the first chat", "close"):
                await CHANGES[start](screen, chats)
                await asyncio.gather(*(CHANGES[name](screen, chats) for name in names))
                await user.pilot.pause()
                shown = [one for one in screen.query(Conversation) if one.display]
                assert shown == [screen.conversation], (names, start)
                assert {*screen.query(Conversation)} == {*screen.conversations}, (names, start)
