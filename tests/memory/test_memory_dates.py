"""What words for days mean, seen from when they were said, and what is found by it."""

from __future__ import annotations

import io
import json
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondevice.memory import Memory, _cubes
from ondevice.memory._dates import about, find_days, relative_days
from ondevice.memory._search import search
from ondevice.store import Database
from ondevice.store._sqlite import connect
from ondevice.store.migrations import MIGRATIONS

MONDAY, SUNDAY = date(2026, 6, 1), date(2027, 1, 3)
OCTOBER = date(2026, 10, 15)  # a Thursday


def meant(text: str, said: date) -> str:
    """The first and last day of what is worked out, a word for each: “20260605” or “…–…”."""
    spans = [span for _, *span in relative_days(text, said)]
    return " ".join("–".join(dict.fromkeys(f"{day:%Y%m%d}" for day in span)) for span in spans)


@pytest.mark.parametrize(
    ("said", "text", "days"),
    [
        # days of the week: the tense decides
        (MONDAY, "Dentist this Friday", "20260605"),
        (MONDAY, "We meet on Wednesday.", "20260603"),
        (MONDAY, "We met on Wednesday.", "20260527"),
        (MONDAY, "I booked the flight for Wednesday.", "20260603"),
        (MONDAY, "I've been ill since Wednesday.", "20260527"),
        (MONDAY, "Next Friday is my exam.", "20260612"),
        (MONDAY, "Am Mittwoch war ich beim Arzt.", "20260527"),
        (MONDAY, "Am Mittwoch muss ich zum Arzt.", "20260603"),
        (MONDAY, "Vendredi dernier j'ai vu Karl, et vendredi je pars.", "20260529 20260605"),
        (MONDAY, "В пятницу я был у врача.", "20260529"),
        (MONDAY, "下周五我有考试。", "20260612"),
        (MONDAY, "金曜日に鍵をもらいました。", "20260529"),
        # days beside today
        (MONDAY, "They come the day after tomorrow.", "20260603"),
        (MONDAY, "Anteayer vendí el barco.", "20260530"),
        (MONDAY, "L'altro ieri ho venduto la barca.", "20260530"),
        (MONDAY, "I slept badly last night.", "20260531"),
        # weeks, months, seasons, years
        (MONDAY, "Na semana que vem estou de férias.", "20260608–20260614"),
        (MONDAY, "This autumn we fly to Portugal.", "20260901–20261130"),
        (MONDAY, "Vorig jaar ben ik verhuisd.", "20250101–20251231"),
        (SUNDAY, "Last week was hard.", "20261221–20261227"),
        (SUNDAY, "This winter is mild.", "20261201–20270228"),
        # so long ago, in so long
        (MONDAY, "Half a year ago I stopped.", "20251201–20251231"),
        (MONDAY, "My exam is in three weeks.", "20260622"),
        (MONDAY, "Через неделю я еду домой.", "20260608"),
        (date(2028, 2, 28), "It is due in two days.", "20280301"),
        (date(2026, 12, 31), "See you tomorrow.", "20270101"),
        # dates
        (OCTOBER, "Am 20. Juni heiratet sie.", "20270620"),
        (OCTOBER, "We got married on 20 June.", "20260620"),
        (OCTOBER, "Le loyer est à payer le 20.", "20261020"),
        (OCTOBER, "El vuelo es el 05.11.2026.", "20261105"),
        (OCTOBER, "Flight on 13/11/2026", "20261113"),
        (OCTOBER, "From 3 to 10 August we were in Wales.", "20260803–20260810"),
        (OCTOBER, "The party is on Saturday, 7 November.", "20261107"),
        (OCTOBER, "At Christmas we stay at home.", "20261225"),
        (OCTOBER, "At Easter we were in Cork.", "20260405"),
        (date(2027, 1, 30), "The rent is due on the 31st.", "20270131"),
        (date(2027, 2, 10), "It happened on the 30th.", "20270130"),
        # what is not certain, or not meant as a day
        (OCTOBER, "03/04/2027 is on the receipt.", ""),
        (OCTOBER, "A few weeks ago I started running.", ""),
        (OCTOBER, "I told her about Tuesday, it was put off.", ""),
        (OCTOBER, "I read it in three weeks.", ""),
        (OCTOBER, "Every Friday I swim, and I paint on Sundays.", ""),
        (OCTOBER, "I run every Tuesday, Thursday and Saturday.", ""),
        (OCTOBER, "Am Freitag gehe ich meistens ins Kino.", ""),
        (OCTOBER, "Friday nights, the 20th century, spring rolls, and I may fall.", ""),
        (OCTOBER, "Le vendredi je nage.", ""),
        (OCTOBER, "Ich bin hier.", ""),
        (OCTOBER, "Guten Morgen! Jeden Montag spiele ich Schach.", ""),
        (OCTOBER, "每周一我下棋。", ""),
        (OCTOBER, "Said on 15 October 2026, today.", ""),
    ],
)
def test_what_words_for_days_mean(said: date, text: str, days: str) -> None:
    assert meant(text, said) == days


