"""Refuses what no model can be, before the planner or native code computes with it.

llama.cpp checks most of what it reads and says what is wrong. What is looked at here it takes as
given: one such number ends the process that loads the file, or computes with it.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping

from ondevice.gguf._front import ArrayOnDisk, TensorInfo, Value
from ondevice.gguf.architectures import is_encoder

_MOST_BLOCKS = 512  # LLAMA_MAX_LAYERS
_MOST_EXPERTS = 512  # LLAMA_MAX_EXPERTS
_MOST_TOKENS = 1 << 22  # of a vocabulary; the largest ones have 2^18
_MOST_HEADS = 1 << 14
#: Types of intermediate results, and of numbers that are no weights.
_NO_WEIGHTS = frozenset({"Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64"})
#: Tables of numbers of tokens and experts may be of integers.
_TABLES = ("tid2eid", "d2t", "t2d")
#: What vectors begin with, in blocks and beside them.
_VECTORS = ("blk.", "output_", "token_embd_norm", "per_layer_proj_norm", "rope_")
#: Of what is called a weight in a block, what is added, scanned or convolved with.
_NO_FACTORS = ("norm", "ssm_conv1d", "shortconv.conv", "time_mix_lerp")
STACK = "ondevice.stack.version"  # the key that tells a stack; its planes are stored as I8
POSITIONS = "position_embd.weight"  # a vector for each position
_LEAST_POSITIONS = 256  # the smallest context of llama.cpp, which does not look how many there are
_ROPE_SCALING = frozenset({"none", "linear", "yarn", "longrope"})
#: Architectures for which a single expert means that there are none.
_ONE_EXPERT_IS_NONE = frozenset({"hunyuan-dense", "hunyuan_vl"})


def faults(metadata: Mapping[str, Value], tensors: Collection[TensorInfo]) -> Iterator[str]:
    """What makes no sense in a model's description, each as the end of "the file is damaged: …"."""
    architecture = str(metadata.get("general.architecture", ""))
    about = _Hyperparameters(metadata, architecture)
    yield from _in_types(tensors, is_stack=STACK in metadata)
    yield from _in_blocks(about)
    yield from _in_experts(about, architecture)
    yield from _in_attention(about)
    yield from _in_norms(about)
    n_positions = about.count("context_length")
    if (
        n_positions < _LEAST_POSITIONS
        and not is_encoder(architecture)
        and any(tensor.name == POSITIONS for tensor in tensors)
    ):
        yield f"it has positions for {n_positions} tokens only"
    tokens = metadata.get("tokenizer.ggml.tokens")
    if isinstance(tokens, ArrayOnDisk) and tokens.length > _MOST_TOKENS:
        yield f"it claims a vocabulary of {tokens.length} tokens"


class _Hyperparameters:
    """The numbers of one architecture; what is of another type llama.cpp refuses itself."""

    def __init__(self, metadata: Mapping[str, Value], architecture: str) -> None:
        self._metadata = metadata
        self._architecture = architecture

    def value(self, key: str) -> Value | None:
        return self._metadata.get(f"{self._architecture}.{key}")

    def counts(self, key: str) -> tuple[int, ...]:
        """One number for all blocks, or one for each; empty if there is none."""
        value = self.value(key)
        values = value if isinstance(value, tuple) else (value,)
        return tuple(each for each in values if isinstance(each, int))

    def count(self, key: str) -> int:
        return max(self.counts(key), default=0)


def _in_types(tensors: Iterable[TensorInfo], *, is_stack: bool) -> Iterator[str]:
    for tensor in tensors:
        kind = tensor.type_name
        is_plane = is_stack and kind == "I8"
        if kind == "F32" or is_plane or any(table in tensor.name for table in _TABLES):
            continue
        if kind in _NO_WEIGHTS:
            yield f"its tensor {tensor.name!r} is of type {kind}, which weights never have"
        elif (_is_vector if len(tensor.shape) == 1 else _is_no_factor)(tensor.name):
            yield (
                f"its tensor {tensor.name!r} is of type {kind} but can only be computed with in F32"
            )


def _is_vector(name: str) -> bool:
    """Whether it is added to or multiplied with each element of what is computed.

    The gates of experts are multiplied as matrices are, and what is added to them is not.
    """
    return name.startswith(_VECTORS) and ("gate_inp" not in name or name.endswith(".bias"))


def _is_no_factor(name: str) -> bool:
    """Whether a tensor of several dimensions in a block is not multiplied with as a matrix is."""
    return name.startswith("blk.") and (
        not name.endswith(".weight") or any(part in name for part in _NO_FACTORS)
    )


def _in_blocks(about: _Hyperparameters) -> Iterator[str]:
    n_blocks = about.count("block_count")
    if any(not 0 <= n <= _MOST_BLOCKS for n in about.counts("block_count")):
        yield f"it claims {n_blocks} blocks"
    if n_blocks and about.count("nextn_predict_layers") > n_blocks:
        drafting = about.count("nextn_predict_layers")
        yield f"it says that {drafting} of its {n_blocks} blocks are for drafting"


def _in_experts(about: _Hyperparameters, architecture: str) -> Iterator[str]:
    n_experts, used = about.count("expert_count"), about.counts("expert_used_count")
    if architecture in _ONE_EXPERT_IS_NONE and n_experts <= 1:
        return
    most = max(used, default=0)
    if not 0 <= n_experts <= _MOST_EXPERTS:
        yield f"it claims {n_experts} experts"
    elif most > n_experts or min(used, default=0) < 0:
        yield f"it uses {most} of {n_experts} experts for a token"
    elif n_experts and not most:
        yield f"it has {n_experts} experts and uses none of them"
    n_groups, in_use = about.count("expert_group_count"), about.count("expert_group_used_count")
    sound = n_groups == 0 or (
        n_groups < n_experts
        and (n_groups == 1 or (n_experts % n_groups == 0 and 0 < in_use < n_groups))
    )
    if not sound:
        yield f"its {n_experts} experts are in {n_groups} groups, {in_use} of them in use"


def _in_attention(about: _Hyperparameters) -> Iterator[str]:
    heads, kv_heads = (about.counts(f"attention.{key}") for key in ("head_count", "head_count_kv"))
    for count in (*heads, *kv_heads):
        if not 0 <= count <= _MOST_HEADS:
            yield f"it claims {count} attention heads"
            return
    for ours, keys in _pairs(heads, kv_heads):
        if ours and keys and ours % keys:
            yield f"its {ours} attention heads cannot share {keys} heads of keys"
            return
    scaling = about.value("rope.scaling.type")
    if isinstance(scaling, str) and scaling not in _ROPE_SCALING:
        yield f"its positions are scaled in the unknown way {scaling[:40]!r}"


def _pairs(heads: tuple[int, ...], kv_heads: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Both numbers of each block; one that is the same for all is repeated."""
    n_blocks = max(len(heads), len(kv_heads))
    if heads and kv_heads and {len(heads), len(kv_heads)} <= {1, n_blocks}:
        yield from zip(_for_each(heads, n_blocks), _for_each(kv_heads, n_blocks), strict=True)


def _for_each(counts: tuple[int, ...], n_blocks: int) -> tuple[int, ...]:
    return counts * n_blocks if len(counts) == 1 else counts


def _in_norms(about: _Hyperparameters) -> Iterator[str]:
    for key in ("layer_norm_epsilon", "layer_norm_rms_epsilon", "group_norm_epsilon"):
        epsilon = about.value(f"attention.{key}")
        if isinstance(epsilon, float) and not (math.isfinite(epsilon) and epsilon >= 0):
            yield f"the epsilon of its norms is {epsilon}"
