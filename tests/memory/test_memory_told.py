"""A note is an answer only to what it tells, and a correction comes along with what it corrects."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from ondevice.chats import Chats
from ondevice.memory import Memory, Recalled
from ondevice.memory._spelling import misspelt
from ondevice.memory._words import ends

START = datetime(2024, 3, 4, 12, tzinfo=UTC)  # a Monday


def recall(memory: Memory, text: str) -> Recalled | None:
    return memory.recall(
        text,
        budget=300,
        count_tokens=lambda text: len(text.split()),
        at=START + timedelta(days=60),
    )


def tell(memory: Memory, *texts: str) -> None:
    """Each in a chat of its own."""
    chats = Chats(memory.database)
    for text in texts:
        chats.say(chats.create(), text)


def is_answered(memory: Memory, text: str) -> bool:
    """Whether the question is given memories, and without a warning."""
    recalled = recall(memory, text)
    assert recalled is not None
    return bool(recalled.cubes) and not recalled.unknown


@pytest.mark.parametrize(
    ("told", "asked", "is_age"),
    [
        ("My uncle Rolf pays 640 euros for a room.", "How old is my uncle?", False),
        ("My uncle Rolf has the flat at number 12 near us.", "How old is my uncle?", False),
        ("My uncle Rolf is off to Crete in 3 weeks.", "How old is my uncle?", False),
        ("My uncle Rolf is 58 and still skates.", "How old is my uncle?", True),
        ("My uncle Rolf (58) still skates.", "How old is my uncle?", True),
        ("My uncle Rolf was born in 1966.", "How old is my uncle?", True),
        ("My niece just turned four.", "How old is my niece?", True),
        ("My aunt moved house. My niece turned four.", "How old is my aunt?", False),
        ("Mein Onkel zahlt 640 Euro Miete.", "Wie alt ist mein Onkel?", False),
        ("Mein Onkel ist 58 geworden.", "Wie alt ist mein Onkel?", True),
        ("Mon oncle a 3 chats.", "Quel âge a mon oncle ?", False),
        ("Mon oncle a 58 ans.", "Quel âge a mon oncle ?", True),
        ("Mi tío tiene 3 gatos.", "¿Cuántos años tiene mi tío?", False),
        ("Mi tío tiene 58 años.", "¿Cuántos años tiene mi tío?", True),
        ("У моего дяди 3 кота.", "Сколько лет моему дяде?", False),
        ("Моему дяде 58 лет.", "Сколько лет моему дяде?", True),
        ("Mój wujek ma 3 koty.", "Ile lat ma mój wujek?", False),
        ("Mój wujek ma 58 lat.", "Ile lat ma mój wujek?", True),
    ],
)
def test_an_age_is_told_by_no_other_number(
    memory: Memory, told: str, asked: str, is_age: bool
) -> None:
    tell(memory, told)
    assert is_answered(memory, asked) is is_age


@pytest.mark.parametrize(
    ("told", "asked", "is_told"),
    [
        ("My cousin Ottilie is in Graz for a while.", "How old is Ottilie?", False),
        ("My cousin Ottilie is in Graz for a while.", "What is Ottilie's job?", False),
        ("My cousin Ottilie is in Graz for a while.", "Where is Ottilie?", True),
        ("Ottilie, my cousin, is a welder.", "What is Ottilie's job?", True),
        ("Meine Kusine Ottilie wohnt in Graz.", "Wie alt ist Ottilie?", False),
        ("Ma cousine Ottilie habite à Graz.", "Quel âge a Ottilie ?", False),
        ("Mi prima Otilia vive en Graz.", "¿Cuántos años tiene Otilia?", False),
        ("Моя сестра Глафира живёт в Туле.", "Сколько лет Глафире?", False),
    ],
)
def test_what_was_never_told_of_somebody_by_name_is_unknown(
    memory: Memory, told: str, asked: str, is_told: bool
) -> None:
    tell(memory, told, "The weather was awful.")
    assert is_answered(memory, asked) is is_told


def test_a_name_that_is_nobodys_of_the_user_asks_about_the_world(memory: Memory) -> None:
    tell(memory, "I'm reading a book about Cleopatra.")
    recalled = recall(memory, "How old was Cleopatra?")
    assert recalled is None or not recalled.unknown


@pytest.mark.parametrize(
    ("told", "correction", "asked"),
    [
        (
            "The regatta is on the 4th of May.",
            "Sorry, it's the 11th of May.",
            "When is my regatta?",
        ),
        (
            "The regatta is on the 4th of May.",
            "Oops, I misread that. It's the 11th of May.",
            "When is my regatta?",
        ),
        ("My bench costs 240 euros.", "No, I meant 420 euros.", "How much is my bench?"),
        (
            "Die Regatta ist am 4. Mai.",
            "Ach, da habe ich mich vertan. Es ist der 11. Mai.",
            "Wann ist meine Regatta?",
        ),
        (
            "La régate est le 4 mai.",
            "Pardon, je me suis trompé, c'est le 11 mai.",
            "C'est quand ma régate ?",
        ),
        ("Mi regata es el 4 de mayo.", "Perdón, es el 11 de mayo.", "¿Cuándo es mi regata?"),
        (
            "La mia regata è il 4 maggio.",
            "Scusa, ho letto male, è l'11 maggio.",
            "Quando è la mia regata?",
        ),
    ],
)
def test_a_correction_that_names_nothing_comes_along(
    memory: Memory, told: str, correction: str, asked: str
) -> None:
    tell(memory, told, "The weather was awful.", correction)
    recalled = recall(memory, asked)
    assert recalled is not None
    said = [cube.content for cube in recalled.cubes]
    assert said.index(told) < said.index(correction)


def test_a_correction_of_another_kind_does_not_come_along(memory: Memory) -> None:
    tell(memory, "The regatta is on the 4th of May.", "No, I meant Trieste.")
    recalled = recall(memory, "When is my regatta?")
    assert recalled is not None
    assert [cube.content for cube in recalled.cubes] == ["The regatta is on the 4th of May."]


def test_what_only_may_be_a_value_corrects_no_fact(memory: Memory) -> None:
    chats = Chats(memory.database)
    chat = chats.create()
    chats.say(chat, "I work as a baker.")
    chats.say(chat, "No, it's raining.")
    (fact,) = memory.latest(kind="fact", status="active")
    assert "baker" in fact.content


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ("うさぎの名前はモモです。", "うさぎの名前は？"),
        ("京都に住んでいます。", "どこに住んでる？"),
        ("先月から書道を習っています。", "何を習ってる？"),
        ("美容院は土曜日の三時です。", "美容院はいつ？"),
        ("理发是周六下午三点。", "理发是什么时候？"),
    ],
)
def test_questions_that_leave_out_whom_they_ask_about_are_answered(
    memory: Memory, told: str, asked: str
) -> None:
    tell(memory, told)
    recalled = recall(memory, asked)
    assert recalled is not None
    assert told in [cube.content for cube in recalled.cubes]


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ("My stove has 4 rings.", "How many rings does my sotve have?"),
        ("I paid 30 for the towel.", "How much did I pay for my twoel?"),
    ],
)
def test_letters_that_changed_places_in_a_short_word_are_put_right(
    memory: Memory, told: str, asked: str
) -> None:
    tell(memory, told, "The weather was awful.")
    assert is_answered(memory, asked)


@pytest.mark.parametrize(
    "told",
    [
        "If I lived in Bergen I'd ski every day.",
        "i wish i lived in Bergen",
        "My character is a bard who lives in Bergen.",
        "I live in Bergen, said no one ever lol",
        "My cousin writes: “I live in Bergen.”",
        "Forwarded from the office:\nI live in Bergen from May on.",
    ],
)
def test_what_is_not_meant_as_said_is_no_answer_about_oneself(memory: Memory, told: str) -> None:
    tell(memory, told)
    assert not is_answered(memory, "Where do I live?")


def test_a_price_is_told_by_no_count(memory: Memory) -> None:
    tell(memory, "I bought a second lamp, so that makes two.")
    assert not is_answered(memory, "How much did my lamp cost?")
    tell(memory, "My lamp was 35.")
    assert is_answered(memory, "How much did my lamp cost?")


def test_what_has_changed_since_is_quoted_in_whatever_word_it_was_told(memory: Memory) -> None:
    memory.add("My car is a Volvo.", at=START)
    memory.add("I got a new Skoda at last.", at=START + timedelta(days=20))
    recalled = recall(memory, "What car do I drive now?")
    assert recalled is not None
    assert recalled.cubes[-1].content == "I got a new Skoda at last."


@pytest.mark.parametrize("name", ["Ben", "Inga", "Mina"])
def test_a_name_may_be_a_word_of_another_language(memory: Memory, name: str) -> None:
    tell(memory, f"My boss {name} is off sick.")
    assert is_answered(memory, "Who is my boss?")


def test_a_name_is_that_of_the_one_it_stands_beside(memory: Memory) -> None:
    tell(memory, "Mon frère Gilles est plombier et ma sœur dort.")
    assert not is_answered(memory, "Comment s'appelle ma sœur ?")
    tell(memory, "今朝、猫を拾いました。三毛猫で、名前はミケです。")
    assert is_answered(memory, "猫の名前は？")
    assert not [cube for cube in memory.latest(kind="fact") if cube.topic == "name"]


def test_one_name_is_not_that_of_several(memory: Memory) -> None:
    tell(memory, "I have two sons, Ulf in Bonn and Knut in Kiel.")
    assert not [cube for cube in memory.latest(kind="fact") if "Ulf" in cube.content]


@pytest.mark.parametrize(
    ("before", "then", "home"),
    [
        ("I live in Turin.", "Moved to Trieste, at last.", "Trieste"),
        ("Ik woon in Gent.", "Verhuisd naar Leiden, met tuin.", "Leiden"),
        ("J'habite à Lille.", "On a déménagé à Brest.", "Brest"),
    ],
)
def test_a_move_needs_no_subject(memory: Memory, before: str, then: str, home: str) -> None:
    tell(memory, before, then)
    (fact,) = memory.latest(kind="fact", status="active")
    assert home in fact.content


def test_a_text_of_letters_alone_takes_as_long_as_any_other(memory: Memory) -> None:
    """Of a word, other spellings are looked for; of DNA there would be millions."""
    dna = "acgtta" * 2000
    tell(memory, f"Here it is: {dna}", f"And h{'a' * 9000}")
    assert recall(memory, f"Have you seen {dna}?") is None
    assert misspelt(dna) == frozenset()


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ("Karen does my nails, she's got a salon on Mill Road.", "What does Karen charge me?"),
        ("Karen does my nails, she's got a salon on Mill Road.", "What is Karen's surname?"),
        ("my gym membership is 32 a month", "What's the name of my gym?"),
        ("the twins start at St Mary's in September", "How old are the twins?"),
        ("my daughter's piano teacher was from Minsk", "Where's my daughter from?"),
        ("we got a puppy! she's called Nettle. My husband is glad.", "What is my husband called?"),
        ("Lily's boyfriend is a firefighter and plays the tuba.", "What's Lily's job?"),
        ("I spent 45 on petrol.", "How much did I spend on parking?"),
        ("my brother Sam has a boat. Sam's boat leaks", "How old is Sam?"),
        ("oğlum 6 yaşında", "Ben kaç yaşındayım?"),
        ("свадьба у брата 3 октября", "Как зовут моего брата?"),
        ("ابني عمره خمس سنوات", "ما اسم ابني؟"),
        ("मेरा बेटा सात साल का है", "मेरे बेटे का नाम क्या है?"),
        ("我女儿今年八岁，在学钢琴", "我几岁？"),
        ("我弟弟住在广州", "我住在哪里？"),
    ],
)
def test_what_is_told_of_the_same_person_or_thing_may_not_be_what_is_asked(
    memory: Memory, told: str, asked: str
) -> None:
    tell(memory, told)
    recalled = recall(memory, asked)
    assert recalled is not None
    assert recalled.unknown


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ("can you plan a trip? since my sister Ana lives in Oslo", "What's my sister called?"),
        ("My sister's called Ana, she lives in Oslo.", "What's my sister called?"),
        ("We have a dog. My husband? He's called Pete.", "What is my husband called?"),
        ("gave blood yesterday, third time this year", "How often have I given blood this year?"),
        ("my gym is called puregym, 32 a month", "What's the name of my gym?"),
        ("my daughter's teacher is from Minsk", "Where is my daughter's teacher from?"),
        ("我女儿今年八岁，在学钢琴", "我女儿几岁？"),
        ("我们刚从北京搬到了杭州", "我现在住在哪里？"),
    ],
)
def test_what_is_told_in_passing_is_an_answer(memory: Memory, told: str, asked: str) -> None:
    tell(memory, told)
    assert is_answered(memory, asked)


@pytest.mark.parametrize("unit", ["x", "7", "我", "😀", "'", "\0", "\u202e", "\n"])
def test_thousands_of_letters_or_signs_in_a_row_are_read_as_hundreds(
    memory: Memory, unit: str
) -> None:
    many = unit * 100_000
    assert len(ends(f"I asked {many} once.")) < 1_000
    tell(memory, f"My dog is called Rex. {many}", many)
    assert is_answered(memory, "What is my dog called?")
    recall(memory, f"{many} What is my dog called?")


def test_an_age_of_a_son_is_not_that_of_the_user(memory: Memory) -> None:
    tell(memory, "我儿子叫小宇，今年五岁")
    assert not [fact for fact in memory.latest(kind="fact") if "years old" in fact.content]


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        # Denied in one clause, said in another.
        ("I don't drink coffee any more, only green tea", "What tea do I drink?"),
        ("Al final no me compré la moto, me compré una bici", "¿Qué me compré?"),
        # Named behind a comma, without an article.
        (
            "Passport expires 14 Aug 2027, driving licence in 2031",
            "When does my driving licence expire?",
        ),
        # A name in another case, or with an ending.
        ("Моя дочь Вера учится в Казани", "Где учится Вера?"),
        ("Annem Bursa'da oturuyor", "Annem nerede oturuyor?"),
        # A value of the thing itself, of a question that anybody could ask.
        ("Wait, I said the meeting is at 3 - it's at 4:30, sorry", "What time is the meeting?"),
        ("De cv-ketel is van Remeha en is uit 2014", "Welk merk is de cv-ketel?"),
        ("Kupiłem wczoraj rower za 2400 zł", "Ile kosztował rower?"),
        ("اشتريت غسالة جديدة بسعر 3000 جنيه", "كم سعر الغسالة؟"),
        ("冷蔵庫を買い替えた。18万円だった", "冷蔵庫はいくらでしたか？"),
        ("Mi cuñada Sol es enfermera", "¿Qué hace mi cuñada?"),
        ("Hab gestern 3 Kisten Äpfel geerntet", "Wie viele Kisten Äpfel habe ich geerntet?"),
        ("haha ja. Ik woon in Zwolle", "Waar woon ik?"),
        # Laughter before what is said in earnest.
        ("hahaha, I live in Zwolle", "Where do I live?"),
        ("lmao! we live in Zwolle by the way", "Where do we live?"),
        ("jajaja, vivo en Zamora", "¿Dónde vivo?"),
        # That there is none.
        ("We don't have a washing machine.", "Which washing machine do we have?"),
        ("I have no bike.", "What bike do I have?"),
        ("I've never been to Peru.", "When was I in Peru?"),
        ("I don't have any sisters.", "What is my sister called?"),
        # What was so once, where that is asked for or answers yes or no.
        ("I used to fence but gave it up.", "Do I fence?"),
        ("We used to live in Zwolle.", "Where did we use to live?"),
        # An age that an event is told by.
        ("I was 23 when I moved out.", "How old was I when I moved out?"),
        ("I learned to skate when I was 12.", "How old was I when I learned to skate?"),
        # In another clause than one about somebody else.
        ("My dad is in ward 7, and my mum had her knee done.", "Which ward is my dad in?"),
        ("My dad, my mum and I are in cabin 7.", "Which cabin is my dad in?"),
        # A measure that is not named.
        ("The tyres of my bike take 4 bar.", "What pressure do the tyres of my bike take?"),
    ],
)
def test_what_a_note_tells_in_other_forms_is_an_answer(
    memory: Memory, told: str, asked: str
) -> None:
    tell(memory, told)
    assert is_answered(memory, asked)


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ("My friend Grant wrote: “My wife is pregnant.”", "Is my wife pregnant?"),
        ("Al final me compré una bici eléctrica", "¿Cuánto me costó la bici?"),
        ("Моя дочь Вера учится в Казани", "Сколько лет Вере?"),
        ("I live on the moon. My cat agrees lol. I drive there. lol", "Where do I live?"),
        ("I live on the moon lol", "Where do I live?"),
        ("My aunt is a vet, and my uncle sleeps in room 12.", "Which room does my aunt sleep in?"),
        ("My desk mate Ravi likes chess. My colleague is called Ravi.", "What's my name?"),
        ("If I had a yacht I'd name it Dolores.", "What is my yacht called?"),
        ("In another life I'd be a baker in Lyon.", "What is my job?"),
        ("I'm considering moving to Peru.", "Where do I live?"),
        ("I applied for a job at Nestlé.", "Where do I work?"),
        ("We used to live in Zwolle.", "Where do we live?"),
        ("I didn't sell the van.", "What van do I have?"),
        ("I don't have a car seat.", "What car do I have?"),
        ("I don't have a car.", "What car does my brother have?"),
        ("I don't like my brother.", "What is my brother called?"),
        ("Could you reply to this email?\n\nHi,\nI'm a plumber in Derby.\nKurt", "What is my job?"),
    ],
)
def test_what_a_note_does_not_tell_in_whatever_form_is_no_answer(
    memory: Memory, told: str, asked: str
) -> None:
    tell(memory, told)
    assert not is_answered(memory, asked)


def test_a_day_that_nobody_told_is_not_that_of_another_appointment(memory: Memory) -> None:
    tell(memory, "A consulta do cardiologista ficou para 8 de abril às 15h")
    assert recall(memory, "Quando é a consulta do dermatologista?") is None


def test_a_note_without_the_name_does_not_answer_for_them(memory: Memory) -> None:
    tell(memory, "My cousin Sam Okafor does payroll", "Sam Reyes, who also does payroll, is 41")
    assert not is_answered(memory, "How old is Sam Okafor, who does payroll?")
