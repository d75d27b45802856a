"""Ends the thinking of a reply before the model does: at a limit, or when the user wants no more.

The mark that ends it is put into the context as if the model had written it, and the model goes on
with its answer ("Qwen3 Technical Report", section 4.3, thinking budget).
"""

from __future__ import annotations

import codecs
import threading

from ondevice.engine._reply_text import ReplyText
from ondevice.llama import Model
from ondevice.markup import thinking_end

_PATIENCE = 16  # tokens in which a word, a character or a mark should have come to its end


class ThinkingLimit:
    """Watches a reply whose ``text`` is taken apart as it comes.

    ``most`` is how many tokens of thinking there may be (None: any number); ``answer_now`` is set
    when the user wants no more of it.
    """

    def __init__(
        self, model: Model, text: ReplyText, most: int | None, answer_now: threading.Event
    ) -> None:
        self._model = model
        self._text = text
        self._most = most
        self._answer_now = answer_now
        self._utf8 = codecs.getincrementaldecoder("utf-8")("ignore")
        self._last = ""  # the character that came last
        self._waited = 0  # tokens since it should have ended
        #: Tokens of thinking so far.
        self.tokens = 0
        #: Whether thinking was ended here.
        self.has_cut = False

    @property
    def left(self) -> int | None:
        """Tokens after which it may have to end, at least 1; None: no such number is known.

        No more of them are to be drawn at once: what was drawn for nothing would change the draws
        that follow.
        """
        if self._most is None or self._text.part == "answer":
            return None
        return max(0, self._most - self.tokens) + 1

    def end_before(self, token: int, *, may_end: bool) -> list[int]:
        """What ends the thinking in place of ``token``, which was drawn; no tokens: it goes on.

        To be called with each token, before its text is taken. ``may_end``: it is free to.
        """
        thinking = self._text.thinking
        if thinking is None:
            self._last, self._waited = "", 0
            return []
        if may_end and self._is_due and (self._ends_well(token) or self._waited >= _PATIENCE):
            self.has_cut = True
            end = thinking_end(thinking, self._model.chat_template or "")
            if self._last == "\n" and end[0] == "\n":
                end = end[1:]
            return [token for text in end for token in self._model.tokenize_on(text)]
        self._waited += self._is_due
        self.tokens += 1
        self._last = self._utf8.decode(self._model.piece(token))[-1:] or self._last
        return []

    @property
    def _is_due(self) -> bool:
        return self._answer_now.is_set() or (self._most is not None and self.tokens >= self._most)

    def _ends_well(self, token: int) -> bool:
        """Whether no character, word or mark would be cut by an end before ``token``."""
        if self._model.is_end(token):
            return True
        # It may be the end that the model itself has come to.
        if self._text.is_undecided or self._model.is_control(token):
            return False
        piece = self._model.piece(token)
        if piece and piece[0] & 0xC0 == 0x80:  # it goes on with a character
            return False
        first = piece.decode("utf-8", "ignore")[:1]
        in_word = first.isalnum() or not first  # of one that is cut nothing is known
        return not (self._last.isalnum() and in_word)
