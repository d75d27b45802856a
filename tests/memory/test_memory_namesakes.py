"""Whoever has a first name in common is not taken for the other."""

from __future__ import annotations

import pytest

from ondevice.memory import Memory, Recalled


def recall(memory: Memory, question: str) -> Recalled | None:
    return memory.recall(question, budget=1000, count_tokens=len)


@pytest.mark.parametrize(
    ("note", "of_another", "of_them"),
    [
        (
            "Sam Reyes has three kids and a dog.",
            "How many kids does Sam Okafor have?",
            "How many kids does Sam Reyes have?",
        ),
        (
            "My neighbour Lena Vogt plays the cello.",
            "Does Lena Brandt play the cello?",
            "What does Lena Vogt play?",
        ),
        (
            "I went to New Jersey in May.",
            "When did I go to New York?",
            "When did I go to New Jersey?",
        ),
        (
            "Aunt Rosa drives a Fiat.",
            "What does Aunt Mary drive?",
            "What does Aunt Rosa drive?",
        ),
        (
            "Сын Анны Ивановой учится в Казани.",
            "Где учится сын Анны Петровой?",
            "Где учится сын Анны Ивановой?",
        ),
        (
            "Marco Rossi vive a Torino.",
            "Dove vive Marco Bianchi?",
            "Dove vive Marco Rossi?",
        ),
        (
            "Lucía Fernández tiene alergia a las nueces.",
            "¿A qué tiene alergia Lucía Gómez?",
            "¿A qué tiene alergia Lucía Fernández?",
        ),
    ],
)
def test_a_namesake_does_not_answer(
    memory: Memory, note: str, of_another: str, of_them: str
) -> None:
    memory.add(note)
    said = recall(memory, of_another)
    assert said is not None
    assert said.unknown
    assert not said.cubes
    said = recall(memory, of_them)
    assert said is not None
    assert note in {cube.content for cube in said.cubes}


@pytest.mark.parametrize(
    "question",
    [
        "How many kids does Sam have?",
        "How many kids does Sam Reyes have?",
        "How many kids does Sam Reyez have?",
        "How many kids does Sam Peter Reyes have?",
        "Does Sam Reyes have kids? And Sam Okafor?",
    ],
)
def test_whoever_may_be_meant_is_quoted(memory: Memory, question: str) -> None:
    memory.add("Sam Reyes has three kids and a dog.")
    said = recall(memory, question)
    assert said is not None
    assert said.cubes


def test_a_first_name_alone_may_be_of_anybody(memory: Memory) -> None:
    memory.add("Tom moved out in June.")
    said = recall(memory, "When did Tom Hardy move out?")
    assert said is not None
    assert said.cubes
