"""How much of a model's context memories may take, and how their tokens are counted."""

from __future__ import annotations

from collections.abc import Callable

from ondevice.engine import EngineLike
from ondevice.errors import OndeviceError
from ondevice.messages import Loaded, Measure

#: Tokens that memories may take, where the model reads fast and where it reads slowly. Of what
#: answers a question, 700 hold 79 %, 500 77 % and 300 69 % (bench/memory_use_recall.py).
MOST, LEAST = 700, 300
_SHARE = 6  # or so many of the context
_READING_S = 6.0  # seconds that a reply may start later for them
_FIRST = 512  # tokens of the prompt that ``Expected.first_token_s`` is for


def budget(loaded: Loaded | None) -> int:
    """Tokens that memories may take at most in a message to this model."""
    if loaded is None:
        return LEAST
    most = MOST
    if loaded.expected and loaded.expected.first_token_s > 0:
        read = int(_READING_S * _FIRST / loaded.expected.first_token_s)
        most = min(MOST, max(LEAST, read))
    return min(most, loaded.n_ctx // _SHARE) if loaded.n_ctx else most


def counter(engine: EngineLike) -> Callable[[str], int]:
    """What counts tokens as the model in ``engine`` reads them, while nobody else uses it.

    A model that is not there, or no longer, is not waited for: then it says :func:`about` how many.
    """

    answers = True

    def count(text: str) -> int:
        nonlocal answers
        tokens = 0
        if answers and engine.loaded is not None:
            try:
                (tokens,) = engine.measure(Measure(texts=(text,), grow=False)).texts
            except OndeviceError:  # which the reply will tell
                answers = False
        return tokens or about(text)

    return count


def about(text: str) -> int:
    """Tokens of ``text`` where no tokenizer can be asked, rather too many than too few."""
    return len(text.encode()) // 3 + 1
