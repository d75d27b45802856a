"""Two windows at one place of a chat: whatever they do at once, nothing that was said is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from ondevice.chats import Chat, Chats, reply
from ondevice.messages import Event, Load, Notice, Sampling
from ondevice.store import Database
from ondevice.testing import FakeEngine

Deed = Callable[[Chats, Chat, str], Iterator[Event]]


def _replies(chats: Chats, chat: int, who: str, after: int) -> Iterator[Event]:
    """At its first event it has read what it answers, and written nothing."""
    engine = FakeEngine([Notice(text=""), f"{who} one, ", f"{who} two, ", f"{who} three."])
    engine.load(Load(path=f"{who}.gguf"))
    return reply(chats, engine, chat, Sampling(), after=after)


def goes_on(chats: Chats, seen: Chat, who: str) -> Iterator[Event]:
    return _replies(chats, seen.id, who, seen.messages[-1].id)


def has_another(chats: Chats, seen: Chat, who: str) -> Iterator[Event]:
    return _replies(chats, seen.id, who, seen.messages[-2].id)


def edits(chats: Chats, seen: Chat, who: str) -> Iterator[Event]:
    said = chats.say(seen.id, f"{who} asks", instead_of=seen.messages[-2].id)
    return _replies(chats, seen.id, who, said.message_id)


def says_more(chats: Chats, seen: Chat, who: str) -> Iterator[Event]:
    said = chats.say(seen.id, f"{who} asks", after=seen.messages[-1].id)
    return _replies(chats, seen.id, who, said.message_id)


@pytest.fixture
def elsewhere(chats: Chats) -> Iterator[Chats]:
    database = Database(chats.database.path)
    yield Chats(database)
    database.close()


@pytest.fixture
def chat(chats: Chats) -> int:
    """A question, and a reply that was cut off."""
    id_ = chats.create()
    chats.say(id_, "Count.")
    events = _replies(chats, id_, "first", chats.load(id_).messages[-1].id)
    next(events)
    next(events)
    del events
    return id_


def whole_texts(chats: Chats, chat: int) -> list[str]:
    with chats.database.read() as connection:
        rows = connection.execute(
            "SELECT content FROM message WHERE conversation_id = ? ORDER BY id", (chat,)
        )
        return [text for (text,) in rows]


@pytest.mark.parametrize("theirs", [goes_on, has_another, edits, says_more])
@pytest.mark.parametrize("ours", [goes_on, has_another, edits, says_more])
@pytest.mark.parametrize("last", ["ours", "theirs"])
def test_what_two_windows_write_at_once_is_all_kept(
    chats: Chats, elsewhere: Chats, chat: int, ours: Deed, theirs: Deed, last: str
) -> None:
    seen = chats.load(chat)
    one, other = ours(chats, seen, "A"), theirs(elsewhere, seen, "B")
    for events in (one, other, one, other):  # then something of both is in the store
        next(events)
    for events in (other, one) if last == "ours" else (one, other):
        list(events)
    texts = whole_texts(chats, chat)
    for who in ("A", "B"):
        written = f"{who} one, {who} two, {who} three."
        assert [text for text in texts if text.endswith(written)], texts
    assert not any("A" in text and "B" in text for text in texts), texts
    if ours is theirs is goes_on:
        assert len(chats.load(chat).messages[-1].versions) == 2


def test_a_reply_continued_elsewhere_while_it_is_written_becomes_two(
    chats: Chats, elsewhere: Chats
) -> None:
    chat = chats.create()
    chats.say(chat, "Count.")
    begun: list[int] = []
    engine = FakeEngine(["one, ", "two, ", "three."])
    engine.load(Load(path="any.gguf"))
    ours = reply(chats, engine, chat, Sampling(), on_begun=begun.append)
    next(ours)
    list(goes_on(elsewhere, chats.load(chat), "B"))
    list(ours)
    assert whole_texts(chats, chat) == [
        "Count.",
        "one, B one, B two, B three.",
        "one, two, three.",
    ]
    assert begun == list(chats.load(chat).messages[-1].versions)


def test_a_reply_that_adds_nothing_makes_no_version(chats: Chats, elsewhere: Chats) -> None:
    chat = chats.create()
    chats.say(chat, "Count.")
    engine = FakeEngine(["one, "])
    engine.load(Load(path="any.gguf"))
    ours = reply(chats, engine, chat, Sampling())
    next(ours)
    list(goes_on(elsewhere, chats.load(chat), "B"))
    list(ours)
    assert whole_texts(chats, chat) == ["Count.", "one, B one, B two, B three."]


@pytest.mark.parametrize("forgets", ["before", "after"])
def test_what_was_forgotten_comes_back_in_no_version(
    chats: Chats, elsewhere: Chats, forgets: str
) -> None:
    text = "My therapist is Dr. Quagmire"
    chat = chats.create()
    chats.say(chat, text)
    engine = FakeEngine([f"You said: {text}. ", "And ", "more."])
    engine.load(Load(path="any.gguf"))
    ours = reply(chats, engine, chat, Sampling())
    next(ours)
    theirs = goes_on(elsewhere, chats.load(chat), "B")
    next(theirs)
    if forgets == "before":
        chats.memory.forget([cube.id for cube in chats.memory.latest()])
    list(theirs)
    if forgets == "after":
        chats.memory.forget([cube.id for cube in chats.memory.latest()])
    list(ours)
    texts = whole_texts(chats, chat)
    assert texts[-1] == "You said: [forgotten]. And more."
    assert "You said: [forgotten]. B one, B two, B three." in texts
    assert not any("Quagmire" in text for text in texts)


def test_a_message_follows_what_its_window_shows(chats: Chats, elsewhere: Chats, chat: int) -> None:
    """Not a version that another window has come to since: the model would answer something else.

    What was said after what it shows is no other version.
    """
    seen = chats.load(chat).messages[-1].id
    list(has_another(elsewhere, chats.load(chat), "B"))
    chats.say(chat, "And now?", after=seen)
    assert [m.id for m in chats.load(chat).messages][-2] == seen
    list(says_more(elsewhere, chats.load(chat), "B"))
    chats.say(chat, "Well?", after=seen)
    assert [m.content for m in chats.load(chat).messages][2:] == [
        "And now?",
        "B asks",
        "B one, B two, B three.",
        "Well?",
    ]
