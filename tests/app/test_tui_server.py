"""With a model on a server: what is remembered goes there only after the user has agreed."""

from __future__ import annotations

from pathlib import Path

import pytest
from terminal_user import User, at_the_terminal

from ondevice import config
from ondevice.chats import Chats, learn, reply, restore_cache, think_of_title
from ondevice.messages import Generate, Load, Sampling
from ondevice.store import Database
from ondevice.testing import FakeEngine
from tui.screens.chat import ChatScreen

URL = "http://Me:secret@models.example:8080/v1#m"
HOST = "models.example:8080"
QUESTION = "What does my sister like?"


@pytest.fixture
def chats(database: Database) -> Chats:
    chats = Chats(database)
    chats.memory.add("My sister likes pears.")
    return chats


def sent(engine: FakeEngine) -> str:
    """All that the last request has."""
    request = engine.requests[-1]
    assert isinstance(request, Generate)
    return "\n".join(turn.content for turn in request.turns)


async def answered(user: User, key: str) -> None:
    await user.sees(f"to {HOST}, and later")
    if key == "agree":
        await user.pilot.press("down")
    await user.pilot.press("escape" if key == "escape" else "enter")
    await user.is_idle()


async def test_memories_are_sent_after_the_user_has_agreed_and_that_is_shown(
    chats: Chats,
) -> None:
    engine = FakeEngine(["Pears."], ["Pears again."], ["No more."])
    async with at_the_terminal(engine, chats, URL, size=(100, 30)) as user:
        await user.sees(f"What you write goes to {HOST}.")
        await user.sees("Memories stay here until you agree.")
        await user.says(QUESTION)
        await answered(user, "agree")
        await user.sees(f"Used 1 memory, sent to {HOST}")
        assert "likes pears" in sent(engine)
        await user.pilot.press("ctrl+n")
        await user.sees("Relevant memories are sent along.")
        await user.says(QUESTION)  # is not asked again
        await user.sees("Pears again.")
        await user.is_idle()
        assert "likes pears" in sent(engine)
        assert config.load().send_memories == {HOST: True}

        await user.says(f"/set send_memories.{HOST} false")
        await user.says("And what else?")
        await user.sees("No more.")
        await user.is_idle()
        assert "likes pears" not in sent(engine)  # of the turn before, neither
    (heading, *_) = chats.headings()
    async with at_the_terminal(engine, chats, URL, chats.load(heading.id), size=(100, 30)) as user:
        await user.sees(f"Used 2 memories, sent to {HOST}")


@pytest.mark.parametrize("key", ["refuse", "escape"])
async def test_memories_stay_here_when_that_is_refused(chats: Chats, key: str) -> None:
    engine = FakeEngine(["I do not know."], ["Nor now."])
    async with at_the_terminal(engine, chats, URL, size=(100, 30)) as user:
        await user.sees("goes to")
        await user.says(QUESTION)
        await answered(user, key)
        await user.sees("I do not know.")
        assert "pears" not in sent(engine)
        assert "Used 1 memory" not in user.screen
        assert config.load().send_memories == ({HOST: False} if key == "refuse" else {})
        await user.says("What else does my sister like?")
        if key == "escape":
            await answered(user, key)
        await user.sees("Nor now.")
        assert "pears" not in sent(engine)
        await user.says("/settings models.example")
        if key == "refuse":
            await user.sees(f"Memories to {HOST}  off")
            await user.pilot.press("f8")
            await user.until(lambda: f"Memories to {HOST}" not in user.screen, "asked again")
    assert config.load().send_memories == {}


async def test_what_a_model_on_this_device_was_given_does_not_go_to_a_server(
    chats: Chats, tmp_path: Path
) -> None:
    engine = FakeEngine(["Pears."], ["From far."])
    model = tmp_path / "Tiny-1B.gguf"
    model.touch()
    async with at_the_terminal(engine, chats, model, size=(100, 30)) as user:
        await user.says(QUESTION)
        await user.sees("Used 1 memory")
        await user.is_idle()
        assert "likes pears" in sent(engine)
        screen = user.pilot.app.screen
        assert isinstance(screen, ChatScreen)
        engine.load(Load(path=URL))
        screen.set(f"send_memories.{HOST}", "true", quiet=True)
        await user.pilot.press("shift+tab", "r")
        await user.sees("From far.")
        await user.is_idle()
        assert "likes pears" not in sent(engine)
        assert "Used 1 memory" not in user.screen


def test_nothing_else_is_asked_of_a_server(chats: Chats) -> None:
    engine = FakeEngine(["One."])
    engine.load(Load(path=URL))
    chat = chats.create()
    chats.say(chat, "I adopted a greyhound.", recall=300)
    list(reply(chats, engine, chat, Sampling()))
    before = len(engine.requests)
    assert chats.memory.unread() is not None
    assert not learn(chats, engine)
    restore_cache(chats, engine, chat)
    assert think_of_title(chats, engine, chat) is None
    assert len(engine.requests) == before


def test_a_request_to_a_server_has_no_memories_unless_it_is_said(chats: Chats) -> None:
    engine = FakeEngine(*[["One."]] * 3)
    engine.load(Load(path=URL))
    chat = chats.create()
    chats.say(chat, QUESTION, recall=300, server=HOST)
    list(reply(chats, engine, chat, Sampling()))
    assert "pears" not in sent(engine)
    chats.say(chat, QUESTION)
    list(reply(chats, engine, chat, Sampling(), memories_to=[HOST]))
    assert "pears" in sent(engine)
    chats.say(chat, QUESTION)
    list(reply(chats, engine, chat, Sampling(), memories_to=["other.example"]))
    assert "pears" not in sent(engine)
