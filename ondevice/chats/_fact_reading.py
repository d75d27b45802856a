"""Has a model read what the user typed for facts, while nobody waits for it."""

from __future__ import annotations

from ondevice.chats._asides import answered, is_elsewhere
from ondevice.chats._chats import Chats
from ondevice.engine import EngineLike
from ondevice.messages import Aside, Loaded, Sampling, Turn

_LEAST_PARAMETERS = 1_000_000_000  # smaller ones point at wrong words, write poor notes
_LONGEST = 120  # tokens of an answer


def can_learn(loaded: Loaded | None) -> bool:
    """Whether the model is one to work in a pause: on this machine, in RAM, able enough."""
    return (
        loaded is not None
        and loaded.n_params >= _LEAST_PARAMETERS  # 0 on a server
        and not loaded.streamed_bytes
    )


def learn(chats: Chats, engine: EngineLike) -> bool:
    """Have the model read the latest that no model has, and keep the facts it points at.

    Whether it has; False: nothing is left, or it was cancelled, and then the text is read another
    time. Blocks, as :func:`ondevice.chats.reply` does, and raises the same.
    """
    from ondevice.memory import read_grammar, read_question  # noqa: PLC0415 - a faster start

    if is_elsewhere(engine) or (text := chats.memory.unread()) is None:
        return False
    request = Aside(
        turns=tuple(Turn(role, content) for role, content in read_question(text.text)),
        sampling=Sampling(temperature=0, seed=0),
        max_tokens=_LONGEST,
        grammar=read_grammar(text.text),
        thinking=False,
        thinking_tokens=0,  # for models that think all the same
    )
    answer, reason = answered(engine, request)
    if reason == "cancelled":
        return False
    chats.memory.store_reading(text, answer)
    return True


def restore_cache(chats: Chats, engine: EngineLike, conversation_id: int) -> None:
    """Have the KV cache hold the conversation as it did before something else was asked."""
    if is_elsewhere(engine):
        return
    turns = chats.load(conversation_id).turns()
    keep = chats.keep(conversation_id)
    for _ in engine.generate(Aside(turns=turns, max_tokens=1, keep=keep)):
        pass
