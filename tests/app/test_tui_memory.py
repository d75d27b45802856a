"""What the memory screen shows: groups, dates in words, and no requests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from terminal_user import OpenApp, at_the_terminal
from textual.widgets import OptionList

from ondevice.chats import Chats
from ondevice.memory import tells
from ondevice.testing import FakeEngine
from tui import days

REQUEST = "Write a Python function that reverses a string."


@pytest.mark.parametrize(
    "text",
    [
        *(REQUEST, "What is the capital of France?", "what is the capital of france", "Hi there"),
        *("thanks a lot!", "Please translate this to German: hello", "Can you help me", "continue"),
        *("Schreib mir ein Gedicht.", "Écris un poème sur la mer", "Escribe una función en Python"),
        *(
            "Напиши функцию на Python",
            "请写一个函数",
            "俳句を書いてください",
            "Qual è la capitale?",
        ),
        *("```python\nx = 1\n```", "Refactor this so that it is faster", "never mind, say hello"),
        "Explain quantum entanglement to a child. Use simple words.",
    ],
)
def test_what_only_asks_tells_nothing(text: str) -> None:
    assert not tells(text)


@pytest.mark.parametrize(
    "text",
    [
        *("The bins go out on Monday.", "When I was in Lyon I met Ana.", "Our cat is called Momo"),
        *("世界 means world, שלום means peace.", "Give me a recipe. I'm allergic to nuts."),
        *("Ich wohne in Berlin.", "J'habite à Lyon avec ma femme", "Vivo en Madrid desde 2019."),
        *("Я живу в Москве", "我住在上海，有两只猫。", "私は東京に住んでいます。"),
        *(
            "Making bread is my hobby now.",
            "Plan for Monday: dentist at nine",
            REQUEST + " I am ten.",
        ),
    ],
)
def test_what_tells_is_a_memory(text: str) -> None:
    assert tells(text)


@pytest.mark.parametrize(
    ("ago", "said"),
    [
        (timedelta(hours=9), "today"),
        (timedelta(hours=20), "yesterday"),
        (timedelta(days=3), "on Friday"),
        (timedelta(days=12), "on 4 June"),
        (timedelta(days=90), "in March"),
        (timedelta(days=366), "in June 2024"),
        (-timedelta(days=40), "in July 2025"),
    ],
)
def test_days_are_said_as_people_do(ago: timedelta, said: str) -> None:
    now = datetime(2025, 6, 16, 12, tzinfo=UTC)
    assert days.said(now - ago, now) == said


async def test_memories_are_in_groups_and_say_what_they_replaced(
    chats: Chats, tmp_path: Path
) -> None:
    for said in (REQUEST, "I live in Lyon.", "Always use metric units.", "I live in Porto."):
        chats.say(chats.create(), said)
    chats.memory.add("The bins go out on Monday.", at=datetime(2020, 5, 4, tzinfo=UTC))
    model = tmp_path / "Tiny-1B.gguf"
    model.touch()
    async with at_the_terminal(FakeEngine(), chats, model, size=(80, 30)) as user:
        await user.pilot.press("ctrl+o")
        await user.until(lambda: "today │" in user.screen, "dates at the right")
        lines = [line.strip("│ ") for line in user.screen.splitlines()]
        order = ["Facts", "How you like replies", "What you said", "Notes and files"]
        assert [line for line in lines if line in order] == order
        assert sum("Always use metric units." in line for line in lines) == 1
        assert "replaces: The user lives in Lyon." in lines
        assert any(line.endswith("in May 2020") for line in lines)
        assert "Python" not in user.screen
        assert "(home" not in user.screen
        assert "1:0" not in user.screen
        assert not lines[lines.index("Facts") + 1].startswith("The user lives in Lyon")
        await user.pilot.press(*"python")
        await user.sees("What you asked")  # so that it can be forgotten


async def test_a_proposal_is_shown_first_with_its_sentence_and_decided_with_one_key(
    chats: Chats, tmp_path: Path
) -> None:
    said = "I live in Lyon. My cat is called Momo. What is the capital of France?"
    chats.say(chats.create(), "The bins go out on Monday.")
    chats.say(chats.create(), said)
    model = tmp_path / "Tiny-1B.gguf"
    model.touch()
    async with at_the_terminal(FakeEngine(), chats, model, size=(80, 30)) as user:
        await user.pilot.press("ctrl+o")
        await user.sees("Proposed: is this so?")
        await user.sees("from “My cat is called Momo.”")
        await user.sees("F7 accept · F6 reject")
        screen = user.screen
        assert screen.index("Proposed") < screen.index("What you said")
        accepted = chats.memory.latest(status="proposed")[0].content
        await user.pilot.press("f7")
        await user.until(lambda: len(chats.memory.latest(status="proposed")) == 1, "one is left")
        await user.sees("Facts")
        await user.pilot.press("f6")  # the next one is pointed at
        await user.until(lambda: not chats.memory.latest(status="proposed"), "none is left")
    facts = {cube.content: cube.status for cube in chats.memory.latest(kind="fact")}
    assert {status for content, status in facts.items() if content == accepted} == {"active"}
    assert sorted(facts.values()) == ["active", "archived"]
    assert not chats.say(chats.create(), said).learnt
    assert not chats.memory.latest(status="proposed")  # what was rejected is not proposed again


async def test_the_list_follows_what_other_windows_and_programs_do_to_the_memory(
    chats: Chats, elsewhere: Chats, open_app: OpenApp
) -> None:
    ids = [chats.memory.add(f"note {number} of many").cube.id for number in range(60)]
    async with open_app(FakeEngine()) as user:
        await user.pilot.press("ctrl+o")
        await user.sees("note 59 of many")
        options = user.pilot.app.screen.query_one(OptionList)
        elsewhere.memory.forget([ids[59]])
        await user.until(lambda: "note 59 of many" not in user.screen, "forgotten")
        elsewhere.memory.add("A new note from elsewhere")
        await user.sees("A new note from elsewhere")
        options.scroll_end(animate=False)
        await user.sees("note 5 of many")
        elsewhere.say(elsewhere.create(), "What is that?")  # which is no memory
        await user.until(lambda: len(chats.headings()) == 1, "said")
        for _ in range(15):
            await user.pilot.pause(0.1)
        assert "note 5 of many" in user.screen
