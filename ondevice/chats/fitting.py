"""Sees before anything is sent whether it fits the model's context, and makes it fit if wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

from ondevice.engine import EngineLike
from ondevice.messages import Measure, Turn

#: What to keep of texts that are too long.
How = Literal["beginning", "relevant"]
#: Makes of texts the shortest conversation that is to be asked: what may not be left out of it.
Frame = Callable[[Sequence[str]], Sequence[Turn]]

_LEAST_REPLY = 8  # of the context, this part must be free for a reply
_REPLY = 4  # this part is, where texts are shortened anyway
_BYTES_OF_TOKEN = 16  # of nearly all; others are looked at again
_TRIES = 5


class Size(msgspec.Struct, frozen=True):
    """How much of the context a conversation takes, in tokens."""

    tokens: int  # more than these if they do not fit
    n_ctx: int  # 0: not known, as of a server

    @property
    def left(self) -> int:
        """Tokens that there is room for beside it and a short reply; negative: it does not fit."""
        return self.n_ctx - self.n_ctx // _LEAST_REPLY - self.tokens

    @property
    def fits(self) -> bool:
        return self.n_ctx == 0 or self.left >= 0


def measure(engine: EngineLike, frame: Frame, texts: Sequence[str]) -> Size:
    """The exact size, or as much of it as shows that it does not fit.

    The context is made larger if that makes it fit. Blocks; raises what ``engine.measure`` raises.
    """
    loaded = engine.loaded
    most = max(loaded.n_ctx, loaded.n_ctx_train) if loaded else 0
    shown = max(1, most) * _BYTES_OF_TOKEN
    while True:
        cut = [text[:shown] for text in texts]
        found = engine.measure(Measure(turns=tuple(frame(cut))))
        size = Size(found.tokens, found.n_ctx)
        if not size.fits or not size.n_ctx or all(len(text) <= shown for text in texts):
            return size
        shown *= 4


def shorten(
    engine: EngineLike,
    frame: Frame,
    texts: Sequence[str],
    question: str,
    how: How,
    *,
    beside: int = 0,
) -> list[str]:
    """``texts`` with so much left out that they fit, with ``beside`` tokens more that will come.

    One that there is no room for at all is empty. Blocks and raises as :func:`measure` does.
    """
    from ondevice.memory import beginnings, passages  # noqa: PLC0415 - a faster start

    empty = measure(engine, frame, [""] * len(texts))
    budget = empty.n_ctx - empty.n_ctx // _REPLY - empty.tokens - beside

    def count(pieces: Sequence[str]) -> Sequence[int]:
        return engine.measure(Measure(texts=tuple(pieces))).texts

    for _ in range(_TRIES):
        if budget <= 0:
            break
        if how == "relevant":
            kept = passages(texts, question, budget, count)
        else:
            kept = beginnings(texts, budget, count)
        size = measure(engine, frame, kept)
        if size.left >= beside:
            return kept
        budget -= max(beside - size.left, budget // 10)  # pieces are counted one by one
    return [""] * len(texts)
