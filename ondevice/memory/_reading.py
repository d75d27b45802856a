"""Has a model read what the user typed, for facts that the rules do not catch.

A small model invents. So it may only point: the grammar is made from the words of the text, and
what it can say of a fact is its kind and a run of these very words. It also takes what might be
for what is, and one person for another. So what it finds is proposed, and the user decides. The
turn itself is kept anyway; a fact adds the words of its kind, by which it is found as well (key
expansion, LongMemEval section 5.2).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache

from ondevice.memory._fact_reader import Fact
from ondevice.memory._language import languages
from ondevice.messages import Role

_MOST_WORDS = 120  # of a text; each is a rule of the grammar
_MOST_FACTS = 3
_LONGEST_SUBJECT = 3  # words

#: What is asked about a fact of this kind. Of the first group there is one at a time: a new one
#: supersedes the old one.
_ONE = {
    "name": "name, called",
    "home": "home, live, city, address",
    "job": "job, work, profession, employer",
    "date": "date, when",
    "price": "price, cost, how much",
}
_MANY = {
    "family": "family, relative",
    "friend": "friend",
    "pet": "pet, animal",
    "health": "health, allergy, illness",
    "likes": "likes, favourite",
    "dislikes": "dislikes, hates",
    "hobby": "hobby, sport, free time",
    "skill": "skill, learning",
    "belonging": "belonging, owns",
    "plan": "plan, future",
    "event": "event, happened",
}
_KINDS = _ONE | _MANY
#: Topics of the user's that rules read as well.
_AS_BY_RULE = {"name": "name", "home": "home", "job": "work"}

_INSTRUCTIONS = f"""\
You list what a message tells about the life of its writer: people, pets, places, work, health, \
likes, belongings, plans, events, dates, prices. One line for each fact:
kind | whom or what it is about | the words of the message that say it
The kinds are {", ".join(_KINDS)}. Requests and general knowledge are no facts: then say none."""

_EXAMPLES = (
    ("Give me a recipe for lentil soup.", "none"),
    (
        "My brother Paul sold his boat yesterday, and now he wants a caravan.",
        "event | brother Paul | sold his boat yesterday\nplan | brother Paul | wants a caravan",
    ),
    ("Write a function that sorts a list.", "none"),
    ("I can't stand cilantro, so leave it out.", "dislikes | me | can't stand cilantro"),
)

_WORD = re.compile(r"[^\W_](?:[^\s|]*[^\W_])?[%€$£]?")
_GAP = re.compile(r"[^\n|]{1,6}")  # between two words of a run
_NEEDS_FIGURE = frozenset({"date", "price"})


def read_question(text: str) -> list[tuple[Role, str]]:
    """What to ask a model: roles and contents, the system's first."""
    turns: list[tuple[Role, str]] = [("system", _INSTRUCTIONS)]
    for message, answer in _EXAMPLES:
        turns += [("user", message), ("assistant", answer)]
    return [*turns, ("user", text)]


def read_grammar(text: str) -> str:
    """What the model may answer, in GBNF: kinds, and runs of words that stand in ``text``."""
    words = list(_WORD.finditer(text))[:_MOST_WORDS]
    if not words:
        return 'root ::= "none"'
    rules = [
        'root ::= "none" | fact' + '("\\n" fact' * (_MOST_FACTS - 1) + ")?" * (_MOST_FACTS - 1),
        'fact ::= kind " | " subject " | " run',
        "kind ::= " + " | ".join(f'"{kind}"' for kind in _KINDS),
        "run ::= " + " | ".join(f"r{n}" for n in range(len(words))),
    ]
    subjects = ['"me"']
    for n, word in enumerate(words):
        run = _literal(word[0])
        subjects += [_literal(text[word.start() : end]) for end in _ends(text, words, n)]
        gap = text[word.end() : words[n + 1].start()] if n + 1 < len(words) else "\n"
        if _GAP.fullmatch(gap):
            run += f" ({_literal(gap)} r{n + 1})?"
        rules.append(f"r{n} ::= {run}")
    rules.append("subject ::= " + " | ".join(dict.fromkeys(subjects)))
    return "\n".join(rules)


def _ends(text: str, words: list[re.Match[str]], first: int) -> Iterator[int]:
    """Where a subject that begins with this word may end."""
    for n in range(first, min(first + _LONGEST_SUBJECT, len(words))):
        if n > first and text[words[n - 1].end() : words[n].start()] != " ":
            return
        yield words[n].end()


def _literal(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def read_answer(answer: str, text: str) -> list[Fact]:
    """The facts that a model has pointed at in ``text``."""
    found: dict[str, Fact] = {}
    user, others = _pronouns()
    for line in answer.splitlines():
        kind, _, rest = line.partition(" | ")
        subject, _, quote = rest.partition(" | ")
        if kind not in _KINDS or not quote or quote not in text or quote in found:
            continue  # cut short, or the same once more
        about = "user" if subject.lower() in user else subject
        if quote.lower() in (subject.lower(), *user) or (
            about == "user" and others.search(quote.lower())
        ):
            continue
        if kind in _NEEDS_FIGURE and not re.search(r"\d", quote):
            continue
        topic = f"{kind} of {about.lower()}" + (f": {quote.lower()}" if kind in _MANY else "")
        if about == "user":
            topic = _AS_BY_RULE.get(kind, topic)
        name = "the user" if about == "user" else about
        found[quote] = Fact(topic, f"About {name}: {quote} ({_KINDS[kind]}).")
    return list(found.values())


@cache
def _pronouns() -> tuple[frozenset[str], re.Pattern[str]]:
    """The words of all languages for the user, and what finds those for others."""
    known = [language.pronouns for language in languages() if language.pronouns]
    user = frozenset(word for pronouns in known for word in pronouns.user.split())
    others = "|".join(word for pronouns in known for word in pronouns.others.split())
    return user, re.compile(rf"\b(?:{others})\b")
