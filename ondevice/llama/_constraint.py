"""What a reply is held to, token by token: a JSON schema, or a grammar in GBNF."""

from __future__ import annotations

import ctypes
import re
import sys
from typing import Any, Protocol

import llama_cpp
import numpy as np
import numpy.typing as npt

from ondevice.errors import UsageError
from ondevice.json_schema import limits
from ondevice.llama._model import Model
from ondevice.text import size

Allowed = npt.NDArray[np.bool_]

#: ``llama_token_data``: id, logit, probability.
CANDIDATE = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])

# Far beyond these, llama.cpp's reader of grammars overflows its stack or takes gigabytes.
_MOST_BYTES = 200_000
_MOST_RULES = 2_000
_DEEPEST = 100  # groups within each other
_MOST_ELEMENTS = 50_000  # characters, classes and names, each as often as it is repeated
_AT_ONCE = 8192  # tokens that llama.cpp compares with a grammar: it decodes the texts of all first
_GBNF = re.compile(
    r"""
      (?P<space> \s+ | \#[^\n]*)
    | (?P<rule> ::=)
    | (?P<text> "(?:[^"\\]|\\.)*")
    | (?P<set> \[(?:[^\]\\]|\\.)*\])
    | (?P<repeat> \{\s*(?P<least>\d+)\s*(?:,\s*(?P<most>\d*)\s*)?\})
    | (?P<open> \()
    | (?P<close> \))
    | (?P<other> [\w-]+ | .)
    """,
    re.VERBOSE | re.DOTALL,
)
# Tokens that all fit into a text, or all do not, are looked at as one. llguidance proposes four
# such kinds of text. Each takes 10 MB of a vocabulary of 150,000 tokens, and this one gives most:
# 0.03 to 1 ms for a token of a text instead of 0.2 to 2.2, and 0.02 to 0.4 with all four.
_TEXT = r'[^"\\\x00-\x1F\x7F]{1,30}'
#: A number that is none is for llama.cpp to refuse.
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))|(.)", re.DOTALL
)
_DIGITS = 10  # of a number that are looked at: it is too large then, whatever follows


class Constraint(Protocol):
    """Which tokens may come next; each token of the reply is given to ``accept``."""

    def allows(self, token: int) -> bool:
        """Whether this token may come next."""

    def allowed(self) -> Allowed:
        """Whether each token may come next, shape (n_vocab,)."""

    def accept(self, token: int) -> None:
        """Take note of a token, which must be allowed."""

    def close(self) -> None:
        """Free what is native."""


class SchemaVocabulary:
    """A model's tokens in the form in which schemas are followed: takes up to a second to make.

    RAM: :func:`ondevice.ram.need.for_schemas`.
    """

    def __init__(self, model: Model) -> None:
        # Only now: whoever asks for no schema does without it.
        from llguidance import LLTokenizer, TokenizerWrapper  # noqa: PLC0415

        self.n_vocab = model.n_vocab
        ends = [token for token in range(model.n_vocab) if model.is_end(token)]
        if not ends:
            raise UsageError(
                "This model cannot follow a schema: it has no token that ends a reply."
            )
        wrapper = TokenizerWrapper(_Tokens(model, ends[0]))
        self._tokenizer = LLTokenizer(wrapper, eos_token=ends, slices=[_TEXT])
        wrapper.tokens = wrapper._gtokenizer.tokens = []  # llguidance has its own

    def constraint(self, schema: str) -> Constraint:
        """What holds a reply to a schema, as :func:`ondevice.json_schema.compile_schema` gives it.

        Raises :class:`UsageError`, later as well, if it gets too complicated.
        """
        return _Schema(self._tokenizer, self.n_vocab, schema)


class _Tokens:
    """The tokens as llguidance asks for them."""

    def __init__(self, model: Model, end: int) -> None:
        self._model = model
        self.eos_token_id = end
        self.bos_token_id = None
        self.special_token_ids: list[int] = []
        self.tokens = [self._bytes(token) for token in range(model.n_vocab)]

    def __call__(self, text: bytes) -> list[int]:
        return self._model.tokenize(text.decode("utf-8", "replace"))

    def _bytes(self, token: int) -> bytes:
        piece = self._model.piece(token, special=True)
        # A byte that no text has makes it one that only the end of the grammar can ask for.
        return b"\xff" + piece if self._model.is_control(token) else piece


