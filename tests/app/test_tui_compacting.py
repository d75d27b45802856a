"""Summaries of long chats in the terminal app: written in a pause or by hand, edited, undone."""

from __future__ import annotations

import pytest
from terminal_user import OpenApp, User

import tui.app
from ondevice.chats import Chat, Chats, reply
from ondevice.messages import Generate, Load, Sampling
from ondevice.testing import FakeEngine, Gate
from tui.widgets.summary import SummaryView

WORDS = "one two three four five six seven eight nine ten"
FOLDED = "Earlier messages, summarised"


def long_chat(chats: Chats, exchanges: int = 4) -> Chat:
    engine = FakeEngine([WORDS])
    engine.load(Load(path="a.gguf"))
    chat = chats.create()
    for number in range(exchanges):
        chats.say(chat, f"Say {number}")
        list(reply(chats, engine, chat, Sampling()))
    return chats.load(chat)


def summarised(chats: Chats) -> int:
    return chats.load(chats.headings()[0].id).summarised


def asked(engine: FakeEngine) -> list[str]:
    """The texts of the last request."""
    request = engine.requests[-1]
    assert isinstance(request, Generate)
    return [turn.content for turn in request.turns]


async def test_a_long_chat_is_summed_up_in_a_pause(
    chats: Chats, open_app: OpenApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tui.app, "_PAUSES", 0.1)
    monkeypatch.setattr("ondevice.chats.can_learn", lambda loaded: True)
    engine = FakeEngine([WORDS], asides=[["- They counted.\n"]])
    async with open_app(engine, earlier=long_chat(chats, 5), ctx=64) as user:
        await user.says("Go on")
        await user.is_idle()
        await user.until(lambda: summarised(chats) == 10, "a summary of all that is due")
        await user.until(lambda: user.chat.conversation.query(SummaryView), "the folded line")
        await user.says("Then?")
        await user.is_idle()
        assert asked(engine)[0].endswith("- They counted.")
        assert asked(engine)[1:] == ["Go on", WORDS, "Then?"]


async def test_a_summary_makes_way_at_once(chats: Chats, open_app: OpenApp) -> None:
    engine = FakeEngine([WORDS], asides=[["- They ", Gate(), "counted.\n"], []])
    async with open_app(engine, earlier=long_chat(chats)) as user:
        await user.says("/compact")
        await user.sees("Summarising the earlier messages")
        await user.until(lambda: len(engine.requests) == 2, "a load and a summary")
        await user.says("Go on")
        await user.sees("Your message came first")
        await user.is_idle()
        assert asked(engine)[-1] == "Go on"
    assert summarised(chats) == 0


async def test_where_nothing_comes_of_it_that_is_said(chats: Chats, open_app: OpenApp) -> None:
    async with open_app(FakeEngine([WORDS], asides=[[" "]]), earlier=long_chat(chats)) as user:
        await user.says("/compact")
        await user.sees("no notes that could be used")
        await user.says("/new")
        await user.says("Hello")
        await user.is_idle()
        await user.says("/compact")
        await user.sees("The last exchange always stays")


async def test_esc_stops_a_summary(chats: Chats, open_app: OpenApp) -> None:
    engine = FakeEngine([WORDS], asides=[["- They ", Gate(), "counted.\n"]])
    async with open_app(engine, earlier=long_chat(chats)) as user:
        await user.says("/compact")
        await user.until(lambda: len(engine.requests) == 2, "a load and a summary")
        await user.pilot.press("escape")
        await user.sees("Stopped.")
    assert summarised(chats) == 0


async def compacts(user: User) -> None:
    await user.says("/compact")
    await user.sees("place of 6 earlier")
    await user.is_idle()


def folded(user: User) -> str:
    return str(user.chat.conversation.query_one(SummaryView).title)


@pytest.mark.parametrize("size", [(80, 24), (40, 12)])
async def test_by_hand_it_is_written_shown_edited_and_undone(
    chats: Chats, open_app: OpenApp, size: tuple[int, int]
) -> None:
    engine = FakeEngine([WORDS], asides=[["- They counted.\n"]])
    async with open_app(engine, earlier=long_chat(chats), size=size) as user:
        await compacts(user)
        assert summarised(chats) == 6
        conversation = user.chat.conversation
        await user.says("/compact edit")
        await user.sees("- They counted.")
        await user.pilot.press("end")
        await user.types(" In Porto.")
        chats.edit_summary(
            conversation.messages[5].id,
            "- Another window wrote this.",
            instead_of="- They counted.",
        )
        await user.pilot.press("ctrl+s")
        await user.sees("- Another window wrote this.")
        await user.pilot.press("enter", "escape")
        await user.sees("This text is not saved.")
        await user.pilot.press("enter", "ctrl+s")
        await user.until(lambda: folded(user) == FOLDED, "the folded line")
        await user.says("Then?")
        await user.is_idle()
        assert asked(engine)[0].endswith("- They counted. In Porto.")
        await user.says("/compact undo")
        await user.until(lambda: summarised(chats) == 0, "undone")
        await user.is_idle()
        await user.says("/compact undo")
        await user.until(lambda: summarised(chats) == 6, "used again")
        await user.until(lambda: folded(user) == FOLDED, "the folded line")
        # The same by keys, on the message that it ends with.
        last = user.chat.conversation.messages[5]
        user.chat.conversation.jump(last.id)
        await user.until(lambda: user.chat.conversation.in_focus, "the message")
        await user.pilot.press("u")
        await user.until(lambda: summarised(chats) == 0, "undone")
        await user.until(lambda: "Summary undone" in folded(user), "the folded line")
        await user.until(lambda: user.chat.conversation.in_focus, "the message made anew")
        await user.pilot.press("s")
        await user.sees("- They counted. In Porto.")


async def test_on_messages_without_one_its_keys_are_letters(
    chats: Chats, open_app: OpenApp
) -> None:
    async with open_app(FakeEngine([WORDS]), earlier=long_chat(chats)) as user:
        await user.pilot.press("ctrl+up", "s", "u")
        await user.until(lambda: user.prompt.text == "su", "typed")
        user.prompt.text = ""
        await user.says("/compact undo")
        await user.sees("No messages of this")


async def test_an_early_message_is_edited_and_the_branch_has_no_summary(
    chats: Chats, open_app: OpenApp
) -> None:
    engine = FakeEngine([WORDS], asides=[["- They counted.\n"]])
    async with open_app(engine, earlier=long_chat(chats)) as user:
        await compacts(user)
        messages = user.chat.conversation.messages
        user.chat.conversation.jump(messages[2].id)
        await user.until(lambda: user.chat.conversation.in_focus, "the message")
        await user.pilot.press("e")
        await user.sees("Editing")
        user.prompt.text = ""
        await user.says("Say something else")
        await user.is_idle()
        assert asked(engine) == ["Say 0", WORDS, "Say something else"]
