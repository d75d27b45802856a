"""Tells of whom a text speaks: of the user, or of somebody else, and whose they are.

“My sister Paula got married” and “the neighbour's dog” have words of “What is my wife called?” and
“What is my dog called?”, and answer neither. Whom a text speaks of are the people and animals of
``[facts.people]``, behind their owners: (neighbour, dog). How a language says whose they are is in
``[whose]`` of its file.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import cache
from itertools import pairwise
from typing import NamedTuple

from ondevice.memory._dates import without_times
from ondevice.memory._language import (
    NEVER,
    Alike,
    Language,
    dots_of_titles,
    language_called,
    languages,
    titles,
    words_in,
)
from ondevice.memory._stems import Stem, stemmer_of
from ondevice.memory._words import WIDE, WORD, is_stop_word, language_of

Whom = tuple[str, ...]  # relations, owners first: (“boss”, “dog”) is the boss's dog

_SOMEBODY = "somebody"  # an owner who is not said: “her husband”, “the dog next door”
_ROLE = "role"  # somebody by their job, for which every language has its own words
#: A relation that is also one of two.
_IN_LAW = "-in-law"
_SENTENCE = r"(?=[.!?])(?!{titles})[.!?]+(?=\s|$)|[。！？।\n]+"
_NAME = r"(?:,? (?-i:[^\W\d_a-zß-ÿа-яё])[\w-]+)?"
_OWNER = r"(?-i:[^\W\d_a-zß-ÿа-яё])[\w-]*\w"
_BEFORE_NAME = re.compile(r"\.? [^\W\d_a-zß-ÿа-яё]")
_ROOT = 3  # letters of a stem at least
_ENDING = 3  # letters of an ending at most: “женится” is no form of “жена”
#: Between the clauses of a sentence.
CLAUSE_ENDS = re.compile(r"[,;:–—](?=\s)|[，、；]")
_NEAR = 2  # words between “my” or “never” and what is meant


class Mention(NamedTuple):
    """Where a text speaks of somebody."""

    start: int
    end: int
    whom: Whom


def sentences_of(text: str) -> list[str]:
    """The sentences of ``text``, roughly."""
    return [stripped for sentence in _sentence_end().split(text) if (stripped := sentence.strip())]


@cache
def _sentence_end() -> re.Pattern[str]:
    return re.compile(_SENTENCE.replace("{titles}", dots_of_titles()), re.IGNORECASE)


def people_in(text: str) -> list[Mention]:
    """Whom ``text`` speaks of, in order."""
    rules = _rules_for(text)
    if rules is None:
        return []
    found: list[Mention] = []
    speaks_of_user = bool(rules.user.search(text))
    for at, end, relation in _words_for_people(text, rules):
        start = at
        whom: Whom = (relation,)
        before = found[-1] if found else None
        is_mine = bool(_mine_before(rules, text, at))
        if before and rules.owns.fullmatch(text, before.end, at):
            start, whom = found.pop().start, (*before.whom, relation)
        elif before and rules.has.fullmatch(text, before.end, at):
            whom = (*before.whom, relation)
        elif before and rules.owned.fullmatch(text, before.end, at):
            start, has = found.pop().start, before.whom[before.whom[0] == _SOMEBODY :]
            whom = (relation, *has)
        elif rules.theirs.fullmatch(" ".join(WORD.findall(text[:at])[-1:])):
            whom = (*(before.whom if before else (_SOMEBODY,)), relation)
        elif rules.others.match(text, end) and not is_mine:
            whom = (_SOMEBODY, relation)
        elif before and not (is_mine or speaks_of_user or rules.lists.search(text, before.end, at)):
            whom = (*before.whom, relation)
        found.append(Mention(start, end, whom))
    return [mention for mention in found if mention.whom != (_ROLE,)]


def is_same(one: Whom, other: Whom) -> bool:
    """Whether both may be the same people."""
    if len(one) == len(other):
        return all(map(_is_alike, one, other))
    return any(len(whom) == 1 and whom[0].endswith(_IN_LAW) for whom in (one, other))


def mentions_user(sentence: str) -> bool:
    """Whether who says the ``sentence`` is in it, as far as its language is known."""
    rules = _rules_for(sentence)
    return rules is None or bool(rules.user.search(sentence))


def is_of_others(sentence: str) -> bool:
    """Whether the ``sentence`` tells of others alone, be they of the user's: “my sister has …”."""
    rules = _rules_for(sentence)
    if rules is None:
        return False
    people = people_in(sentence)
    rest = sentence
    for mention in reversed(people):
        start = min((mention.start, *_mine_before(rules, rest, mention.start)))
        ours = rules.ours.match(rest, mention.end)
        rest = f"{rest[:start]} {rest[ours.end() if ours else mention.end :]}"
    if rules.user.search(rest):
        return False
    if any(map(rules.theirs.fullmatch, WORD.findall(rest))):
        return True
    if not people:
        return False
    start = min((people[0].start, *_mine_before(rules, sentence, people[0].start)))
    return all(map(is_stop_word, WORD.findall(without_times(sentence[:start]))))


