"""Reads plain facts out of what the user typed, by rules: “I live in Lyon”, “my dog is called Rex”.

Few and safe: a rule catches only statements in the first person, each gives one fact with a
topic, and a later value of a topic replaces the earlier. Everything else stays findable in the
turn itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from ondevice.memory._asking import requests, statements
from ondevice.memory._language import FactRules, Language, languages


@dataclass(frozen=True)
class Fact:
    topic: str  # what it is about, such as "home" or "name of dog"
    content: str  # a sentence about the user, or of a lesson one about replies
    kind: Literal["fact", "lesson"] = "fact"


_VALUE = r"(?P<value>[^.!?;,\n()]{1,60}?)"
_NAME = r"(?P<value>[^\W\d_][\w'’-]{0,30}(?: [A-Z][\w'’-]{0,30}){0,2})"


class _FactReader:
    """What tells a fact in one language, compiled."""

    def __init__(self, language: Language, facts: FactRules) -> None:
        list_end = rf"(?=[.!?;\n()]|$|,? (?:{language.pattern(facts.list_ends)})\b)"
        values = rf"(?P<value>[^.!?;\n()]{{1,80}}?){list_end}"
        ends = f"{language.pattern(facts.ends)}|(?i:{language.pattern(facts.when)})"
        end = rf"(?=\s*(?:[.!?;,\n()]|$)| (?:{ends})\b(?!-))"
        self.unsure = re.compile(language.pattern(facts.unsure))
        self.rules = tuple(
            (
                re.compile(
                    rf"\b(?i:{language.pattern(rule.says)})"
                    + language.pattern(rule.value, value=_VALUE, values=values, name=_NAME)
                    + end
                ),
                rule,
            )
            for rule in facts.rules
        )


@cache
def _rules() -> tuple[_FactReader, ...]:
    return tuple(
        _FactReader(language, language.facts) for language in languages() if language.facts
    )


def not_understood(text: str) -> list[str]:
    """The sentences of ``text`` that state something which no rule reads."""
    return [sentence for sentence in told(text) if not any(find_facts(sentence))]


def told(text: str) -> list[str]:
    """The sentences of ``text`` that state something: no code, quotations, questions, requests."""
    return [sentence for sentence in statements(text) if not requests(sentence)]


def find_facts(text: str) -> Iterator[Fact]:
    """The facts that the user states about themselves in ``text``, which they typed themselves."""
    for sentence in statements(text):
        for language in _rules():
            if not language.unsure.search(sentence.lower()):
                yield from _facts_in(sentence, language)


def _facts_in(sentence: str, language: _FactReader) -> Iterator[Fact]:
    for pattern, rule in language.rules:
        for match in pattern.finditer(sentence):
            groups = {name: value.strip() for name, value in match.groupdict().items()}
            if groups["value"]:
                yield Fact(rule.topic.format(**groups).lower(), rule.fact.format(**groups))
