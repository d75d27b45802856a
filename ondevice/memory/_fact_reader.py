"""Reads the facts that one sentence states, with the patterns of one language."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple

from ondevice.memory._fact_kinds import BESIDES, KINDS, MANY, OF_OTHERS, SEVERAL
from ondevice.memory._fact_patterns import LETTER, CompiledFacts, Match, patterns_of
from ondevice.memory._language import FactPatterns, Language, languages
from ondevice.memory._values import Certainty, Text, check, is_list

_MOST_STATEMENTS = 5  # of a sentence, in which words are left out
_BESIDE = " \t*_~\"'|#•-–—"  # signs around a value that are no part of it


@dataclass(frozen=True)
class Fact:
    topic: str  # what it is about, such as "home" or "name of dog"
    content: str  # a sentence about the user, or of a lesson one about replies
    kind: Literal["fact", "lesson"] = "fact"
    certain: bool = True  # else it is proposed
    value: str = ""  # as said
    sentence: str = ""  # that says it
    whole: bool = True  # the sentence says no more than that


class Ending(NamedTuple):
    """What is said to be so no longer, or never to have been."""

    topics: tuple[str, ...]  # how they begin
    value: str  # empty: any
    just_said: bool = False  # of whom the message before tells: “she died”


class Correction(NamedTuple):
    """What was said last had another value."""

    value: str
    text: Text


#: “My name is Hanna, not Anna.”
_CONTRAST = re.compile(
    r", ?(?:and )?(?:not|nicht|pas|no|non|não|niet|а не|не) (?:on |in |at |am |le |el )?"
    r"[A-ZÀ-ÞА-Я\d][\w ]{0,24}[.!]*$"
)
_PICTURES = re.compile(r"\s*[\u2600-\u27bf\U0001f000-\U0001faff\ufe0f]+$")
_POSSESSIVE = re.compile(r"['’]s$")  # “my daughter Sara's birthday”


class FactReader:
    """What tells a fact in one language, compiled when a text first has a word about its user."""

    def __init__(self, language: Language, facts: FactPatterns) -> None:
        self.language = language
        self.facts = facts
        edge = f"(?!{LETTER})" if facts.spaced else ""
        self._user = language.compile(rf"{self._edge}(?:{facts.user}){edge}")

    @property
    def _edge(self) -> str:
        return f"(?<!{LETTER})" if self.facts.spaced else ""

    def concerns(self, sentence: str) -> bool:
        """Whether the sentence has a word for the user in this language."""
        return bool(self._user.search(sentence))

    def is_unsure(self, sentence: str) -> bool:
        """Whether what the sentence says is somebody else's, made up, or may never be."""
        return bool(self._parts.unsure.search(sentence))

    def read(self, sentence: str, text: Text) -> Iterator[Fact]:
        """The facts in a sentence, whether they are certain by the sentence alone or not."""
        if self._parts.denies and self._parts.denies.match(sentence):
            return
        plain, _ = self.undone(_CONTRAST.sub("", sentence), text)
        plain, _ = self.without_endings(plain)
        if sentence.endswith(("...", "…")):
            plain += "…"
        yield from self._stated(plain, text)

    def _stated(self, plain: str, text: Text) -> Iterator[Fact]:
        """The facts in a sentence of which all is meant to be so."""
        if self.is_unsure(plain):
            return
        plain = self._complete(plain)
        found: list[Match] = []
        for rule in self._parts.states:
            for match in rule.find(plain):
                if rule.kind in BESIDES and any(map(match.overlaps, found)):
                    continue  # “I'm vegan” is no name
                facts = list(self._fact(rule.kind, match, plain, text))
                found += [match] if facts else []
                yield from facts
        for rule in self._parts.others:
            for about in rule.find(plain):
                if self._parts.lead.fullmatch(plain, 0, about.start):
                    yield from self._others_fact(rule.kind, about, text)

    def _fact(self, name: str, match: Match, sentence: str, text: Text) -> Iterator[Fact]:
        kind = KINDS[name]
        value = _PICTURES.sub("", match.groups["value"].strip(_BESIDE))
        if kind.open:
            value = _POSSESSIVE.sub("", value)
        groups = {"value": value, "who": self._who(match), "thing": ""}
        if not value or (not groups["who"] and "who" in match.groups):
            return
        fit = check(kind.sort, value, text)
        if "thing" in match.groups:
            groups["thing"] = match.groups["thing"].lower()
            if len(groups["thing"].split()) > 2:
                return
            things = self._parts.things
            small = text.has_capitals and self.facts.capitals and value[0].islower()
            named = self._parts.named and self._parts.named.search(groups["thing"])
            if not (things and things.search(groups["thing"])) or (small and named):
                fit = min(fit, Certainty.POSSIBLY)
            groups["thing"] = self._thing(groups["thing"])
        if groups["who"] in MANY and kind.sort == "person" and not is_list(value):
            fit = Certainty.NO  # “two sons, Alan in Leeds and …”
        if fit is Certainty.NO:
            return
        before, after = sentence[: match.start], sentence[match.end :]
        certain = (
            kind.sure
            and fit is Certainty.CERTAINLY
            and not sentence.endswith("…")
            and not self._parts.doubtful.search(f"{before} {value} {after}")
            and self._parts.lead.fullmatch(before) is not None
            and (kind.open or self._parts.rest.fullmatch(after) is not None)
        )
        topic = kind.topic.format(**groups)
        if groups["who"] in SEVERAL:
            topic += f": {value}"
        content = kind.content.format(**groups)
        yield Fact(topic.lower(), content, certain=certain, value=value, whole=not kind.open)

    def _others_fact(self, name: str, match: Match, text: Text) -> Iterator[Fact]:
        value = match.groups["value"]
        relation = self._who(match)
        if not value or not relation or check(KINDS[name].sort, value, text) is Certainty.NO:
            return
        called = match.groups.get("called", "")
        who = called or relation
        full = f"{called}, the user's {relation}," if called else f"The user's {relation}"
        if name == "birthday" and called:
            full = called
        topic, content = OF_OTHERS[name]
        yield Fact(
            topic.format(who=who, value=value).lower(),
            content.format(Who=full, value=value),
            "fact",
            certain=False,
            value=value,
        )

    def _complete(self, sentence: str) -> str:
        """The sentence with what its later statements leave out."""
        for pattern, full in self._parts.completes:
            for _ in range(_MOST_STATEMENTS):
                before = sentence
                sentence = pattern.sub(full, before, count=1)
                if sentence == before:
                    break
        return sentence

    def undone(self, sentence: str, text: Text) -> tuple[str, list[Ending]]:
        """The sentence without the clauses that tell what is no longer so, and what that is."""
        sentence = self._complete(sentence)
        if not self._parts.undoes:
            return sentence, []
        kept, ended = "", []
        for clause, after in self._clauses(sentence):
            was = clause
            for pattern, so in self._parts.undoes:
                was = pattern.sub(so, was, count=1)
            facts = list(self._stated(was, text)) if was != clause else []
            ended += [Ending((_before_value(fact),), fact.value) for fact in facts]
            kept += "" if facts else clause + after
        return (kept, ended) if ended else (sentence, [])

    def _clauses(self, sentence: str) -> Iterator[tuple[str, str]]:
        """The clauses of the sentence, each with what parts it from the next."""
        start = 0
        for found in self._parts.contrast.finditer(sentence):
            yield sentence[start : found.start()], found[0]
            start = found.end()
        yield sentence[start:], ""

    def without_endings(self, sentence: str) -> tuple[str, list[Ending]]:
        """The sentence without what it says is over, and that."""
        if not self.facts.ends:
            return sentence, []
        found = []
        for rule in self._parts.ends:
            match = next(rule.find(sentence), None)
            if match is None or ("who" in match.groups and not self._who(match)):
                continue
            topics = _ended(rule.kind, self._who(match))
            value = match.groups.get("value", "")
            found.append(Ending(topics, value, just_said=rule.kind == "they"))
            sentence = f"{sentence[: match.start]} {sentence[match.end :]}"
        return sentence.strip(" ,;.!"), found

    def denied(self, sentence: str, text: Text) -> list[Ending]:
        """What the sentence says not to be so: “forget that I live in Bonn”."""
        match = self._parts.denies.match(sentence) if self._parts.denies else None
        if match is None:
            return []
        facts = self.read(sentence[match.end() :].strip(), text)
        return [Ending((fact.topic,), fact.value) for fact in facts]

    def correction(self, sentence: str) -> str:
        """The value that the sentence puts in the place of another, or nothing."""
        matches = (rule.fullmatch(sentence) for rule in self._parts.corrects)
        return next((match["value"].strip() for match in matches if match), "")

    def allowed(self, sentence: str) -> str:
        """What the sentence allows that a lesson did not."""
        match = self._parts.allows.search(sentence) if self._parts.allows else None
        return match[0] if match else ""

    def _who(self, match: Match) -> str:
        """Whom of the user's people or animals the words mean; empty for anybody else."""
        said = match.groups.get("who", "").lower()
        found = self._parts.people.fullmatch(said) if said else None
        number = found and found.lastgroup
        return list(self.facts.people)[int(number[1:])] if number else ""

    def _thing(self, said: str) -> str:
        """A thing by its English name, where it has one: a topic is the same in all languages."""
        things = self.facts.things.items()
        return next((name for name, words in things if re.fullmatch(words, said)), said)

    @property
    def _parts(self) -> CompiledFacts:
        return patterns_of(self.language.name)