class _Schema:
    """A JSON schema: a :class:`Constraint` that llguidance works out."""

    def __init__(self, tokenizer: Any, n_vocab: int, schema: str) -> None:
        from llguidance import LLMatcher  # noqa: PLC0415

        self._matcher = LLMatcher(tokenizer, schema, limits=limits(), log_level=0)
        self._bits = np.zeros((n_vocab + 31) // 32, np.uint32)
        self._n_vocab = n_vocab
        self._check()

    def allows(self, token: int) -> bool:
        return bool(self._matcher.validate_tokens([token]))

    def allowed(self) -> Allowed:
        self._matcher.unsafe_compute_mask_ptr(self._bits.ctypes.data, self._bits.nbytes)
        self._check()
        bits = np.unpackbits(self._bits.view(np.uint8), bitorder="little")
        return bits[: self._n_vocab].astype(np.bool_)

    def accept(self, token: int) -> None:
        self._matcher.consume_token(token)
        self._check()

    def close(self) -> None:
        pass

    def _check(self) -> None:
        if self._matcher.is_error():
            raise UsageError("The JSON schema is too complicated to follow. Simplify it.")


class Grammar:
    """A grammar in GBNF with a rule ``root``: a :class:`Constraint` that llama.cpp works out.

    Raises :class:`UsageError` for one that cannot be parsed, or is too large for llama.cpp.
    """

    def __init__(self, model: Model, grammar: str) -> None:
        check_grammar(grammar)
        self._n_vocab = model.n_vocab
        self._grammar = llama_cpp.llama_sampler_init_grammar(
            model.vocab_handle, grammar.encode(), b"root"
        )
        if not self._grammar:
            raise UsageError(
                "The grammar cannot be parsed. It must be GBNF with a rule named 'root'."
            )

    def allows(self, token: int) -> bool:
        return bool(self._apply(np.array([token], np.int32))[0])

    def allowed(self) -> Allowed:
        every = np.arange(self._n_vocab, dtype=np.int32)
        parts = range(0, self._n_vocab, _AT_ONCE)
        return np.concatenate([self._apply(every[at : at + _AT_ONCE]) for at in parts])

    def accept(self, token: int) -> None:
        llama_cpp.llama_sampler_accept(self._grammar, token)

    def close(self) -> None:
        if self._grammar:
            llama_cpp.llama_sampler_free(self._grammar)
            self._grammar = None

    def _apply(self, tokens: npt.NDArray[np.int32]) -> Allowed:
        candidates = np.zeros(len(tokens), CANDIDATE)
        candidates["id"] = tokens
        array = candidate_array(candidates)
        llama_cpp.llama_sampler_apply(self._grammar, ctypes.byref(array))
        allowed: Allowed = np.isfinite(candidates["logit"])
        return allowed


def candidate_array(candidates: npt.NDArray[np.void]) -> llama_cpp.llama_token_data_array:
    """``llama_token_data_array`` over an array of ``CANDIDATE``, which must live on."""
    return llama_cpp.llama_token_data_array(
        data=candidates.ctypes.data_as(ctypes.POINTER(llama_cpp.llama_token_data)),
        size=len(candidates),
        selected=-1,
        sorted=False,
    )


def check_grammar(grammar: str) -> None:
    """Raises :class:`UsageError` for what makes llama.cpp's reader of GBNF abort or never end."""
    if len(grammar.encode("utf-8", "replace")) > _MOST_BYTES:
        raise UsageError(f"A grammar may have at most {size(_MOST_BYTES)}.")
    if not grammar.strip():
        raise UsageError("The grammar is empty.")
    n_rules, groups, last = 0, [0], 0  # elements within each open group, and in what came last
    for match in _GBNF.finditer(grammar):
        kind = match.lastgroup
        if kind == "repeat" or match["repeat"]:
            least = _times(match["least"])
            most = _times(match["most"]) if match["most"] else least
            if most < least:  # llama.cpp would not come to an end
                raise UsageError(f"The grammar repeats something {least} to {most} times.")
            last *= max(1, most) - 1
        elif kind == "open":
            groups.append(0)
            last = 0
        elif kind == "close" and len(groups) > 1:
            last = groups.pop()
        elif kind == "set":
            _check_ranges(match["set"][1:-1].removeprefix("^"))
            last = 1
        elif kind == "text":
            _codes(match["text"])
            last = len(match["text"])
        elif kind == "other":
            last = 1
        else:
            n_rules += kind == "rule"
            continue
        groups[-1] += last
        if n_rules > _MOST_RULES or len(groups) > _DEEPEST or sum(groups) > _MOST_ELEMENTS:
            raise UsageError("The grammar is too large or nested too deeply. Simplify it.")


def _check_ranges(characters: str) -> None:
    """Whether the ranges of a character class go upwards: others match nothing, and abort."""
    codes = _codes(characters)
    for low, dash, high in zip(codes, codes[1:], codes[2:], strict=False):
        if dash == ord("-") and low > high:
            raise UsageError(
                f"The range {_character(low)}-{_character(high)} in the grammar is reversed."
            )


def _codes(characters: str) -> list[int]:
    """Of characters, some of them escaped. Beyond the last one, llama.cpp aborts."""
    codes = [
        int(hexadecimal, 16) if (hexadecimal := x or u or v) else ord(escaped or plain)
        for x, u, v, escaped, plain in _ESCAPE.findall(characters)
    ]
    if max(codes, default=0) > sys.maxunicode:
        raise UsageError(f"The grammar has {max(codes):X} for a character: there is none.")
    return codes


def _times(digits: str | None) -> int:
    return int((digits or "").lstrip("0")[:_DIGITS] or 0)


def _character(code: int) -> str:
    """As a person can read it: halves of characters cannot even be written."""
    return chr(code) if chr(code).isprintable() else f"U+{code:04X}"
