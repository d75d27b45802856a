"""What was so before something happened is answered, and what has taken its place is not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ondevice.memory import Memory, Recalled

START = datetime(2024, 1, 1, tzinfo=UTC)
PLACES = (
    "Porto",
    "Jena",
    "Brest",
    "Toledo",
    "Parma",
    "Faro",
    "Омск",
    "Leiden",
    "大连",
    "Konya",
    "เชียงใหม่",
)


def recall(memory: Memory, text: str) -> Recalled:
    recalled = memory.recall(
        text,
        budget=300,
        count_tokens=lambda text: len(text.split()),
        at=START + timedelta(days=365),
    )
    assert recalled is not None
    return recalled


def is_found(memory: Memory, told: str, question: str) -> bool:
    """Whether the question is given what was told, beside something else."""
    memory.add(told)
    memory.add("The weather was awful.")
    return told in [cube.content for cube in recall(memory, question).cubes]


@pytest.mark.parametrize(
    ("before", "after", "question"),
    [
        (
            "We moved to Porto, finally.",
            "I moved to Ghent for the contract, boxes everywhere.",
            "Where did I live before I moved to Ghent?",
        ),
        (
            "Wir sind nach Jena gezogen, mit Balkon.",
            "Ich wohne jetzt in Trier.",
            "Wo habe ich gewohnt, bevor ich nach Trier gezogen bin?",
        ),
        (
            "On a emménagé à Brest samedi.",
            "J'ai déménagé à Metz pour mon travail.",
            "Où est-ce que j'habitais avant de déménager à Metz ?",
        ),
        (
            "Me he mudado a Toledo.",
            "Me he mudado a Murcia por el trabajo.",
            "¿Dónde vivía antes de mudarme a Murcia?",
        ),
        (
            "Ci siamo trasferiti a Parma.",
            "Mi sono trasferita a Bari.",
            "Dove abitavo prima di trasferirmi a Bari?",
        ),
        (
            "Mudámos para Faro, o apartamento é pequeno.",
            "Mudei-me para Braga por causa do trabalho.",
            "Onde é que eu morava antes de me mudar para Braga?",
        ),
        (
            "Мы переехали в Омск.",
            "Я переехала в Тулу, новая квартира светлая.",
            "Где я жила до переезда в Тулу?",
        ),
        (
            "We zijn naar Leiden verhuisd.",
            "Sinds vorige week woon ik in Utrecht.",
            "Waar woonde ik voordat ik naar Utrecht verhuisde?",
        ),
        ("上周我们搬到了大连。", "我搬到杭州了。", "搬到杭州之前我住在哪里？"),
        (
            "Geçen hafta Konya'ya taşındık.",
            "Artık Adana'da oturuyorum.",
            "Adana'ya taşınmadan önce nerede oturuyordum?",
        ),
        (
            "เราย้ายไปอยู่เชียงใหม่ บ้านเล็กแต่สวย",
            "ตอนนี้ฉันย้ายมาอยู่กรุงเทพแล้ว",
            "ก่อนย้ายมากรุงเทพฉันอยู่ที่ไหน",
        ),
    ],
)
def test_what_was_before_an_event_is_answered(
    memory: Memory, before: str, after: str, question: str
) -> None:
    memory.add(before, at=START)
    memory.add("The weather was awful.", at=START + timedelta(days=50))
    memory.add(after, at=START + timedelta(days=100))
    recalled = recall(memory, question)
    (place,) = (word for word in PLACES if word in before)
    assert place in " ".join(cube.content for cube in recalled.cubes)
    assert not recalled.unknown


def test_the_last_one_before_the_event_is_meant(memory: Memory) -> None:
    for number, city in enumerate(("Rome", "Porto", "Ghent")):
        memory.add(f"I moved to {city}.", at=START + timedelta(days=100 * number))
    cubes = recall(memory, "Where did I live before I moved to Ghent?").cubes
    assert "Porto" in cubes[0].content or "Porto" in cubes[-1].content


def test_words_that_only_say_when_it_was_need_not_be_in_the_answer(memory: Memory) -> None:
    memory.add("Der Zahnarzttermin ist am 3. März.")
    memory.add("Das Wetter war furchtbar.")
    cubes = recall(memory, "Wann war der Zahnarzttermin ursprünglich?").cubes
    assert [cube.content for cube in cubes] == ["Der Zahnarzttermin ist am 3. März."]


@pytest.mark.parametrize(
    ("told", "question"),
    [
        ("Thanks, Mel! My goal is to give kids a loving home.", "Where do I live?"),
        ("Thanks, Mel! My goal is to give kids a loving home.", "¿Dónde vivo?"),
        ("My dream job must leave room for kids.", "What is my job?"),
        ("我同事叫小王。", "我同事住在哪里？"),
    ],
)
def test_a_note_on_a_home_or_a_job_that_names_none_is_no_answer(
    memory: Memory, told: str, question: str
) -> None:
    memory.add(told)
    assert recall(memory, question).unknown


@pytest.mark.parametrize(
    ("told", "question"),
    [
        ("I lost my job, the company went under.", "What happened to my job?"),
        ("I left my job, it made me ill.", "Why did I leave my job?"),
        ("My home insurance is in the blue folder.", "Where is my home insurance?"),
        ("I moved my desk under the window.", "Where did I move my desk?"),
        (
            "Ich habe meinen Job gekündigt, er machte mich krank.",
            "Warum habe ich meinen Job gekündigt?",
        ),
        ("Dejé mi empleo, me ponía enferma.", "¿Por qué dejé mi empleo?"),
        ("J'ai quitté mon emploi, il me rendait malade.", "Pourquoi ai-je quitté mon emploi ?"),
        ("Ho lasciato il mio lavoro, ero malata.", "Perché ho lasciato il mio lavoro?"),
        ("Ik heb mijn baan opgezegd, ik werd ziek.", "Waarom heb ik mijn baan opgezegd?"),
        ("Deixei o meu emprego, ficava doente.", "Porque deixei o meu emprego?"),
        ("Я сменила профессию, я болела.", "Почему я сменила профессию?"),
        ("Mesleğimi bıraktım, hastaydım.", "Mesleğimi neden bıraktım?"),
    ],
)
def test_what_happened_to_a_job_or_a_home_is_told_without_naming_it(
    memory: Memory, told: str, question: str
) -> None:
    memory.add(told)
    recalled = recall(memory, question)
    assert told in [cube.content for cube in recalled.cubes]
    assert not recalled.unknown


@pytest.mark.parametrize(
    ("told", "question"),
    [
        ("เจ้าของบ้านชื่อคุณสมศรี", "เจ้าของบ้านของฉันชื่ออะไร"),
        ("ฉันแพ้กุ้ง กินทีไรผื่นขึ้นทุกที", "ฉันแพ้อะไร"),
        ("Min hyresvärd heter Lindqvist.", "Vad heter min hyresvärd?"),
        ("Jeg bor i Odense.", "Hvor bor jeg?"),
        ("Hunden min heter Balder.", "Hva heter hunden min?"),
        ("집주인 이름은 박민수예요.", "제 집주인 이름이 뭐예요?"),
    ],
)
def test_languages_of_the_north_and_the_east_are_understood(
    memory: Memory, told: str, question: str
) -> None:
    assert is_found(memory, told, question)


@pytest.mark.parametrize(
    ("told", "question"),
    [
        ("Mein Fahrradschloss hat die Nummer 2291.", "Welche Nummer hat mein Schloss?"),
        ("Der Zahnarzttermin ist am 17. März.", "Wann ist mein Termin beim Zahnarzt?"),
        ("Mein Termin beim Zahnarzt ist am 17. März.", "Wann ist mein Zahnarzttermin?"),
        ("Cykelhjelmen lå i kælderen.", "Hvor lå min cykelhjelm?"),
    ],
)
def test_parts_of_words_that_are_written_as_one_are_found(
    memory: Memory, told: str, question: str
) -> None:
    assert is_found(memory, told, question)


@pytest.mark.parametrize(
    ("told", "question"),
    [
        ("Můj pes se jmenuje Rex.", "Jak se jmenuje můj pes?"),
        ("Minun koirani nimi on Musti.", "Mikä on minun koirani nimi?"),
    ],
)
def test_a_question_in_a_language_that_is_not_known_finds_what_says_most_of_it(
    memory: Memory, told: str, question: str
) -> None:
    assert is_found(memory, told, question)


@pytest.mark.parametrize(
    ("told", "question"),
    [
        ("We have come so far with the garden, it was hard.", "What is my dad's name?"),
        ("I try to be kind to everybody in the office.", "What is my child's name?"),
        ("I like to chat with my neighbours.", "What is my cat's name?"),
        ("My husband left.", "What decision did I make?"),
    ],
)
def test_a_word_is_not_taken_for_what_it_means_in_another_language(
    memory: Memory, told: str, question: str
) -> None:
    assert not is_found(memory, told, question)
