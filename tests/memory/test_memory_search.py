"""Search finds what answers a question, says when nothing does, and is always the same."""

from __future__ import annotations

import errno
import json
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from ondevice.errors import FileError, StoreUnwritable
from ondevice.memory import Memory, _cubes, _expressions
from ondevice.memory._bench import _day, run
from ondevice.memory._dates import Days, find_days
from ondevice.memory._recall import GATE
from ondevice.memory._records import Found
from ondevice.memory._search import search
from ondevice.memory._words import words_of
from ondevice.store import Database, migrations
from ondevice.store.migrations import m013_vowel_signs, m015_south_east

TODAY = date(2024, 5, 15)  # a Wednesday


class Talks:
    """Conversations in a store."""

    def __init__(self, path: Path) -> None:
        self.database = Database(path)

    def tell(self, day: str, *turns: str) -> None:
        """A conversation of that day; a turn may begin with a speaker: ``Ana: Hello``."""
        at = datetime.fromisoformat(day).replace(tzinfo=UTC)
        with self.database.write() as connection:
            source = _cubes.open_source(connection, "conversation", uid=f"{day} {turns}")
            for turn in turns:
                speaker, _, text = turn.rpartition(": ")
                _cubes.insert(
                    connection, source, "turn", text, speaker=speaker, event_at=at, written_at=at
                )

    def search(self, text: str) -> Found:
        with self.database.read() as connection:
            return search(connection, text, today=TODAY)

    def find(self, text: str) -> list[str]:
        return [hit.cube.content for hit in self.search(text).hits]


@pytest.fixture
def talks(tmp_path: Path) -> Talks:
    talks = Talks(tmp_path / "store.db")
    talks.tell("2024-01-10", "The weather was awful.", "We stayed in and played chess.")
    return talks


def test_other_forms_of_a_word_are_found(talks: Talks) -> None:
    talks.tell("2024-02-01", "I have been hiking in the mountains")
    assert talks.find("Which mountain did I hike on?") == ["I have been hiking in the mountains"]


def test_a_store_that_can_only_be_read_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    database = Database(path)
    Memory(database).add("The bins go out on Mondays.")
    Memory(database).add("ご飯を食べました。")
    database.close()

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Database, "_open_to_write", refuse)
    database = Database(path)
    assert database.read_only
    for asked in ("When do the bins go out?", "ご飯"):
        assert len(Memory(database).search(asked).hits) == 1
    with pytest.raises(StoreUnwritable):
        Memory(database).add("More")
    database.close()


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ("Wir haben zwei neue Häuser am See besichtigt.", "Welches Haus habe ich mir angesehen?"),
        ("Die Katzen schlafen immer auf dem Sofa.", "Wo schläft meine Katze?"),
        ("Les chevaux de ma sœur sont au pré.", "Où est le cheval de ma sœur ?"),
        ("J'ai acheté des chaussures rouges.", "Quelle chaussure est-ce que j'ai ?"),
        ("Compré unas plantas para el balcón.", "¿Qué planta tengo en casa?"),
        ("Mis hermanas viven lejos.", "¿Dónde está mi hermana?"),
        ("Ho comprato due biciclette usate.", "Di che colore è la mia bicicletta?"),
        ("I gatti dormono sul divano.", "Dove sta il mio gatto?"),
        ("Plantei duas laranjeiras no quintal.", "Onde está a minha laranjeira?"),
        ("Os meus vizinhos são músicos.", "O que faz o meu vizinho?"),
        ("Onze katten slapen in de schuur.", "Waar is mijn kat?"),
        ("De boeken liggen op zolder.", "Waar is mijn boek?"),
        ("Наши собаки живут на даче.", "Где моя собака?"),
        ("Я купила книгу о птицах.", "Какая у меня книга?"),
        ("हमारे कुत्ते बाहर सोते हैं।", "मेरा कुत्ता कहाँ है?"),
    ],
)
def test_other_forms_of_a_word_are_found_in_its_language(
    talks: Talks, told: str, asked: str
) -> None:
    talks.tell("2024-02-01", told)
    talks.tell("2024-02-02", "The deli, the caballo and the katrol are closed.")
    assert talks.find(asked)[:1] == [told]


#: Words of scripts with vowel signs, and others with the same letters.
SIGNS = [
    ("मेरे कुत्ते को गाजर पसंद है।", "कुत्ता", "कातना"),
    ("हम कल पुस्तकालय गए।", "पुस्तकालय", "पसीना"),
    ("আমার কুকুরের নাম ভুলু।", "কুকুরের", "কাকার"),
    ("என் நாய் பெயர் மணி.", "நாய்", "நீயா"),
]