def _before_value(fact: Fact) -> str:
    """How the topic of a fact begins, whatever its value."""
    return fact.topic.removesuffix(fact.value.lower()).rstrip(" :")


def _ended(kind: str, who: str) -> tuple[str, ...]:
    """How the topics begin that end with this."""
    if kind == "person":
        return (f"name of {who}",) if who else ("name of",)
    if kind == "they":
        return ("name of",)
    if kind == "marriage":
        return tuple(
            f"name of {one}"
            for one in ("wife", "husband", "partner", "girlfriend", "boyfriend", "fiancé")
        )
    if kind == "job":
        return ("employer", "work")
    if kind == "leaving":
        return ("home", "employer")
    if kind == "liking":
        return ("favourite", "likes", "hobby")
    if kind == "having":
        return ("health", "allergy")
    if kind == "being":
        return ("work", "diet", "allergy", "health", "name", "origin", "home")
    topic, _, _ = KINDS[kind].topic.partition(" {")
    return (topic.partition(":")[0],)


@cache
def readers() -> tuple[FactReader, ...]:
    """A reader for each language that has facts."""
    return tuple(FactReader(language, language.facts) for language in languages() if language.facts)


def corrected(topic: str, correction: Correction) -> Fact | None:
    """The fact of this topic with the value that the correction gives, if it fits."""
    for kind in KINDS.values():
        if kind.topic == topic or (
            kind.topic == "name of {who}" and topic.startswith("name of ") and ":" not in topic
        ):
            if check(kind.sort, correction.value, correction.text) is not Certainty.CERTAINLY:
                return None  # “No, it's raining” corrects no job
            who = topic.removeprefix("name of ")
            content = kind.content.format(value=correction.value, who=who, thing="")
            return Fact(topic, content, value=correction.value)
    return None
