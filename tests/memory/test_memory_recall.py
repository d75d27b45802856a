"""Memories come into a reply when they help, within the budget, as quotations and nothing else."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hostile_memories import HOSTILE
from source_tree import ROOT

from ondevice import llama
from ondevice.chats import Chats
from ondevice.llama import ChatTemplate, Model
from ondevice.memory import Memory, Recalled, with_memories
from ondevice.memory._recall import line
from ondevice.messages import Turn
from ondevice.store import Database

MONTH = json.loads(ROOT.joinpath("bench", "month.json").read_text("utf-8"))


def recall(memory: Memory, text: str, budget: int = 500) -> Recalled | None:
    return memory.recall(text, budget=budget, count_tokens=lambda text: len(text.split()))


def test_what_helps_is_quoted_with_its_date_oldest_first(memory: Memory) -> None:
    memory.add("My zebra is called Zoe", at=datetime(2024, 5, 3, tzinfo=UTC))
    memory.add("My zebra eats hay", at=datetime(2024, 4, 1, tzinfo=UTC))
    recalled = recall(memory, "What about my zebra?")
    assert recalled is not None
    introduction, *lines, use, empty, question = recalled.prompt(
        "What about my zebra?"
    ).splitlines()
    assert "not instructions" in introduction
    assert use.startswith("Use the notes only if they help")
    assert (empty, question) == ("", "What about my zebra?")
    assert lines == [
        "1 April 2024:",
        '- note: "My zebra eats hay"',
        "3 May 2024:",
        '- note: "My zebra is called Zoe"',
    ]
    assert [line(cube) for cube in recalled.cubes] == lines[1::2]


def test_words_for_days_are_worked_out_once_from_the_day_they_were_said(memory: Memory) -> None:
    said = datetime(2024, 1, 3, tzinfo=UTC)  # a Wednesday
    memory.add("Yesterday my zebra was born, today it ran", at=said)
    memory.add("We bought the zebra stable yesterday; the vet comes tomorrow", at=said)
    memory.add("The zebra food came last week", at=said)
    recalled = recall(memory, "What about my zebra?")
    assert recalled is not None
    _, day, *lines, _ = recalled.prompt("").splitlines()
    assert day == (
        "3 January 2024 (“yesterday” is 2 January, “tomorrow” is 4 January, "
        "“last week” is 25 December 2023 to 31 December 2023):"
    )
    assert lines == [line(cube) for cube in recalled.cubes]


def test_nothing_is_quoted_when_nothing_helps(memory: Memory) -> None:
    memory.add("My zebra is called Zoe")
    assert recall(memory, "Write a haiku about the sea") is None
    assert recall(memory, "") is None


def test_the_budget_is_kept_and_the_best_come_first(memory: Memory) -> None:
    memory.add("The zebra stable key hangs in the kitchen")
    for number in range(20):
        memory.add(f"Zebra number {number} was brushed and fed and taken out today")
    question = "Where does the zebra stable key hang?"
    everything = recall(memory, question, budget=10_000)
    assert everything is not None

    def tokens(recalled: Recalled) -> int:
        return len(recalled.prompt(question).split()) - len(question.split())

    for budget in range(0, tokens(everything) + 10, 7):
        recalled = recall(memory, question, budget=budget)
        if recalled is not None:
            assert tokens(recalled) <= budget
            assert "kitchen" in recalled.prompt(question)


@pytest.mark.parametrize(
    ("filler", "fact", "question"),
    [
        ("The train was late and the coffee was cold. ", "My dentist is Dr. Amato.", "dentist"),
        ("der zug war spät und der kaffee kalt ", "mein zahnarzt heißt amato", "Zahnarzt"),
        ("火车晚点了，咖啡也凉了。", "我的牙医叫陈明。", "牙医"),
    ],
)
def test_a_long_memory_is_quoted_where_it_tells_what_is_asked(
    memory: Memory, filler: str, fact: str, question: str
) -> None:
    memory.add(f"{filler * 60}{fact} {filler * 60}")
    text = f"{question}?"
    recalled = recall(memory, text, budget=300)
    assert recalled is not None
    prompt = recalled.prompt(text)
    assert fact in prompt
    assert prompt == recalled.prompt(text)
    assert len(prompt) < 1400
    assert recall(memory, text, budget=300) == recalled


def test_a_profile_is_quoted_as_a_whole(memory: Memory) -> None:
    things = "colour film book song band food dish drink sport game city country animal season"
    for number, thing in enumerate(things.split()):
        memory.add(f"My favourite {thing} is Extra{'ordinary' * 5}{number}.")
    recalled = recall(memory, "What do you know about me?", budget=2000)
    assert recalled is not None
    (profile,) = recalled.cubes
    assert len(profile.content) > 900
    assert profile.content in recalled.prompt("What do you know about me?")


def test_what_the_model_has_seen_takes_no_room(tmp_path: Path) -> None:
    chats = Chats(Database(tmp_path / "store.db"))
    for number in range(12):
        chats.memory.add(f"The zebra in stable {number} eats hay")
    chat = chats.create()
    told: list[int] = []
    for question in ("What do my zebras eat?", "What else do zebras eat in a stable?"):
        recalled = chats.say(chat, question, recall=150).recalled
        assert len(recalled) >= 2
        told += [cube.id for cube in recalled]
    assert len(told) == len(set(told))
    first, second = chats.load(chat).messages
    assert (first.recalled, second.recalled) != ((), ())
    # The very text that was measured is the one that a model gets.
    for message in (first, second):
        of_memory = message.prompt().removesuffix(f"\n\n{message.content}")
        assert of_memory == with_memories("", message.recalled)
        assert len(of_memory.encode()) // 3 + 1 <= 150
    everything = [cube.id for cube in chats.memory.latest(limit=-1)]
    assert recall(chats.memory, "What do my zebras eat?") is not None
    assert (
        chats.memory.recall("What do my zebras eat?", budget=500, count_tokens=len, seen=everything)
        is None
    )
    chats.database.close()


def test_the_conversation_itself_is_not_recalled(memory: Memory) -> None:
    with memory.database.write() as connection:
        for number, text in ((1, "My zebra is called Zoe"), (2, "What is my zebra called?")):
            connection.execute(
                "INSERT INTO conversation(id, system, created_at, updated_at) "
                "VALUES (?, '', '', '')",
                (number,),
            )
            connection.execute(
                "INSERT INTO message(id, conversation_id, position, role, content, created_at) "
                "VALUES (?1, ?1, 0, 'user', ?2, '')",
                (number, text),
            )
            memory.remember_turn(connection, conversation_id=number, message_id=number, text=text)
    recalled = memory.recall(
        "What is my zebra called?", budget=500, count_tokens=len, conversation_id=2
    )
    assert recalled is not None
    assert [cube.content for cube in recalled.cubes] == ["My zebra is called Zoe"]
    assert memory.recall("zebra?", budget=500, count_tokens=len, conversation_id=1) is not None


def test_an_outdated_fact_is_marked(memory: Memory) -> None:
    memory.add("I live in Lyon", at=datetime(2024, 5, 3, tzinfo=UTC))
    memory.add("I live in Berlin", at=datetime(2024, 6, 3, tzinfo=UTC))
    recalled = recall(memory, "Where do I live?")
    assert recalled is not None
    prompt = recalled.prompt("Where do I live?")
    assert re.search(r'- note, outdated: .*Lyon"\n- fact, no longer so: .*Lyon', prompt)
    assert re.search(r'- note: .*Berlin"\n- fact: .*Berlin', prompt)


def test_forty_hostile_memories_stay_one_quoted_line_each(memory: Memory, tmp_path: Path) -> None:
    assert len(HOSTILE) == 40
    for number, text in enumerate(HOSTILE):
        if number % 2:
            memory.add(text)
        else:
            (tmp_path / f"{number}.txt").write_bytes(text.replace("\0", "").encode())
            memory.add_file(tmp_path / f"{number}.txt")
    cubes = memory.latest(limit=-1)
    assert len(cubes) == 40
    for cube in cubes:
        quotation = line(cube)
        assert quotation.isprintable(), quotation
        assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\U000e0000-\U000e007f]", quotation)
        head = re.match(r'- (?:note|file "[^"]*"): ', quotation)
        assert head is not None
        # One string, to the end of the line.
        assert isinstance(json.loads(quotation[head.end() :]), str)


def control_tokens(template: ChatTemplate, model: Model, text: str) -> int:
    rendered = template.render([Turn("user", text)])
    return sum(model.is_control(token) for token in template.tokenize(rendered))


@pytest.mark.parametrize("file", [None, "gemma-3-270m-q4_k_m.gguf"])
def test_no_control_token_comes_from_a_memory(
    memory: Memory,
    tmp_path: Path,
    default_model: Path,
    big_model: Callable[[str], Path],
    file: str | None,
) -> None:
    llama.start(io.StringIO())
    model = Model(big_model(file) if file else default_model)
    template = ChatTemplate(model)
    ordinary = control_tokens(template, model, "What about the zebra?")
    document = tmp_path / "zebra.txt"
    for text in HOSTILE:
        document.write_bytes(text.replace("\0", "").encode())
        for cube in (memory.add(text).cube, *memory.add_file(document)):
            recalled = recall(memory, "What about the zebra?")
            assert recalled is not None
            assert control_tokens(template, model, recalled.prompt("zebra?")) == ordinary, text
            memory.set_status(cube.id, "archived")
    model.close()


def test_the_gate_opens_for_what_was_told_and_stays_shut_for_the_rest(memory: Memory) -> None:
    for day, text in MONTH["turns"]:
        memory.add(text, at=datetime.fromisoformat(day).replace(tzinfo=UTC))
    told = [question for question in MONTH["questions"] if question["answer"]]
    helped = 0
    for question in told:
        recalled = recall(memory, question["ask"])
        prompt = recalled.prompt("") if recalled else ""
        helped += bool(re.search(question["answer"], prompt))
    assert helped >= 0.9 * len(told)
    assert sum(recall(memory, text) is not None for text in MONTH["other"]) <= 1
