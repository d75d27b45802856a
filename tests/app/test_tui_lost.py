"""Nothing that was typed is lost, and nothing ends the app: drafts, edits, tabs, and one net."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from terminal_user import OpenApp
from textual import events
from textual.widget import Widget
from textual.widgets import Static
from textual.worker import WorkerState

from ondevice.chats import Chats
from ondevice.errors import StoreError
from ondevice.testing import FakeEngine, Gate
from tui.app import OndeviceApp
from tui.error_net import ErrorNet, report
from tui.screens import chat_base
from tui.widgets.prompt import PromptInput
from tui.widgets.status_bar import StatusBar

# ---------------------------------------------------------------------- the net


def raises(*_: object, **__: object) -> Any:
    secret = "Quagmire"
    raise ValueError(f"about {secret}")


@pytest.mark.parametrize("where", ["handler", "worker", "timer", "callback", "task", "render"])
async def test_an_error_that_nobody_foresaw_is_said_and_the_app_goes_on(
    open_app: OpenApp, monkeypatch: pytest.MonkeyPatch, home: Path, where: str
) -> None:
    async with open_app(FakeEngine()) as user:
        screen = user.pilot.app.screen

        async def fails() -> None:
            raises()

        if where == "handler":
            monkeypatch.setattr(PromptInput, "action_newline", raises)
            await user.pilot.press("ctrl+j")
        elif where == "worker":
            screen.run_worker(fails())
        elif where == "timer":
            screen.set_timer(0.01, raises)
        elif where == "callback":
            screen.call_after_refresh(raises)
        elif where == "task":
            asyncio.get_running_loop().call_soon(raises)
        else:  # which is tried again and again
            monkeypatch.setattr(StatusBar, "render", raises)
            screen.query_one(StatusBar).refresh(layout=True)
        app = user.pilot.app
        assert isinstance(app, OndeviceApp)
        await user.until(lambda: app.net.unforeseen > 0, "caught")
        await user.sees("Something went wrong")
        await user.says("Hi")
        await user.sees("Hello.")
    log = home / "log" / "app.log"
    text = log.read_text()
    assert "builtins.ValueError" in text
    assert "in raises" in text
    assert "Quagmire" not in text.replace('secret = "Quagmire"', "")
    assert log.stat().st_mode & 0o077 == 0


async def test_a_reply_that_finds_no_room_is_saved_once_there_is_some(
    open_app: OpenApp, chats: Chats
) -> None:
    gate, rest = Gate(), "and on " * 3000

    def limit(pages: int) -> None:
        with chats.database.read() as connection:
            connection.execute(f"PRAGMA max_page_count={pages}").fetchall()

    async with open_app(FakeEngine(["On ", gate, rest])) as user:
        await user.says("Go on")
        await user.sees("On")
        limit(1)  # not below what it has
        gate.open()
        await user.sees("tried again until you quit.")
        await user.pilot.press("ctrl+q")
        await user.sees("could not be saved yet. Quit anyway?")
        await user.pilot.press("escape")
        limit(1 << 30)
        await user.sees("The reply is saved now.")
        await user.pilot.press("ctrl+q")
    assert chats.load(chats.headings()[0].id).messages[-1].content == f"On {rest}"


async def test_that_nothing_can_be_saved_is_said_at_the_start(
    open_app: OpenApp, chats: Chats
) -> None:
    chats.database.read_only = "the disk is full. Free some space"
    async with open_app(FakeEngine()) as user:
        await user.sees("nothing new can be saved: the disk is full.")
        await user.says("Hi")
        await user.sees("can only be read: the disk is full.")
        assert user.prompt.text == "Hi"


@pytest.mark.parametrize("what", ["a part", "the screen", "what it draws"])
async def test_what_is_taken_away_may_miss_its_parts(open_app: OpenApp, what: str) -> None:
    looked = asyncio.Event()

    class Fleeting(Static):
        async def on_mount(self) -> None:
            self.remove()
            looked.set()
            if what == "a part":
                self.query_one(StatusBar)
            elif what == "the screen":
                assert Static().screen
            else:
                self._render()

        def render(self) -> str:
            assert not looked.is_set()
            return ""

    async with open_app(FakeEngine()) as user:
        app = user.pilot.app
        assert isinstance(app, OndeviceApp)
        app.screen.mount(Fleeting())
        await looked.wait()
        await user.pilot.pause()
        assert app.net.unforeseen == 0


async def test_what_is_called_after_a_frame_may_find_nothing_and_the_rest_is_called(
    open_app: OpenApp,
) -> None:
    async with open_app(FakeEngine()) as user:
        app, part, called = user.pilot.app, Static(), asyncio.Event()
        assert isinstance(app, OndeviceApp)
        await app.screen.mount(part)
        await part.remove()

        def look() -> None:
            part.query_one(StatusBar)

        app.screen._invoke_later(look, part)
        app.screen._invoke_later(called.set, app.screen)
        app.screen.refresh()
        await called.wait()
        assert app.net.unforeseen == 0


async def test_what_works_for_what_is_taken_away_may_miss_its_screen(
    open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken_away = asyncio.Event()

    async def look(part: Static) -> None:
        await taken_away.wait()
        assert part.screen

    async with open_app(FakeEngine()) as user:
        app = user.pilot.app
        assert isinstance(app, OndeviceApp)
        part = Static()
        await app.screen.mount(part)
        worker = part.run_worker(look(part))
        monkeypatch.setattr(app.workers, "cancel_node", lambda _: [])  # so that it goes on
        await part.remove()
        taken_away.set()
        await user.until(lambda: worker.is_finished, "an end")
        assert worker.state == WorkerState.CANCELLED
        assert app.net.unforeseen == 0


async def test_what_waits_for_what_is_cancelled_goes_on(open_app: OpenApp) -> None:
    async def wait() -> None:
        never = asyncio.get_running_loop().create_future()
        never.cancel()
        await never

    async with open_app(FakeEngine()) as user:
        for part in (user.pilot.app, user.pilot.app.screen, user.prompt):
            part.call_later(wait)
        await user.pilot.press("a")
        await user.says("b")
        await user.sees("Hello.")


async def test_a_key_after_the_end_of_the_app_may_miss_it(open_app: OpenApp) -> None:
    async with open_app(FakeEngine()) as user:
        app = user.pilot.app
        assert isinstance(app, OndeviceApp)
        app.exit()
        pressed = events.Key("ctrl+n", None)
        pressed._set_forwarded()  # nothing in the screen had a use for it
        await app._dispatch_message(pressed)
        assert app.net.unforeseen == 0


def test_the_log_is_bounded_and_has_neither_values_nor_what_errors_say(tmp_path: Path) -> None:
    net = ErrorNet(tmp_path / "log" / "app.log")
    for line in range(2000):
        try:
            exec(compile(f"{chr(10) * line}1 / 0", "a" * 200, "exec"))
        except ZeroDivisionError as error:
            net.catch(error)
    assert net.hopeless
    assert net.log.stat().st_size < 400_000
    try:
        raises()
    except ValueError as error:
        assert "about" not in report(error).replace('f"about {secret}"', "")


async def test_what_the_store_refuses_is_one_sentence(
    chats: Chats, open_app: OpenApp, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    async with open_app(FakeEngine()) as user:
        await user.says("Hi")
        await user.is_idle()

        def refuses(*_: object) -> Any:
            raise StoreError("The store is locked.")

        monkeypatch.setattr(Chats, "heading", refuses)
        await user.says("/pin")
        await user.sees("The store is locked.")
        monkeypatch.undo()
        await user.says("/pin")
        await user.sees("Chat pinned.")
    assert not (home / "log" / "app.log").exists()


async def test_the_app_ends_in_words_where_errors_come_again_and_again(
    chats: Chats, open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_app(FakeEngine()) as user:
        await user.pilot.press(*"half")
        user.pilot.app.screen.set_interval(0.001, raises)
        await user.until(lambda: not user.pilot.app.is_running, "the end")
        shown = [str(one) for one in user.pilot.app._exit_renderables]
        assert len(shown) == 1
        assert "Quagmire" not in shown[0]
    async with open_app(FakeEngine()) as user:
        assert user.prompt.text == "half"


# ---------------------------------------------------------------------- drafts and tabs


async def test_tabs_drafts_and_edits_come_back(chats: Chats, open_app: OpenApp) -> None:
    async with open_app(FakeEngine(["One."], ["Two."])) as user:
        await user.says("first")
        await user.is_idle()
        await user.pilot.press(*"half")
        await user.says("/edit") if not user.prompt.text else None
        await user.pilot.press("ctrl+up", "up", "e")
        await user.sees("Editing")
        await user.pilot.press("!")
        await user.pilot.press("ctrl+n")
        await user.says("second")
        await user.is_idle()
        await user.pilot.press("ctrl+n", *"third", "ctrl+pageup")
        await user.sees("Two.")
    async with open_app(FakeEngine()) as user:
        await user.sees(" first  second  New chat")
        await user.sees("Two.")
        await user.pilot.press("ctrl+pagedown")
        assert user.prompt.text == "third"
        await user.pilot.press("ctrl+pagedown")
        await user.sees("Editing")
        assert user.prompt.text == "first!"
        await user.pilot.press("escape")
        assert user.prompt.text == "half"
        await user.pilot.press("up")  # what was given up is not lost either
        assert user.prompt.text == "first!"
        await user.pilot.press("down")
        assert user.prompt.text == "half"


async def test_a_draft_is_stored_as_it_is_typed_and_goes_when_it_is_sent(
    chats: Chats, open_app: OpenApp
) -> None:
    def drafts() -> list[str]:
        with chats.database.read() as connection:
            return [row[0] for row in connection.execute("SELECT draft FROM open_tab")]

    async with open_app(FakeEngine()) as user:
        await user.pilot.press(*"half")
        await user.until(lambda: drafts() == ["half"], "stored")
        async with open_app(FakeEngine()) as other:  # a second window has its own
            assert other.prompt.text == ""
            await other.pilot.press(*"other")
            await other.until(lambda: sorted(drafts()) == ["half", "other"], "both")
            await user.pilot.press("enter")
            await user.is_idle()
            await user.until(lambda: sorted(drafts()) == ["", "other"], "sent")
        await user.says("/private")
        await user.sees("not saved or remembered")
        await user.pilot.press(*"secret")
        await user.pilot.pause(0.7)
        assert sorted(drafts()) == ["", "other"]


async def test_up_brings_back_what_was_typed_in_a_closed_tab_after_a_restart_too(
    chats: Chats, open_app: OpenApp
) -> None:
    async with open_app(FakeEngine()) as user:
        await user.says("Hi")
        await user.is_idle()
        for text in ("other", "quick"):
            await user.pilot.press("ctrl+n")
            await user.until(lambda: len(user.chat.conversations) == 2, "two")
            await user.pilot.press(*text, "f4")
            await user.until(lambda: len(user.chat.conversations) == 1, "one")
        await user.pilot.press("ctrl+q")  # before that is stored in its time
    async with open_app(FakeEngine()) as user:
        for text in ("quick", "other", "Hi"):
            await user.pilot.press("up")
            assert user.prompt.text == text
    async with open_app(FakeEngine()) as user:  # once
        await user.pilot.press("up")
        assert user.prompt.text == "Hi"


async def test_what_is_typed_between_lines_of_the_history_stays(
    chats: Chats, open_app: OpenApp
) -> None:
    chats.say(chats.create(), "long ago")
    async with open_app(FakeEngine()) as user:
        await user.pilot.press("d", "up", "!", "down")
        assert user.prompt.text == "d"
        await user.pilot.press("up")
        assert user.prompt.text == "long ago!"


async def test_up_brings_back_private_words_in_their_own_chat_only(open_app: OpenApp) -> None:
    async with open_app(FakeEngine()) as user:
        await user.says("public")
        await user.is_idle()
        await user.says("/private")
        await user.sees("not saved or remembered")
        await user.says("private words")
        await user.is_idle()
        await user.pilot.press("up")
        assert user.prompt.text == "private words"
        await user.pilot.press("ctrl+c", "f6")
        await user.pilot.press("up", "up")
        assert user.prompt.text == "public"


async def test_ctrl_c_stops_then_clears_then_asks(open_app: OpenApp) -> None:
    async with open_app(FakeEngine(["Half ", Gate()])) as user:
        await user.says("Hi")
        await user.sees("Half")
        await user.pilot.press(*"draft", "ctrl+c")
        await user.is_idle()
        assert user.prompt.text == "draft"
        await user.pilot.press("ctrl+c")
        assert user.prompt.text == ""
        await user.pilot.press("ctrl+underscore")
        assert user.prompt.text == "draft"
        await user.pilot.press("ctrl+c", "up")
        assert user.prompt.text == "draft"
        await user.pilot.press("ctrl+c", "ctrl+c")
        await user.sees("Press Ctrl+C again")
        assert user.pilot.app.is_running
        await user.pilot.press("ctrl+c")
        await user.until(lambda: not user.pilot.app.is_running, "the end")


# ---------------------------------------------------------------------- private chats


@pytest.mark.parametrize("key", ["ctrl+q", "f4", "ctrl+d"])
async def test_a_private_chat_is_not_closed_without_a_question(open_app: OpenApp, key: str) -> None:
    async with open_app(FakeEngine()) as user:
        await user.says("/private")
        await user.sees("not saved or remembered")
        await user.says("Hi")
        await user.sees("Hello.")
        await user.is_idle()
        await user.pilot.press(key)
        await user.sees("gone for good.")
        await user.pilot.press("enter")
        await user.sees("Hello.")
        await user.says("/private")  # opens another one
        await user.sees("◌ Hi  ◌ New chat")


async def test_the_tenth_tab_takes_the_place_of_none_that_would_be_missed(
    open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_base, "MOST", 3)
    async with open_app(FakeEngine()) as user:
        await user.says("/private")
        await user.sees("not saved or remembered")
        await user.says("secret")
        await user.is_idle()
        for word in ("first", "second"):
            await user.pilot.press("ctrl+n")
            await user.says(word)
            await user.is_idle()
            await user.pilot.press(*"draft")
        await user.pilot.press("ctrl+n")
        await user.sees("3 chats are open already")
        await user.pilot.press("shift+f6", "ctrl+u", "f6", "ctrl+n")
        await user.sees(" ◌ secret  second  New chat")


# ---------------------------------------------------------------------- deleting


async def test_a_chat_is_deleted_while_it_replies(chats: Chats, open_app: OpenApp) -> None:
    async with open_app(FakeEngine(["One, ", Gate()], ["Two."])) as user:
        await user.says("Count")
        await user.sees("One,")
        await user.says("/delete")
        await user.sees("for good?")
        await user.pilot.press("down", "enter")
        await user.until(lambda: not chats.headings(), "gone")
        await user.sees("The model runs on this device.")
        await user.says("More")
        await user.sees("Two.")
    assert [heading.title for heading in chats.headings()] == ["More"]


async def test_what_another_window_has_deleted_gives_its_words_back(
    chats: Chats, open_app: OpenApp
) -> None:
    async with open_app(FakeEngine()) as user:
        await user.says("Hi")
        await user.is_idle()
        chats.delete(chats.headings()[0].id)
        await user.says("More words")
        await user.sees("deleted")
        await user.is_idle()
        if user.prompt.text:  # it was sent before the app saw that the chat is gone
            assert user.prompt.text == "More words"
            await user.pilot.press("enter")
            await user.is_idle()
    assert [heading.title for heading in chats.headings()] == ["More words"]


async def test_tabs_and_the_terminal_say_what_is_there(
    open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate()
    async with open_app(
        FakeEngine(["One, ", gate, "two."]), personas={"Tutor": "Teach."}, persona="Tutor"
    ) as user:
        titles: list[str] = []
        driver = user.pilot.app._driver
        assert driver is not None
        monkeypatch.setattr(driver, "write", titles.append)
        await user.sees("as Tutor")
        await user.says("Count")
        await user.sees("… Count")
        await user.pilot.press("ctrl+n")
        gate.open()
        await user.sees("● Count")
        await user.pilot.press("f6")
        await user.until(lambda: "●" not in user.screen, "read")
        assert "\x1b]2;Count · ondevice\x07" in titles
        assert isinstance(user.pilot.app, OndeviceApp)
        assert isinstance(user.pilot.app.screen, Widget)
