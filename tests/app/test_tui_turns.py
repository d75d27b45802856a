"""The messages of a chat in the terminal app: edit, answer anew, branches, copy, quote."""

from __future__ import annotations

import asyncio
import gc
import threading
from typing import Any

import pytest
from terminal_user import PATIENCE, OpenApp, User
from textual import events

from ondevice.chats import Chat, Chats
from ondevice.chats._chats import append
from ondevice.errors import EngineDied
from ondevice.testing import FakeEngine, Gate
from tui.widgets.conversation import Conversation
from tui.widgets.message import MessageView


def text(user: User) -> list[str]:
    """The upper half of the screen without the title and the scrollbar."""
    return [line[:70].rstrip() for line in user.screen.splitlines()[1:12]]


def contents(chats: Chats) -> list[str]:
    """The messages of the latest conversation."""
    return [message.content for message in chats.load(chats.headings()[0].id).messages]


async def test_the_last_message_is_edited_and_the_branches_are_switched(
    chats: Chats, open_app: OpenApp
) -> None:
    async with open_app(FakeEngine(["Paris."], ["Rome."])) as user:
        await user.says("Frankia")
        await user.is_idle()
        await user.says("/edit")
        await user.sees("Editing")
        assert user.prompt.text == "Frankia"
        user.prompt.text = ""
        await user.says("Italy")
        await user.sees("Rome.")
        await user.is_idle()
        await user.sees("‹ 2/2 ›")
        assert "Paris" not in user.screen
        assert contents(chats) == ["Italy", "Rome."]

        for key in ("ctrl+up", "up", "left"):  # without a pause, as a terminal may send them
            user.pilot.app.post_message(events.Key(key, None))
        await user.sees("Paris.")
        await user.sees("‹ 1/2 ›")
        assert "Rome" not in user.screen
        assert contents(chats) == ["Frankia", "Paris."]
        await user.pilot.press("right")
        await user.sees("Rome.")


async def test_an_edit_may_be_given_up(chats: Chats, open_app: OpenApp) -> None:
    async with open_app(FakeEngine(["Paris."])) as user:
        await user.says("France")
        await user.is_idle()
        await user.says("/edit")
        await user.sees("Editing")
        await user.pilot.press("escape")
        assert user.prompt.text == ""
        await user.says("Spain")
        await user.is_idle()
    assert contents(chats) == ["France", "Paris.", "Spain", "Paris."]


async def test_a_reply_is_had_again(chats: Chats, open_app: OpenApp) -> None:
    async with open_app(FakeEngine(["One."], ["Another."])) as user:
        await user.says("Hi")
        await user.is_idle()
        await user.pilot.press("ctrl+up", "r")
        await user.sees("Another.")
        await user.sees("‹ 2/2 ›")
        assert "One." not in user.screen
        assert user.prompt.has_focus


async def test_if_the_engine_dies_before_another_reply_begins_the_first_one_is_shown(
    open_app: OpenApp,
) -> None:
    async with open_app(FakeEngine(["One."], [EngineDied("It died.")])) as user:
        await user.says("Hi")
        await user.is_idle()
        await user.says("/again")
        await user.sees("It died.")
        await user.sees("One.")
        assert "Unfinished" not in user.screen


async def test_a_reply_that_was_stopped_goes_on_where_it_ended(
    chats: Chats, open_app: OpenApp
) -> None:
    async with open_app(FakeEngine(["One, ", "two", Gate()], [", three."])) as user:
        await user.says("Count")
        await user.sees("One, two")
        await user.pilot.press("escape")
        await user.sees("Stopped.")
        await user.is_idle()
        await user.says("/continue")
        await user.sees("One, two, three.")
        await user.is_idle()
        assert "Stopped." not in user.screen
    assert contents(chats) == ["Count", "One, two, three."]


async def test_a_message_that_met_no_reply_gets_one(chats: Chats, open_app: OpenApp) -> None:
    async with open_app(FakeEngine([EngineDied("It died.")], ["Yes."])) as user:
        await user.says("Hi")
        await user.sees("It died.")
        await user.is_idle()
        await user.says("/continue")
        await user.sees("Yes.")
        await user.is_idle()
    assert contents(chats) == ["Hi", "Yes."]


async def test_messages_and_code_are_copied_and_quoted(open_app: OpenApp) -> None:
    reply = "First:\n\n```py\nx = 1\n```\n\nSecond:\n\n```\ny\n```\n"
    async with open_app(FakeEngine([reply])) as user:
        await user.says("Hi")
        await user.is_idle()
        app = user.pilot.app
        await user.pilot.press("ctrl+up", "c")
        assert app.clipboard == reply
        await user.pilot.press("b")
        assert app.clipboard == "y\n"
        await user.pilot.press("b")
        assert app.clipboard == "x = 1\n"
        await user.pilot.press("up", "q")
        assert user.prompt.text == "> Hi\n\n"
        assert user.prompt.has_focus


