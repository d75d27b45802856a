"""Tells whether a memory may answer a question, or is only about the same.

“My sister moved to Lyon” says much of what “What is my sister's job?” does, and does not answer it.
A memory may answer if it says every thing that the question names, and what the question asks for:
a name, a number, a day, a person, a place or a colour. Verbs are not looked for, as people use many
for the same, unless the language lists what is used for them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from itertools import pairwise, repeat

from ondevice.memory._asking import FOREIGN, asks, own_sentences, sets_task, statements
from ondevice.memory._concern import is_personal, names_in, owned_in, things_in
from ondevice.memory._fact_reader import readers
from ondevice.memory._facts import in_earnest, without_laughter
from ondevice.memory._language import (
    NEVER,
    forms_of,
    language_called,
    languages,
    months_of,
    words_for_questions,
    words_in,
)
from ondevice.memory._query import asks_once, without_once, words_meant
from ondevice.memory._records import POSITION_BITS, Cube, Hit
from ondevice.memory._spelling import misspelt
from ondevice.memory._stems import like_stem, stemmer_of
from ondevice.memory._subjects import is_said_of_others, tells_of_user
from ondevice.memory._told import (
    articles_of,
    asks_for,
    capitals_tell_names,
    is_said,
    is_somewhere,
    sentences_with,
    tells,
    words_for_living,
)
from ondevice.memory._values import fold, is_known_place
from ondevice.memory._whose import (
    CLAUSE_ENDS,
    Mention,
    Whom,
    denies,
    is_of_others,
    is_same,
    mentions_user,
    mine_in,
    owners_in,
    people_in,
    sentences_of,
)
from ondevice.memory._words import (
    WORD,
    ends,
    forms,
    is_named,
    is_stop_word,
    is_unspaced,
    language_name,
    language_of,
    like,
    words_of,
)

#: What people also say of themselves in jest, or in a supposition.
_OF_ONESELF = frozenset({"home", "job", "age", "sort"})
_FEW = 3  # pairs of letters of a question that names one thing, where words are not spaced
_MANY = 3  # of so many groups of words of a question an answer may leave one out
_GENITIVE = re.compile(r"(?<=\w)['’]s\b")
_OWNER = " ownerof "  # stands for it
_NEAR = 1  # places in a conversation between memories that are read together
_ENDS_IN_COLON = re.compile(r"[:：]\s*\n")


def may_answer(text: str, hits: Sequence[Hit]) -> bool:
    """Whether one of the ``hits``, with those around it, may answer the question ``text``."""
    needed = _needed_words(text)
    asked = frozenset(word for words in needed for word in words)
    named = things_in(text)
    of = language_name(text)
    words = [word for word in words_meant(text) if is_named(word, of)]
    things = [word for word in words if word in named and word not in _names_of_days()]
    kinds = asks_for(text)
    people = people_in(text)
    whom = [mention.whom for mention in people]
    called_so = {word for one in people for word in WORD.findall(text[one.start : one.end].lower())}
    #: It asks about somebody else, be it by their name.
    called = names_of_people(text)
    of_others = bool(whom) or (bool(called) and not mentions_user(text))
    #: “Sam Reyes has three kids” does not answer for Sam Okafor.
    by_name = called if of_others and capitals_tell_names(of) else ()
    own = mine_in(text)
    of_oneself = not any(words_of(word) and is_named(word, of) for word in own)
    #: “Where do I live?” is answered by no “Tom lives in Oslo”.
    alone = len(words) <= 1 or (len(words) <= _FEW and all(map(is_unspaced, words)))
    said_of_user = words if of_oneself and alone and not (whom or of_others) else ()
    sure = (
        not _OF_ONESELF.isdisjoint(kinds)
        or set(kinds) == {"name"}
        or (of_oneself and (not kinds or (alone and not things)))
    ) and not _may_not_be(text, or_once=False)
    #: What was so and is no longer answers it, too.
    or_once = asks_once(text) or not _has_question_word(text)

    @cache  # several hits have the same ones beside them
    def is_told(kind: str, content: str, language: str) -> bool:
        if kind == "name" and of_oneself and not (whom or of_others):  # “My colleague is Ravi”
            clauses = (part for one in sentences_of(content) for part in CLAUSE_ENDS.split(one))
            content = "\n".join(clause for clause in clauses if not people_in(clause))
            if not content:
                return False
        about = whom if whom or not of_others else None
        spoken = language_called(language) if language else None
        return tells(kind, content, words, about, of, spoken)

    own_only = bool(whom) or not of_others

    @cache
    def own_text(cube: Cube) -> str:
        return _own_text(cube, of_user=own_only, sure=sure and not of_others, or_once=or_once)

    for hit in hits:
        near = [other for other in hits if _belongs(other.cube, hit.cube)]
        texts = [own_text(other.cube) for other in near]
        if said_of_user:
            texts = [
                content
                if other.cube.kind == "fact"
                else "\n".join(_said_of_user(content, said_of_user, of))
                for other, content in zip(near, texts, strict=True)
            ]
        # What is left of a text may be too short to tell its language.
        spoken = [language_name(ends(other.cube.content)) for other in near]
        lacking = asked.intersection(*(other.lacks for other in near))
        if not any(text.strip() for text in texts):
            continue
        if called and not whom and not any(_is_about(called, content) for content in texts):
            continue
        if any(map(FOREIGN.search, (other.cube.content for other in near))):
            lacking = asked  # it may stand in what was left out
        if lacking:
            said = {word for content in texts for word in WORD.findall(content.lower())}
            lacking = frozenset(word for word in lacking if not is_said(word, said, of))
        if lacking and "home" in kinds and any(map(is_somewhere, texts)):
            lacking -= words_for_living(text, lacking)
        if sum(map(lacking.issuperset, needed)) <= len(needed) // _MANY and lacking.isdisjoint(
            by_name
        ):
            if not called and _is_denied(things, whom, texts, of):
                return True
            if (
                all(any(map(is_told, repeat(kind), texts, spoken)) for kind in kinds)
                and (of_others or any(_is_theirs(things, other.cube, of) for other in near))
                and (
                    (("who" in kinds or of_others) and not whom)
                    or _speaks_of(whom, words, near, of, own)
                )
                and not (whom and _is_of_another(whom, set(words) - called_so, texts, of))
                and _is_so(text, words, texts)
            ):
                return True
    return False


def names_of_people(text: str) -> frozenset[str]:
    """Words of ``text`` that may be names of persons or animals, in lower case."""
    days = _names_of_days()
    return frozenset(
        name for name in names_in(text) if name not in days and not is_known_place(name)
    )


def _is_about(called: Collection[str], content: str) -> bool:
    """Whether ``content`` speaks of those with these names, and not only of whom they have."""
    owners = owners_in(content)
    said = [word.lower() for word in WORD.findall(_GENITIVE.sub("", content))]
    return not owners or any(said.count(name) > owners.count((name, True)) for name in called)


def _own_text(cube: Cube, *, of_user: bool, sure: bool, or_once: bool) -> str:
    """What a memory itself says: not the text of a task, nor, if it is asked of the user, what
    others say in it of themselves: “I was born in Harbin”.
    """
    content = ends(cube.content)
    is_task = cube.kind == "turn" and sets_task(content)
    if is_task or (sure and _ENDS_IN_COLON.search(content)):
        content = "\n".join(own_sentences(content))
    if not of_user:
        return content
    if sure and is_task:
        return ""
    own = FOREIGN.sub(lambda said: " " if mentions_user(said[0]) else said[0], content)
    if not sure:
        return own
    meant = in_earnest(sentences_of(own))
    return "\n".join(one for one in meant if not _may_not_be(one, or_once=or_once))


def _said_of_user(content: str, words: Collection[str], of: str) -> Iterator[str]:
    """The sentences of ``content`` that say nothing of others with these ``words``."""
    for sentence in sentences_of(content):
        only_asks = asks(sentence) and not tells_of_user(sentence, words, of)
        if not (only_asks or is_said_of_others(sentence, words, of)):
            yield sentence


def _may_not_be(sentence: str, *, or_once: bool) -> bool:
    """Whether the ``sentence`` says what would be, was dreamt, or what others say of the user.

    Or what was so once, unless that is asked for as well.
    """
    language = language_of(sentence)
    sentence = without_laughter(without_once(sentence) if or_once else sentence)
    return language is not None and any(
        reader.concerns(sentence) and reader.is_unsure(sentence)
        for reader in readers()
        if reader.language.name == language.name
    )


def _belongs(other: Cube, cube: Cube) -> bool:
    """Whether the ``other`` is to be read together with the ``cube``."""
    return other is cube or (
        cube.kind == other.kind == "turn"
        and abs(other.id - cube.id) <= _NEAR
        and other.id >> POSITION_BITS == cube.id >> POSITION_BITS
    )


def _speaks_of(
    whom: Sequence[Whom], words: Collection[str], near: Sequence[Hit], of: str, own: Collection[str]
) -> bool:
    """Whether the cubes speak of the people who are asked for, or if none are, not of others.

    But they may say what others do with things of the user's ``own``: “they put the rent up”.
    """
    texts = [ends(other.cube.content) for other in near]
    if whom and any(map(people_in, texts)):
        return all(any(_tells_of(one, other.cube) for other in near) for one in whom)
    about = sentences_with(words, texts, of)
    if whom and all(other.cube.kind == "turn" for other in near):
        return any(mentions_user(sentence) and not is_of_others(sentence) for sentence in about)
    things = {form for word in own for form in (*forms(word), *like(word, of))}
    return not about or not all(is_of_others(s) and not _has_definite(s, things) for s in about)


def _tells_of(whom: Whom, cube: Cube) -> bool:
    """Whether a memory tells of these people of the user's: “my dog”, “the dog”, “Mum”."""
    return any(
        cube.kind != "turn"
        or mention.start == 0
        or is_personal(sentence)
        or not _has_articles(sentence)
        for sentence in sentences_of(ends(cube.content))
        for mention in people_in(sentence)
        if is_same(whom, mention.whom)
    )


