"""What gives an earlier memory another value without naming it is quoted along with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ondevice.chats import Chats
from ondevice.memory import Memory, Recalled
from ondevice.memory._revisions import revision_in

START = datetime(2024, 3, 4, 12, tzinfo=UTC)


def tell(memory: Memory, *texts: str) -> None:
    """Each in a chat of its own."""
    chats = Chats(memory.database)
    for text in texts:
        chats.say(chats.create(), text)


def recall(memory: Memory, text: str) -> Recalled:
    recalled = memory.recall(
        text,
        budget=300,
        count_tokens=lambda text: len(text.split()),
        at=START + timedelta(days=60),
    )
    assert recalled is not None
    return recalled


def quoted(memory: Memory, text: str) -> list[str]:
    return [cube.content for cube in recall(memory, text).cubes]


@pytest.mark.parametrize(
    ("told", "revised", "asked"),
    [
        ("The recital is on 9 August.", "oops, should've said 16 August", "When is the recital?"),
        ("We paid £340 for the tent.", "scrap that, it came to £390", "What did our tent cost?"),
        ("My niece is called Maisie.", "wait no, Daisy, I misread it", "What is my niece called?"),
        ("My weight is 92 kilos.", "down to 88!", "What is my weight?"),
        ("Der Umzug ist am 14. Mai.", "Quatsch, am 15. Mai", "Wann ist der Umzug?"),
        ("Le bal est le 5 mai.", "oups, je me suis trompée, c'est le 12", "C'est quand le bal ?"),
        ("La boda es el 20 de mayo.", "perdona, me equivoqué, el 27", "¿Cuándo es la boda?"),
        ("Il dentista mi costa 180 euro.", "ho sbagliato, 210", "Quanto mi costa il dentista?"),
        ("Düğün 12 Mayıs'ta.", "pardon, yanlış yazdım, 19 Mayıs'ta", "Düğün ne zaman?"),
        ("свадьба у брата 3 мая", "ой, ошиблась, 10 мая", "Когда свадьба у брата?"),
        ("歯医者の予約は7月3日です。", "あ、間違えた、7月5日だった", "歯医者の予約はいつ？"),
        ("看牙医是下午三点。", "说错了，是下午四点", "看牙医是几点？"),
        ("결혼식은 10월 3일이에요", "아 잘못 말했네요, 10월 10일이에요", "결혼식이 언제지?"),
        ("عندي موعد مع الطبيب يوم 14 يوليو", "آسف، يوم 16", "متى موعد الطبيب؟"),
        ("शादी 12 नवंबर को है", "माफ़ करना, 14 नवंबर को है", "शादी कब है?"),
    ],
)
def test_a_revision_comes_along_in_any_language(
    memory: Memory, told: str, revised: str, asked: str
) -> None:
    tell(memory, told, revised)
    said = quoted(memory, asked)
    assert said.index(told) < said.index(revised)


def test_of_several_numbers_the_one_that_is_most_like_it_is_meant(memory: Memory) -> None:
    tell(memory, "My rent is £900.", "I run 5 km in 31 minutes.", "whoops, it's £940")
    assert "whoops, it's £940" in quoted(memory, "What is my rent?")
    assert "whoops, it's £940" not in quoted(memory, "How fast do I run 5 km?")


def test_what_is_revised_twice_comes_along_twice(memory: Memory) -> None:
    revisions = ["oops, should've said 16 August", "Sorry, wrong again, 23 August"]
    tell(memory, "The recital is on 9 August.", *revisions)
    assert quoted(memory, "When is the recital?")[-2:] == revisions


@pytest.mark.parametrize(
    "text",
    [
        "no, I live with 3 cats in a small house",
        "oops, the cat broke 3 of the good plates",
        "wait, is it the 5th?",
        "Sorry that I am 10 minutes late again",
        "It's the 5th.",
        "not the 5th time that happened to me",
    ],
)
def test_what_says_more_than_a_value_revises_nothing(text: str) -> None:
    assert revision_in(text) is None


def test_an_answer_in_a_talk_revises_nothing(memory: Memory) -> None:
    tell(memory, "My sister moved to Oslo.")
    chats = Chats(memory.database)
    chat = chats.create()
    chats.say(chat, "Can you plan a weekend for me?")
    chats.say(chat, "no, Paris")
    assert "no, Paris" not in quoted(memory, "Where does my sister live?")


@pytest.mark.parametrize(
    ("before", "then", "asked"),
    [
        ("I live in Cardiff.", "Back in Bristol since last week", "Where do I live now?"),
        ("I live in Leith.", "so I've landed in Aberdeen", "Where do I live?"),
        ("I work at Lidl.", "First day at the hospital trust today", "Where do I work?"),
        ("I work as a cook.", "new gig: dispatcher, started Monday", "What is my job?"),
        ("Ich wohne in Leipzig.", "Bin jetzt in Rostock, mit Balkon", "Wo wohne ich?"),
        ("My girlfriend is called Tess.", "we broke up on Sunday", "Who is my girlfriend?"),
        ("Mi novio se llama Iker.", "al final lo hemos dejado", "¿Cómo se llama mi novio?"),
        ("J'habite à Lyon.", "de retour à Dijon depuis mars", "Où est-ce que j'habite ?"),
    ],
)
def test_a_new_home_job_or_partner_told_by_the_way_is_quoted(
    memory: Memory, before: str, then: str, asked: str
) -> None:
    tell(memory, before, then)
    assert then in quoted(memory, asked)


def test_a_home_told_by_the_way_is_no_fact(memory: Memory) -> None:
    tell(memory, "so I've landed in Aberdeen")
    assert not memory.latest(kind="fact")


def test_a_favourite_has_one_topic_in_all_languages(memory: Memory) -> None:
    tell(memory, "My favourite colour is teal.", "Meine Lieblingsfarbe ist Türkis.")
    (fact,) = memory.latest(kind="fact", status="active")
    assert fact.content == "The user's favourite colour is Türkis."
    assert not recall(memory, "What is my favourite colour?").unknown
