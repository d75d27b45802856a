"""The types that a model's KV cache can have, told from its file: llama.cpp refuses the others."""

from __future__ import annotations

from typing import get_args

from ondevice.errors import ModelFileError
from ondevice.gguf import GGUFFile
from ondevice.messages import KVType

_BLOCK = 32  # elements that the smaller types store together, all of one head
_NO_FLASH_ATTENTION = ("grok",)  # which smaller types need; it is the same list in llama.cpp
#: Beside those of all blocks, the heads of blocks with a sliding window.
_LENGTHS = ("attention.key_length_swa", "attention.value_length_swa")


def kv_types(file: GGUFFile) -> tuple[KVType, ...]:
    """The largest first."""
    return ("f16",) if why_f16(file) else get_args(KVType)


def check_kv_type(file: GGUFFile, kv_type: KVType | None) -> None:
    """Raises :class:`ModelFileError` if the model cannot have this type."""
    if kv_type and kv_type not in kv_types(file):
        raise ModelFileError(
            f"{file.name} cannot keep its KV cache in {kv_type}: {why_f16(file)}. Leave "
            "out --kv-type, or use --kv-type f16."
        )


def why_f16(file: GGUFFile) -> str:
    """Why nothing smaller can be, as the end of a sentence; empty if it can."""
    if file.architecture in _NO_FLASH_ATTENTION:
        return "models of its kind need it in f16"
    lengths = [file.key_length, file.value_length, *map(file.hyperparameter, _LENGTHS)]
    odd = next((length for length in lengths if length % _BLOCK), None)
    return f"its attention heads have {odd} elements, not a multiple of {_BLOCK}" if odd else ""