def _is_of_another(
    whom: Sequence[Whom], things: Collection[str], texts: Sequence[str], of: str
) -> bool:
    """Whether all that is said of the ``things`` is said in clauses about others than these people.

    “My mum had her knee done, and my dad is in ward 7” does not tell my mum's ward.
    """
    clauses = [
        (clause, [part for part in parts if part is not clause])
        for sentence in sentences_with(things, texts, of)
        for parts in (CLAUSE_ENDS.split(sentence),)
        for clause in parts
        if sentences_with(things, [clause], of)
    ]

    def tells_of_them(clause: str) -> bool:
        people = people_in(clause)
        rest = clause
        for mention in reversed(people):
            rest = f"{rest[: mention.start]} {rest[mention.end :]}"
        return bool(words_of(rest)) and _has_one(whom, people)

    return bool(clauses) and all(
        people_in(clause)
        and not _has_one(whom, people_in(clause))
        and any(map(tells_of_them, others))
        for clause, others in clauses
    )


def _has_one(whom: Sequence[Whom], people: Sequence[Mention]) -> bool:
    return any(is_same(one, mention.whom) for one in whom for mention in people)


def _is_denied(
    things: Collection[str], whom: Sequence[Whom], texts: Sequence[str], of: str
) -> bool:
    """Whether the user says that they have none of these people, or of the ``things``: “no car”.

    Not so “I didn't buy the sofa”, which says that of one of them.
    """
    if whom:
        things = {
            word
            for content in texts
            for mention in people_in(content)
            if _has_one(whom, [mention])
            for word in WORD.findall(content[mention.start : mention.end].lower())
        }
    known = {form for word in things for form in (*forms(word), *like(word, of))}
    return any(
        mentions_user(sentence)
        and not is_of_others(sentence)
        and denies(sentence, known)
        and not _has_definite(sentence, known)
        and known.isdisjoint(mine_in(sentence))
        and _stands_alone(known, sentence, of)
        for sentence in sentences_with(things, texts, of)
    )