ODD = ["in", "ago", "999", "days", "99", "years", "weeks", "next", "last", "this", "Friday", "on"]
ODD += ["the", "31st", "29", "February", "30.02.2026", "0000-00-00", "99/99/2026", "vor", "Jahren"]
ODD += ["dentro", "de", "años", "через", "лет", "99月99日", "²", "٣", "Christmas"]


@given(
    words=st.lists(st.sampled_from(ODD)),
    said=st.dates(),
)
def test_no_text_and_no_day_is_too_odd(words: list[str], said: date) -> None:
    text = " ".join(words)
    span = about(text, said)
    assert span is None or span[0] <= span[1]
    relative_days(text, said)
    find_days(text, said)


def test_a_memory_keeps_which_days_it_is_about(memory: Memory) -> None:
    said = datetime(2026, 6, 1, 23, 30, tzinfo=UTC)
    cube = memory.add("Dentist on Friday, and on Saturday a haircut", at=said).cube
    assert (cube.about_from, cube.about_to) == (date(2026, 6, 5), date(2026, 6, 6))
    assert memory.add("I like plums.", at=said).cube.about_from is None
    edited = memory.edit(cube.id, "Dentist on 3 March 2027")
    assert edited.about_from == edited.about_to == date(2027, 3, 3)
    memory.forget([cube.id])
    with memory.database.read() as connection:
        assert _cubes.abouts(connection, [cube.id]) == {}


def test_an_export_tells_which_days_a_memory_is_about(memory: Memory, tmp_path: Path) -> None:
    memory.add("Dentist on Friday", at=datetime(2026, 6, 1, tzinfo=UTC))
    file = io.BytesIO()
    memory.export(file)
    lines = file.getvalue().splitlines()
    (cube,) = [line for line in map(json.loads, lines) if line["type"] == "cube"]
    assert cube.pop("about_from") == cube.pop("about_to") == "2026-06-05"
    older = [line if b"Dentist" not in line else json.dumps(cube).encode() for line in lines]
    for number, text in enumerate((lines, older)):
        with_database = Database(tmp_path / f"{number}.db")
        other = Memory(with_database)
        assert other.import_(text) == 1
        assert other.latest()[0].about_from == date(2026, 6, 5)
        with_database.close()


def test_an_older_store_is_read_for_days_bit_by_bit(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    old = connect(path)
    for migrate in MIGRATIONS[:7]:
        migrate(old)
    old.execute("INSERT INTO source(uid, kind, name) VALUES ('u', 'notes', '')")
    old.executemany(
        "INSERT INTO cube(id, kind, status, content, speaker, event_at, written_at, version) "
        "VALUES (?, 'note', 'active', 'Dentist on Friday', '', '2026-06-01T09:00:00+00:00', "
        "'2026-06-01T09:00:00+00:00', 1)",
        [((1 << 32) + number,) for number in range(400)],
    )
    old.execute("PRAGMA user_version=7")
    old.commit()
    old.close()
    database = Database(path)
    memory = Memory(database)

    def known() -> int:
        return sum(cube.about_from is not None for cube in memory.latest(limit=-1))

    assert known() == 0
    memory.add("A")
    assert known() == 300
    memory.add("B")
    assert known() == 400
    database.close()


TODAY = date(2026, 6, 25)  # a Thursday


@pytest.fixture
def june(memory: Memory) -> Memory:
    for days_ago, text in (
        (5, "The boiler in the cellar is leaking."),
        (20, "On 20 June we celebrate grandma's birthday."),
        (3, "Dentist on Friday at ten."),
        (10, "I repaired the fence."),
        (40, "My brother visited us."),
        (50, "I tell and say a lot about June."),
        (1, "Am 4. Juli heiratet meine Schwester."),
    ):
        memory.add(text, at=datetime(2026, 6, 25, 9, tzinfo=UTC) - timedelta(days=days_ago))
    return memory


def test_a_question_by_day_finds_what_was_said_then_or_is_about_it(june: Memory) -> None:
    for question, first in (
        ("What did I tell you on 20 June?", "The boiler"),
        ("What did I say on 20/06/2026?", "The boiler"),
        ("¿Qué te dije el 20 de junio?", "The boiler"),
        ("What did I do last week?", "The boiler"),
        ("What did I tell you on Monday?", "Dentist"),
        ("What do I have tomorrow?", "Dentist"),
        ("Was habe ich morgen?", "Dentist"),
        ("Qu'est-ce que j'ai demain ?", "Dentist"),
        ("我明天有什么安排？", "Dentist"),
        ("What's on Friday?", "Dentist"),
        ("Was ist am 4. Juli?", "Am 4. Juli"),
        ("What did I do in May?", "My brother"),
    ):
        with june.database.read() as connection:
            found = search(connection, question, today=TODAY)
        assert found.hits[0].cube.content.startswith(first), question
        assert found.confidence == 1, question


def test_other_questions_with_a_day_in_them_are_not_by_day(june: Memory) -> None:
    for question in ("How are you today?", "What's the weather tomorrow?", "What day is it today?"):
        with june.database.read() as connection:
            assert search(connection, question, today=TODAY).confidence < 0.3, question
