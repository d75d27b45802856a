"""Whether two models mean the same by a token, so that one can draft for the other."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from ondevice.errors import ModelFileError, UsageError
from ondevice.gguf._file import GGUFFile
from ondevice.gguf._front import ArrayOnDisk, damaged

_NO_TOKENIZER = ("none", "no_vocab")
_WITHOUT_BYTES = ("bert", "rwkv")  # tokenizers that have no tokens for single bytes
_N_BYTES = 256
_BYTE, _HEX_END = 6, 5  # the kind of a token, and the end of the number in "<0x41>"
_INT32, _TEXT = 5, 8  # GGUF's numbers of these types
_LENGTH = struct.Struct("<Q")
_ESCAPED = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPES: Mapping[bytes, bytes] = MappingProxyType({b"t": b"\t", b"n": b"\n", b"r": b"\r"})


def share_vocabulary(drafter: GGUFFile, target: GGUFFile) -> bool:
    """Whether all tokens that both have are the same; one may have more of them."""
    if drafter.text("tokenizer.ggml.model") != target.text("tokenizer.ggml.model"):
        return False
    ours, theirs = _vocabulary(drafter), _vocabulary(target)
    shorter = min(len(ours), len(theirs))
    return shorter > 0 and ours[:shorter] == theirs[:shorter]


def check_vocabulary(drafter: GGUFFile, target: GGUFFile) -> None:
    """Raises :class:`UsageError` if a token of one model means something else to the other."""
    if not share_vocabulary(drafter, target):
        raise UsageError(
            f"{drafter.path.name} cannot draft for {target.path.name}: they have different "
            "vocabularies. Choose a smaller model of the same family."
        )


def check_tokens(file: GGUFFile) -> None:
    """Raises :class:`ModelFileError` for tokens with which llama.cpp ends the process, or hangs.

    Only who loads the model asks for it: reading a large vocabulary takes a twentieth of a second.
    """
    kind = file.text("tokenizer.ggml.model")
    if kind in _NO_TOKENIZER:
        raise ModelFileError(f"{file.path} cannot chat: it has no vocabulary. Choose another file.")
    texts = list(_texts(file))
    # Numbers in place of the texts: a set of those would take 30 MB for a large vocabulary.
    numbers = np.sort(np.fromiter(map(hash, texts), np.int64, len(texts)))
    if (numbers[1:] == numbers[:-1]).any():
        seen: set[bytes] = set()
        for token, text in enumerate(texts):
            if text in seen:
                raise damaged(file.path, f"its token {token}, {_shown(text)}, comes twice")
            seen.add(text)
    of_bytes = [texts[n] for n in np.flatnonzero(_types(file)[: len(texts)] == _BYTE)]
    if of_bytes and (kind in _WITHOUT_BYTES or min(map(len, of_bytes)) < _HEX_END):
        raise damaged(file.path, f"its token {_shown(min(of_bytes, key=len))} stands for no byte")
    match kind:
        case "llama":  # what has no token is spelled in bytes: all of them, or none
            n_bytes = len({f"<0x{byte:02X}>".encode() for byte in range(256)}.intersection(texts))
            if 0 < n_bytes < _N_BYTES:
                raise damaged(file.path, f"{_N_BYTES - n_bytes} of the 256 bytes have no token")
        case "rwkv":  # the search for the longest token begins again if there is not a shortest
            plain = [_unescaped(text) for text in texts]
            alone = {text for text in plain if len(text) == 1}
            if lost := {text[:1] for text in plain if text} - alone:
                raise damaged(file.path, f"the byte {min(lost)!r} is no token by itself")


def _texts(file: GGUFFile) -> Iterator[bytes]:
    """The texts of the tokens, in order; empty ones get the name that llama.cpp gives them."""
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, tuple):
        for token, text in enumerate(tokens):
            # One that is no UTF-8 was changed when it was read; it is taken for a text of its own.
            known = isinstance(text, str) and text and "\ufffd" not in text
            yield str(text).encode() if known else f"[EMPTY_{token}]".encode()
        return
    if not isinstance(tokens, ArrayOnDisk) or tokens.element_type != _TEXT:
        return  # none, or what llama.cpp refuses
    data, at = _vocabulary(file), 0
    for token in range(tokens.length):
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size + length
        yield data[at - length : at] or f"[EMPTY_{token}]".encode()


def _types(file: GGUFFile) -> npt.NDArray[np.int64]:
    """What kind of token each is; empty if the file does not say, or not in the usual way."""
    types = file.metadata.get("tokenizer.ggml.token_type")
    if isinstance(types, ArrayOnDisk) and types.element_type == _INT32:
        return np.fromfile(file.path, "<i4", types.length, offset=types.offset).astype(np.int64)
    numbers = [each for each in types if isinstance(each, int)] if isinstance(types, tuple) else []
    return np.array(numbers, np.int64)


def _unescaped(text: bytes) -> bytes:
    """The bytes that a token of RWKV stands for."""

    def plain(escape: re.Match[bytes]) -> bytes:
        code = escape[1]
        return bytes([int(code[1:], 16)]) if len(code) > 1 else _ESCAPES.get(code, code)

    return _ESCAPED.sub(plain, text)


def _shown(text: bytes) -> str:
    return repr(text.decode("utf-8", "replace")[:40])


def _vocabulary(file: GGUFFile) -> bytes:
    """The texts of the tokens in their order, as they lie in the file; empty if there are none."""
    tokens = file.metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, ArrayOnDisk):
        return b""
    with file.path.open("rb") as opened:
        opened.seek(tokens.offset)
        return opened.read(tokens.n_bytes)
