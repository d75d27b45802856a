"""Reads out of what the user typed how replies should be (lessons, after Dynamic Cheatsheet).

As with facts: few rules and safe ones. A lesson is the user's own sentence. It is one if it is
meant for all replies (“always”, “from now on”, “your answers are too long”), or if the whole
message says nothing else (“Answer shorter.”). “Make it shorter” is about one text and teaches
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ondevice.memory._asking import statements
from ondevice.memory._facts import Fact

_LONGEST = 160  # characters of a lesson
_OPENING = re.compile(
    r"(?:(?:ok(?:ay)?|so|and|but|also|hey|please|remember|note|keep in mind|that|to)\b[ ,:]*)*",
    re.IGNORECASE,
)
_REPLIES = r"(?:answers?|repl(?:y|ies)|responses?|explanations?)"
_LASTING = (
    r"(?:always|never|from now on|in (?:the )?future|every time|in all (?:of )?your \w+"
    r"|for all (?:of )?your \w+|by default|whenever I ask\b[^,]*)"
)
_DO = (
    r"(?:answer|reply|respond|write|speak|talk|explain|use|give (?:me|a|an|your|short|long)\b"
    r"|include|add|show|start|begin|end|finish|call me|address|keep|avoid|format|cite|put"
    r"|translate|assume|prefer|convert|say|tell me|ask|apologi[sz]e|repeat|be)\b"
)
_MANNER = (
    r"(?:short|brief|concise|detailed|long|simple|simply|formal|informal|casual|polite|plain"
    r"|direct|friendly|thorough)(?:er|ly)?"
)
#: Lessons wherever they stand.
_GENERAL = tuple(
    re.compile(rule, re.IGNORECASE)
    for rule in (
        rf"{_LASTING},? (?:please )?(?:(?:do not|don['’]t|stop|only|just) )?(?:\w+ing\b|{_DO})",
        rf"(?:(?:do not|don['’]t|stop|only|just) )?(?:ever )?(?:{_DO})[^,]* "
        r"(?:from now on|in (?:the )?future|by default|every time)$",
        rf"your {_REPLIES} (?:are|were|should|must|need|could)\b",
        rf"keep (?:your |all |the )*{_REPLIES} \w+",
        r"I(?:['’]d)? (?:really |would |much )*(?:prefer|like|want|hate|dislike|don['’]t like)"
        r" (?:\w+ ){0,3}(?:answers|replies|responses|explanations)(?! (?:of|to|for|about)\b)",
        r"call me (?-i:[A-Z])\w+$",
    )
)
#: Lessons if nothing else is said.
_ALONE = tuple(
    re.compile(rule, re.IGNORECASE)
    for rule in (
        r"(?:answer|reply|respond|speak|talk|explain things)(?: to me)? (?:only |always )?"
        rf"(?:(?:a (?:bit|little) )?(?:more |much |very |less )?{_MANNER}|in [\w -]+)$",
        rf"be (?:a (?:bit|little) )?(?:more |less |very )?{_MANNER}$",
        rf"(?:(?:more|less) \w+|{_MANNER}) {_REPLIES}$",
        r"(?:do not|don['’]t|stop|avoid|no more|no)\b (?:(?:use|using|add|adding|include|including"
        r"|write|writing|say|saying|give|giving) )?(?:(?:any|so many|the|me) )?"
        r"(?:emojis?|markdown|bullet(?: points?|s)|lists|tables|headings|exclamation marks"
        r"|apologi[sz]\w+|disclaimers|jargon|bold|smileys|warnings)"
        r"(?: (?:in|when|at the|unless|if)\b.*)?$",
        r"use (?:metric|imperial|SI|celsius|fahrenheit|kilomet|plain|simple)[\w ]*$",
    )
)
_POLITE = re.compile(r"[ ,]*(?:please|thanks|thank you)?[ .!…]*$", re.IGNORECASE)

#: Of each of these there is one lesson at a time: a new one supersedes the old one.
_TOPICS = {
    name: re.compile(rf"\b(?:{words})\b", re.IGNORECASE)
    for name, words in (
        ("address", "(?:call|address) me"),
        (
            "length",
            r"short\w*|brief\w*|concise\w*|long(?:er)?|detail\w*|thorough\w*|sentences?",
        ),
        ("units", r"metric|imperial|SI|celsius|fahrenheit|kilomet\w+|miles"),
        (
            "language",
            "English|German|French|Spanish|Italian|Portuguese|Dutch|Polish|Swedish|Danish"
            "|Norwegian|Finnish|Czech|Greek|Turkish|Russian|Ukrainian|Arabic|Hebrew|Hindi"
            "|Chinese|Japanese|Korean",
        ),
        ("tone", r"formal\w*|informal\w*|casual\w*|polite\w*|friendly|funny|humou?r|sarcas\w+"),
    )
}


def find_lessons(text: str, *, alone: bool | None = None) -> Iterator[Fact]:
    """What the user wants of replies, in ``text``, which they typed themselves.

    ``alone``: whether each sentence stands for itself, as in a note that was asked to be
    remembered; or whether it belongs to something else. None: it does if there is only one.
    """
    sentences = statements(text)
    if alone is None:
        alone = len(sentences) == 1 and len(text) <= _LONGEST
    for sentence in sentences:
        wish = _POLITE.sub("", sentence)
        wish = wish[_OPENING.match(wish).end() :]  # type: ignore[union-attr]  # may be empty
        if not wish or len(wish) > _LONGEST:
            continue
        if any(rule.match(wish) for rule in (*_GENERAL, *(_ALONE if alone else ()))):
            topic = next((n for n, words in _TOPICS.items() if words.search(wish)), wish.lower())
            yield Fact(f"replies: {topic}", f"{wish[0].upper()}{wish[1:]}.", "lesson")
