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

from ondevice.memory._language import any_of

#: What is not the user's own statement: code, quotations, and what only might be.
FOREIGN = re.compile(r"```.*?(?:```|\Z)|^[ \t]*>.*$|“[^”]*”|\"[^\"\n]*\"", re.DOTALL | re.MULTILINE)
_SENTENCE = re.compile(r"[^.!?。！？؟…\n]+[.!?。！？؟…]*")
_QUESTION_MARKS = ("?", "？", "؟", ";")  # the last one is Greek
_WORD = re.compile(r"[^\W\d_]+")
_UNSPACED = re.compile("[\u3040-\u30ff\u3400-\u9fff\u0e00-\u0e7f]")
_FEWEST = 3  # words, or four letters where words are not spaced


class _AskingRules(NamedTuple):
    """What only asks, in any language, compiled."""

    request: re.Pattern[str]
    request_ends: re.Pattern[str]  # where the request stands at the end of the sentence
    question: re.Pattern[str]
    small_talk: re.Pattern[str]


@cache
def _rules() -> _AskingRules:
    polite = rf"(?:(?:{any_of(lambda language: language.asking.polite)})\b[ ,:!–—-]*)*"
    requests = any_of(lambda language: language.asking.requests)
    request_ends = any_of(lambda language: language.asking.request_ends)
    questions = any_of(lambda language: language.asking.questions)
    small_talk = any_of(lambda language: language.asking.small_talk)
    return _AskingRules(
        request=re.compile(rf"{polite}(?:{requests})", re.IGNORECASE),
        request_ends=re.compile(rf"(?:{request_ends})[。.!！]*$"),
        question=re.compile(rf"{polite}(?:{questions})", re.IGNORECASE),
        small_talk=re.compile(rf"(?:{small_talk})\b[^.!?,;:]{{0,24}}[.!…]*$", re.IGNORECASE),
    )


def statements(text: str) -> list[str]:
    """The sentences of ``text`` that are the user's own and no questions."""
    sentences = (found[0].strip() for found in _SENTENCE.finditer(FOREIGN.sub(" ", text)))
    return [s for s in sentences if s and not s.endswith(_QUESTION_MARKS)]


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
        and (len(_WORD.findall(sentence)) >= _FEWEST or len(_UNSPACED.findall(sentence)) > _FEWEST)
        for sentence in statements(text)
    )