def owners_in(text: str) -> list[tuple[str, bool]]:
    """Who owns somebody whom ``text`` speaks of, in lower case: “Lily's boyfriend” is not Lily.

    And whether a word or a sign says so. Else their ending has to: “дочь Ивана” is not Иван, but
    “дочь Вера” is Вера.
    """
    rules = _rules_for(text)
    if rules is None:
        return []
    found = []
    for mention in people_in(text):
        if owner := rules.owner_before.search(text, 0, mention.start):
            found.append((owner[1].lower(), True))
        if owner := rules.owner_behind.match(text, mention.end):
            marked = bool(text[mention.end : owner.start(1)].strip())
            found.append((owner[1].lower(), marked))
    return found


def denies(sentence: str, words: Collection[str] | None = None) -> bool:
    """Whether a word like “never” is in it; before one of the ``words``, or close to it.

    Not if another clause has one of them without: “no compré la moto, compré una bici”.
    """
    rules = _rules_for(sentence)
    if rules is None or words is None:
        return rules is not None and rules.never.search(sentence) is not None
    asked = set(words)
    return any(
        not asked.isdisjoint(WORD.findall(sentence[found.end() :].lower())[: _NEAR + 1])
        for found in rules.never.finditer(sentence)
    ) and all(
        rules.never.search(clause)
        for clause in CLAUSE_ENDS.split(sentence)
        if not asked.isdisjoint(WORD.findall(clause.lower()))
    )


def mine_in(text: str) -> frozenset[str]:
    """The words that stand right behind one like “my”, in lower case."""
    rules = _rules_for(text)
    words = WORD.findall(text.lower())
    pairs = pairwise(words)
    return frozenset(word for my, word in pairs if rules and rules.mine.fullmatch(my))


def _mine_before(rules: _Rules, text: str, start: int) -> list[int]:
    """Where words like “my” stand right before a place in ``text``."""
    if not rules.spaced:
        found = rules.mine_right_before.search(text, 0, start)
        return [found.start()] if found else []
    before = [*WORD.finditer(text, 0, start)][-_NEAR:]
    return [word.start() for word in before if rules.mine.fullmatch(word[0])]


def _is_alike(one: str, other: str) -> bool:
    return (
        one == other
        or _ROLE in (one, other)
        or other in WIDE.get(one, ())
        or one in WIDE.get(other, ())
    )


def _words_for_people(text: str, rules: _Rules) -> Iterator[tuple[int, int, str]]:
    """Start, end and relation of each word for somebody, in order."""
    stem = stemmer_of(text)
    spans = [
        (found.start(), found.end(), rules.relations[(found.lastindex or 1) - 1])
        for found in rules.people.finditer(text)
    ]
    taken = {at for start, end, _ in spans for at in range(start, end)}
    for word in WORD.finditer(text) if rules.spaced else ():
        if word.start() in taken:
            continue
        lower = word[0].lower()
        relation = rules.words.get(lower)
        root = stem(lower) if stem and relation is None else ""
        is_form = len(root) >= _ROOT and len(lower) - len(root) <= _ENDING
        if stem and is_form and not is_stop_word(lower):  # “nicht” is no form of “Nichte”
            relation = _of_stems(rules.name, stem).get(root)
        if relation:
            spans.append((word.start(), word.end(), relation))
    yield from sorted(span for span in spans if not _is_title(text, span[0], span[1], rules))


def _is_title(text: str, start: int, end: int, rules: _Rules) -> bool:
    """Whether a word stands before a name and is none for somebody: not “meine Frau Eva”."""
    return (
        text[start:end].lower() in titles()
        and _BEFORE_NAME.match(text, end) is not None
        and not any(rules.mine.fullmatch(word) for word in WORD.findall(text[:start])[-1:])
    )