def _stands_alone(things: Collection[str], sentence: str, of: str) -> bool:
    """Whether one of the ``things`` is no part of the name of another: “a car park”."""
    return any(
        one in things
        and (not other or other in things or is_stop_word(other, of) or not is_named(other, of))
        for clause in CLAUSE_ENDS.split(sentence.lower())
        for one, other in pairwise([*WORD.findall(clause), ""])
    )


def _is_so(text: str, asked: Collection[str], texts: Sequence[str]) -> bool:
    """Whether the ``texts`` say what the question takes for granted, and not that it is not so."""
    language = language_of(text)
    if language is None or not _has_question_word(text):
        return True
    about = sentences_with(asked, texts, language.name)
    for number, (begun, over) in enumerate(_opposites(language.name)):
        asks_begun, asks_over = bool(begun.search(text)), bool(over.search(text))
        if asks_over and not asks_begun and not any(_says(content, number)[1] for content in texts):
            return False
        said = [_says(sentence, number) for sentence in about]
        if asks_begun and not asks_over and said and max(said) == (False, True):
            return False
    words = {form for word in asked for form in (*forms(word), *like(word, language.name))}
    return not about or denies(text) or not all(denies(sentence, words) for sentence in about)


def _says(text: str, number: int) -> tuple[bool, bool]:
    """Whether ``text`` says the one and the other of two opposites; both, if that is not known."""
    language = language_of(text)
    pairs = _opposites(language.name) if language else ()
    if number >= len(pairs):
        return True, True
    begun, over = pairs[number]
    return bool(begun.search(text)), bool(over.search(text))


