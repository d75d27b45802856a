"""Titles that the model thinks of, once a conversation has begun."""

from __future__ import annotations

import re

from ondevice.chats._asides import answered, is_elsewhere
from ondevice.chats._chats import Chats
from ondevice.engine import EngineLike
from ondevice.messages import Aside, Sampling, Turn
from ondevice.text import printable

_REQUEST = Turn(
    "user", "Give this conversation a title of two to six words. Answer with the title and no more."
)
_MOST_WORDS, _MOST_CHARACTERS = 9, 60
_MOST_TOKENS = 24
_MESSAGES = 6  # of a conversation that is still young
_MARKS = " \t\"'`*_#“”‘’«»„.:-–—"


def think_of_title(chats: Chats, engine: EngineLike, conversation_id: int) -> str | None:
    """Have the model give the conversation a title, and return it; None: it stays as it is.

    It is asked at the end of the conversation, whose tokens it has in its KV cache, so that they
    need not be read again, neither now nor for the next message. A title that the user gave is
    never touched, however late the model answers.

    Blocks, as :func:`ondevice.chats.reply` does, and raises the same.
    """
    if is_elsewhere(engine):
        return None  # a server may want money for it, too
    conversation = chats.load(conversation_id)
    turns = conversation.turns()
    if not (
        1 < len(conversation.messages) <= _MESSAGES
        and conversation.messages[-1].finish_reason == "stop"
        and not chats.is_titled(conversation_id)
    ):
        return None
    request = Aside(
        turns=(*turns, _REQUEST),
        sampling=Sampling(temperature=0, seed=0),
        max_tokens=_MOST_TOKENS,
        thinking=False,
        thinking_tokens=0,  # for models that think all the same
    )
    answer, reason = answered(engine, request)
    if reason == "cancelled":
        return None
    title = clean(answer)
    return title if title and chats.give_title(conversation_id, title) else None


def clean(answer: str) -> str:
    """The title in a model's answer, without what models put around it; empty: there is none."""
    lines = (" ".join(printable(line).split()) for line in answer.splitlines())
    lines = (re.sub(r"(?i)^[^:]{0,40}\btitle\b[^:]{0,40}:", "", line) for line in lines)
    titles = (line.strip(_MARKS) for line in lines if line.rstrip("*_ ")[-1:] not in ":：")
    line = next(filter(None, titles), "")
    if len(line.split()) > _MOST_WORDS or len(line) > _MOST_CHARACTERS:
        return ""
    return line
