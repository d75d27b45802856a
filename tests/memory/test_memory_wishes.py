"""What the user does not want remembered is not, and no reply may claim to have forgotten."""

from __future__ import annotations

import pytest

from ondevice.chats import Chats
from ondevice.memory import Memory
from ondevice.memory._secrets import redact
from ondevice.memory._wishes import LEFT_OUT, asks_to_forget, is_unwanted


@pytest.mark.parametrize(
    "text",
    [
        "don't remember this, but I live in Oslo",
        "off the record: I live in Oslo",
        "please don't save this. I live in Oslo",
        "between you and me, and please don't store that: I live in Oslo",
        "no need to remember this but I live in Oslo",
        "Bitte nicht speichern: ich wohne in Oslo",
        "merk dir das nicht, aber ich wohne in Oslo",
        "ne retiens pas ça : j'habite à Oslo",
        "no guardes esto: vivo en Oslo",
        "non memorizzare questo: abito a Oslo",
        "não guardes isto: moro em Oslo",
        "не запоминай это, я живу в Oslo",
        "bunu kaydetme, Oslo'da yaşıyorum",
        "不要记住这件事，我住在Oslo",
        "これは覚えないで。Osloに住んでいます",
    ],
)
def test_what_says_that_it_is_not_to_be_remembered_is_not(memory: Memory, text: str) -> None:
    chats = Chats(memory.database)
    chat = chats.create()
    said = chats.say(chat, text)
    assert said.unwanted
    (cube,) = memory.latest()
    assert cube.content == LEFT_OUT
    assert not memory.search("Oslo").hits
    assert [message.content for message in chats.load(chat).messages] == [text]


def test_a_message_that_is_edited_to_say_so_leaves_nothing_in_the_memory(memory: Memory) -> None:
    chats = Chats(memory.database)
    chat = chats.create()
    first = chats.say(chat, "I live in Oslo.")
    assert not first.unwanted
    assert memory.latest(kind="fact")
    chats.say(chat, "don't save this: I live in Oslo.", instead_of=first.message_id)
    assert LEFT_OUT in [cube.content for cube in memory.latest(kind="turn")]


@pytest.mark.parametrize(
    "text",
    [
        "I don't remember where I parked",
        "don't forget that the bins go out",
        "can't remember this song",
        "don't save this as a PDF, use docx",
        "We never record this show",
        "Why does Word not save this?",
        "Ich kann mir das nicht merken",
        "je ne retiens pas ça",
        "no need to keep it warm",
        "Translate: don't save this. I live in Rome",
        "they said: don't record this!",
        "she said “don't save this”",
    ],
)
def test_what_is_not_about_its_own_message_is_remembered(text: str) -> None:
    assert not is_unwanted(text)


@pytest.mark.parametrize(
    ("text", "asks"),
    [
        ("forget what I told you about Tom", True),
        ("Forget that.", True),
        ("can you forget everything I said?", True),
        ("please delete that from your memory", True),
        ("vergiss alles, was ich dir erzählt habe", True),
        ("oublie ce que je t'ai dit sur Tom", True),
        ("olvida lo que te dije", True),
        ("忘掉我之前说的话", True),
        ("forget that, let's do pasta instead", False),
        ("I forgot what I told you", False),
        ("don't forget what I told you", False),
        ("delete all rows from the table", False),
        ("how do I free memory in C?", False),
    ],
)
def test_wishes_to_forget_are_told_from_others(text: str, asks: bool) -> None:
    assert asks_to_forget(text) == asks


def test_a_model_is_told_that_it_forgets_nothing(memory: Memory) -> None:
    chats = Chats(memory.database)
    chats.say(chats.create(), "Tom is drinking again.")
    wish = "Forget what I told you about Tom"
    recalled = memory.recall(wish, budget=300, count_tokens=lambda text: len(text.split()))
    assert recalled is not None
    assert not recalled.cubes
    assert "nothing is forgotten by this message" in recalled.prompt(wish)


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("ssh key passphrase: herring under moonlight 7", "herring under moonlight 7"),
        ("can't remember my password, think it was Walnut!77x", "Walnut!77x"),
        ("das Passwort war glaub ich Kirsche_2031", "Kirsche_2031"),
        ("mot de passe: je crois que c'était Tulipe88!", "Tulipe88!"),
        ("no me acuerdo de la contraseña, creo que era Limon_8812", "Limon_8812"),
    ],
)
def test_a_password_may_be_several_words_or_stand_behind_some(text: str, secret: str) -> None:
    assert secret not in redact(text)[0]


@pytest.mark.parametrize(
    "text",
    [
        "passphrase: use several random words instead",
        "my password manager is 1Password7",
        "password rules: 8+ chars, A-Z",
    ],
)
def test_what_is_said_of_passwords_is_none(text: str) -> None:
    assert redact(text)[0] == text