class _Rules(NamedTuple):
    """How a language speaks of people, compiled."""

    name: str
    spaced: bool
    people: re.Pattern[str]
    relations: tuple[str, ...]  # of each group of ``people``
    words: dict[str, str]  # more words for people, with the relation of each
    user: re.Pattern[str]  # “I”, “my”
    mine: re.Pattern[str]  # “my”
    mine_right_before: re.Pattern[str]
    theirs: re.Pattern[str]
    they: re.Pattern[str]
    owns: re.Pattern[str]
    has: re.Pattern[str]
    owned: re.Pattern[str]
    owner_before: re.Pattern[str]
    owner_behind: re.Pattern[str]
    others: re.Pattern[str]
    ours: re.Pattern[str]
    never: re.Pattern[str]
    lists: re.Pattern[str]  # “and”, a comma, and other ends of a statement


def users_and_others(sentence: str) -> tuple[list[int], list[int]]:
    """Where in the ``sentence`` words end that stand for the user, and words for somebody else."""
    rules = _rules_for(sentence)
    if rules is None:
        return [], []
    return (
        [found.end() for found in rules.user.finditer(sentence)],
        [found.end() for found in rules.they.finditer(sentence)],
    )


def _rules_for(text: str) -> _Rules | None:
    language = language_of(text)
    return _rules(language.name) if language and language.facts and language.whose else None


@cache
def _rules(name: str) -> _Rules:
    language = language_called(name)
    facts, whose, questions, dates = (
        language.facts,
        language.whose,
        language.questions,
        language.dates,
    )
    assert facts
    assert whose
    # Of words that begin alike the longer ones first: “mother-in-law”.
    people = sorted(facts.people.items(), key=lambda item: not re.search("[- ]", item[0]))
    whole = r"(?<!\w)(?:{})(?![\w-])" if facts.spaced else "{}"
    user = (
        dates.mine if dates else "",
        questions.mentions if questions else "",
        questions.first_person if questions else "",
    )

    def compiled(pattern: str, form: str = "{}") -> re.Pattern[str]:
        return language.compile(form.replace("{}", pattern) if pattern else NEVER)

    return _Rules(
        name=name,
        spaced=facts.spaced,
        people=compiled("|".join(f"({words})" for _, words in people), whole),
        relations=tuple(relation for relation, _ in people),
        words=_more_words(language),
        user=compiled("|".join(filter(None, user))),
        mine=compiled(whose.mine),
        mine_right_before=compiled(whose.mine, "(?:{})$"),
        theirs=compiled(whose.theirs),
        they=compiled(whose.they, r"(?<!\w)(?:{})(?!\w)" if facts.spaced else "{}"),
        owns=compiled(whose.owns, f"{_NAME}(?:{{}})"),
        has=compiled(whose.has, f"{_NAME}(?:{{}})"),
        owned=compiled(whose.owned, f"{_NAME}(?:{{}})"),
        owner_before=compiled(whose.owns, f"({_OWNER})(?:{{}})$"),
        owner_behind=compiled(whose.owned, f"(?:{{}})({_OWNER})"),
        others=compiled(whose.others, "[ ](?:{})"),
        ours=compiled(whose.ours, "[ ](?:{})"),
        never=compiled(whose.never),
        lists=compiled(facts.lists or NEVER, r"[,;:.!?]|(?<!\w)(?:{})(?!\w)"),
    )


def _more_words(language: Language) -> dict[str, str]:
    """Words that are used for people, and for jobs, which are somebody's: “teacher”."""
    facts = language.facts
    assert facts
    words = dict.fromkeys(words_in(facts.values.get("job", "")), _ROLE)
    relations = {relation for one in languages() if one.facts for relation in one.facts.people}
    for relation, listed in language.search.like.items():
        if relation in relations:
            words |= dict.fromkeys(Alike.of(listed).words, relation)
    words |= {word: key for key, pattern in facts.people.items() for word in words_in(pattern)}
    return words | {f"{word}s": relation for word, relation in words.items() if language.rank == 1}


@cache
def _of_stems(name: str, stem: Stem) -> dict[str, str]:
    return {stem(word): relation for word, relation in _rules(name).words.items()}