async def test_a_reply_is_pointed_at_while_it_is_written_and_when_it_ends(
    open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, read, may_read = Gate(), Conversation._read_whole, asyncio.Event()

    async def read_late(self: Conversation) -> None:
        if self.doing == "answering":
            await may_read.wait()
        await read(self)

    monkeypatch.setattr(Conversation, "_read_whole", read_late)
    async with open_app(FakeEngine(["One,\x1b ", gate, "two."])) as user:
        await user.says("Count")
        await user.sees("One,")
        conversation, app = user.chat.conversation, user.pilot.app
        await user.pilot.press("ctrl+up", "c")
        assert app.clipboard.startswith("One,")
        gate.open()
        await user.sees("two.")
        await user.pilot.press("ctrl+down", "ctrl+up", "c")
        assert app.clipboard.endswith("two.")
        await user.pilot.press("up")
        assert conversation.in_focus and conversation.in_focus.id_in_store == 1
        await user.pilot.press("down")
        may_read.set()
        await user.is_idle()
        assert conversation.in_focus and conversation.in_focus.id_in_store == 2
        await user.pilot.press("c")
        assert app.clipboard == "One,\x1b two."
        await user.pilot.press("down")
        assert user.prompt.has_focus


async def test_typing_while_a_message_is_marked_goes_to_the_prompt(open_app: OpenApp) -> None:
    async with open_app(FakeEngine()) as user:
        await user.says("Hi")
        await user.is_idle()
        await user.pilot.press("ctrl+up", "W", "o")
        await user.until(lambda: user.prompt.text == "Wo", "the letters")
        await user.pilot.press("ctrl+up", "escape")
        assert user.prompt.has_focus
        user.prompt.text = ""
        await user.pilot.press("ctrl+up")
        for key in "/code":  # all but the first are keys of the message, too
            user.pilot.app.post_message(events.Key("slash" if key == "/" else key, key))
        await user.until(lambda: user.prompt.text == "/code", "the burst")


def of_messages(chats: Chats, count: int) -> Chat:
    chat, end = chats.create(), None
    with chats.database.write() as connection:
        for number in range(count):
            text = f"Message {number}, and\nmore of it"
            end = append(connection, chat, "user", text, parent_id=end)
    return chats.load(chat)


async def test_a_long_conversation_is_shown_in_part_and_scrolls_to_its_beginning(
    chats: Chats, open_app: OpenApp
) -> None:
    async with open_app(FakeEngine(), earlier=of_messages(chats, 200)) as user:
        await user.sees("Message 199")
        conversation = user.chat.conversation
        assert len(conversation.views) < 80
        while "Message 0," not in user.screen:
            before = conversation.pointed_at
            await user.pilot.press("pageup")
            assert len(conversation.views) < 80, before
        while "Message 199," not in user.screen:
            await user.pilot.press("pagedown")
            assert len(conversation.views) < 80
        await user.says("Last")
        await user.sees("Hello.")


async def test_messages_that_were_scrolled_past_take_no_room(
    chats: Chats, open_app: OpenApp
) -> None:
    """Not even for one who never pauses; nor are all of them taken away at once, which is seen."""
    async with open_app(FakeEngine(), earlier=of_messages(chats, 1000)) as user:
        await user.sees("Message 999")
        most = 0
        for _ in range(60):
            await user.pilot.press("pageup")
            most = max(most, sum(isinstance(o, MessageView) for o in gc.get_objects()))
        assert "▌  Message 0," not in user.screen
        assert most < 250


async def test_what_is_read_stands_still_while_the_conversation_grows(
    chats: Chats, open_app: OpenApp
) -> None:
    gate = Gate()
    chat = chats.create()
    for number in range(20):
        chats.say(chat, f"Message {number}")
    engine = FakeEngine(["One.\n\n", gate, *["More.\n\n"] * 30, "End."])
    async with open_app(engine, earlier=chats.load(chat)) as user:
        await user.says("Hi")
        await user.sees("One.")
        await user.pilot.press("pageup")
        await user.until(lambda: "One." not in user.screen, "scrolled")
        top = text(user)
        gate.open()
        await user.is_idle()
        assert text(user) == top


async def test_a_message_that_is_stopped_twice_while_it_is_stored_is_shown(
    chats: Chats, open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = threading.Event()
    say = chats.say

    def slowly(*what: Any, **how: Any) -> Any:
        assert stopped.wait(PATIENCE)
        return say(*what, **how)

    monkeypatch.setattr(chats, "say", slowly)
    async with open_app(FakeEngine()) as user:
        await user.says("Hello there")
        await user.until(lambda: user.chat.conversation.replying, "begun")
        for _ in range(3):
            user.chat.conversation.stop()
            await user.pilot.pause()
        stopped.set()
        await user.is_idle()
        await user.until(lambda: len(user.chat.conversation.views) == 1, "shown")
        await user.sees("▌  Hello there")
