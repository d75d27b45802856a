"""Reads plain facts out of what the user typed, by rules: “I live in Lyon”, “my dog is called Rex”.

Few and safe: a rule catches only statements in the first person, each gives one fact with a
topic, and a later value of a topic replaces the earlier. Everything else stays findable in the
turn itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from ondevice.memory._asking import requests, statements
from ondevice.memory._dates import MONTHS


@dataclass(frozen=True)
class Fact:
    topic: str  # what it is about, such as "home" or "name of dog"
    content: str  # a sentence about the user, or of a lesson one about replies
    kind: Literal["fact", "lesson"] = "fact"


_VALUE = r"(?P<value>[^.!?;,\n()]{1,60}?)"
_MONTH = "|".join(MONTHS)

#: Words that say when, and belong to no value: “in March”, “two years ago”, “on the 3rd”.
_WHEN = (
    r"last|this|next|today|tonight|yesterday|tomorrow|recently|lately|already|again|soon"
    r"|(?:in|during|at|by|around|until) (?:the )?(?:(?:early|late|mid|beginning of|end of|start of"
    rf"|middle of)[ -](?:the )?)?(?:(?:19|20)\d\d|{_MONTH}|spring|summer|autumn|fall|winter"
    r"|weekend|week|month|year)"
    rf"|on (?:the )?(?:\d{{1,2}}(?:st|nd|rd|th)?|{_MONTH}|(?i:\w+day))"
    r"|(?:about |around |over )?(?:an?|\d{1,3}|one|two|three|four|five|six|seven|eight|nine|ten"
    r"|a few|a couple of|some|many)(?: \w+)? (?:days?|weeks?|months?|years?|while) (?:ago|back)"
    r"|a while ago|back (?:in|then|when)"
)
_END = (
    r"(?=\s*(?:[.!?;,\n()]|$)| (?:and|but|so|because|since|now|with|where|which|who|for|though"
    rf"|(?i:{_WHEN}))\b(?!-))"
)
_LIST = r"(?P<value>[^.!?;\n()]{1,80}?)(?=[.!?;\n()]|$|,? (?:so|but|because|which|since)\b)"
_NAMED = r"(?P<value>[^\W\d_][\w'’-]{0,30}(?: [A-Z][\w'’-]{0,30}){0,2})"
_KIN = (
    "wife|husband|partner|girlfriend|boyfriend|fiancée?|mother|mom|mum|father|dad|brother|sister|"
    "son|daughter|dog|cat|boss|manager|best friend|doctor"
)

#: Rule, topic and sentence, in which names in braces are the rule's groups. What a question may
#: call the thing stands in brackets: search goes by words (key expansion, LongMemEval section 5.2).
#: They are compiled when the first message is read, for that takes longer than all else at start.
_RULES: tuple[tuple[str, str, str], ...] = tuple(
    (rf"\b(?i:{rule}){tail}{_END}", topic, sentence)
    for rule, tail, topic, sentence in (
        (r"my name(?: is|'s) ", _NAMED, "name", "The user's name is {value}."),
        (
            r"I (?:now )?live (?:now )?in ",
            _VALUE,
            "home",
            "The user lives in {value} (home, city, address).",
        ),
        (
            r"I(?:'ve| have)?(?: just| recently)? moved to ",
            _VALUE,
            "home",
            "The user lives in {value} (home, city, address).",
        ),
        (r"I(?:'m| am) from ", _VALUE, "origin", "The user is from {value} (origin)."),
        (r"I (?:now )?work as ", _VALUE, "work", "The user works as {value} (job, profession)."),
        (
            r"I (?:now )?work (?:at|for) ",
            _VALUE,
            "employer",
            "The user works for {value} (job, employer).",
        ),
        (r"my birthday is (?:on )?", _VALUE, "birthday", "The user's birthday is {value}."),
        (
            r"I was born ",
            r"(?P<value>(?:on|in) [^.!?;,\n()]{1,60}?)",
            "birth",
            "The user was born {value} (birth, birthday, age).",
        ),
        (
            r"I(?:'m| am) allergic to ",
            _LIST,
            "allergy to {value}",
            "The user is allergic to {value} (allergy).",
        ),
        (
            r"I(?:'m| am) (?:a )?(?=(?:vegan|vegetarian|pescatarian|teetotal)\b)",
            _VALUE,
            "diet",
            "The user is {value} (diet, food).",
        ),
        (
            r"my favou?rite (?P<thing>[\w ]{1,30}?) (?:is|are) ",
            _VALUE,
            "favourite {thing}",
            "The user's favourite {thing} is {value}.",
        ),
        (
            rf"my (?P<thing>{_KIN})(?:'s name is| is (?:called|named)) ",
            _NAMED,
            "name of {thing}",
            "The user's {thing} is called {value}.",
        ),
    )
)
_UNSURE = re.compile(r"\b(?:if|when|wish|imagine|suppose|pretend|would|could|might|he|she|they)\b")


def not_understood(text: str) -> list[str]:
    """The sentences of ``text`` that state something which no rule reads."""
    return [sentence for sentence in told(text) if not any(find_facts(sentence))]


def told(text: str) -> list[str]:
    """The sentences of ``text`` that state something: no code, quotations, questions, requests."""
    return [sentence for sentence in statements(text) if not requests(sentence)]


def find_facts(text: str) -> Iterator[Fact]:
    """The facts that the user states about themselves in ``text``, which they typed themselves."""
    for sentence in statements(text):
        if _UNSURE.search(sentence.lower()):
            continue
        for rule, topic, content in _RULES:
            for match in re.finditer(rule, sentence):
                groups = {name: value.strip() for name, value in match.groupdict().items()}
                if groups["value"]:
                    yield Fact(topic.format(**groups).lower(), content.format(**groups))
