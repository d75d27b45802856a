"""Two windows at one place of a chat: whatever they do at once, nothing that was said is lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ondevice.chats import Chat, Chats, reply
from ondevice.messages import Event, Load, Notice, Sampling
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


SAID = "My therapist's name is Dr. Quagmire, and I see her on Tuesdays"


@pytest.fixture(params=["written at once", "written when it ends"])
def pace(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = 0.0 if request.param == "written at once" else 1e9
    monkeypatch.setattr("ondevice.chats._draft._WRITE_EVERY", seconds)


def recalled_elsewhere(chats: Chats) -> int:
    """A chat that is given what was said in another one."""
    other = chats.create()
    chats.say(other, SAID)
    chat = chats.create()
    chats.say(chat, "What is my therapist's name, and when do I see her?", recall=300)
    assert chats.load(chat).messages[-1].recalled
    return chat


def said_here(chats: Chats) -> int:
    chat = chats.create()
    chats.say(chat, SAID)
    return chat


def files_hold(chats: Chats, text: str) -> bool:
    folder = Path(chats.database.path).parent
    return any(text.encode() in f.read_bytes() for f in folder.rglob("*") if f.is_file())


@pytest.mark.usefixtures("pace")
@pytest.mark.parametrize("given", [recalled_elsewhere, said_here])
def test_a_quotation_that_is_being_written_is_forgotten_whole(
    chats: Chats, elsewhere: Chats, given: Callable[[Chats], int]
) -> None:
    quoted = SAID.replace("'", "’").replace("Dr. ", "Dr.\n> ")
    for cut in range(1, len(quoted)):
        chat = given(chats)
        engine = FakeEngine(["You said: ", quoted[:cut], quoted[cut:], ". And ", "more."])
        engine.load(Load(path="any.gguf"))
        events = reply(chats, engine, chat, Sampling())
        next(events)
        next(events)
        elsewhere.memory.forget([cube.id for cube in elsewhere.memory.latest()])
        for _ in events:
            text = whole_texts(chats, chat)[-1]
            assert text in ("You said: [forgotten]. And more."[: len(text)], "You said: ") or (
                text == f"You said: {quoted[:cut]}"  # nothing was written since it was forgotten
            )
        assert whole_texts(chats, chat)[-1] == "You said: [forgotten]. And more.", cut
    assert not files_hold(chats, "Quagmire")
    assert not files_hold(chats, "therapist’s")


@pytest.mark.usefixtures("pace")
def test_the_beginning_of_a_quotation_goes_where_the_reply_ends_within_it(
    chats: Chats, elsewhere: Chats
) -> None:
    for cut in range(10, len(SAID)):
        chat = said_here(chats)
        engine = FakeEngine(["You said: ", SAID[:cut], "never said"])
        engine.load(Load(path="any.gguf"))
        events = reply(chats, engine, chat, Sampling())
        next(events)
        next(events)
        elsewhere.memory.forget([cube.id for cube in elsewhere.memory.latest()])
        del events
        assert whole_texts(chats, chat)[-1] == "You said: [forgotten]", cut
    assert not files_hold(chats, "Quag")


def test_what_only_begins_like_something_forgotten_is_kept(chats: Chats, elsewhere: Chats) -> None:
    chat = said_here(chats)
    engine = FakeEngine(["One. ", "My ", "therapist", " can help.", " My", " pleasure"])
    engine.load(Load(path="any.gguf"))
    events = reply(chats, engine, chat, Sampling())
    next(events)
    elsewhere.memory.forget([cube.id for cube in elsewhere.memory.latest()])
    list(events)
    assert whole_texts(chats, chat)[-1] == "One. My therapist can help. My pleasure"


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
