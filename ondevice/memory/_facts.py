"""Reads plain facts out of what the user typed, by rules: “I live in Lyon”, “my dog is called Rex”.

A fact is certain only if a whole clause states it in the first person, with a value of the right
sort, in a message that asks for nothing. What has the form of a fact and is less certain than that
is proposed: the user decides. Each fact has a topic, and a later value of a topic replaces the
earlier. Everything else stays findable in the turn itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from itertools import pairwise

from ondevice.memory._asking import QUOTED, asks, own_sentences, requests, sets_task, statements
from ondevice.memory._fact_reader import Correction, Ending, Fact, readers
from ondevice.memory._language import language_called, languages
from ondevice.memory._values import Text
from ondevice.memory._whose import denies, mentions_user, people_in
from ondevice.memory._words import WORD, languages_of

_LONGEST = 4_000  # characters; longer texts were not typed to tell something about oneself
_SHORT = 120  # characters of a text that may be nothing but a correction, in several sentences
_CODE = re.compile(r"[{}<>=\\|]|\w\(|//|::|^\s*#|;\s*$")
#: What tells that something is not meant as it is said.
_WINK = re.compile(
    r";-?[)pP]|:-?[pP]\b|(?<!\w)/s\b|[😂🤣😜😉🙃😅]|\b(?:lol|lmao|rofl|jk|xd|mdr|(?:just )?kidding|"
    r"(?:ha|ja|he|ха|ах){2,}\w*|k{3,}|w{4,})\b|（笑|哈哈",
    re.IGNORECASE,
)
#: Who laughs before they say something laughs at what was said before.
_LAUGHTER = re.compile(
    r"^(?:(?:lol|lmao|rofl|mdr|(?:ha|ja|he|ха|ах){2,}\w*|k{3,}|w{4,})\b|[😂🤣😅]|哈{2,})"
    r"[\s,.!…，。！]+(?=\w)",
    re.IGNORECASE,
)
_FEW = 5  # words of a sentence that takes back what was said before it: “Just kidding!”


def not_understood(text: str) -> list[str]:
    """The sentences of ``text`` that state something which no rule reads.

    Not those that only tell what somebody else says, or what would be if.
    """
    if len(text) > _LONGEST or sets_task(text):
        return []
    return [
        sentence
        for sentence in own_sentences(text)
        if not asks(sentence)
        and not any(
            reader.concerns(sentence) and reader.is_unsure(sentence) for reader in readers()
        )
        and not any(fact.whole for fact in find_facts(sentence))
        and sentence.strip(QUOTED + " .")
    ]


def in_earnest(sentences: Sequence[str]) -> list[str]:
    """Those of the ``sentences`` of a text that are meant as they are said.

    Not so one with a wink, or a “lol” that does not begin it, nor one before nothing but that, nor
    any that is taken back.
    """
    kept = _not_taken_back(sentences)
    return [
        sentence
        for sentence, after in pairwise([*kept, ""])
        if not _WINK.search(without_laughter(sentence))
        and not (_WINK.search(after) and not WORD.search(_WINK.sub("", after)))
    ]


def without_laughter(sentence: str) -> str:
    """The ``sentence`` without a “haha” before it."""
    return _LAUGHTER.sub("", sentence)


def told(text: str) -> list[str]:
    """The sentences of ``text`` that state something: no code, quotations, questions, requests.

    Of a text that sets a task it is none.
    """
    if sets_task(text):
        return []
    return [sentence for sentence in statements(text) if not requests(sentence)]


def find_facts(text: str) -> Iterator[Fact]:
    """The facts that the user states about themselves in ``text``, which they typed themselves."""
    if len(text) > _LONGEST or sets_task(text):
        return
    sentences = _not_taken_back(own_sentences(text))
    has_capitals = any(map(str.isupper, text))
    meant = in_earnest(sentences)
    jests = [_WINK.sub(" ", sentence).strip() for sentence in sentences if sentence not in meant]
    only_tells = (
        not re.search("[?？؟]", text)
        and not any(map(asks, sentences))
        # Whoever says in jest what they are may go on like that.
        and not any(_states_fact(jest, has_capitals) for jest in jests)
    )
    for before, sentence in pairwise(["", *sentences]):
        if asks(sentence) or _CODE.search(sentence):
            continue
        found: dict[tuple[str, str], Fact] = {}
        for reader in readers():
            if not reader.concerns(sentence):
                continue
            said = without_laughter(sentence)
            for found_fact in reader.read(said, Text(reader.language, has_capitals)):
                fact = replace(found_fact, sentence=sentence)
                beside = f"{before}\n{sentence}"
                if fact.topic == "name" and people_in(beside) and not mentions_user(sentence):
                    continue  # it is theirs: “犬がいます。名前はポチです。”
                known = found.get((fact.topic, fact.content))
                if known is None or fact.certain:
                    found[fact.topic, fact.content] = fact
        for fact in found.values():
            yield fact if only_tells and sentence in meant else replace(fact, certain=False)


def _not_taken_back(sentences: Sequence[str]) -> list[str]:
    """The ``sentences`` behind the last one that says that what was said is not so."""
    kept: list[str] = []
    for sentence in sentences:
        few = len(WORD.findall(sentence)) <= _FEW
        if few and _takes_back().search(sentence) and not denies(sentence):
            kept = []
        else:
            kept.append(sentence)
    return kept


@cache
def _takes_back() -> re.Pattern[str]:
    spaced, unspaced = (
        "|".join(
            language.pattern(language.facts.takes_back)
            for language in languages()
            if language.facts and language.facts.takes_back and language.facts.spaced is spaced
        )
        for spaced in (True, False)
    )
    return re.compile(rf"(?<!\w)(?:{spaced})(?!\w)|{unspaced}", re.IGNORECASE)


def _states_fact(sentence: str, has_capitals: bool) -> bool:
    return any(
        fact
        for reader in readers()
        if reader.concerns(sentence)
        for fact in reader.read(sentence, Text(reader.language, has_capitals))
    )


def hints(text: str) -> set[str]:
    """What ``text`` tells by the way, in words that state no fact: a “home”, a “job”."""
    if len(text) > _LONGEST or sets_task(text):
        return set()
    return {
        topic
        for sentence in statements(text)
        for language in languages_of(sentence) or languages()
        for topic, hint in _hints(language.name).items()
        if hint.search(sentence)
    }


@cache
def _hints(name: str) -> dict[str, re.Pattern[str]]:
    language = language_called(name)
    found = language.facts.hints if language.facts else {}
    return {topic: language.compile(pattern) for topic, pattern in found.items()}


def find_endings(text: str) -> tuple[list[Ending], list[Correction], list[str]]:
    """What ``text`` says is over, corrects, and allows again that a lesson forbade."""
    endings: list[Ending] = []
    corrections: list[Correction] = []
    allowed: list[str] = []
    if len(text) > _LONGEST or sets_task(text):
        return endings, corrections, allowed
    for sentence in own_sentences(text):
        if sentence.endswith(("?", "？")) or _CODE.search(sentence):
            continue
        plain = sentence.rstrip(".!。！ ")
        for reader in readers():
            if not reader.concerns(sentence):
                continue
            if said := reader.allowed(plain):  # which may be a request: “use emojis again”
                allowed.append(said)
            text_of = Text(reader.language, has_capitals=True)
            if not asks(sentence) and (value := reader.correction(plain)):
                corrections.append(Correction(value, text_of))
            rest, undone = reader.undone(plain, text_of)
            endings += undone
            if reader.is_unsure(rest):
                continue
            endings += reader.denied(plain, text_of)
            if asks(sentence):
                continue
            endings += reader.without_endings(plain)[1]
    if not corrections and len(text) <= _SHORT and not asks(text):  # “Sorry, I misread. It's …”
        plain, spoken = " ".join(text.split()).rstrip(".!。！ "), languages_of(text)
        for reader in readers():
            if reader.language in spoken and (value := reader.correction(plain)):
                corrections.append(Correction(value, Text(reader.language, has_capitals=True)))
    return endings, corrections, allowed


def sentence_of(content: str, text: str) -> str:
    """The sentence of ``text`` that says what the fact does; empty if none does."""
    for fact in find_facts(text):
        if fact.content == content:
            return fact.sentence
    words = set(re.findall(r"\w{2,}", content.lower()))
    best = max(
        own_sentences(text),
        key=lambda sentence: len(words.intersection(re.findall(r"\w{2,}", sentence.lower()))),
        default="",
    )
    return best
