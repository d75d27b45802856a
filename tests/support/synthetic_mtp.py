"""Writes a hybrid of the qwen35 architecture whose prediction block is right as often as is wanted.

No trained model is needed to measure what such drafts cost and save, but they must be right for
some tokens and wrong for others. Here what follows a token depends on that token alone, since what
blocks compute is added as zeros; all the same it is computed. The prediction block passes the token
on to the output layer, so that it comes to what the model will, where its own embedding of the
token is the model's; for the other tokens it has another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
from synthetic_moe import add_vocabulary, random_weights

_Q4_K, _Q6_K, _Q8_0, _F32 = (gguf.GGMLQuantizationType[n] for n in ("Q4_K", "Q6_K", "Q8_0", "F32"))
_HEAD = 256  # elements, of attention
_STATE = 128  # of the delta net's heads
_ATTENTION_EACH = 4  # blocks


@dataclass(frozen=True)
class Shape:
    """How large a model is to be."""

    n_blocks: int  # without the prediction block; a multiple of 4
    n_embd: int
    n_ff: int
    n_heads: int  # of attention
    n_states: int  # heads of the delta net
    n_vocab: int


#: That of Qwen3.5-2B with a smaller vocabulary: 0.9 GB.
LARGE = Shape(n_blocks=24, n_embd=2048, n_ff=6144, n_heads=8, n_states=16, n_vocab=65_536)
#: A few megabytes, for tests.
SMALL = Shape(n_blocks=4, n_embd=256, n_ff=512, n_heads=2, n_states=2, n_vocab=512)


def write(
    path: Path, shape: Shape, right: float = 0.7, seed: int = 1, *, without: str = ""
) -> None:
    """Write the model, with a vocabulary of bytes and of others that no text has.

    ``right`` is the share of tokens whose follower the prediction block foresees. ``without`` is a
    tensor that this block lacks.
    """
    choose = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "qwen35")
    writer.add_block_count(shape.n_blocks + 1)
    writer.add_uint32("qwen35.nextn_predict_layers", 1)
    writer.add_context_length(4096)
    writer.add_embedding_length(shape.n_embd)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_head_count(shape.n_heads)
    writer.add_head_count_kv(2)
    writer.add_key_length(_HEAD)
    writer.add_value_length(_HEAD)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(64)
    writer.add_rope_dimension_sections([11, 11, 10, 0])
    writer.add_ssm_conv_kernel(4)
    writer.add_ssm_inner_size(shape.n_states * _STATE)
    writer.add_ssm_state_size(_STATE)
    writer.add_ssm_time_step_rank(shape.n_states)
    writer.add_ssm_group_count(shape.n_states)
    add_vocabulary(writer, shape.n_vocab)
    embeddings = choose.standard_normal((shape.n_vocab, shape.n_embd), np.float32)
    own = np.where(choose.random((shape.n_vocab, 1)) < right, embeddings, embeddings[::-1])
    known = {
        "token_embd.weight": embeddings,
        f"blk.{shape.n_blocks}.nextn.embed_tokens.weight": own,
        f"blk.{shape.n_blocks}.nextn.eh_proj.weight": np.eye(
            shape.n_embd, 2 * shape.n_embd, dtype=np.float32
        ),
    }
    for name, size, kind, scale in _tensors(shape):
        if name == f"blk.{shape.n_blocks}.{without}":
            continue
        if name in known:
            weights = gguf.quantize(known[name], kind)
        else:
            weights = random_weights(size, kind, scale, choose)
        if name.endswith("ssm_a"):
            weights = -np.abs(weights)  # a state that fades
        writer.add_tensor(name, weights, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


_Tensor = tuple[str, tuple[int, ...], gguf.GGMLQuantizationType, float]


def _tensors(shape: Shape) -> Iterator[_Tensor]:
    """Name, shape (rows last), type and standard deviation of each tensor."""
    wide, ff, heads = shape.n_embd, shape.n_ff, shape.n_heads * _HEAD
    yield "token_embd.weight", (shape.n_vocab, wide), _Q8_0, 0
    yield "output.weight", (shape.n_vocab, wide), _Q6_K, wide**-0.5
    yield "output_norm.weight", (wide,), _F32, 0
    for block in range(shape.n_blocks + 1):
        has_attention = block % _ATTENTION_EACH == _ATTENTION_EACH - 1 or block == shape.n_blocks
        tensors = {
            "attn_norm.weight": ((wide,), _F32, 0.0),
            "post_attention_norm.weight": ((wide,), _F32, 0.0),
            "ffn_gate.weight": ((ff, wide), _Q4_K, wide**-0.5),
            "ffn_up.weight": ((ff, wide), _Q4_K, wide**-0.5),
            "ffn_down.weight": ((wide, ff), _Q4_K, 0.0),
        }
        tensors |= _attention(wide, heads) if has_attention else _delta_net(wide, shape.n_states)
        if block == shape.n_blocks:
            tensors |= {
                "nextn.eh_proj.weight": ((wide, 2 * wide), _Q8_0, 0.0),
                "nextn.embed_tokens.weight": ((shape.n_vocab, wide), _Q8_0, 0.0),
                "nextn.enorm.weight": ((wide,), _F32, 0.0),
                "nextn.hnorm.weight": ((wide,), _F32, 0.0),
                "nextn.shared_head_norm.weight": ((wide,), _F32, 0.0),
            }
        for name, (size, kind, scale) in tensors.items():
            yield f"blk.{block}.{name}", size, kind, scale


_Sizes = dict[str, tuple[tuple[int, ...], gguf.GGMLQuantizationType, float]]


def _attention(wide: int, heads: int) -> _Sizes:
    return {
        "attn_q.weight": ((2 * heads, wide), _Q4_K, wide**-0.5),
        "attn_k.weight": ((2 * _HEAD, wide), _Q4_K, wide**-0.5),
        "attn_v.weight": ((2 * _HEAD, wide), _Q4_K, wide**-0.5),
        "attn_output.weight": ((wide, heads), _Q4_K, 0.0),
        "attn_q_norm.weight": ((_HEAD,), _F32, 0.0),
        "attn_k_norm.weight": ((_HEAD,), _F32, 0.0),
    }


def _delta_net(wide: int, n_states: int) -> _Sizes:
    inner = n_states * _STATE
    return {
        "attn_qkv.weight": ((3 * inner, wide), _Q4_K, wide**-0.5),
        "attn_gate.weight": ((inner, wide), _Q4_K, wide**-0.5),
        "ssm_conv1d.weight": ((3 * inner, 4), _F32, 0.5),
        "ssm_dt.bias": ((n_states,), _F32, 0.1),
        "ssm_a": ((n_states,), _F32, 0.1),
        "ssm_beta.weight": ((n_states, wide), _F32, wide**-0.5),
        "ssm_alpha.weight": ((n_states, wide), _F32, wide**-0.5),
        "ssm_norm.weight": ((_STATE,), _F32, 0.0),
        "ssm_out.weight": ((wide, inner), _Q4_K, 0.0),
    }