@pytest.mark.parametrize(("told", "word", "other"), SIGNS)
def test_vowel_signs_are_part_of_a_word(talks: Talks, told: str, word: str, other: str) -> None:
    talks.tell("2024-02-01", told)
    assert talks.find(word) == [told]
    assert talks.find(other) == []


@pytest.mark.parametrize("passphrase", [None, "a passphrase"])
def test_an_older_store_gets_an_index_with_vowel_signs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passphrase: str | None
) -> None:
    before = migrations.MIGRATIONS[: migrations.MIGRATIONS.index(m013_vowel_signs.migrate)]
    with monkeypatch.context() as patch:
        patch.setattr("ondevice.store._database.MIGRATIONS", before)
        old = Database(tmp_path / "store.db", passphrase)
        with old.write() as connection:
            source = _cubes.open_source(connection, "notes", uid="notes")
            for text in (*(told for told, _, _ in SIGNS), "The zebra ate a shoe."):
                at = datetime(2024, 2, 1, tzinfo=UTC)
                _cubes.insert(connection, source, "note", text, event_at=at, written_at=at)
        old.close()
    memory = Memory(Database(tmp_path / "store.db", passphrase))
    for told, word, other in (*SIGNS, ("The zebra ate a shoe.", "shoes", "horse")):
        assert [hit.cube.content for hit in memory.search(word).hits][:1] == [told]
        assert told not in [hit.cube.content for hit in memory.search(other).hits]
    (zebra,) = (hit.cube for hit in memory.search("zebra").hits[:1])
    memory.forget([zebra.id])
    assert memory.search("zebra").hits == ()
    assert memory.check() == []
    memory.database.close()


def test_an_older_store_finds_words_of_south_east_asia_and_forgets_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = migrations.MIGRATIONS[: migrations.MIGRATIONS.index(m015_south_east.migrate)]
    texts = ("แมวของน้องสาวชื่อถุงเงิน", "ຂ້ອຍຢູ່ວຽງຈັນ ແລະ 我住在青岛", "I met a cat.")
    with monkeypatch.context() as patch:
        patch.setattr("ondevice.store._database.MIGRATIONS", before)
        old = Database(tmp_path / "store.db")
        with old.write() as connection:
            source = _cubes.open_source(connection, "notes", uid="notes")
            for text in texts:
                at = datetime(2024, 2, 1, tzinfo=UTC)
                _cubes.insert(connection, source, "note", text, event_at=at, written_at=at)
        old.close()
    memory = Memory(Database(tmp_path / "store.db"))
    memory.add("ฉันแพ้กุ้ง")
    for word, told in (("แมวสีอะไร", texts[0]), ("ວຽງຈັນ", texts[1]), ("แพ้กุ้งไหม", "ฉันแพ้กุ้ง")):
        assert [hit.cube.content for hit in memory.search(word).hits][:1] == [told]
    memory.edit(memory.search("แมว").hits[0].cube.id, "หมาของน้องสาว")
    assert [hit.cube.content for hit in memory.search("แมว").hits] == [texts[2]]  # “cat”
    memory.forget([cube.id for cube in memory.latest()])
    assert memory.search("น้องสาว").hits == ()
    assert memory.check() == []
    memory.database.close()


def test_an_answer_is_found_beside_its_question(talks: Talks) -> None:
    talks.tell("2024-02-01", "What colour is your bicycle?", "Deep purple.", "Nice.", "I see.")
    assert talks.find("colour of the bicycle")[:2] == [
        "What colour is your bicycle?",
        "Deep purple.",
    ]


def test_neighbours_end_with_their_conversation(talks: Talks) -> None:
    talks.tell("2024-02-01", "My bicycle was stolen")
    talks.tell("2024-02-01", "The soup was good")
    assert talks.find("bicycle") == ["My bicycle was stolen"]


def test_a_long_message_is_searched_by_its_beginning_and_its_end(talks: Talks) -> None:
    talks.tell("2024-02-01", "The bicycle is in the cellar.")
    long = " ".join(f"word{number}" for number in range(3000))
    for text in (f"Where is my bicycle? {long}", f"{long}\nWhere is my bicycle?"):
        assert talks.find(text)[0] == "The bicycle is in the cellar."


def test_the_speaker_who_is_named_comes_first(talks: Talks) -> None:
    talks.tell("2024-02-01", "Ben: I adopted a parrot last year.", "Ana: I adopted a tortoise.")
    assert talks.find("What did Ana adopt?")[0] == "I adopted a tortoise."
    assert talks.find("What did Ben adopt?")[0] == "I adopted a parrot last year."


