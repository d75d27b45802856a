"""The tensors of a file that llama.cpp never reads: they need no RAM and no room in a plan."""

from __future__ import annotations

from ondevice.weights.gguf import GGUFFile

#: Models in which the last blocks look back on the keys and values of earlier ones.
_SHARED = ("attn_k.", "attn_v.", "attn_k_norm.")


def n_computed_blocks(file: GGUFFile) -> int:
    """Blocks that a pass computes: those behind them predict further tokens, and are not used."""
    return max(0, file.n_blocks - file.hyperparameter("nextn_predict_layers"))


def n_cached_blocks(file: GGUFFile) -> int:
    """Blocks with keys and values of their own; those behind them share these, or are not used."""
    return max(0, n_computed_blocks(file) - file.hyperparameter("attention.shared_kv_layers"))


def unread(file: GGUFFile) -> frozenset[str]:
    """The names of these tensors.

    Should llama.cpp read one after all, it finds it where its file is mapped.
    """
    computed, cached = n_computed_blocks(file), n_cached_blocks(file)
    return frozenset(
        tensor.name
        for tensor in file.tensors.values()
        if tensor.block is not None
        and (
            tensor.block >= computed
            or (tensor.block >= cached and tensor.name.split(".", 2)[2].startswith(_SHARED))
        )
    )
