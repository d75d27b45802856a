"""What the user plainly says of themselves becomes a fact; what is less certain is proposed."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ondevice.chats import Chats
from ondevice.errors import UsageError
from ondevice.memory import Memory
from ondevice.memory._facts import find_facts
from ondevice.memory._lessons import find_lessons
from ondevice.memory._whose import people_in
from ondevice.store import Database, migrations

MAY, JUNE = (datetime(2024, month, 3, 12, tzinfo=UTC) for month in (5, 6))


@pytest.fixture
def memory(chats: Chats) -> Memory:
    return chats.memory


def certain(text: str) -> list[str]:
    return [fact.value for fact in find_facts(text) if fact.certain]


def facts(memory: Memory, status: str = "active") -> set[str]:
    cubes = memory.latest(kind="fact")
    return {re.sub(r" \(.*\)", "", cube.content) for cube in cubes if cube.status == status}


@pytest.mark.parametrize(
    "text",
    [
        # tasks: nothing in the whole message counts
        "Proofread this, please. I live in Turin and I am a nurse.",
        "Dear Mr Cole,\nmy name is Ida Holm and I work at Siemens.",
        "Schreib einen Steckbrief. Ich heiße Jonas und wohne in Ulm.",
        "Переведи. Я живу в Омске.",
        "Przetłumacz na angielski: mieszkam w Krakowie.",
        "Gdybym mieszkała w Krakowie, jeździłabym tramwajem.",
        "Eğer İzmir'de yaşasaydım mutlu olurdum.",
        "次の文を英訳して：私は京都に住んでいます。翻訳して。",
        "Act as a chef. I'm from Naples.",
        # somebody else's words, however they are quoted
        *(
            "Ruth: I live in Turin.",
            "She wrote „I live in Turin“ to me",
            "It reads ‘I live in Turin’.",
        ),
        *("«J'habite à Lille», a dit Luc.", "「東京に住んでいます」と彼は言った。", "> I'm vegan"),
        "They sent me this:\nI live in Turin.",
        *("My boss claims I live in Turin.", "Mein Bruder sagt, ich wohne in Ulm."),
        "x = 'I live in Turin'",
        # what is not, may be, or is only played
        *("I don't live in Turin.", "I never lived in Turin.", "If I live in Turin, is it far?"),
        *("I'd love to live in Turin.", "I almost moved to Turin.", "I live in Turin, kidding!"),
        *("I dreamt I live in Turin.", "In my novel I live in Turin.", "Do I live in Turin?"),
        # others in the same sentence
        *("I'm waiting for my dad, a doctor.", "I'm visiting my aunt, living in Rome."),
        *("I'm with Anna, 34, living in Paris.", "I'm a fan of Messi, from Rosario."),
        *("Ich bin mit Jonas hier, 34.", "J'ai un ami, habite à Lyon.", "我有个朋友，住在上海。"),
        # no values of the kind
        *(
            "I live in hope.",
            "I moved to Postgres.",
            "I'm from a loud family.",
            "I work for a living.",
        ),
        *("My name is on the list.", "My birthday is cancelled.", "I'm allergic to deadlines."),
        *("I'm a wreck today.", "I'm 90% done.", "Ich lebe in Angst.", "我住在梦里。", "أنا بخير"),
        *("We call the shop daily.", "My cat is called in at night."),
        # somebody else
        *("My sister lives in Turin.", "He is a nurse.", "Our customer is allergic to nuts."),
        *("猫がいます。名前はタマです。", "息子は六歳です。", "友達が大阪に引っ越しました。"),
    ],
)
def test_what_is_not_plainly_about_the_user_takes_no_effect(text: str) -> None:
    assert certain(text) == []


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("hey, so i live in turin now and i work as a nurse", ["turin", "a nurse"]),
        ("I've been living in Turin since 2019 with my wife.", ["Turin"]),
        ("I no longer live in Bonn, I live in Ulm.", ["Ulm"]),
        ("My daughter Ida starts school on Monday.", ["Ida"]),
        ("I'm allergic to bees, nuts and penicillin.", ["bees, nuts and penicillin"]),
        ("Ich heiße Jörg und wohne in Köln.", ["Jörg", "Köln"]),
        ("Mein Geburtstag ist am 3. Mai.", ["3. Mai"]),
        ("Je m'appelle Luc et j'habite à Lille.", ["Luc", "Lille"]),
        ("Soy enfermera y vivo en Valencia.", ["Valencia", "enfermera"]),
        ("Mi chiamo Luca. Sono allergico alle noci.", ["Luca", "alle noci"]),
        ("Moro em Lisboa.", ["Lisboa"]),
        ("Mijn vrouw heet Femke.", ["Femke"]),
        ("Меня зовут Иван, я живу в Москве.", ["Иван", "Москве"]),
        # what has begun or changed
        *(("I've just started as a nurse.", ["a nurse"]), ("I became a teacher.", ["a teacher"])),
        *(("我们去年搬到了武汉。", ["武汉"]), ("以前我是护士，现在是律师。", ["律师"])),
        *(("我已经不住在北京了，搬到南京了。", ["南京"]), ("我现在做厨师。", ["厨师"])),
        *(
            ("去年、札幌へ転居しました。", ["札幌"]),
            ("会社を辞めて、今は教師をしています。", ["教師"]),
        ),
        ("我叫李华，住在北京。", ["李华", "北京"]),
        ("私は教師です。", ["教師"]),
        ("मेरा नाम रवि है।", ["रवि"]),
        ("اسمي ليلى", ["ليلى"]),
        ("Mam na imię Ola i mieszkam w Krakowie.", ["Ola", "Krakowie"]),
        ("Jestem uczulona na orzechy.", ["orzechy"]),
        ("Adım Elif, İzmir'de yaşıyorum.", ["Elif", "İzmir"]),
        ("Köpeğimin adı Karabaş.", ["Karabaş"]),
        # a statement that leaves out its beginning, which another has
        ("I'm Ida, 34, living in Turin and allergic to cats.", ["34", "Turin", "cats"]),
        ("I was born in Rome, but live in Turin.", ["Rome", "Turin"]),
        ("I'm a nurse at Charité.", ["a nurse", "Charité"]),
        ("Ich bin Jörg, 52, und wohne in Köln.", ["52", "Köln"]),
        ("Moi, c'est Luc, je suis infirmier et j'habite à Lille.", ["infirmier", "Lille"]),
        ("Vivo en Valencia y soy enfermera.", ["Valencia", "enfermera"]),
        ("Mi chiamo Luca e abito a Pisa.", ["Luca", "Pisa"]),
        ("Ik heet Femke en woon in Gent.", ["Femke", "Gent"]),
        ("اسمي ليلى وأعيش في القاهرة", ["ليلى", "القاهرة"]),
        # a value that is none of another sort
        ("I'm allergic to peanuts.", ["peanuts"]),
        # no request, though it ends like one in another language
        ("I have asthma and hay fever", ["asthma"]),
        # a list ends where another statement begins
        ("my daughters name is Imogen and shes 6", ["Imogen"]),
        ("Meine Frau heißt Birgit, wir haben zwei Kinder.", ["Birgit"]),
        ("I'm allergic to nuts, eggs and my sister is a vet", ["nuts, eggs"]),
        ("Bin 19 und wohne in Aachen.", ["19", "Aachen"]),
        # how often
        ("I take metformin twice a day.", ["metformin"]),
    ],
)
def test_plain_statements_take_effect(text: str, values: list[str]) -> None:
    assert sorted(certain(text)) == sorted(values)


@pytest.mark.parametrize(
    ("text", "stated"),
    [
        # a name, and beside it what leaves out its beginning
        ("I'm Kim, 29", {"name": "Kim", "birth age": "29"}),
        ("I'm Kim, 29 and I live in Leeds", {"name": "Kim", "birth age": "29", "home": "Leeds"}),
        ("I'm Kim, a nurse from Leeds", {"name": "Kim", "work": "a nurse", "origin": "Leeds"}),
        ("I'm Kim, vegan, from Leeds", {"name": "Kim", "diet": "vegan"}),
        ("Ich bin Jana, 27, aus Köln.", {"name": "Jana", "birth age": "27", "origin": "Köln"}),
        ("Ich bin Mara, Lehrerin aus Ulm.", {"name": "Mara", "work": "Lehrerin"}),
        (
            "Je suis Léa, 26 ans, infirmière.",
            {"name": "Léa", "birth age": "26", "work": "infirmière"},
        ),
        (
            "Soy Marta, 35 años, de Sevilla.",
            {"name": "Marta", "birth age": "35", "origin": "Sevilla"},
        ),
        ("Me llamo Diego, enfermero.", {"name": "Diego", "work": "enfermero"}),
        ("Sono Giulia, 30 anni, di Verona.", {"name": "Giulia", "birth age": "30"}),
        ("Sono Marco, medico di Pisa.", {"name": "Marco", "work": "medico", "origin": "Pisa"}),
        ("Sou a Inês, 24 anos, enfermeira.", {"name": "Inês", "birth age": "24"}),
        ("Ik ben Sanne, 28, leraar uit Utrecht.", {"name": "Sanne", "birth age": "28"}),
        ("Я Игорь, 40 лет, из Томска.", {"name": "Игорь", "birth age": "40", "origin": "Томска"}),
        ("Jestem Kasia, 25 lat, nauczycielka.", {"name": "Kasia", "work": "nauczycielka"}),
        ("Ben Ayşe, 27 yaşındayım.", {"name": "Ayşe", "birth age": "27"}),
        ("我是王芳，35岁，住在西安。", {"name": "王芳", "birth age": "35", "home": "西安"}),
        ("私は田中です、30歳です。", {"name": "田中", "birth age": "30"}),
        ("佐藤と申します、25歳、京都に住んでいます。", {"name": "佐藤", "birth age": "25"}),
        ("मैं राहुल हूँ, 30 साल का, इंजीनियर हूँ।", {"name": "राहुल", "birth age": "30"}),
        ("أنا سامي، عمري 40 سنة.", {"name": "سامي", "birth age": "40"}),
        # what follows “and” before its verb
        ("Öğretmenim ve Ankara'da yaşıyorum.", {"work": "Öğretmen", "home": "Ankara"}),
        ("Adım Elif ve Ankara'da yaşıyorum.", {"name": "Elif", "home": "Ankara"}),
        ("Annem ve ben Ankara'da yaşıyoruz.", {"home": "Ankara"}),
        ("मेरा नाम सीमा है और दिल्ली में रहती हूँ।", {"name": "सीमा", "home": "दिल्ली"}),
        # no names
        *((f"I'm {word}, 29", {"birth age": "29"}) for word in ("Irish", "tired", "Mike's sister")),
        ("I'm late, 29 emails to go", {}),
        ("Ich bin Koch, 29", {"work": "Koch", "birth age": "29"}),
        *((f"Ich bin {word}, und müde", {}) for word in ("Vater", "Raucher")),
        ("Ik ben Docent, 30", {"work": "Docent", "birth age": "30"}),
        ("Ben Nevis, which I like", {}),
        ("Jestem Polakiem, 30 lat", {"birth age": "30"}),
    ],
)
def test_a_statement_beside_another_is_read(text: str, stated: dict[str, str]) -> None:
    found = {fact.topic: fact.value for fact in find_facts(text)}
    assert stated.items() <= found.items()
    assert ("name" in found) is ("name" in stated)


@pytest.mark.parametrize(
    "text",
    [
        "Always lock the door.",
        "Never answer the phone at dinner.",
        "From now on I go to bed early.",
        "Your answers are brilliant!",
        "Call me Tuesday.",
        "No bullet points in the contract, said the lawyer.",
        "I want quick answers from the council.",
        "Use plain text for the leaflet.",
    ],
)
def test_what_is_not_said_of_replies_is_no_lesson(text: str) -> None:
    assert list(find_lessons(text)) == []


def test_a_proposal_is_used_for_nothing_until_it_is_accepted(chats: Chats, memory: Memory) -> None:
    memory.add("I live in Lyon.", at=MAY)
    said = chats.say(chats.create(), "We live in Turin. What can I cook here?")
    assert said.learnt == ()
    assert facts(memory) == {"The user lives in Lyon."}
    assert not memory.search("Turin", kinds=["fact"]).hits
    assert "Turin" not in memory.latest(kind="profile")[0].content
    (proposed,) = memory.latest(status="proposed")
    assert memory.stated_in([proposed]) == {proposed.id: "We live in Turin."}
    memory.accept([proposed.id])
    assert facts(memory) == {"The user lives in Turin."}
    assert facts(memory, "superseded") == {"The user lives in Lyon."}
    assert "Turin" in memory.latest(kind="profile", status="active")[0].content
    with pytest.raises(UsageError, match="not a proposal"):
        memory.reject([proposed.id])


def test_what_was_rejected_is_not_proposed_again_but_may_be_stated(memory: Memory) -> None:
    (proposed,) = memory.add("We live in Turin. What can I cook?").proposed
    memory.reject([proposed.id])
    assert memory.add("As you know, we live in Turin. And to drink?").proposed == ()
    assert facts(memory, "archived") == {"The user lives in Turin."}
    assert [fact.status for fact in memory.add("I live in Turin.").facts] == ["active"]


def test_a_plain_statement_settles_what_was_proposed(memory: Memory) -> None:
    (proposed,) = memory.add("I live in Turin. What can I cook?").proposed
    assert [fact.id for fact in memory.add("I live in Turin.").facts] == [proposed.id]
    assert facts(memory, "proposed") == set()


def test_facts_of_others_are_theirs(memory: Memory) -> None:
    memory.add("My sister Ida lives in Turin.")
    (theirs,) = memory.latest(status="proposed")
    assert (theirs.topic, theirs.content) == (
        "home of ida",
        "Ida, the user's sister, lives in Turin (home, city, address).",
    )
    memory.accept([theirs.id])
    (profile,) = memory.latest(kind="profile", status="active")
    assert "Turin" not in profile.content
    assert facts(memory) == {
        "The user's sister is called Ida.",
        "Ida, the user's sister, lives in Turin.",
    }


@pytest.mark.parametrize(
    ("before", "then", "left"),
    [
        ("I work at Acme.", "I quit my job at Acme.", set()),
        ("I work at Acme.", "I quit my job at Initech.", {"The user works for Acme."}),
        ("I live in Turin.", "I moved out of Turin last week.", set()),
        ("My husband is called Rob.", "We got divorced.", set()),
        ("My dog is called Rex.", "Our dog died.", set()),
        ("I'm vegan.", "I'm no longer vegan.", set()),
        ("I live in Turin.", "No, I meant Trieste.", {"The user lives in Trieste."}),
        ("I live in Turin.", "Forget that I live in Turin.", set()),
        ("I work at Acme.", "Friday was my last day at Acme.", set()),
        ("My name is Ida.", "Sorry, my name is Ada, not Ida.", {"The user's name is Ada."}),
        ("Ich wohne in Ulm.", "Ich wohne nicht mehr in Ulm.", set()),
        ("J'habite à Lille.", "Je n'habite plus à Lille.", set()),
        ("Я живу в Москве.", "Я больше не живу в Москве.", set()),
        ("我住在北京。", "我不再住在北京了。", set()),
        ("I live in Turin.", "My friend says I don't live in Turin.", {"The user lives in Turin."}),
        # whatever states a fact ends it when it is said to be no longer so, or never to have been
        ("I take metformin.", "I stopped taking metformin in May.", set()),
        ("I take metformin.", "My doctor took me off metformin.", set()),
        ("I work at Acme.", "I used to work at Acme.", set()),
        (
            "I work at Acme.",
            "If I stopped working at Acme, who would?",
            {"The user works for Acme."},
        ),
        ("I live in Turin.", "I never lived in Turin, that was a joke.", set()),
        (
            "I live in Turin.",
            "I used to live in Turin but now I live in Trieste.",
            {"The user lives in Trieste."},
        ),
        ("I'm allergic to eggs.", "I outgrew my egg allergy.", set()),
        ("I don't eat pork.", "I eat pork again.", set()),
        ("Ich nehme Ramipril.", "Ich nehme kein Ramipril mehr.", set()),
        ("Ich wohne in Ulm.", "Früher habe ich in Ulm gewohnt.", set()),
        ("J'habite à Lille.", "Avant, j'habitais à Lille.", set()),
        ("Vivo en Lima.", "Antes vivía en Lima.", set()),
        ("Lavoro per Enel.", "Non lavoro più per Enel.", set()),
        ("Trabalho na Acme.", "Eu trabalhava na Acme.", set()),
        ("Ik woon in Gent.", "Vroeger woonde ik in Gent.", set()),
        ("Я живу в Москве.", "Раньше я жил в Москве.", set()),
        ("Mieszkam w Krakowie.", "Już nie mieszkam w Krakowie.", set()),
        ("Mój pies wabi się Burek.", "Burek zdechł wczoraj.", set()),
        ("İzmir'de yaşıyorum.", "Artık İzmir'de yaşamıyorum.", set()),
        ("我住在北京。", "我以前住在北京。", set()),
        ("أعيش في القاهرة", "كنت أعيش في القاهرة", set()),
        ("I live in Turin.", "Actually it's Trieste, not Turin.", {"The user lives in Trieste."}),
        ("I work at Acme.", "I handed in my notice at Acme today.", set()),
        ("I work at Acme.", "They fired me.", set()),
        # what is not so now and then
        ("I take metformin.", "I don't take metformin with food.", {"The user takes metformin."}),
        ("I work at Acme.", "I don't work at Acme on Mondays.", {"The user works for Acme."}),
        ("My cat is called Mimi.", "She died in chapter 3.", {"The user's cat is called Mimi."}),
        # of whom the message before tells
        ("My cat is called Mimi.", "She passed away on Sunday.", set()),
        ("I live in Turin.", "She passed away on Sunday.", {"The user lives in Turin."}),
        ("Mein Hund heißt Rex.", "Rex ist gestern gestorben.", set()),
    ],
)
def test_what_is_over_is_outdated(chats: Chats, before: str, then: str, left: set[str]) -> None:
    chat = chats.create()
    chats.say(chat, before)
    over = chats.say(chat, then)
    assert facts(chats.memory) == left
    if not left:
        (old,) = [cube for cube in chats.memory.latest(kind="fact") if cube.status == "superseded"]
        (said,) = chats.memory.history(old.id).later
        assert said.message_id == over.message_id
        chats.memory.forget([said.id])
        assert chats.memory.history(old.id).cube.status == "active"  # nothing says it is over


def test_a_lesson_ends_when_it_is_taken_back(memory: Memory) -> None:
    memory.add("Answer shorter.", at=MAY)
    memory.add("Don't use emojis.", at=MAY)
    memory.add("You can write longer answers again.", at=JUNE)
    (left,) = memory.latest(kind="lesson", status="active")
    assert left.content == "Don't use emojis."
    memory.add("Please use emojis again.", at=JUNE)
    assert memory.latest(kind="lesson", status="active") == []


@pytest.mark.parametrize("passphrase", [None, "a passphrase"])
def test_a_store_of_before_takes_proposals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, passphrase: str | None
) -> None:
    before = migrations.MIGRATIONS[: migrations.MIGRATIONS.index(migrations.m008_proposals.migrate)]
    with monkeypatch.context() as patch:
        patch.setattr("ondevice.store._database.MIGRATIONS", before)
        old = Database(tmp_path / "store.db", passphrase)
        with old.write() as connection:
            connection.execute(
                "INSERT INTO source(id, uid, kind, name) VALUES (1, 'a', 'notes', '')"
            )
            connection.execute(
                "INSERT INTO cube(id, kind, status, content, speaker, event_at, written_at, "
                "version) VALUES (4294967296, 'note', 'active', 'Rex ate a shoe', '', "
                "'2024-05-03T12:00:00+00:00', '2024-05-03T12:00:00+00:00', 1)"
            )
        old.close()
    database = Database(tmp_path / "store.db", passphrase)
    memory = Memory(database)
    memory.add("I live in Turin. What can I cook?")
    assert facts(memory, "proposed") == {"The user lives in Turin."}
    assert memory.search("shoe").hits
    assert memory.check() == []
    with pytest.raises(Exception, match="CHECK"), database.write() as connection:
        connection.execute("UPDATE cube SET status = 'guessed'")
    database.close()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("My landlady Mrs. Petrov raised the rent.", "Mrs. Petrov"),
        ("My dentist Dr. Ann Lee is nice.", "Dr. Ann Lee"),
        ("My landlady is called Mrs. Petrov.", "Mrs. Petrov"),
        ("Mein Chef Herr Dr. Vogt ist krank.", "Herr Dr. Vogt"),
        ("Ma voisine Mme Lefèvre garde les clés.", "Mme Lefèvre"),
        ("Mi jefa Sra. Ibarra llama mucho.", "Sra. Ibarra"),
        ("My sister Ms. rocks.", ""),
    ],
)
def test_a_title_is_part_of_a_name_and_none_alone(text: str, name: str) -> None:
    assert [fact.value for fact in find_facts(text)] == ([name] if name else [])


def test_a_title_is_nobody() -> None:
    text = "Meine Vermieterin Frau Dr. Kaminski hat die Heizung nicht repariert."
    assert [mention.whom for mention in people_in(text)] == [("landlord",)]
    assert [mention.whom for mention in people_in("Meine Frau Anna kocht.")] == [("wife",)]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("haha nice one. I live in Leeds.", "Leeds"),
        ("lol I finally quit smoking. I live in Leeds now.", "Leeds"),
        ("I live in Leeds. My cat fell off the shelf lol", "Leeds"),
        ("jaja. Vivo en Sevilla.", "Sevilla"),
        ("mdr. J'habite à Nantes.", "Nantes"),
        ("哈哈，好的。我住在成都。", "成都"),
        ("I live in Bonn. No joke!", "Bonn"),
        ("Ich wohne in Bonn. Das macht Spaß.", "Bonn"),
        ("Nice joke. I live in Bonn.", "Bonn"),
        ("I live in Bonn. Just kidding! I live in Leeds.", "Leeds"),
    ],
)
def test_a_laugh_drops_no_fact_that_another_sentence_states(text: str, value: str) -> None:
    assert certain(text) == [value]


@pytest.mark.parametrize(
    "text",
    [
        "I live in Paris lol. I'm a nurse.",
        "I live in Paris. lol",
        "I'm a nurse 😉. I live in Paris.",
    ],
)
def test_who_says_in_jest_what_they_are_says_nothing_for_certain(text: str) -> None:
    assert certain(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "I'm a nurse. Just kidding!",
        "Ich bin Arzt. Kleiner Scherz!",
        "Je suis médecin. Je plaisante !",
        "Soy médico. ¡Es broma!",
        "Sono medico. Scherzo!",
        "Sou médico. Brincadeira!",
        "Ik ben arts. Grapje!",
        "Jestem lekarzem. Żartuję!",
        "Я врач. Шучу!",
        "Ben doktorum. Şaka!",
        "我是医生。开玩笑的！",
        "私は医者です。冗談です。",
        "저는 서울에 살아요. 농담이에요.",
        "أنا طبيب. أمزح!",
        "मैं डॉक्टर हूँ। मज़ाक था।",
    ],
)
def test_what_is_taken_back_as_a_joke_is_not_even_proposed(text: str) -> None:
    before = re.split(r"(?<=[.。।])", text)[0]
    assert list(find_facts(before))
    assert not list(find_facts(text))