def test_a_speaker_may_have_two_names_and_another_may_be_named_after_them(talks: Talks) -> None:
    talks.tell("2024-02-01", "Ana Lima: I gave away a tortoise.", "Ben: I gave away a parrot.")
    assert talks.find("What did Ana give to Ben?")[0] == "I gave away a tortoise."
    assert talks.find("What did Ben give to Ana?")[0] == "I gave away a parrot."


def test_a_name_alone_finds_what_is_said_of_it(talks: Talks) -> None:
    talks.tell("2024-02-01", "Ben: Ana is a marine biologist.", "Ana: True.")
    assert talks.find("What about Ana?")[0] == "Ana is a marine biologist."


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ("I met Will at the station.", "When did I meet Will?"),
        ("I met Will at the station.", "Who is Will?"),
        ("Tickets for The Who cost 90 euros.", "The Who"),
        ("Ich habe Des in Cork getroffen.", "Wo habe ich Des getroffen?"),
        ("Mon voisin Des répare des vélos.", "Que répare Des ?"),
    ],
)
def test_a_name_that_is_a_stop_word_too_is_found(talks: Talks, told: str, asked: str) -> None:
    talks.tell("2024-02-01", told, "The weather was awful.", "Das Wetter war furchtbar.")
    found = talks.search(asked)
    assert found.hits[0].cube.content == told and found.confidence >= GATE


@pytest.mark.parametrize("text", ["will", "llama", "May", "who will", "the"])
def test_what_is_searched_for_may_be_a_stop_word(talks: Talks, text: str) -> None:
    told = "Will and May were in the zoo, to see who will feed the llama."
    talks.tell("2024-02-01", told)
    memory = Memory(talks.database)
    assert told in [hit.cube.content for hit in memory.search(text).hits]
    assert talks.find(text) == []  # it is not what a message is about
    assert memory.search("what is it that you do with my").hits == ()


@pytest.mark.parametrize("asked", ["Where Did I Meet Him", "WILL IT RAIN", "Wo treffe ich Sie?"])
def test_words_are_no_names_only_because_they_have_a_capital_letter(asked: str) -> None:
    assert set(words_of(asked)).isdisjoint({"did", "i", "him", "will", "it", "sie"})


def test_sessions_count_for_all_that_is_said_in_them(talks: Talks) -> None:
    talks.tell("2024-02-01", "Ana: I bought a kayak and a tent.", "Ben: Where?", "Ana: In Oslo.")
    far = ["Ben: Hm."] * 6
    spread = "Ana: A kayak!", *far, "Ana: My tent leaks.", *far, "Ana: The paddle broke."
    talks.tell("2024-02-02", *spread, *far, "Ana: And this vest.")
    talks.tell("2024-02-03", "Ben: I have a kayak, a tent and a paddle.", "Ana: Nice.")
    assert talks.search("What about Ana's kayak, tent, paddle and vest?").sources[:2] == (3, 2)


def test_confidence_falls_when_somebody_else_said_it(talks: Talks) -> None:
    talks.tell("2024-02-01", "Ben: I adopted a parrot from the shelter.", "Ana: Lovely!")
    ben = talks.search("Did Ben adopt a parrot from the shelter?").confidence
    ana = talks.search("Did Ana adopt a parrot from the shelter?").confidence
    assert ana < ben


def test_nothing_relevant_is_an_answer(talks: Talks) -> None:
    assert talks.search("quantum chromodynamics") == Found(hits=(), sources=(), confidence=0)
    assert talks.search("") == Found(hits=(), sources=(), confidence=0)
    assert talks.search("what is it that you do with my").hits == ()
    partly = talks.search("Did the awful neighbours sell their vineyard in Tuscany?")
    assert partly.confidence < 0.35 < talks.search("awful weather").confidence


