"""A GGUF model in llama.cpp: its weights, its facts and its tokenizer."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import llama_cpp

from ondevice.errors import LoadCancelled, MemoryShortError, ModelFileError, NativeError
from ondevice.gguf import GGUFFile, Part
from ondevice.gguf.architectures import TURNED_IN_WINDOWS, is_encoder
from ondevice.gguf.writing import HollowHeader
from ondevice.llama import _log
from ondevice.llama._hollow import stand_in

_LOAD_MMAP = 1  # enum llama_load_mode
#: What llama.cpp and the C library say where the system gives them no memory.
_NO_MEMORY = re.compile(r"annot allocate memory|failed to allocate|unable to allocate|bad_alloc")
# enum llama_token_attr
_ATTR_UNKNOWN, _ATTR_CONTROL, _ATTR_USER_DEFINED = 1 << 0, 1 << 3, 1 << 4
_ATTR_STRIP = 1 << 7 | 1 << 8  # left, right
_VOCAB_SPM, _VOCAB_BPE = 1, 2  # enum llama_vocab_type

_BEFORE = "\x01"  # a text that is never one token with what follows it

#: Of user-defined tokens, those that structure prompts, such as <|start|>, </think> and [INST],
#: and those that only look so.
_MARK = re.compile(r"<[^<>\s]+>|\[[^\[\]\s]{2,}\]|\|{2,}[^|\s]+\|{2,}")
_HTML = re.compile(
    r"</?(?:a|b|blockquote|br|caption|code|div|em|h[1-6]|hr|i|img|li|ol|p|pre|s|span|strong|su[bp]|"
    r"table|tbody|td|tfoot|th|thead|tr|u|ul)/?>"
)
_OVERRIDE_INT, _OVERRIDE_TEXT = 0, 3  # enum llama_model_kv_override_type


class Model:
    """The weights of a GGUF file, memory-mapped, and its vocabulary.

    ``use_extra_bufts`` lets llama.cpp repack weights into private buffers with faster kernels; it
    must be off where weights are repointed (:mod:`ondevice.holding`). ``hollow`` names the files
    of the model, or what to find in them instead: it is then opened without its weights, and each
    must be pointed at its bytes before it is used. ``without_vocabulary`` is the file's own
    description; tokens then have numbers only, and the model takes up to 50 MB less.
    ``predicts`` loads the prediction block of a model that has one, for a :class:`Predictor`.

    ``on_progress`` gets fractions 0 … 1 while loading and returns False to cancel.

    Raises :class:`ModelFileError` when llama.cpp refuses the file, :class:`MemoryShortError` and
    :class:`LoadCancelled`.
    """

    def __init__(
        self,
        path: Path,
        *,
        use_extra_bufts: bool = True,
        hollow: Sequence[Part | HollowHeader] = (),
        without_vocabulary: GGUFFile | None = None,
        predicts: bool = False,
        on_progress: Callable[[float], bool] = lambda _: True,
    ) -> None:
        self.path = path
        cancelled = False

        @llama_cpp.llama_progress_callback  # type: ignore[untyped-decorator]
        def progress(fraction: float, _user_data: object) -> bool:
            nonlocal cancelled
            cancelled = not on_progress(fraction)
            return not cancelled

        params = llama_cpp.llama_model_default_params()
        params.load_mode = _LOAD_MMAP
        params.n_gpu_layers = 0
        params.use_extra_bufts = use_extra_bufts
        params.load_mtp = predicts
        params.progress_callback = progress
        if without_vocabulary is not None:
            params.kv_overrides = _no_vocabulary(without_vocabulary)
        _log.reset()
        with stand_in(hollow) if hollow else nullcontext(path) as native_path:
            self._handle = llama_cpp.llama_model_load_from_file(bytes(native_path), params)
        if cancelled:
            self.close()
            raise LoadCancelled
        if not self._handle:
            why = _log.last_error() or "no reason given"
            if _NO_MEMORY.search(why):
                raise MemoryShortError(
                    f"{path.name} cannot be loaded: the system gives the engine no more memory "
                    f"({why}). Close other programs, or raise the limit if there is one (ulimit "
                    "-v)."
                )
            raise ModelFileError(
                f"llama.cpp cannot load {path}: {why}. "
                "The file may be damaged, or need a newer version."
            )
        self._vocab = llama_cpp.llama_model_get_vocab(self._handle)
        self._text = ctypes.create_string_buffer(256)
        if self._turns_nothing:
            self.close()
            raise ModelFileError(
                f"{path} is damaged: it says that positions turn 0 elements of a key. "
                "Download it again."
            )

    def close(self) -> None:
        """Free the weights. Contexts of this model must have been closed before."""
        if self._handle:
            llama_cpp.llama_model_free(self._handle)
            self._handle = None

    # ------------------------------------------------------------------------ facts

    @property
    def handle(self) -> int:
        """``llama_model *``, for the modules of this package."""
        if self._handle is None:
            raise NativeError("The model is closed.")
        return int(self._handle)

    @property
    def vocab_handle(self) -> int:
        """``llama_vocab *``, for the modules of this package."""
        return int(self._vocab)

    @property
    def n_vocab(self) -> int:
        return int(llama_cpp.llama_vocab_n_tokens(self.vocab_handle))

    @property
    def n_layers(self) -> int:
        return int(llama_cpp.llama_model_n_layer(self.handle))

    @property
    def n_embd_out(self) -> int:
        """Elements of what is computed of a token, before its logits are."""
        return int(llama_cpp.llama_model_n_embd_out(self.handle))

    @property
    def n_params(self) -> int:
        return int(llama_cpp.llama_model_n_params(self.handle))

    @property
    def n_ctx_train(self) -> int:
        """Tokens of context that the model was trained on."""
        return int(llama_cpp.llama_model_n_ctx_train(self.handle))

    @property
    def architecture(self) -> str:
        return self.metadata("general.architecture") or ""

    @property
    def is_recurrent(self) -> bool:
        """Whether blocks of it keep a state in place of keys and values."""
        handle = self.handle
        return bool(
            llama_cpp.llama_model_is_recurrent(handle) or llama_cpp.llama_model_is_hybrid(handle)
        )

    @property
    def window(self) -> int:
        """Tokens that some blocks look back on at most, a sliding window; 0: none does."""
        return int(llama_cpp.llama_model_n_swa(self.handle))

    @property
    def _turns_nothing(self) -> bool:
        """Whether rotary positions turn no element, of which ggml would never come to an end."""
        if llama_cpp.llama_model_rope_type(self.handle) == llama_cpp.LLAMA_ROPE_TYPE_NONE:
            return False
        key = f"{self.architecture}.rope.dimension_count"
        turned = self.metadata(key)
        in_windows = self.metadata(f"{key}_swa") or turned
        may_be_none = self.architecture in TURNED_IN_WINDOWS
        return in_windows == "0" or (turned == "0" and not may_be_none)

    @property
    def size_bytes(self) -> int:
        """Bytes of all weights."""
        return int(llama_cpp.llama_model_size(self.handle))

    @property
    def quantization(self) -> str:
        """llama.cpp's name of the file type, such as ``Q4_K - Medium``."""
        name: bytes = llama_cpp.llama_ftype_name(llama_cpp.llama_model_ftype(self.handle))
        return name.decode()

    @property
    def cannot_chat(self) -> str:
        """Why this model does not write one token after the other, or empty if it does."""
        if llama_cpp.llama_model_is_diffusion(self.handle):
            return "it is a diffusion model, which writes a whole text at once"
        if llama_cpp.llama_model_has_encoder(self.handle):
            return "it is an encoder, or needs one"
        architecture = self.architecture
        if self.metadata(f"{architecture}.attention.causal") == "false" or is_encoder(architecture):
            return "it is an encoder, which turns text into vectors and writes none"
        return ""

    @property
    def embeds(self) -> bool:
        """Whether this model turns a text into a vector, all by itself."""
        return not llama_cpp.llama_model_has_encoder(
            self.handle
        ) and not llama_cpp.llama_model_is_diffusion(self.handle)

    @property
    def pooling(self) -> int:
        """How the file wants vectors of tokens to become one of the text, or -1 if it says nothing.

        As ``enum llama_pooling_type``: 0 none, 1 mean, 2 the first token's, 3 the last token's.
        """
        return int(self.metadata(f"{self.architecture}.pooling_type") or -1)

    def metadata(self, key: str) -> str | None:
        """A scalar or string of the GGUF's metadata as text, or None."""
        name = key.encode()
        length = llama_cpp.llama_model_meta_val_str(self.handle, name, self._text, 0)
        if length < 0:
            return None
        buffer = ctypes.create_string_buffer(length + 1)
        llama_cpp.llama_model_meta_val_str(self.handle, name, buffer, length + 1)
        return buffer.value.decode("utf-8", "replace")

    @property
    def chat_template(self) -> str | None:
        """The Jinja source that the file carries, or None."""
        template: bytes | None = llama_cpp.llama_model_chat_template(self.handle, None)
        return template.decode("utf-8", "replace") if template else None

    # -------------------------------------------------------------------- tokenizer

    def tokenize(
        self, text: str, *, add_special: bool = False, parse_special: bool = False
    ) -> list[int]:
        """Token ids of ``text``.

        ``add_special`` adds BOS and the like where the model wants them; ``parse_special`` reads
        the text of control tokens as those tokens, so it must be off for text from outside.
        """
        data = text.encode("utf-8", "replace")
        capacity = len(data) + 8
        while True:
            tokens = (ctypes.c_int32 * capacity)()
            count = llama_cpp.llama_tokenize(
                self.vocab_handle, data, len(data), tokens, capacity, add_special, parse_special
            )
            if count >= 0:
                return tokens[:count]
            if -count <= capacity:
                raise NativeError("llama.cpp cannot tokenize the text.")
            capacity = -count

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes that ``token`` stands for; those of control tokens only with ``special``."""
        size = llama_cpp.llama_token_to_piece(
            self.vocab_handle, token, self._text, len(self._text), 0, special
        )
        if size < 0:
            self._text = ctypes.create_string_buffer(-size)
            return self.piece(token, special=special)
        return self._text.raw[:size]

    def text(self, tokens: Sequence[int], *, special: bool = False) -> str:
        """The text that ``tokens`` stand for."""
        return b"".join(self.piece(t, special=special) for t in tokens).decode("utf-8", "replace")

    def is_end(self, token: int) -> bool:
        """True for every token that ends a reply."""
        return bool(llama_cpp.llama_vocab_is_eog(self.vocab_handle, token))

    def is_control(self, token: int) -> bool:
        """True for tokens that structure a prompt: no text from outside may become one."""
        attributes = llama_cpp.llama_vocab_get_attr(self.vocab_handle, token)
        if attributes & (_ATTR_UNKNOWN | _ATTR_CONTROL):
            return True
        return bool(attributes & _ATTR_USER_DEFINED) and _is_mark(self._spelling(token))

    @cached_property
    def control_spellings(self) -> frozenset[str]:
        """The texts that are read as tokens for which :meth:`is_control` holds.

        Also without ``parse_special``: llama.cpp finds those that a file calls user-defined always.
        """
        attribute, vocab = llama_cpp.llama_vocab_get_attr, self.vocab_handle
        special = _ATTR_UNKNOWN | _ATTR_CONTROL | _ATTR_USER_DEFINED
        tokens = [token for token in range(self.n_vocab) if attribute(vocab, token) & special]
        return frozenset(self._spelling(t) for t in tokens if self.is_control(t)) - {""}

    @cached_property
    def longest_token(self) -> int:
        """Bytes of the longest text that is one token."""
        text, vocab = llama_cpp.llama_vocab_get_text, self.vocab_handle
        # As files spell tokens: never shorter than what they stand for.
        return max((len(text(vocab, token) or b"") for token in range(self.n_vocab)), default=1)

    @cached_property
    def start_tokens(self) -> tuple[int, ...]:
        """What stands before any text."""
        if llama_cpp.llama_vocab_get_add_bos(self.vocab_handle):
            return (int(llama_cpp.llama_vocab_bos(self.vocab_handle)),)
        return ()

    @cached_property
    def strips_around_tokens(self) -> bool:
        """Whether white space beside some control tokens is left out of what is tokenized."""
        return any(
            llama_cpp.llama_vocab_get_attr(self.vocab_handle, token) & _ATTR_STRIP
            for text in self.control_spellings
            for token in self.tokenize(text, parse_special=True)[:1]
        )

    @cached_property
    def breaks_at_words(self) -> bool:
        """Whether no token reaches from one line or word into the next."""
        kind = llama_cpp.llama_vocab_type(self.vocab_handle)
        # The tokens of such a one reach over several words by intent.
        return (
            kind in (_VOCAB_SPM, _VOCAB_BPE) and self.metadata("tokenizer.ggml.pre") != "superbpe"
        )

    def tokenize_on(self, text: str) -> list[int]:
        """Token ids of ``text`` that goes on after other text: no space is put before it."""
        if not self._space_before:
            return self.tokenize(text, parse_special=True)
        before = self.tokenize(_BEFORE)
        tokens = self.tokenize(_BEFORE + text, parse_special=True)
        if tokens[: len(before)] != before:
            return self.tokenize(text, parse_special=True)
        return tokens[len(before) :]

    @cached_property
    def _space_before(self) -> bool:
        """Whether the tokenizer puts a space before each text."""
        return self.text(self.tokenize("a")) != "a"

    def _spelling(self, token: int) -> str:
        """The text that is read as ``token``."""
        text: bytes | None = llama_cpp.llama_vocab_get_text(self.vocab_handle, token)
        return (text or b"").decode("utf-8", "replace")

    @cached_property
    def suppressed_tokens(self) -> tuple[int, ...]:
        """Tokens that the file wants never to be sampled."""
        count = ctypes.c_int32()
        tokens = llama_cpp.llama_vocab_get_suppress_tokens(self.vocab_handle, ctypes.byref(count))
        return tuple(tokens[: count.value]) if tokens and count.value > 0 else ()

    @property
    def bos(self) -> str:
        """Text of the token that begins a sequence, or empty."""
        return self._special(llama_cpp.llama_vocab_bos(self.vocab_handle))

    @property
    def eos(self) -> str:
        """Text of the token that ends a sequence, or empty."""
        return self._special(llama_cpp.llama_vocab_eos(self.vocab_handle))

    def _special(self, token: int) -> str:
        return "" if token < 0 else self.text([token], special=True)


def apply_named_template(name: str, messages: Sequence[tuple[str, str]]) -> str | None:
    """What llama.cpp's own template of this name makes of (role, text).

    None if it knows no such template.
    """
    chat = (llama_cpp.llama_chat_message * len(messages))()
    for each, (role, text) in zip(chat, messages, strict=True):
        each.role = role.encode()
        each.content = text.replace("\0", "").encode("utf-8", "replace")
    size = 0
    while True:
        buffer = ctypes.create_string_buffer(size) if size else None
        length = llama_cpp.llama_chat_apply_template(
            name.encode("utf-8", "replace"), chat, len(messages), True, buffer, size
        )
        if length < 0:
            return None
        if buffer is not None and length <= size:
            return buffer.raw[:length].decode("utf-8", "replace")
        size = max(length, 1)


def _is_mark(text: str) -> bool:
    """Whether a token that a file calls user-defined structures prompts.

    Others are spaces, HTML and pieces of programs: these may stand in any text.
    """
    if _HTML.fullmatch(text):
        return False
    return bool(_MARK.fullmatch(text))


def _no_vocabulary(file: GGUFFile) -> Any:
    """Metadata for llama.cpp to see in place of the file's; an entry without a key ends it."""
    overrides: Any = (llama_cpp.llama_model_kv_override * 3)()
    overrides[0].tag, overrides[0].key = _OVERRIDE_TEXT, b"tokenizer.ggml.model"
    overrides[0].value.val_str = b"no_vocab"
    overrides[1].tag, overrides[1].key = _OVERRIDE_INT, f"{file.architecture}.vocab_size".encode()
    overrides[1].value.val_i64 = file.n_vocab
    return overrides
