"""What is told of others is no answer to what the user asks about themselves."""

from __future__ import annotations

import pytest

from ondevice.chats import Chats
from ondevice.memory import Memory, Recalled


def recall(memory: Memory, asked: str) -> Recalled:
    recalled = memory.recall(asked, budget=300, count_tokens=lambda text: len(text.split()))
    assert recalled is not None
    return recalled


def is_answered(memory: Memory, told: str, asked: str) -> bool:
    """Whether the question is given what was ``told``, and without a warning."""
    chats = Chats(memory.database)
    chats.say(chats.create(), told)
    recalled = recall(memory, asked)
    assert [cube.content for cube in recalled.cubes if cube.kind == "turn"] == [told]
    return not recalled.unknown


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ("Ralph moved to Bergen last month.", "Where do I live?"),
        ("Ralph told me he's moving to Bergen.", "Where do I live?"),
        ("I think Ralph lives in Bergen.", "Where do I live?"),
        ("Had coffee with Ines, who works at Volvo.", "Where do I work?"),
        ("She was born in Turin.", "Where was I born?"),
        ("Ines studied botany in Padua.", "What did I study?"),
        ("Ralph weighs 90 kilos.", "How much do I weigh?"),
        ("Ralph is allergic to celery.", "What am I allergic to?"),
        ("Dr. Okafor moved to Bergen.", "Where do I live?"),
        ("Ines ist nach Ulm gezogen.", "Wo wohne ich?"),
        ("Er arbeitet bei Volvo.", "Wo arbeite ich?"),
        ("Chloé habite à Rennes.", "Où est-ce que j'habite ?"),
        ("Elle travaille chez Volvo.", "Où est-ce que je travaille ?"),
        ("Álvaro vive en Soria.", "¿Dónde vivo?"),
        ("Lei lavora alla Volvo.", "Dove lavoro?"),
        ("Ela trabalha na Volvo.", "Onde eu trabalho?"),
        ("Joost woont in Venlo.", "Waar woon ik?"),
        ("Zosia mieszka w Sopocie.", "Gdzie mieszkam?"),
        ("Глеб живёт в Омске.", "Где я живу?"),
        ("Deniz İzmir'de yaşıyor.", "Nerede yaşıyorum?"),
        ("小李搬到了广州。", "我住在哪里？"),
        ("她在医院工作。", "我在哪里工作？"),
        ("佐藤さんは札幌に住んでいます。", "私はどこに住んでいますか？"),
        ("妹は大阪で働いています。", "私はどこで働いていますか？"),
        ("我妹妹在成都工作。", "我在哪里工作？"),
        ("제 여동생은 부산에 살아요.", "저는 어디에 살아요?"),
        ("My sister works as a baker.", "What do I do for a living?"),
        ("अमित नागपुर में रहता है।", "मैं कहाँ रहता हूँ?"),
        ("Lars bor i Kiruna.", "Var bor jag?"),
        # nor is what the user asks
        ("Is Bergen a good place to live?", "Where do I live?"),
        ("Can I live in Norway without a visa?", "Where do I live?"),
        ("How do I get a job at Volvo?", "Where do I work?"),
        ("Ist Ulm eine Stadt, in der man gut wohnt?", "Wo wohne ich?"),
        ("¿Es caro vivir en Soria?", "¿Dónde vivo?"),
    ],
)
def test_what_somebody_else_does_is_not_told_of_the_user(
    memory: Memory, told: str, asked: str
) -> None:
    assert not is_answered(memory, told, asked)


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ("Ralph helped me move to Bergen.", "Where do I live?"),
        ("Ines and I live in Bergen.", "Where do I live?"),
        ("Living in Bergen now, near the harbour.", "Where do I live?"),
        ("Ralph visits. By the way, I work at Volvo.", "Where do I work?"),
        ("Weighed 81 kilos this morning.", "How much do I weigh?"),
        ("I live in Bergen, what can I do on Sunday?", "Where do I live?"),
        ("As I live in Bergen, which airport is best?", "Where do I live?"),
        ("Wusstest du, dass ich jetzt in Ulm wohne?", "Wo wohne ich?"),
        ("Bin nach Ulm gezogen.", "Wo wohne ich?"),
        ("On habite à Rennes.", "Où est-ce que j'habite ?"),
        ("Ya vivo en Soria.", "¿Dónde vivo?"),
        ("Переехал в Омск.", "Где я живу?"),
        ("搬到广州了。", "我住在哪里？"),
        ("我在成都工作。", "我在哪里工作？"),
        ("저는 부산에 살아요.", "저는 어디에 살아요?"),
        ("札幌に住んでいます。", "私はどこに住んでいますか？"),
    ],
)
def test_what_the_user_does_is_told_with_or_without_a_word_for_them(
    memory: Memory, told: str, asked: str
) -> None:
    assert is_answered(memory, told, asked)


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ("I work as a baker.", "What do I do for a living?"),
        ("Ich arbeite als Bäcker.", "Was mache ich beruflich?"),
        ("Je travaille comme boulanger.", "Que fais-je dans la vie ?"),
        ("Je travaille comme boulanger.", "Quel travail je fais ?"),
        ("Trabajo de panadero.", "¿A qué me dedico?"),
        ("Trabajo de panadero.", "¿Qué trabajo hago?"),
        ("Lavoro come fornaio.", "Cosa faccio nella vita?"),
        ("Lavoro come fornaio.", "Che lavoro faccio?"),
        ("Trabalho como padeiro.", "O que faço da vida?"),
        ("Trabalho como padeiro.", "Que trabalho faço?"),
        ("Ik werk als bakker.", "Wat voor werk doe ik?"),
        ("Ik werk als bakker.", "Wat doe ik voor de kost?"),
        ("Jag jobbar som bagare.", "Vad gör jag på jobbet?"),
    ],
)
def test_work_is_asked_for_without_a_word_for_it(memory: Memory, told: str, asked: str) -> None:
    assert is_answered(memory, told, asked)


@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ("저는 땅콩 알레르기가 있어요.", "저는 무슨 알레르기가 있어요?"),
        ("मुझे मूंगफली से एलर्जी है।", "मुझे किससे एलर्जी है?"),
        ("Kızım ikinci sınıfa gidiyor.", "Kızım kaçıncı sınıfa gidiyor?"),
        ("Ho due figlie, Giulia e Marta.", "Come si chiamano le mie figlie?"),
        ("I'm learning Finnish on Mondays.", "Which language am I learning?"),
    ],
)
def test_a_word_that_asks_is_not_looked_for_in_an_answer(
    memory: Memory, told: str, asked: str
) -> None:
    assert is_answered(memory, told, asked)


def test_a_thing_that_is_misspelt_in_a_question_is_the_same_thing_in_a_note(memory: Memory) -> None:
    memory.add("My passport expires in Feb 2028.")
    recalled = recall(memory, "When does my pasport expire?")
    assert recalled.cubes and not recalled.unknown


def test_turkish_work_is_not_found_in_an_english_is(memory: Memory) -> None:
    memory.add("The weather in spring is lovely here.")
    recalled = recall(memory, "我在哪里工作？")
    assert not recalled.cubes and recalled.unknown