@pytest.mark.parametrize(
    ("told", "asked", "never_told"),
    [
        (
            "Mein Bruder heißt Jonas und wohnt in Graz.",
            "Wo wohnt mein Bruder?",
            "Wie heißt meine Tante?",
        ),
        ("Ma fille apprend le violon.", "Quel instrument apprend ma fille ?", "Où est ma clé ?"),
        ("Mi vecino tiene dos loros.", "¿Quién tiene loros?", "¿Dónde está mi llave?"),
        ("Il mio cane ha paura dei tuoni.", "Di cosa ha paura il mio cane?", "Chi è il mio capo?"),
        ("O meu carro está na oficina.", "Onde está o meu carro?", "Como se chama a minha avó?"),
        ("Mijn fiets staat in de kelder.", "Waar staat mijn fiets?", "Hoe heet mijn buurman?"),
        ("Мой брат работает в порту.", "Где работает мой брат?", "Как зовут мою кошку?"),
        ("妹は来月京都へ引っ越します。", "妹はいつ引っ越しますか？", "車の色は何ですか？"),
        ("3月我要去上海出差，住在老朋友家。", "我什么时候去上海？", "我的猫叫什么名字？"),
        (
            "우리 고양이는 생선을 싫어해요.",
            "고양이가 싫어하는 것은 무엇인가요?",
            "제 차는 어디 있나요?",
        ),
    ],
)
def test_other_languages_have_their_stop_words_and_their_words_without_spaces(
    talks: Talks, told: str, asked: str, never_told: str
) -> None:
    talks.tell("2024-02-01", told)
    found = talks.search(asked)
    assert [hit.cube.content for hit in found.hits] == [told]
    assert talks.search(never_told).confidence < GATE <= found.confidence


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ("周六和Lucas爬山", "Lucas什么时候爬山？"),
        ("我的boss叫Ingrid，很友善。", "我的老板叫什么？"),
        ("我的boss叫Ingrid，很友善。", "What is my boss called?"),
        ("来月からOsloで働きます", "When do I go to Oslo?"),
        ("ฉันซื้อThinkPadเครื่องใหม่", "ThinkPad?"),
    ],
)
def test_words_within_letters_without_spaces_are_found(talks: Talks, told: str, asked: str) -> None:
    talks.tell("2024-02-01", told, "周日在家。")
    assert [hit.cube.content for hit in talks.search(asked).hits][:1] == [told]
    assert told not in [hit.cube.content for hit in talks.search("Lukaszenko?").hits]


@pytest.mark.parametrize(
    "text",
    ['"', "a AND", "NEAR(", "x*", "content:", "^", "'; DROP TABLE cube; --", "\0", "()", "-"],
)
def test_query_syntax_is_only_text(talks: Talks, text: str) -> None:
    talks.search(text)
    assert talks.find(f"{text} chess")


def test_the_day_that_is_asked_for_comes_first(talks: Talks) -> None:
    for day in ("2023-04-02", "2024-04-02", "2024-05-14"):
        talks.tell(day, f"Dinner at the harbour on {day}")
    assert talks.find("Where was the dinner yesterday?")[0].endswith("2024-05-14")
    assert talks.find("dinner last month")[0].endswith("2024-04-02")
    assert talks.find("dinner in April 2023")[0].endswith("2023-04-02")
    assert talks.find("dinner last spring")[0].endswith("2023-04-02")


def test_a_day_alone_is_enough(talks: Talks) -> None:
    talks.tell("2024-05-14", "I mended the fence.")
    assert talks.find("What did I do yesterday?") == ["I mended the fence."]


def test_days_may_be_told_by_an_event_of_the_users_life(talks: Talks) -> None:
    talks.tell("2023-05-01", "I have a flat with a balcony.")
    talks.tell("2023-11-20", "I moved to Bergen.", "Everything is in boxes.")
    talks.tell("2024-03-01", "I have a flat with a garden.")
    assert talks.find("Which flat did I have before I moved?")[0].endswith("balcony.")
    assert talks.find("Which flat do I have since I moved?")[0].endswith("garden.")
    assert talks.find("Which flat did I have before I went to the moon?")[:2] == [
        "I have a flat with a balcony.",
        "I have a flat with a garden.",
    ]


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("yesterday", "2024-05-14", "2024-05-14"),
        ("last week", "2024-05-06", "2024-05-12"),
        ("this weekend", "2024-05-18", "2024-05-19"),
        ("last Friday", "2024-05-10", "2024-05-10"),
        ("last Wednesday", "2024-05-08", "2024-05-08"),
        ("last month", "2024-04-01", "2024-04-30"),
        ("last year", "2023-01-01", "2023-12-31"),
        ("last winter", "2023-12-01", "2024-02-29"),
        ("this spring", "2024-03-01", "2024-05-31"),
        ("three weeks ago", "2024-04-21", "2024-04-27"),
        ("on 2023-02-28", "2023-02-28", "2023-02-28"),
        ("in May 2023", "2023-05-01", "2023-05-31"),
        ("in 2022", "2022-01-01", "2022-12-31"),
    ],
)
def test_words_for_days(text: str, first: str, last: str) -> None:
    days, _ = find_days(f"What happened {text}?", TODAY)
    assert days.period == (date.fromisoformat(first), date.fromisoformat(last))


