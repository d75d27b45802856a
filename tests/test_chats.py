"""Conversations in the store: nothing that was said is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ondevice.chats import Chats, reply
from ondevice.engine._fake import FakeEngine
from ondevice.engine.messages import Chunk, Event, Finished, Load, Sampling, Turn
from ondevice.errors import EngineDied, StoreError
from ondevice.store import Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "store.db")
    yield database
    database.close()


@pytest.fixture
def chats(database: Database) -> Chats:
    return Chats(database)


def ask(chats: Chats, engine: FakeEngine, chat: int, text: str) -> list[Event]:
    chats.say(chat, text)
    return list(reply(chats, engine, chat, Sampling()))


def engine_that_says(*script: str | Chunk | Exception) -> FakeEngine:
    engine = FakeEngine(script)
    engine.load(Load(path="fake.gguf"))
    return engine


def test_an_exchange_is_kept_whole(chats: Chats, tmp_path: Path) -> None:
    engine = engine_that_says(Chunk(text="A greeting.", part="thinking"), "Hello ", "there.")
    chat = chats.create("Be kind.")
    events = ask(chats, engine, chat, "Hi!")
    again = Database(tmp_path / "store.db")
    conversation = Chats(again).load(chat)
    again.close()
    assert conversation.title == "Hi!"
    user, assistant = conversation.messages
    assert (user.role, user.content) == ("user", "Hi!")
    assert (assistant.role, assistant.content) == ("assistant", "Hello there.")
    assert assistant.thinking == "A greeting."
    assert assistant.model == "fake"
    assert assistant.finish_reason == "stop"
    assert isinstance(events[-1], Finished)
    assert assistant.statistics == events[-1].statistics


def test_the_model_sees_the_conversation_so_far_without_its_thinking(chats: Chats) -> None:
    engine = engine_that_says(Chunk(text="Hm.", part="thinking"), "Hello.")
    chat = chats.create("Be kind.")
    for text in ("Hi!", "Again?"):
        ask(chats, engine, chat, text)
    assert engine.requests[-1].turns == (  # type: ignore[union-attr]
        Turn("system", "Be kind."),
        Turn("user", "Hi!"),
        Turn("assistant", "Hello."),
        Turn("user", "Again?"),
    )


def test_the_users_words_are_on_disk_at_once(chats: Chats, tmp_path: Path) -> None:
    chat = chats.create()
    chats.say(chat, "Are you there?")
    other = Database(tmp_path / "store.db")
    (message,) = Chats(other).load(chat).messages
    other.close()
    assert message.content == "Are you there?"


def test_what_came_before_the_engine_died_is_kept_as_interrupted(chats: Chats) -> None:
    chat = chats.create()
    engine = engine_that_says("One, ", "two, ", EngineDied("It died."))
    with pytest.raises(EngineDied):
        ask(chats, engine, chat, "Count.")
    reply = chats.load(chat).messages[-1]
    assert reply.content == "One, two, "
    assert reply.finish_reason is None
    assert chats.load(chat).turns()[-1] == Turn("assistant", "One, two, ")


def test_a_question_that_met_no_reply_joins_the_next_one(chats: Chats) -> None:
    chat = chats.create()
    with pytest.raises(EngineDied):
        ask(chats, engine_that_says(EngineDied("x")), chat, "Hello?")
    engine = engine_that_says("Yes.")
    ask(chats, engine, chat, "Anyone?")
    assert engine.requests[-1].turns == (Turn("user", "Hello?\n\nAnyone?"),)  # type: ignore[union-attr]


APP = """
import sys
from pathlib import Path
from ondevice.chats import Chats, reply
from ondevice.engine._fake import FakeEngine, Gate
from ondevice.engine.messages import Load, Sampling
from ondevice.store import Database

chats = Chats(Database(Path(sys.argv[1])))
engine = FakeEngine(["One, ", "two, ", Gate()])
engine.load(Load(path="fake.gguf"))
chat = chats.create()
chats.say(chat, "Count.")
for event in reply(chats, engine, chat, Sampling()):
    print(event, flush=True)
"""


def test_killed_in_mid_reply_the_app_loses_at_most_half_a_second(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    app = subprocess.Popen([sys.executable, "-c", APP, str(path)], stdout=subprocess.PIPE)
    assert app.stdout is not None
    app.stdout.readline()
    app.stdout.readline()
    app.kill()
    app.communicate()
    database = Database(path)
    chats = Chats(database)
    (heading,) = chats.headings()
    user, reply = chats.load(heading.id).messages
    database.close()
    assert user.content == "Count."
    assert reply.content.startswith("One, ")
    assert reply.finish_reason is None


def test_the_list_has_the_latest_conversation_first(chats: Chats) -> None:
    first, second = chats.create(), chats.create()
    chats.say(second, "A question\nof two lines, " + "long " * 30)
    chats.say(first, "The latest")
    headings = chats.headings()
    assert [heading.id for heading in headings] == [first, second]
    assert headings[0].title == "The latest"
    assert headings[1].title.startswith("A question of two lines, long")
    assert len(headings[1].title) <= 60
    assert headings[0].messages == 1


def test_a_deleted_conversation_is_gone(chats: Chats) -> None:
    chat = chats.create()
    chats.say(chat, "Forget this")
    chats.delete(chat)
    assert chats.headings() == []
    with pytest.raises(StoreError, match="no longer in the store"):
        chats.load(chat)
    with pytest.raises(StoreError, match="deleted"):
        chats.say(chat, "More")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no file modes")
def test_the_store_is_private(database: Database) -> None:
    assert database.path.stat().st_mode & 0o777 == 0o600
