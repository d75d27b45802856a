"""What the model has read: the KV cache of the last conversation, and how that was spelled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ondevice.llama import Context


class ConversationCache:
    """The last conversation in ``context``, of which the next one may begin with as much.

    ``spelling`` is that conversation as tokens, the reply as it was sampled: the cache may hold
    less of it, since what a reply ended with was never decoded.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.spelling: list[int] = []
        #: Length of the last prompt and the logits after it: asked again, it needs no computing,
        #: and a seed gives the same reply. (Computed alone, the last token has other last bits.)
        self._prompt: tuple[int, npt.NDArray[np.float32]] | None = None

    @property
    def is_full(self) -> bool:
        return len(self.context.tokens) >= self.context.n_ctx

    def reuse(self, tokens: Sequence[int]) -> int:
        """Cut the KV cache back to what it has in common with ``tokens``; returns how much."""
        context = self.context
        common = common_prefix(tokens, context.tokens)
        if self._prompt is not None and self._prompt[0] != common:
            self._prompt = None
        if common == len(tokens) and self._prompt is None:
            common -= 1  # the logits after the last token must be computed
        return context.truncate(common) if common < len(context.tokens) else common

    def keep_logits(self) -> None:
        """All that was decoded is a prompt, whose logits are needed again if it is asked again."""
        self._prompt = len(self.context.tokens), self.context.logits()

    @property
    def prompt_logits(self) -> npt.NDArray[np.float32]:
        """The logits after the prompt; shape (n_vocab,)."""
        assert self._prompt is not None
        return self._prompt[1]


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many tokens ``a`` and ``b`` begin with alike."""
    for i, (x, y) in enumerate(zip(a, b, strict=False)):
        if x != y:
            return i
    return min(len(a), len(b))