def test_days_are_read_where_threads_read_the_rules_at_once() -> None:
    expected = find_days("What happened yesterday?", TODAY)
    _expressions._rules.cache_clear()  # as if another thread had read them, too
    assert find_days("What happened yesterday?", TODAY) == expected


def test_the_very_day_counts_for_more() -> None:
    days, rest = find_days("What did I buy on 7 July, 2023?", TODAY)
    assert [days.match(date(2023, 7, day)) for day in (7, 8)] == [2, 1]
    assert days.match(date(2023, 8, 7)) == 0
    assert "July" not in rest and "2023" not in rest and "buy" in rest


@pytest.mark.parametrize("text", ["may I go", "It may rain", "7 apples and 2 pears", ""])
def test_texts_without_a_day(text: str) -> None:
    assert find_days(text, TODAY) == (Days(), text)


def test_of_equal_ones_the_newest_comes_first(talks: Talks) -> None:
    for day in (5, 3, 4):
        talks.tell(f"2024-03-0{day}", "Ping pong tournament")
    first = talks.search("ping pong")
    told = [(hit.cube.event_at, hit.cube.id) for hit in first.hits]
    assert told == sorted(told, reverse=True)
    assert talks.search("ping pong") == first
    before = talks.search("the ping pong before I moved").hits
    assert [hit.cube.id for hit in before] == [cube_id for _, cube_id in reversed(told)]


def write(path: Path, **question: object) -> Path:
    turns = [
        {"id": f"D{n}:1", "session": f"s{n}", "when": f"1:00 pm on {n} May, 2023"}
        | {"speaker": "Ana", "text": text}
        for n, text in enumerate(("I bought a kayak", "I sold my house", "I like plums"), 1)
    ]
    questions = [
        {"question": "What did Ana buy?", "evidence": ["D1:1"], "category": 1, "answerable": True},
        {
            "question": "What did Ana sell, and what does she like?",
            "evidence": ["D2:1", "D3:1"],
            "category": 2,
            "answerable": True,
        }
        | question,
        {"question": "Where is the zoo?", "evidence": [], "category": 5, "answerable": False},
    ]
    path.write_text(json.dumps([{"id": "c", "turns": turns, "questions": questions}]))
    return path


def test_the_benchmark_counts_what_was_found(tmp_path: Path) -> None:
    report = run(write(tmp_path / "all.json"))
    assert report.figures["recall@5"] == report.figures["ndcg@10"] == 1
    assert report.figures["abstention_auc"] == 1
    assert report.figures["session_recall@5"] == 1
    assert (report.questions, report.turns) == (3, 3)

    half = run(write(tmp_path / "half.json", question="What did Ana sell?"))
    assert half.by_category["2"]["recall@10"] == 0.5
    assert half.by_category["2"]["recall_all@10"] == 0
    assert half.by_category["2"]["ndcg@10"] == pytest.approx(1 / (1 + 0.63093), abs=1e-4)
    assert half.figures["recall@10"] == 0.75


def test_the_benchmark_takes_files_with_less_in_them(tmp_path: Path) -> None:
    turns = [
        {"id": 1, "text": "I bought a kayak", "session": 1, "when": "2023-05-01T09:30:00"},
        {"id": 2, "text": "I sold my house", "session": 2, "speaker": None, "mood": "sad"},
        {"id": 3, "text": "Nothing new"},
    ]
    questions = [
        {"question": "What did I buy?", "evidence": [1], "category": "purchases"},
        {"question": "What was sold?", "evidence": [2, 99], "answerable": None},
        {"question": "Where is the zoo?", "answerable": False},
        {"question": "Who knows?", "evidence": None},
    ]
    file = tmp_path / "less.json"
    file.write_text(json.dumps([{"turns": turns, "questions": questions}] * 2))
    report = run(file)
    assert report.figures["recall@5"] == report.figures["session_recall@5"] == 1
    assert set(report.by_category) == {"none", "purchases"}
    assert (report.questions, report.turns) == (8, 6)


@pytest.mark.parametrize(
    "when",
    [
        "1:56 pm on 8 May, 2023",
        "May 8, 2023, 13:30",
        "8th May 2023",
        "2023-05-08",
        "2023-05-08T13:30:10+02:00",
        "2023/05/08 (Mon) 09:10",
    ],
)
def test_the_benchmark_reads_days(when: str) -> None:
    day = _day(when)
    assert day is not None and day.date() == date(2023, 5, 8)


def test_the_benchmark_refuses_other_files(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.json"
    for content in ("", "{}", "[]", '[{"turns": 1}]'):
        wrong.write_text(content)
        with pytest.raises(FileError):
            run(wrong)
