"""Tells what the user does not want to be remembered, and when they want something forgotten.

“Don't save this: …” keeps a message out of the memory. What is in it goes only where the user sees
what goes with it, so nothing is deleted by a sentence such as “Forget what I told you about Tom”.
"""

from __future__ import annotations

import re
from functools import cache

from ondevice.memory._asking import FOREIGN, QUESTION_MARKS, QUOTED, own_sentences, sets_task
from ondevice.memory._language import NEVER, any_of

LEFT_OUT = "[left out]"  # is remembered in place of what the user wants not to be
_MOST = 4_000  # characters of a message that somebody types
_START = r"(?:^|[.,;:!–—(\ufffc\n。，]\s*|[.!]{2,}\s*)"


def is_unwanted(text: str) -> bool:
    """Whether ``text`` says of itself that it is not to be remembered."""
    return _says(_patterns()[0], text, but=QUESTION_MARKS)


def asks_to_forget(text: str) -> bool:
    """Whether ``text`` asks to forget what was said before."""
    return _says(_patterns()[1], text)


def _says(pattern: re.Pattern[str], text: str, but: tuple[str, ...] = ()) -> bool:
    """Whether the user says it, be it before a colon; not in a sentence that ends ``but`` so."""
    if len(text) > _MOST or not pattern.search(text) or sets_task(text):
        return False
    before, colon, _ = FOREIGN.sub(QUOTED, text).partition(":")
    return any(
        pattern.search(sentence)
        for sentence in (*own_sentences(text), before if colon else "")
        if not sentence.endswith(but)
    )


@cache
def _patterns() -> tuple[re.Pattern[str], re.Pattern[str]]:
    unwanted = any_of(lambda language: language.forgetting.unwanted) or NEVER
    request = any_of(lambda language: language.forgetting.request) or NEVER
    return (
        re.compile(f"{_START}(?:{unwanted})", re.IGNORECASE),
        re.compile(f"{_START}(?:{request})", re.IGNORECASE),
    )
