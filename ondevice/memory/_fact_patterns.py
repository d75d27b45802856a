"""The patterns that tell a fact in one language, compiled from its file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from typing import NamedTuple

from ondevice.memory._asking import QUOTED
from ondevice.memory._fact_kinds import BESIDES, KINDS
from ondevice.memory._language import dots_of_titles, titles
from ondevice.memory._values import facts_of

#: What goes on with a word: the vowel signs of some scripts are no letters to a regular expression.
LETTER = r"[\w\u0900-\u0903\u093a-\u094f\u064b-\u0652]"

_ARTICLES = "an?|the|eine?n?|une?|una?|um|uma|een"  # with one begins more than a name
_DOT = r"(?<=\d)\.(?= ?\w)|\.(?=\w)|{titles}|(?<=\bSt)\."  # that ends no sentence
_VALUE = rf"(?P<value>(?:[^.!?;,:\n()。、，！？；।]|{_DOT}){{1,60}}?)"
_VALUES = rf"(?P<value>(?:[^.!?;:\n()。！？；।]|{_DOT}){{1,80}}?)"
_SIGN = rf"(?:{LETTER}|['’-])"
_WHO = rf"(?P<who>{_SIGN}+?(?: {_SIGN}+?){{0,2}}?)"  # one of the people, or not
_WHO_UNSPACED = r"(?P<who>[^\W\d_]{1,5}?)"
_NAME = (
    r"(?P<value>(?:(?:{title_words})\.? )*(?-i:[^\W\d_a-zà-ÿ])[\w'’-]+"
    r"(?: (?-i:[^\W\d_a-zà-ÿ])[\w'’-]+)?)"
)
_THING = r"(?P<thing>[^.!?;,:\n()。、，]{1,30}?)"


class Rule(NamedTuple):
    """A pattern of one kind of fact."""

    kind: str
    pattern: re.Pattern[str]  # up to the value, where that comes last
    end: re.Pattern[str] | None  # what ends the value then
    behind: re.Pattern[str] | None  # what stands behind the value, where it does not come last

    def find(self, sentence: str) -> Iterator[Match]:
        """Where the sentence says this."""
        if self.behind and not self.behind.search(sentence):
            return  # a value may begin at each letter, so looking for it takes long
        for match in self.pattern.finditer(sentence):
            groups = {name: (text or "").strip() for name, text in match.groupdict().items()}
            end = match.end()
            if self.end is not None:
                stop = self.end.search(sentence, end + 1)
                end = stop.start() if stop else len(sentence)
                groups["value"] = sentence[match.end() : end].strip()
            yield Match(match.start(), end, groups)


class Match(NamedTuple):
    """Where a sentence states a fact."""

    start: int
    end: int
    groups: dict[str, str]

    def overlaps(self, other: Match) -> bool:
        """Whether a part of the sentence is in both."""
        return self.start < other.end and other.start < self.end


class CompiledFacts(NamedTuple):
    """All that tells a fact in one language."""

    unsure: re.Pattern[str]
    doubtful: re.Pattern[str]
    lead: re.Pattern[str]
    rest: re.Pattern[str]
    things: re.Pattern[str] | None  # that people have favourites of
    named: re.Pattern[str] | None  # those of them that have names
    people: re.Pattern[str]
    states: tuple[Rule, ...]
    others: tuple[Rule, ...]
    ends: tuple[Rule, ...]
    corrects: tuple[re.Pattern[str], ...]
    denies: re.Pattern[str] | None
    allows: re.Pattern[str] | None
    completes: tuple[tuple[re.Pattern[str], str], ...]
    undoes: tuple[tuple[re.Pattern[str], str], ...]
    contrast: re.Pattern[str]  # between clauses


@cache
def patterns_of(name: str) -> CompiledFacts:
    """What tells a fact in the language of this name."""
    language, facts = facts_of(name)
    edge, end = (f"(?<!{LETTER})", f"(?!{LETTER})") if facts.spaced else ("", "")
    stop = r"\s*(?:[!?;,:\n()。、，！？；।،؛\ufffc]|\.*\s*$)"
    list_stop = stop
    if facts.spaced:
        parts_of_ends = (facts.joins, facts.bounds, facts.after)
        ends = "|".join(language.pattern(part) for part in parts_of_ends if part)
        also = language.pattern(facts.lists)
        stop += rf"| (?:{ends}|{also}){end}(?!-)"
        others = "|".join(language.pronouns.others.split() if language.pronouns else ["(?!)"])
        # A list goes on after a comma and after “and”, but not with another statement.
        list_stop = (
            r"\s*(?:[!?;:\n()।؛\ufffc]|\.*\s*$)|"
            rf",? (?:(?:{also}) )?(?:{ends}){end}(?!-)"
            rf"|,? (?:{also}) (?:{language.pattern(facts.user)}|{_ARTICLES}){end}(?!-)"
            rf"|,(?: (?:{also}))? (?:{language.pattern(facts.user)}){end}"
            rf"|(?:,| (?:{also})) (?:{others})(?:['’]?s)?(?!{LETTER})"
        )
    elif facts.after:
        stop += rf"|{language.pattern(facts.after)}"
    parts = {
        "value": _VALUE,
        "values": _VALUES,
        "name": _NAME,
        "thing": _THING,
        "who": _WHO if facts.spaced else _WHO_UNSPACED,
        "called": r"(?P<called>(?-i:[^\W\d_a-zà-ÿ][\w'’-]+))",
        "titles": dots_of_titles(),
        "title_words": "|".join(map(re.escape, sorted(titles()))),
    }
    values = (
        (language.pattern("{value}", **parts), re.compile(stop, re.IGNORECASE)),
        (language.pattern("{values}", **parts), re.compile(list_stop, re.IGNORECASE)),
    )

    def rules(table: dict[str, tuple[str, ...]]) -> tuple[Rule, ...]:
        compiled = []
        for kind, patterns in sorted(table.items(), key=lambda item: item[0] in BESIDES):
            for pattern in patterns:
                source = language.pattern(pattern, **parts)
                stops = behind = None
                for value, ending in values:
                    if source.endswith(value):
                        source, stops = source.removesuffix(value), ending
                    elif not facts.spaced and source.count(value) == 1:
                        behind = _alone(source.partition(value)[2])
                if stops is None and not (kind in KINDS and KINDS[kind].open):
                    # What may or may not follow the value does not show where it ends.
                    source += f"(?={stop})" if source.endswith(")?") else end
                found = re.compile(edge + source, re.IGNORECASE)
                compiled.append(Rule(kind, found, stops, behind))
        return tuple(compiled)

    def pairs(table: tuple[tuple[str, str], ...]) -> tuple[tuple[re.Pattern[str], str], ...]:
        words = facts.values | {"opening": rf"(?:(?:{facts.opening}){end}[ ,:!–—-]*)*"}
        return tuple(
            (language.compile(rf"{edge}(?:{pattern})", **words), so) for pattern, so in table
        )

    opening = language.pattern(facts.opening)
    joins = "|".join(language.pattern(part) for part in (facts.joins, facts.lists) if part)
    after = language.pattern(facts.after) or "(?!)"
    if facts.spaced:
        lead = rf"(?:.*(?:[,;،–—] ?| (?:{joins}) ))?(?:(?:{opening}){end}[ ,:!–—-]*)*"
        rest = rf"(?:,? (?:{after}){end})*\s*(?:$|[.!।,;،؛]| (?:{joins}){end}).*"
    else:
        lead = rf"(?:.*[，,、；;])?(?:(?:{opening})[，,、： ]*)*"
        rest = rf"(?:{after})*\s*(?:$|[。.!！，,；;、]).*"
    flags = re.IGNORECASE | re.DOTALL
    return CompiledFacts(
        unsure=language.compile(rf"{edge}(?:{facts.unsure}){end}"),
        doubtful=language.compile(rf"{QUOTED}|{edge}(?:{facts.doubtful}){end}"),
        lead=re.compile(lead, flags),
        rest=re.compile(rest, flags),
        things=(
            language.compile(rf"^(?:{facts.values['thing']})$") if "thing" in facts.values else None
        ),
        named=(
            language.compile(rf"^(?:{facts.values['named']})$") if "named" in facts.values else None
        ),
        people=re.compile(
            "|".join(f"(?P<p{n}>{words})" for n, words in enumerate(facts.people.values()))
        ),
        states=rules(facts.states),
        others=rules(facts.others),
        ends=rules(facts.ends),
        corrects=tuple(
            re.compile(language.pattern(pattern, **parts) + r"[.!。！]*", re.IGNORECASE)
            for pattern in facts.corrects
        ),
        denies=language.compile(facts.denies) if facts.denies else None,
        allows=language.compile(facts.allows) if facts.allows else None,
        completes=pairs(facts.completes),
        undoes=pairs(facts.undoes),
        contrast=language.compile(
            rf"[,;،–—]\s+|\s(?:{facts.joins})\s+" if facts.spaced else "[，,；;、]"
        ),
    )


def _alone(end: str) -> re.Pattern[str] | None:
    """The end of a pattern, if it is one by itself."""
    try:
        return re.compile(end, re.IGNORECASE)
    except re.error:  # it closes what begins before it
        return None