def _is_theirs(things: Collection[str], cube: Cube, of: str) -> bool:
    """Whether a memory may tell of the user's own what is asked of these: “my lawyer”."""
    if not things:
        return True
    content = ends(cube.content)
    lower = content.lower()
    words = {
        word
        for thing in things
        for word in (*forms(thing), *like(thing, of), *misspelt(fold(thing)))
    }
    if cube.kind != "turn":
        said = set(WORD.findall(lower))
        return not words.isdisjoint(said) or any(is_said(thing, said, of) for thing in things)
    sentences = sentences_of(content)
    about = [sentence for sentence in sentences if any(word in sentence.lower() for word in words)]
    if any(map(is_personal, about)):
        return True
    addressed = _addressed(language_name(content))
    others = (sentence for sentence in sentences if not (sentence in about or asks(sentence)))
    if not _has_articles(content) and not any(map(is_of_others, sentences)):
        return True  # who says “I” there mostly leaves it out
    talks_to = any(not addressed.isdisjoint(WORD.findall(other.lower())) for other in others)
    return not talks_to and any(
        _is_brief(sentence, words) and addressed.isdisjoint(WORD.findall(sentence.lower()))
        for sentence in statements(content)
    )


def _is_brief(sentence: str, words: Collection[str]) -> bool:
    """Whether it speaks of a thing as one does who means one's own: “the wifi”, “Sold the car”."""
    clauses = map(WORD.findall, CLAUSE_ENDS.split(sentence.lower()))
    return not (people_in(sentence) or asks(sentence)) and (
        any(said[0] in words for said in clauses if said)
        or _has_definite(sentence, words)
        or _begins_with_past(sentence)
    )


def _begins_with_past(sentence: str) -> bool:
    """Whether it begins with a verb in the past, and leaves out who did it."""
    language = language_of(sentence)
    return language is not None and bool(_past(language.name).match(sentence))


