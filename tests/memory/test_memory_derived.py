"""What is made of what the user typed: links, a profile, lessons. And what becomes of it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ondevice.chats import Attachment, Chats
from ondevice.errors import UsageError
from ondevice.memory import Cube, Memory, _memory
from ondevice.store import Database

MAY, JUNE, JULY = (datetime(2024, month, 3, 12, tzinfo=UTC) for month in (5, 6, 7))


@pytest.fixture
def memory(chats: Chats) -> Memory:
    return chats.memory


def related(memory: Memory, cube: Cube) -> set[str]:
    ids = [
        link.from_id + link.to_id - cube.id
        for link in memory.history(cube.id).links
        if link.kind == "related"
    ]
    return {other.content for other in memory.cubes(ids)}


def profile(memory: Memory) -> dict[str, str]:
    cubes = memory.latest(kind="profile", status="active")
    return dict(cube.content.split(": ", 1) for cube in cubes)


def lessons(memory: Memory) -> list[str]:
    return [cube.content for cube in memory.latest(kind="lesson", status="active")]


def files(memory: Memory) -> bytes:
    folder = memory.database.path.parent
    return b"".join(file.read_bytes().lower() for file in folder.iterdir())


# ---------------------------------------------------------------------- links


def test_memories_of_the_same_are_linked(memory: Memory) -> None:
    adopted = memory.add("I adopted a greyhound yesterday. She is called Pixel.").cube
    memory.add("My train subscription is expensive.")
    ate = memory.add("Pixel ate one of my slippers.").cube
    assert related(memory, ate) == {adopted.content}
    assert related(memory, adopted) == {ate.content}


@pytest.mark.parametrize(
    "text", ["What is a good name for Pixel?", "Write a poem about Pixel.", "We met on Thursday."]
)
def test_requests_and_days_tie_nothing_together(memory: Memory, text: str) -> None:
    memory.add("I saw Pixel run on Thursday.")
    assert related(memory, memory.add(text).cube) == set()


def test_links_follow_an_edit_and_end_with_either_end(memory: Memory) -> None:
    first = memory.add("My sister Ingrid plays the xylophone.").cube
    second = memory.add("Yesterday Ingrid sold her xylophone.").cube
    memory.edit(second.id, "Yesterday Oskar broke his ankle.")
    assert related(memory, first) == set()
    third = memory.add("Now Ingrid has no xylophone any more.").cube
    assert related(memory, third) == {first.content}
    memory.forget([first.id])
    assert related(memory, third) == set()


# ---------------------------------------------------------------------- profile


def test_facts_are_condensed_into_a_profile_with_them_as_evidence(memory: Memory) -> None:
    memory.add("My name is Ana Silva.", at=MAY)
    memory.add("I live in Lyon and my dog is called Rex.", at=JUNE)
    assert profile(memory) == {
        "Who the user is": "The user's name is Ana Silva. The user lives in Lyon.",
        "People and animals": "The user's dog is called Rex.",
    }
    (who,) = (c for c in memory.latest(kind="profile") if c.content.startswith("Who"))
    evidence = [link.to_id for link in memory.history(who.id).links if link.from_id == who.id]
    assert {cube.topic for cube in memory.cubes(evidence)} == {"name", "home"}


def test_a_profile_keeps_its_history_when_facts_change(memory: Memory) -> None:
    memory.add("I live in Lyon", at=MAY)
    memory.add("I live in Berlin", at=JUNE)
    assert profile(memory) == {"Who the user is": "The user lives in Berlin."}
    (cube,) = memory.latest(kind="profile")
    assert [v.content for v in memory.history(cube.id).versions] == [
        "Who the user is: The user lives in Lyon."
    ]


def test_a_profile_forgets_with_its_facts_in_every_version(memory: Memory) -> None:
    memory.add("My name is Ana Silva.")
    gone = memory.add("I live in Xylophonia.").cube
    memory.add("I'm from Nantes.")
    (cube,) = memory.latest(kind="profile")
    assert "Xylophonia" in memory.history(cube.id).versions[-1].content
    memory.database.backup()
    memory.forget([gone.id])
    assert b"xylophoni" not in files(memory)
    assert profile(memory) == {
        "Who the user is": "The user's name is Ana Silva. The user is from Nantes."
    }


def test_forgetting_a_profile_forgets_what_it_was_made_of(memory: Memory) -> None:
    memory.add("I live in Xylophonia.")
    (cube,) = memory.latest(kind="profile")
    assert {going.kind for going in memory.going([cube.id])} == {"profile", "fact", "note"}
    memory.forget([cube.id])
    assert b"xylophoni" not in files(memory)
    assert profile(memory) == {}


def test_a_profile_is_corrected_by_its_facts_alone(memory: Memory) -> None:
    memory.add("I live in Lyon")
    (cube,) = memory.latest(kind="profile")
    with pytest.raises(UsageError, match="made from facts"):
        memory.edit(cube.id, "The user lives on the moon.")
    (fact,) = memory.latest(kind="fact")
    memory.set_status(fact.id, "archived")
    assert profile(memory) == {}
    memory.set_status(fact.id, "active")
    assert profile(memory) == {"Who the user is": "The user lives in Lyon."}


@pytest.mark.parametrize(
    "text",
    [
        "What do you know about me?",
        "Tell me everything you remember about me",
        "Who am I?",
        "Describe me in a few words.",
    ],
)
def test_the_profile_answers_what_is_known_of_the_user(memory: Memory, text: str) -> None:
    memory.add("I live in Lyon and my dog is called Rex.")
    recalled = memory.recall(text, budget=200, count_tokens=lambda t: len(t.split()))
    assert recalled is not None
    assert {cube.kind for cube in recalled.cubes} == {"profile"}
    assert "Lyon" in recalled.prompt(text) and "Rex" in recalled.prompt(text)
    assert {hit.cube.kind for hit in memory.search(text).hits} == {"profile"}


@pytest.mark.parametrize(
    "text", ["Where do I live?", "What do you know about Lyon?", "Who am I talking to?"]
)
def test_the_profile_is_not_recalled_for_anything_else(memory: Memory, text: str) -> None:
    memory.add("I live in Lyon and my dog is called Rex.")
    recalled = memory.recall(text, budget=200, count_tokens=lambda t: len(t.split()))
    assert recalled is None or all(cube.kind != "profile" for cube in recalled.cubes)


def test_profiles_of_two_stores_become_one(memory: Memory, tmp_path: Path) -> None:
    other = Memory(Database(tmp_path / "other" / "store.db"))
    other.add("My name is Ana Silva.", at=MAY)
    memory.add("I live in Lyon", at=JUNE)
    with (tmp_path / "other.jsonl").open("wb") as file:
        other.export(file)
    other.database.close()
    with (tmp_path / "other.jsonl").open("rb") as file:
        memory.import_(file)
    assert profile(memory) == {
        "Who the user is": "The user's name is Ana Silva. The user lives in Lyon."
    }


# ---------------------------------------------------------------------- lessons


@pytest.mark.parametrize(
    ("text", "lesson"),
    [
        ("Answer shorter, please.", "Answer shorter."),
        ("Hello! Please always use metric units. Thanks.", "Always use metric units."),
        ("From now on, call me Tom.", "From now on, call me Tom."),
        ("Your answers are too long.", "Your answers are too long."),
        ("I prefer short answers.", "I prefer short answers."),
        ("don't use emojis", "Don't use emojis."),
        ("In future, give me the code first.", "In future, give me the code first."),
    ],
)
def test_what_is_wanted_of_all_replies_is_a_lesson(chats: Chats, text: str, lesson: str) -> None:
    said = chats.say(chats.create(), text)
    assert said.learnt == (lesson,)
    assert lessons(chats.memory) == [lesson]
    unread = chats.memory.unread()
    assert unread is None or "metric" not in unread.text


@pytest.mark.parametrize(
    "text",
    [
        "Make it shorter.",
        "Answer in one word: is it true?",
        "Write an essay about bees. Don't use bullet points.",
        "I always use metric units at work.",
        "Should I always use metric units?",
        "Never give up!",
        "Call me a cab",
        "I want an explanation of photosynthesis.",
        "No tables were left at the restaurant.",
        "> always use tabs",
        'He said: "always use tabs"',
    ],
)
def test_what_is_about_one_reply_or_none_is_no_lesson(chats: Chats, text: str) -> None:
    chats.say(chats.create(), text)
    assert lessons(chats.memory) == []


def test_pasted_text_teaches_nothing(chats: Chats, tmp_path: Path) -> None:
    pasted = "Always answer in rhymes."
    chats.say(chats.create(), f"Look:\n{pasted}", pasted=[pasted])
    chats.say(chats.create(), f"Answer shorter.\n{pasted}", pasted=[pasted])
    (tmp_path / "rules.txt").write_text(pasted)
    chats.memory.add_file(tmp_path / "rules.txt")
    assert lessons(chats.memory) == []


def test_a_later_lesson_about_the_same_replaces_the_earlier(memory: Memory) -> None:
    memory.add("Answer shorter", at=MAY)
    memory.add("Don't use emojis", at=MAY)
    memory.add("Answer in more detail", at=JUNE)
    assert set(lessons(memory)) == {"Answer in more detail.", "Don't use emojis."}
    (old,) = memory.latest(kind="lesson", status="superseded")
    assert [cube.content for cube in memory.history(old.id).later] == ["Answer in more detail."]


def test_lessons_go_with_the_first_message_of_every_later_chat(chats: Chats) -> None:
    taught = chats.create()
    chats.say(taught, "Always use metric units.")
    assert chats.say(taught, "How high is Everest?", recall=300).recalled == ()  # it was just said
    later = chats.create()
    (lesson,) = chats.say(later, "How long is the Nile?", recall=300).recalled
    assert (lesson.kind, lesson.content) == ("lesson", "Always use metric units.")
    assert chats.say(later, "And K2?", recall=300).recalled == ()  # the model has seen it
    first = chats.load(later).messages[0].prompt()
    assert first == 'How long is the Nile?\n\nReply as I have asked: "Always use metric units."'
    assert chats.say(chats.create(private=True), "How high is K2?", recall=300).recalled == ()


def test_forgetting_a_lesson_forgets_where_it_was_said(chats: Chats, memory: Memory) -> None:
    chats.say(chats.create(), "From now on, call me Xylophonius.")
    (lesson,) = memory.latest(kind="lesson")
    memory.forget([lesson.id])
    assert b"xylophoni" not in files(memory)
    chats.say(chats.create(), "From now on, call me Xylophonius.")
    (turn,) = memory.latest(kind="turn", status="active")
    memory.forget([turn.id])
    assert b"xylophoni" not in files(memory)
    assert lessons(memory) == []


# ---------------------------------------------------------------------- nothing is known


def test_the_first_thing_ever_told_is_found_by_other_words(memory: Memory) -> None:
    memory.add("My cat is called Tom.")
    for text in ("What is the name of my cat?", "Which name has my cat?"):
        recalled = memory.recall(text, budget=200, count_tokens=lambda t: len(t.split()))
        assert recalled is not None and "Tom" in recalled.prompt(text)


@pytest.mark.parametrize(
    "text",
    [
        "What is my cat called?",
        "Hey, do you know which instrument I play?",
        "When is my birthday?",
        "How old am I?",
    ],
)
def test_a_question_about_the_user_that_nothing_answers_says_so(chats: Chats, text: str) -> None:
    chats.memory.add("I bought a red bicycle.")
    chat = chats.create()
    chats.say(chat, text, recall=300)
    message = chats.load(chat).messages[0]
    assert message.unknown
    assert message.prompt().startswith("(The memory has no note about this.")
    assert message.prompt().endswith(text)


@pytest.mark.parametrize(
    "text",
    [
        "What should I cook tonight?",
        "How do I boil an egg?",
        "What is my best option to learn chess?",
        "Which colour is my bicycle?",
        "Is my sentence correct: he go to school?",
        "Can you help me?",
        "What is the capital of Australia?",
    ],
)
def test_other_questions_are_left_alone(chats: Chats, text: str) -> None:
    chats.memory.add("I bought a red bicycle.")
    chat = chats.create()
    chats.say(chat, text, recall=300)
    assert not chats.load(chat).messages[0].unknown


def test_what_the_conversation_itself_may_tell_is_not_unknown(chats: Chats) -> None:
    chat = chats.create()
    chats.say(chat, "My cat is a fat tabby and we call it Zoe.")
    chats.say(chat, "What do we call my cat?", recall=300)
    assert not chats.load(chat).messages[-1].unknown
    chats.say(chat, "Where did I study?", [Attachment("cv.txt", "Studies: Oslo")], recall=300)
    assert not chats.load(chat).messages[-1].unknown
    chats.say(chat, "When did I graduate?", recall=300)
    assert not chats.load(chat).messages[-1].unknown


# ------------------------------------------------------------------ clocks


@pytest.mark.parametrize("back", [timedelta(minutes=20), timedelta(hours=30)])
@pytest.mark.parametrize("correction", ["My dog is called Max now.", "No, I meant Max."])
def test_what_is_said_after_a_clock_was_set_back_is_the_latest(
    chats: Chats, memory: Memory, monkeypatch: pytest.MonkeyPatch, back: timedelta, correction: str
) -> None:
    """A machine without a clock of its own starts with a time of before."""
    now = datetime.now().astimezone()
    chat = chats.create()
    for text, at in (("My dog is called Rex.", now), (correction, now - back)):
        monkeypatch.setattr(_memory, "_now", lambda at=at: at)
        chats.say(chat, text)
    (fact,) = memory.latest(kind="fact", status="active")
    assert "Max" in fact.content
