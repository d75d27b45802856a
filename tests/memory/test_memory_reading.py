"""A model may point at facts in what the user typed; it invents nothing and reads nothing else."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice import llama
from ondevice.chats import Chats, can_learn, learn
from ondevice.llama import Grammar, Model, Sampler
from ondevice.memory import Cube, Memory, read_grammar
from ondevice.memory._reading import read_answer
from ondevice.messages import Generate, Load, Sampling
from ondevice.testing import FakeEngine

WEDDING = "My sister Ingrid is getting married on September 14th, and I'm so excited."


@pytest.fixture
def memory(chats: Chats) -> Memory:
    return chats.memory


def read(memory: Memory, answer: str) -> list[Cube]:
    """A model has given this answer about the latest that is unread."""
    text = memory.unread()
    assert text is not None
    return memory.store_reading(text, answer)


def test_a_fact_is_linked_to_the_turn_that_says_it_and_found_by_other_words(
    chats: Chats, memory: Memory
) -> None:
    said = chats.say(chats.create(), WEDDING)
    (fact,) = read(memory, "event | sister Ingrid | getting married on September 14th")
    assert fact.content.startswith("About sister Ingrid: getting married on September 14th")
    (link,) = (link for link in memory.history(fact.id).links if link.from_id == fact.id)
    (turn,) = memory.cubes([link.to_id])
    assert (link.kind, turn.message_id) == ("evidence", said.message_id)
    assert memory.search("What happened to Ingrid?", kinds=["fact"]).hits
    assert memory.unread() is None


@pytest.mark.parametrize(
    "answer",
    [
        "none",
        "",
        "event | sister Ingrid | moved to Paris",  # not in the text
        "secret | sister Ingrid | September 14th",  # no such kind
        "event | sister Ingrid",  # cut short
        "event | Ingrid | Ingrid",
        "date | Ingrid | getting married",  # that is none
    ],
)
def test_what_points_at_nothing_is_no_fact(memory: Memory, answer: str) -> None:
    memory.add(WEDDING)
    assert read(memory, answer) == []
    assert memory.unread() is None


def test_a_reply_is_given_the_turn_that_a_fact_was_read_from(memory: Memory) -> None:
    memory.add("I adopted a greyhound yesterday.", at=datetime(2024, 6, 4, tzinfo=UTC))
    nothing = memory.recall("Which pet do I have?", budget=200, count_tokens=len)
    assert nothing is not None and nothing.unknown
    proposed = read(memory, "pet | me | adopted a greyhound")
    unchanged = memory.recall("Which pet do I have?", budget=400, count_tokens=len)
    assert unchanged is not None and unchanged.unknown
    memory.accept([fact.id for fact in proposed])
    recalled = memory.recall("Which pet do I have?", budget=400, count_tokens=len)
    assert recalled is not None
    assert [cube.content for cube in recalled.cubes] == ["I adopted a greyhound yesterday."]


def test_what_the_rules_have_understood_is_not_read_again(memory: Memory) -> None:
    memory.add("I live in Lyon now. We have a cat.")
    text = memory.unread()
    assert text is not None and text.text == "We have a cat."


def test_of_some_kinds_a_new_fact_supersedes_the_old_one(memory: Memory) -> None:
    for month, day in ((5, "14th"), (6, "21st")):
        memory.add(f"The wedding is on the {day}.", at=datetime(2024, month, 1, tzinfo=UTC))
        (fact,) = memory.accept([read(memory, f"date | wedding | {day}")[0].id])
    (old,) = memory.history(fact.id).earlier
    assert ("14th" in old.content, old.status) == (True, "superseded")
    for dish in ("sushi", "pizza"):
        memory.add(f"I cannot resist {dish}.")
        memory.accept([read(memory, f"likes | me | resist {dish}")[0].id])
    liked = [c for c in memory.latest(kind="fact", status="active") if "resist" in c.content]
    assert len(liked) == 2


def test_only_what_the_user_states_is_read(chats: Chats, memory: Memory, tmp_path: Path) -> None:
    chat = chats.create()
    file = tmp_path / "letter.txt"
    file.write_text("I keep bees.")
    memory.add_file(file)
    for text in ("Where do bees live?", "> I keep bees", "```\nI keep bees\n```", '"I keep bees."'):
        chats.say(chat, text)
    chats.say(chat, "Look:\nI keep bees.", pasted=["I keep bees."])
    chats.say(chats.create(private=True), "I keep wasps.")
    chats.say(chat, "My PIN is 4711.\nI keep ants! Do you?")
    texts = []
    while (unread := memory.unread()) is not None:
        texts.append(unread.text)
        memory.store_reading(unread, "none")
    assert texts == ["My PIN is [password left out]\nI keep ants!"]


def test_an_edit_is_read_anew_and_a_late_answer_is_dropped(memory: Memory) -> None:
    note = memory.add("I am learning the cello.").cube
    late = memory.unread()
    assert late is not None
    memory.edit(note.id, "I am learning the viola.")
    assert memory.store_reading(late, "skill | me | learning the cello") == []
    (fact,) = read(memory, "skill | me | learning the viola")
    memory.edit(note.id, "I am learning nothing.")
    assert memory.history(fact.id).cube.status == "deleted"


def test_forgetting_takes_what_is_unread_and_what_was_read(memory: Memory) -> None:
    note = memory.add("I am learning the Xylorimba.").cube
    late = memory.unread()
    assert late is not None
    memory.forget([note.id])
    assert memory.unread() is None
    assert memory.store_reading(late, "skill | me | learning the Xylorimba") == []
    again = memory.add("I am learning the Xylorimba!").cube
    read(memory, "skill | me | learning the Xylorimba")
    memory.forget([again.id])
    files = [file.read_bytes().lower() for file in memory.database.path.parent.iterdir()]
    assert not any(b"xylorimba" in content for content in files)


@given(st.text(max_size=80), st.text(max_size=80))
def test_no_answer_makes_a_fact_of_words_that_are_not_in_the_text(text: str, answer: str) -> None:
    for reply in (answer, f"event | {answer} | {answer}", f"event | me | {text}"):
        for fact in read_answer(reply, text):
            assert fact.topic.split(": ", 1)[1] in text.lower()


@pytest.mark.parametrize(
    "text", [WEDDING, 'Say "no\\yes" | 5 € — für Æsop…', "?!", "日本に住んでいます。"]
)
def test_the_grammar_lets_a_model_only_point(default_model: Path, text: str) -> None:
    llama.start(io.StringIO())
    model = Model(default_model)
    random = np.random.default_rng(0)
    for seed in range(2):
        sampler = Sampler(model, Sampling(temperature=1), seed, Grammar(model, read_grammar(text)))
        answer = b""
        for _ in range(30):  # whatever the model would like to say
            token = sampler.sample_from(random.normal(0, 3, model.n_vocab).astype(np.float32))
            if model.is_end(token):
                break
            answer += model.piece(token)
        else:
            answer = answer[: answer.rfind(b"\n") + 1]  # the last line was cut short
        sampler.close()
        for line in answer.decode().splitlines() if answer != b"none" else ():
            _, subject, quote = line.split(" | ", 2)
            assert subject == "me" or subject in text
            assert quote in text
    model.close()


def test_a_model_reads_what_is_unread_until_nothing_is(
    chats: Chats, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = FakeEngine(asides=(["pet | me | adopted", " a greyhound"], ["none"]))
    loaded = engine.load(Load(path="model.gguf"))
    assert not can_learn(loaded)  # too small
    monkeypatch.setattr("ondevice.chats._fact_reading._LEAST_PARAMETERS", 1)
    assert can_learn(loaded)
    for text in ("Nice weather today.", "I adopted a greyhound."):
        chats.memory.add(text)
    assert [learn(chats, engine) for _ in range(3)] == [True, True, False]
    (fact,) = chats.memory.latest(kind="fact")
    assert fact.topic == "pet of user: adopted a greyhound"
    asked = [request for request in engine.requests if isinstance(request, Generate)]
    assert [request.turns[-1].content for request in asked] == [
        "I adopted a greyhound.",
        "Nice weather today.",
    ]
