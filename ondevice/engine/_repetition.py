"""Notices a reply that says the same again and again and would not end."""

from __future__ import annotations

import numpy as np

#: Tokens of the longest block that is looked for. A loop of models is a phrase or a paragraph.
LONGEST_BLOCK = 512

#: How often a block must have come without a change between, and how many tokens that must be.
#: Tables, lists of numbers, boards and drawings repeat as well, but not for so long
#: (in 2,400 files of programs, tables, pictures and prose, 10 million tokens, the longest was 477).
TIMES, TOKENS = 8, 600


class Repetition:
    """Is told the tokens of a reply one by one."""

    def __init__(self) -> None:
        #: The last tokens, the newest first.
        self._last = np.full(LONGEST_BLOCK, -1, np.int64)
        #: For each distance from 1 on, how many tokens in a row were those so far before them.
        self._matched = np.zeros(LONGEST_BLOCK, np.int64)
        distance = np.arange(1, LONGEST_BLOCK + 1)
        self._enough = np.maximum(TIMES * distance, TOKENS) - distance

    def is_endless(self, token: int) -> bool:
        """Whether the reply, with ``token`` as its next, has been in a loop for long enough."""
        same = self._last == token
        self._matched += 1
        self._matched *= same
        self._last[1:] = self._last[:-1]
        self._last[0] = token
        return bool((self._matched >= self._enough).any())
