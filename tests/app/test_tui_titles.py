"""Titles that the model thinks of while the user pauses."""

from __future__ import annotations

import pytest
from terminal_user import OpenApp

from ondevice.chats import Chats, reply, think_of_title
from ondevice.chats._titles import clean
from ondevice.engine import Engine
from ondevice.messages import Finished, Generate, Sampling
from ondevice.testing import FakeEngine, Gate


def title(chats: Chats) -> str:
    return chats.headings()[0].title


async def test_the_model_gives_a_title_when_the_user_pauses(
    chats: Chats, open_app: OpenApp
) -> None:
    engine = FakeEngine(["Tram 28."], asides=[['Title: "Trams\x1b[31m in Lisbon".\n\nSo it is.']])
    async with open_app(engine) as user:
        await user.says("Which tram should I take?")
        await user.is_idle()
        assert title(chats) == "Which tram should I take?"
        await user.until(lambda: title(chats) == "Trams[31m in Lisbon", "the title")
        await user.pilot.press("ctrl+n")
        await user.sees("Trams[31m in Lisbon")
    asked = engine.requests[-1]
    assert isinstance(asked, Generate)
    assert [turn.content for turn in asked.turns[-3:-1]] == [
        "Which tram should I take?",
        "Tram 28.",
    ]


async def test_thinking_of_a_title_makes_way_at_once(chats: Chats, open_app: OpenApp) -> None:
    engine = FakeEngine(["One."], ["Two."], asides=[["Trams ", Gate(), "in Lisbon"], []])
    async with open_app(engine) as user:
        await user.says("Which tram?")
        await user.until(lambda: len(engine.requests) == 3, "a load, a reply and a title")
        await user.says("And then?")
        await user.sees("Two.")
    assert title(chats) == "Which tram?"


async def test_a_title_of_the_user_stays(chats: Chats, open_app: OpenApp) -> None:
    gate = Gate()
    engine = FakeEngine(["One."], asides=[["Trams ", gate, "in Lisbon"]])
    async with open_app(engine) as user:
        await user.says("Which tram?")
        await user.until(lambda: len(engine.requests) == 3, "a load, a reply and a title")
        chats.rename(chats.headings()[0].id, "Mine")
        gate.open()
        await user.pilot.pause(0.3)
    assert title(chats) == "Mine"


def test_a_named_conversation_is_not_asked_about(chats: Chats) -> None:
    engine = FakeEngine(["One."])
    conversation = chats.create()
    chats.say(conversation, "Which tram?")
    chats.rename(conversation, "Mine")
    assert think_of_title(chats, engine, conversation) is None
    assert engine.requests == []


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("Lisbon Trams", "Lisbon Trams"),
        ("**Title:** The trams of Lisbon.", "The trams of Lisbon"),
        ("\n\n# “Trams”\nMore about it", "Trams"),
        ("The title of this conversation: Trams", "Trams"),
        ('Here\'s a possible title for the conversation:\n\n"Trams of Lisbon"', "Trams of Lisbon"),
        ("**Sure, here it is:**\n**Trams**", "Trams"),
        ("A good title would be: Trams", "Trams"),
        ("当然可以：\n里斯本的电车", "里斯本的电车"),
        ("Here is one for you:", ""),
        ("Bad \x1b]0;evil\x07name", "Bad ]0;evilname"),
        ("As a language model I cannot give titles to conversations, but", ""),
        ("", ""),
        ('"""', ""),
    ],
)
def test_what_models_put_around_a_title_is_taken_away(answer: str, expected: str) -> None:
    assert clean(answer) == expected


def test_a_real_model_reads_only_the_request_for_a_title(chats: Chats, engine: Engine) -> None:
    conversation = chats.create()
    chats.say(conversation, "I see many countries. " * 30 + "What is the capital of France?")
    list(reply(chats, engine, conversation, Sampling(temperature=0)))
    turns = chats.load(conversation).turns()
    assert think_of_title(chats, engine, conversation)
    chats.say(conversation, "And of Spain?")
    *_, finished = reply(chats, engine, conversation, Sampling(temperature=0))
    assert isinstance(finished, Finished)
    assert finished.statistics.reused_tokens > finished.statistics.prompt_tokens / 2, turns