def _has_definite(sentence: str, words: Collection[str]) -> bool:
    """Whether a word like “the” stands before one of these in it, or before one more."""
    language = language_of(sentence)
    definite = _definite(language.name) if language else re.compile(NEVER)
    said = [*WORD.findall(sentence.lower()), ""]
    return any(
        definite.fullmatch(before) and (one in words or other in words)
        for before, one, other in zip(said, said[1:], said[2:], strict=False)
    )


def _needed_words(text: str) -> list[frozenset[str]]:
    """Groups of words of the question ``text``: an answer says one of each, or another for it.

    Names, whatever the language lists other words for, and things: of the two words behind an
    article or an owner the first may be an adjective, the second a verb.
    """
    stem, of = stemmer_of(text), language_name(text)
    words = [word for word in words_of(text) if is_named(word, of) and word not in implied()]
    sure = names_in(text) | owned_in(text) | _people()
    alone = {word for word in words if word in sure or like_stem(stem, word, of)}
    groups = [frozenset(phrase).intersection(words) for phrase in _phrases(text)]
    needed = [frozenset([word]) for word in words if word in alone] + [
        group for group in groups if group and alone.isdisjoint(group)
    ]
    if words and not needed and "number" in asks_for(text):
        return [frozenset(words)]  # “How much do I earn?” names nothing but by its verb
    return needed


def _phrases(text: str) -> Iterator[Sequence[str]]:
    """The two words behind each article or owner, in lower case."""
    language = language_of(text)
    articles = articles_of(language.name) if language else ()
    words = WORD.findall(_GENITIVE.sub(_OWNER, text.lower()))
    for at, word in enumerate(words[:-1]):
        if word == _OWNER.strip() or (word in articles and words[at + 1] not in articles):
            yield words[at + 1 : at + 3]


@cache
def _opposites(name: str) -> tuple[tuple[re.Pattern[str], re.Pattern[str]], ...]:
    language = language_called(name)
    pairs = language.questions.opposites if language.questions else ()
    return tuple((language.compile(one), language.compile(other)) for one, other in pairs)


@cache
def _question_word(name: str) -> re.Pattern[str]:
    language = language_called(name)
    return language.compile(
        r"(?<!\w)(?:{question_word})(?!\w)" if "question_word" in language.parts else NEVER
    )


def _has_question_word(text: str) -> bool:
    """Whether it asks for more than yes or no, as far as its language is known."""
    language = language_of(text)
    return language is not None and bool(_question_word(language.name).search(text))


@cache
def _past(name: str) -> re.Pattern[str]:
    language = language_called(name)
    past = r"(?:\w+,? ){0,2}(?:\w{2,}ed|{past})\b" if "past" in language.parts else NEVER
    return language.compile(past)


@cache
def _addressed(name: str) -> frozenset[str]:
    pronouns = language_called(name).pronouns if name else None
    return frozenset(pronouns.addressed.split() if pronouns else ())


@cache
def _definite(name: str) -> re.Pattern[str]:
    language = language_called(name)
    return language.compile(language.questions.definite if language.questions else NEVER)


def _has_articles(text: str) -> bool:
    """Whether its language has words like “the”, so that “wife” alone is nobody's."""
    language = language_of(text)
    questions = language.questions if language else None
    return questions is None or questions.definite not in ("", NEVER)


@cache
def _people() -> frozenset[str]:
    """Words for the user's people and animals where no article tells that they are things."""
    return frozenset(
        word
        for language in languages()
        if language.facts and not language.facts.spaced
        for pattern in language.facts.people.values()
        for word in words_in(pattern)
    )


@cache
def implied() -> frozenset[str]:
    """Words of a question that an answer seldom repeats."""
    return words_for_questions(lambda questions: questions.implied)


@cache
def _names_of_days() -> frozenset[str]:
    return frozenset(
        name
        for language in languages()
        if language.dates
        for name in (*months_of(language.dates), *forms_of(language.dates.weekdays))
    )
