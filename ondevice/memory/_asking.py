"""Tells what only asks for something from what tells something.

A text tells something if one of its sentences does, apart from code and quotations. A sentence
does not if it is a question, a request, a greeting, thanks or a word or two. Requests begin with
the form of a verb that gives an order, maybe after a polite word. No list of verbs is complete;
what is not in it counts as telling. Any sentence may be of any language that is known.
"""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from ondevice.memory._language import any_of, dots_of_titles

#: What is not the user's own statement: code, and quotations in any style.
FOREIGN = re.compile(
    r"```.*?(?:```|\Z)|`[^`\n]+`|^[ \t]*>.*?$"
    r"|“[^”“]*[”“]|„[^“”\"\n]*[“”\"]|\"[^\"\n]*\"|«[^»]*»|»[^«\n]*«|‹[^›\n]*›|[「『][^」』]*[」』]"
    r"|‘(?:[^’\n]|’(?=\w))*’(?!\w)|(?<!\w)'(?:[^'\n]|'(?=\w))+'(?!\w)",
    re.DOTALL | re.MULTILINE,
)
#: What stands after it on the line is somebody's words, a text, a title; or a value.
_COLON = re.compile(r"[:：](?=\s|[^\x00-\x7f]|$)")
_SENTENCE = (
    r"(?:[^.!?。！？؟।…\n]|\.(?=[^\W\d_]?[\w/])|{titles}"
    r"|(?<=\bSt)\.|(?<=\b\d)\.(?= [^\W\d_])|(?<=\b\d\d)\.(?= (?:{months})))+"
    r"[.!?。！？؟।…]*"
)
QUESTION_MARKS = ("?", "？", "؟", ";")  # the last one is Greek
_LABEL = 4  # words before a colon that say no more than whose words follow
QUOTED = "\ufffc"  # stands where a quotation stood
_WORD = re.compile(r"[^\W\d_]+")
_FEWEST = 3  # words, or four letters where words are not spaced


class _AskingRules(NamedTuple):
    """What only asks, in any language, compiled."""

    request: re.Pattern[str]
    request_ends: re.Pattern[str]  # where the request stands at the end of the sentence
    task: re.Pattern[str]
    question: re.Pattern[str]
    small_talk: re.Pattern[str]
    label: re.Pattern[str]  # what may stand before a colon and the user's own statement


@cache
def _rules() -> _AskingRules:
    polite = rf"(?:(?:{any_of(lambda language: language.asking.polite)})\b[ ,:!–—-]*)*"
    requests = any_of(lambda language: language.asking.requests)
    request_ends = any_of(lambda language: language.asking.request_ends)
    questions = any_of(lambda language: language.asking.questions)
    small_talk = any_of(lambda language: language.asking.small_talk)
    labels = any_of(lambda language: language.facts.opening if language.facts else "")
    return _AskingRules(
        request=re.compile(rf"{polite}(?:{requests})", re.IGNORECASE),
        request_ends=re.compile(rf"(?:{request_ends})[。.!！]*$"),
        task=re.compile(
            rf"{polite}(?:{any_of(lambda language: language.asking.tasks)})", re.IGNORECASE
        ),
        question=re.compile(rf"{polite}(?:{questions})", re.IGNORECASE),
        small_talk=re.compile(rf"(?:{small_talk})\b[^.!?,;:]{{0,24}}[.!…]*$", re.IGNORECASE),
        label=re.compile(rf"(?:(?:{labels})[ ,]*)*", re.IGNORECASE),
    )


@cache
def _sentence() -> re.Pattern[str]:
    names = any_of(lambda language: "{months}" if language.dates else "")
    sentence = _SENTENCE.replace("{months}", names).replace("{titles}", dots_of_titles())
    return re.compile(sentence, re.IGNORECASE)


def statements(text: str) -> list[str]:
    """The sentences of ``text`` that are the user's own and no questions."""
    sentences = (found[0].strip() for found in _sentence().finditer(FOREIGN.sub(" ", text)))
    return [s for s in sentences if s and not s.endswith(QUESTION_MARKS)]


def own_sentences(text: str) -> list[str]:
    """The sentences of ``text``, questions too, without what is quoted or follows a colon.

    What follows one may be anybody's words: a text to work on, a line of a talk. After a colon at
    the end of a line that is all the rest, unless a quotation follows. Where one stood there is
    :data:`QUOTED`.
    """
    own = []
    lines = [line for line in FOREIGN.sub(QUOTED, text).splitlines() if line.strip()]
    for number, line in enumerate(lines):
        colon = _COLON.search(line)
        if not colon or _rules().label.fullmatch(line, 0, colon.start()):
            own.append(line)
            continue
        before = line[: colon.start()]
        if len(before.split()) > _LABEL:
            own.append(before)
        follows = [line[colon.end() :], *lines[number + 1 : number + 2]]
        if not follows[0].strip() and follows[-1].strip() != QUOTED:
            break
    sentences = (found[0].strip() for found in _sentence().finditer("\n".join(own)))
    return [sentence for sentence in sentences if sentence]


def asks(sentence: str) -> bool:
    """Whether the sentence is a question or a request."""
    return (
        sentence.endswith(QUESTION_MARKS)
        or bool(_rules().question.match(sentence))
        or requests(sentence)
    )


def sets_task(text: str) -> bool:
    """Whether ``text`` is for work on a text, or for play: then nothing in it is about the user."""
    sentences = _sentence().finditer(FOREIGN.sub(QUOTED, text))
    return any(_rules().task.match(found[0].strip()) for found in sentences)


def requests(sentence: str) -> bool:
    """Whether the sentence asks for something to be done."""
    rules = _rules()
    return bool(rules.request.match(sentence) or rules.request_ends.search(sentence))


def tells(text: str) -> bool:
    """Whether a text tells something that may be worth knowing later."""
    rules = _rules()
    return any(
        not (
            requests(sentence) or rules.question.match(sentence) or rules.small_talk.match(sentence)
        )
        and (
            len(_WORD.findall(sentence)) >= _FEWEST or len(_unspaced().findall(sentence)) > _FEWEST
        )
        for sentence in statements(text)
    )


@cache  # and not while starting: such ranges take milliseconds
def _unspaced() -> re.Pattern[str]:
    return re.compile("[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]")
