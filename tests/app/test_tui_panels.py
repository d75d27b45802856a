"""The list of chats and the RAM, beside the conversation where there is room and else over it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from terminal_user import OpenApp, User
from textual.widgets import OptionList
from textual.worker import Worker

from ondevice.chats import Chats
from ondevice.errors import StoreError
from ondevice.store import Database
from ondevice.testing import FakeEngine, Gate
from tui.app import OndeviceApp
from tui.screens.chat import ChatScreen
from tui.screens.chats import ChatsPanel
from tui.screens.ram import RamPanel


@pytest.fixture
def app(chats: Chats, open_app: OpenApp) -> OpenApp:
    for said in ("Where do the bins go?", "A trip to Lisbon"):
        chats.say(chats.create(), said)
    return open_app


def panels(user: User) -> list[str]:
    return [type(panel).__name__ for panel in user.pilot.app.screen_stack[0].query(".-beside")]


def pointed_at(user: User) -> str:
    options = user.pilot.app.screen.query_one(ChatsPanel).query_one(OptionList)
    assert options.highlighted is not None
    return str(options.get_option_at_index(options.highlighted).prompt)


async def test_the_list_stays_open_beside_the_chat(app: OpenApp, chats: Chats) -> None:
    async with app(FakeEngine(["Hello."]), size=(160, 50)) as user:
        await user.pilot.press("ctrl+r")
        await user.sees("Where do the bins go?")
        assert isinstance(user.pilot.app.screen, ChatScreen)
        await user.pilot.press("down", "enter")
        await user.sees("▌  Where do the bins go?")
        assert user.prompt.has_focus
        assert pointed_at(user).startswith("Where do the bins go?")
        await user.pilot.press("ctrl+n")
        await user.says("Hi")
        await user.sees("Hello.")
        await user.until(lambda: pointed_at(user).startswith("Hi"), "the new chat marked")
        await user.says("/rename Greetings")
        await user.until(lambda: pointed_at(user).startswith("Greetings"), "its title")
        await user.pilot.press("ctrl+r", *"lisb")
        options = user.pilot.app.screen.query_one(ChatsPanel).query_one(OptionList)
        await user.until(lambda: options.option_count == 1, "a search")
        await user.pilot.press("escape")
        assert user.prompt.has_focus
        await user.pilot.press("x", "ctrl+r", "ctrl+r")
        await user.until(lambda: not panels(user), "closed")
        assert user.prompt.has_focus
        assert user.prompt.text == "x"


async def test_the_list_beside_follows_other_windows(
    app: OpenApp, chats: Chats, tmp_path: Path
) -> None:
    async with app(FakeEngine(), size=(160, 50)) as user:
        await user.pilot.press("ctrl+r", "escape")
        other = Database(tmp_path / "store.db")
        elsewhere = Chats(other)
        chat = elsewhere.create()
        elsewhere.say(chat, "From another window")
        await user.sees("From another window")
        elsewhere.rename(chat, "Renamed there")
        await user.sees("Renamed there")
        elsewhere.delete(chat)
        await user.until(lambda: "Renamed there" not in user.screen, "gone")
        other.close()


async def test_the_list_says_what_is_open_and_does_what_the_dialog_does(
    app: OpenApp, chats: Chats
) -> None:
    gate = Gate()
    async with app(FakeEngine(["One", gate]), size=(160, 50)) as user:
        await user.pilot.press("ctrl+r", "enter")
        await user.sees("▌  A trip to Lisbon")
        await user.says("Go on")
        await user.sees("… A trip to Lisbon\n")
        await user.says("/private")
        await user.sees("◌ New chat")
        gate.open()
        await user.sees("● A trip to Lisbon")
        await user.pilot.press("ctrl+r", "end", "f3")
        await user.sees("Pinned · today")
        await user.pilot.press("f2", *"!", "enter")
        await user.sees("Where do the bins go?!")
        await user.pilot.press("f8", "down", "enter")
        await user.until(lambda: len(chats.headings()) == 1, "deleted")
        await user.until(lambda: "bins" not in user.screen, "gone from the list")
        assert user.pilot.app.screen.query_one(ChatsPanel).has_focus_within
        await user.pilot.press("home", "enter")
        await user.until(lambda: user.prompt.has_focus, "the private chat")
        await user.sees("This chat is not saved")


@pytest.mark.parametrize("size", [(80, 24), (40, 12)])
async def test_the_list_lies_over_the_chat_where_there_is_no_room(
    app: OpenApp, size: tuple[int, int]
) -> None:
    async with app(FakeEngine(), size=size) as user:
        await user.pilot.press("ctrl+r", "down")
        await user.sees("Where do the bins go?")
        assert not panels(user)
        await user.pilot.press("enter")
        await user.sees("▌  Where do the bins go?")
        await user.pilot.press("ctrl+r", "escape")
        assert user.prompt.has_focus


@pytest.mark.parametrize("then", ["found", "closed", "failed"])
async def test_enter_waits_for_a_slow_search_and_keys_do_not(
    app: OpenApp, chats: Chats, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    gate, search = Gate(), chats.search

    def slowly(*words: Any, **within: Any) -> Any:
        gate.opened()
        if then == "failed":
            raise StoreError("The store is damaged.")
        return search(*words, **within)

    monkeypatch.setattr(chats, "search", slowly)
    async with app(FakeEngine()) as user:
        await user.pilot.press("ctrl+r", *"bins", "enter")
        if then == "closed":
            await user.pilot.press("escape")
            await user.until(lambda: user.prompt.has_focus, "closed")
        gate.open()
        if then == "found":
            await user.sees("▌  Where do the bins go?")
        elif then == "failed":
            await user.sees("The store is damaged.")
            await user.pilot.press("escape")
            await user.until(lambda: user.prompt.has_focus, "closed")
    assert isinstance(user.pilot.app, OndeviceApp)
    assert user.pilot.app.net.unforeseen == 0


async def test_a_text_pasted_key_by_key_is_searched_for_at_once(
    app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[object] = []
    start = Worker._start

    def note(worker: Worker[object], *options: Any) -> None:
        begun.append(worker)
        start(worker, *options)

    async with app(FakeEngine()) as user:
        await user.pilot.press("ctrl+r")
        await user.sees("A trip to Lisbon")
        monkeypatch.setattr(Worker, "_start", note)
        await user.types("bins " * 40)
        await user.until(lambda: "A trip to Lisbon" not in user.screen, "what was found")
        await user.sees("Where do the bins go?")
        assert len(begun) < 50


async def test_both_panels_are_open_where_there_is_room_for_both(app: OpenApp) -> None:
    reply = "word " * 60 + "end"
    async with app(FakeEngine([reply]), size=(200, 50)) as user:
        await user.says("Hi")
        await user.is_idle()
        await user.pilot.press("ctrl+r", "ctrl+g")
        await user.until(lambda: len(panels(user)) == 2, "both")
        for width, left in ((140, [RamPanel]), (90, [])):
            await user.pilot.resize_terminal(width, 40)
            names = [panel.__name__ for panel in left]
            await user.until(partial(lambda names: panels(user) == names, names), str(names))
            await user.until(lambda: user.screen.count("word") == 60, "all words in view")
        assert user.prompt.has_focus
        await user.pilot.resize_terminal(120, 40)
        await user.pilot.press("ctrl+g", "ctrl+r")
        await user.until(lambda: panels(user) == ["ChatsPanel"], "the second one only")
