"""Writes models with the structure of real ones, without weights or with random ones.

Those without are mostly holes; llama.cpp allocates what it would for the real ones.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt

_HEAD, _VOCAB = 64, 32_000
_WIDTH = 512  # elements that a token has between blocks
_RANDOM_WIDTH = 256  # of models that compute: the least that all quantizations take
_INPUT = 256  # elements of the input that llama.cpp expects for a block of Gemma 3n
_COMPUTED = 4  # blocks of a model with others that llama.cpp leaves out
_FLOAT32 = (
    "lerp_fused.weight",
    "mix_first.weight",
    "_lerp_x.weight",
    "_lerp_k.weight",
    "_lerp_r.weight",
    "conv1d.weight",
    "conv.weight",
    "ssm_a",
    "ssm_d",
    "inp.weight",
    "ssm_norm.weight",
)
Tensors = dict[str, tuple[int, ...]]  # name → shape in ggml's order


def write(folder: Path, name: str) -> Path:
    """The model ``name`` of :data:`SHAPES`."""
    architecture, n_blocks, hyperparameters, block = SHAPES[name]
    path = folder / f"{name}.gguf"
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_tokenizer_model("no_vocab")
    _add(writer, architecture, n_blocks, hyperparameters | {"vocab_size": _VOCAB}, _WIDTH)
    tensors = _tensors(architecture, n_blocks, block, _VOCAB, _WIDTH)
    n_bytes = 0
    for key, shape in tensors.items():
        matrix = len(shape) > 1 and not key.endswith(_FLOAT32)
        kind = gguf.GGMLQuantizationType.F16 if matrix else gguf.GGMLQuantizationType.F32
        size = math.prod(shape) * (2 if matrix else 4)
        writer.add_tensor_info(key, shape[::-1], np.dtype(np.float32), size, raw_dtype=kind)
        n_bytes += -(-size // 32) * 32
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    os.truncate(path, -(-path.stat().st_size // 32) * 32 + n_bytes)
    return path


def write_random(
    folder: Path, name: str, kind: gguf.GGMLQuantizationType, random: np.random.Generator
) -> Path:
    """The model ``name`` with random weights, matrices of this type. It babbles in bytes."""
    architecture, n_blocks, hyperparameters, block = SHAPES[name]
    path = folder / f"{name} {kind.name}.gguf"
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens := ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256))])
    writer.add_token_scores([0.0] * len(tokens))
    kinds = gguf.TokenType
    writer.add_token_types([kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256])
    width = _RANDOM_WIDTH
    _add(writer, architecture, n_blocks, hyperparameters | {"vocab_size": len(tokens)}, width)
    for key, size in _tensors(architecture, n_blocks, block, len(tokens), width).items():
        shape = size[::-1]
        values: npt.NDArray[Any] = random.random(shape, np.float32)  # 5 times as fast as normal
        values -= np.float32(0.5)
        values *= np.float32(math.sqrt(12))  # of variance 1
        if "norm" in key:
            values = 1 + values / 10
        elif "ssm_a" in key:
            values = -np.abs(values) - np.float32(0.1)
        elif key == "token_embd.weight":
            values *= np.float32(3 * width**-0.5)  # also the output layer: likely and unlikely ones
        else:
            values *= np.float32(1.6 * shape[-1] ** -0.5 if len(shape) > 1 else 0.1)
        matrix = len(shape) > 1 and not key.endswith(_FLOAT32) and shape[-1] % 32 == 0
        own = kind if matrix else gguf.GGMLQuantizationType.F32
        writer.add_tensor(key, gguf.quants.quantize(values, own), raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(
    writer: gguf.GGUFWriter,
    architecture: str,
    n_blocks: int,
    hyperparameters: dict[str, object],
    width: int,
) -> None:
    common = {
        "block_count": n_blocks,
        "context_length": 32768,
        "embedding_length": width,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.dimension_count": _HEAD,
    }
    for key, given in (common | hyperparameters).items():
        value = given(width) if callable(given) else given
        if isinstance(value, list):
            writer.add_array(f"{architecture}.{key}", value)
        elif isinstance(value, float):
            writer.add_float32(f"{architecture}.{key}", value)
        else:
            assert isinstance(value, int)
            writer.add_uint32(f"{architecture}.{key}", value)


def _tensors(
    architecture: str,
    n_blocks: int,
    block: Callable[[int, int], Tensors],
    n_vocab: int,
    width: int,
) -> Tensors:
    tensors: Tensors = {"token_embd.weight": (width, n_vocab)}
    tensors["token_embd_norm.weight" if architecture == "lfm2" else "output_norm.weight"] = (width,)
    if architecture == "gemma4":
        tensors["rope_freqs.weight"] = (_HEAD // 2,)
    if architecture == "rwkv6":
        norms = ("output_norm.bias", "token_embd_norm.weight", "token_embd_norm.bias")
        tensors |= dict.fromkeys(norms, (width,)) | {"output.weight": (width, n_vocab)}
    if architecture == "gemma3n":
        inputs = n_blocks * _INPUT
        tensors |= {
            "altup_proj.weight": (width, width, 3),
            "altup_unembd_proj.weight": (width, width, 3),
            "per_layer_model_proj.weight": (width, inputs),
            "per_layer_proj_norm.weight": (_INPUT,),
            "per_layer_token_embd.weight": (inputs, n_vocab),
        }
    for number in range(n_blocks):
        tensors |= {f"blk.{number}.{key}": shape for key, shape in block(number, width).items()}
    return tensors


def _feed_forward(width: int, inner: int) -> Tensors:
    return {
        "ffn_norm.weight": (width,),
        "ffn_gate.weight": (width, inner),
        "ffn_up.weight": (width, inner),
        "ffn_down.weight": (inner, width),
    }


def _attention(width: int, heads: int, kv_heads: int, gate: int = 1) -> Tensors:
    return {
        "attn_norm.weight": (width,),
        "attn_q.weight": (width, heads * _HEAD * gate),
        "attn_k.weight": (width, kv_heads * _HEAD),
        "attn_v.weight": (width, kv_heads * _HEAD),
        "attn_output.weight": (heads * _HEAD, width),
        "attn_q_norm.weight": (_HEAD,),
        "attn_k_norm.weight": (_HEAD,),
    }


def _dense(_number: int, width: int) -> Tensors:
    return _attention(width, 16, 8) | _feed_forward(width, 1536)


def _experts(_number: int, width: int) -> Tensors:
    return _attention(width, 16, 2) | {
        "ffn_norm.weight": (width,),
        "ffn_gate_inp.weight": (width, 32),
        "ffn_gate_exps.weight": (width, 192, 32),
        "ffn_up_exps.weight": (width, 192, 32),
        "ffn_down_exps.weight": (192, width, 32),
    }


def _sliding(_number: int, width: int) -> Tensors:
    norms: Tensors = {"post_attention_norm.weight": (width,), "post_ffw_norm.weight": (width,)}
    return _attention(width, 8, 2) | _feed_forward(width, 3072) | norms


def _convolution(number: int, width: int) -> Tensors:
    if number % 3 == 2:
        return _attention(width, width // _HEAD, width // _HEAD // 2) | _feed_forward(width, 2304)
    return _feed_forward(width, 2304) | {
        "attn_norm.weight": (width,),
        "shortconv.conv.weight": (3, width),
        "shortconv.in_proj.weight": (width, 3 * width),
        "shortconv.out_proj.weight": (width, width),
    }


def _state_space(number: int, width: int) -> Tensors:
    if number % 3 == 2:
        attention = _attention(width, 8, 2)
        del attention["attn_q_norm.weight"], attention["attn_k_norm.weight"]
        return attention | _feed_forward(width, 1365)
    inner, state, heads = 2 * width, 128, 2 * width // _HEAD
    return _feed_forward(width, 1365) | {
        "attn_norm.weight": (width,),
        "ssm_in.weight": (width, 2 * inner + 2 * state + heads),
        "ssm_conv1d.weight": (4, inner + 2 * state),
        "ssm_conv1d.bias": (inner + 2 * state,),
        "ssm_dt.bias": (heads,),
        "ssm_a": (1, heads),
        "ssm_d": (1, heads),
        "ssm_norm.weight": (inner, 1),
        "ssm_out.weight": (inner, width),
    }


def _delta_net(number: int, width: int) -> Tensors:
    feed_forward = _feed_forward(width, 1792)
    feed_forward["post_attention_norm.weight"] = feed_forward.pop("ffn_norm.weight")
    if number % 4 == 3:
        return _attention(width, 8, 2, gate=2) | feed_forward
    key, value, heads = 1024, 1024, 8
    return feed_forward | {
        "attn_norm.weight": (width,),
        "attn_qkv.weight": (width, 2 * key + value),
        "attn_gate.weight": (width, value),
        "ssm_conv1d.weight": (4, 2 * key + value),
        "ssm_dt.bias": (heads,),
        "ssm_a": (heads,),
        "ssm_beta.weight": (width, heads),
        "ssm_alpha.weight": (width, heads),
        "ssm_norm.weight": (128,),
        "ssm_out.weight": (value, width),
    }


def _drafting(number: int, width: int) -> Tensors:
    """A delta net whose last block predicts further tokens, which llama.cpp leaves out."""
    if number < _COMPUTED:
        return _delta_net(number, width)
    return _delta_net(3, width) | {
        "nextn.eh_proj.weight": (2 * width, width),
        "nextn.enorm.weight": (width,),
        "nextn.hnorm.weight": (width,),
        "nextn.shared_head_norm.weight": (width,),
    }


def _sharing(_number: int, width: int) -> Tensors:
    """A block that has keys and values, used or not."""
    return (
        _attention(width, 8, 2)
        | _feed_forward(width, 1536)
        | {
            "post_attention_norm.weight": (width,),
            "post_ffw_norm.weight": (width,),
            "layer_output_scale.weight": (1,),
        }
    )


def _with_inputs(_number: int, width: int) -> Tensors:
    """A block with an input of its own for each token, and four streams of activations."""
    return (
        _attention(width, 8, 2)
        | _feed_forward(width, 1024)
        | {
            "altup_correct_coef.weight": (4, 4),
            "altup_correct_scale.weight": (width,),
            "altup_predict_coef.weight": (4, 16),
            "altup_router.weight": (width, 4),
            "altup_router_norm.weight": (width,),
            "inp_gate.weight": (width, _INPUT),
            "laurel_l.weight": (width, 64),
            "laurel_r.weight": (64, width),
            "laurel_post_norm.weight": (width,),
            "post_attention_norm.weight": (width,),
            "post_ffw_norm.weight": (width,),
            "post_norm.weight": (width,),
            "proj.weight": (_INPUT, width),
        }
    )


def _pictured(_number: int, width: int) -> Tensors:
    """A block with other weights for pictures."""
    feed_forward = _feed_forward(width, 1536)
    pictures = {
        name.replace("ffn_", "vis_"): shape
        for name, shape in feed_forward.items()
        if name != "ffn_norm.weight"
    }
    attention = {
        f"{kind}attn_{name}.weight": shape
        for kind in ("", "vis_")
        for name, shape in {"qkv": (width, 3 * 8 * _HEAD), "output": (8 * _HEAD, width)}.items()
    }
    return {"attn_norm.weight": (width,)} | attention | feed_forward | pictures


def _time_mixing(_number: int, width: int) -> Tensors:
    """A block that shows its matrix ``time_mix_w2`` in another shape before it uses it."""
    vectors = ("attn_norm", "attn_norm_2", "time_mix_ln")
    lerps = ("channel_mix_lerp_k", "channel_mix_lerp_r", "time_mix_lerp_x")
    square = ("gate", "key", "output", "receptance", "value")
    return (
        {f"{name}.{kind}": (width,) for name in vectors for kind in ("weight", "bias")}
        | {f"{name}.weight": (width, 1, 1) for name in lerps}
        | {f"time_mix_{name}.weight": (width, width) for name in square}
        | {
            "time_mix_lerp_fused.weight": (width, 1, 1, 5),
            "time_mix_decay.weight": (width,),
            "time_mix_decay_w1.weight": (width, 64),
            "time_mix_decay_w2.weight": (64, width),
            "time_mix_first.weight": (_HEAD, width // _HEAD),
            "time_mix_w1.weight": (width, 5 * 128),
            "time_mix_w2.weight": (128, width, 5),
            "channel_mix_key.weight": (width, 1792),
            "channel_mix_receptance.weight": (width, width),
            "channel_mix_value.weight": (1792, width),
        }
    )


_OfWidth = Callable[[int], object]


def _heads(heads: int | _OfWidth, kv_heads: int | list[int] | _OfWidth) -> dict[str, object]:
    return {
        "attention.head_count": heads,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": _HEAD,
        "attention.value_length": _HEAD,
    }


_DELTA_KEYS: dict[str, object] = {
    "feed_forward_length": 1792,
    "ssm.conv_kernel": 4,
    "ssm.inner_size": 1024,
    "ssm.state_size": 128,
    "ssm.time_step_rank": 8,
    "ssm.group_count": 8,
    "rope.dimension_sections": [11, 11, 10, 0],
}

#: Name → architecture, blocks, hyperparameters (some by width), and the tensors of the block with a
#: number, in a model of a width.
SHAPES: dict[str, tuple[str, int, dict[str, object], Callable[[int, int], Tensors]]] = {
    "dense": ("qwen3", 2, {"feed_forward_length": 1536} | _heads(16, 8), _dense),
    "experts": (
        "qwen3moe",
        2,
        {
            "feed_forward_length": 1536,
            "expert_count": 32,
            "expert_used_count": 8,
            "expert_feed_forward_length": 192,
        }
        | _heads(16, 2),
        _experts,
    ),
    "sliding window": (
        "gemma3",
        6,
        {"feed_forward_length": 3072, "attention.sliding_window": 512} | _heads(8, 2),
        _sliding,
    ),
    "short window": (
        "gemma3",
        6,
        {"feed_forward_length": 3072, "attention.sliding_window": 32} | _heads(8, 2),
        _sliding,
    ),
    "convolution": (
        "lfm2",
        6,
        {"feed_forward_length": 2304, "shortconv.l_cache": 3}
        | _heads(lambda width: width // _HEAD, lambda width: [0, 0, width // _HEAD // 2] * 2),
        _convolution,
    ),
    "state space": (
        "granitehybrid",
        6,
        {
            "feed_forward_length": 1365,
            "ssm.conv_kernel": 4,
            "ssm.inner_size": lambda width: 2 * width,
            "ssm.state_size": 128,
            "ssm.time_step_rank": lambda width: 2 * width // _HEAD,
            "ssm.group_count": 1,
        }
        | _heads(8, [0, 0, 2] * 2),
        _state_space,
    ),
    "delta net": (
        "qwen35",
        4,
        _DELTA_KEYS | _heads(8, 2),
        _delta_net,
    ),
    "drafting block": (
        "qwen35",
        _COMPUTED + 1,
        {"nextn_predict_layers": 1} | _DELTA_KEYS | _heads(8, 2),
        _drafting,
    ),
    "shared keys": (
        "gemma4",
        8,
        {
            "feed_forward_length": 1536,
            "embedding_length_per_layer_input": 0,
            "attention.shared_kv_layers": 4,
            "attention.sliding_window": 512,
            "attention.sliding_window_pattern": [True, False] * 4,
            "attention.key_length_swa": _HEAD,
            "attention.value_length_swa": _HEAD,
            "rope.dimension_count_swa": _HEAD,
        }
        | _heads(8, 2),
        _sharing,
    ),
    "inputs for each block": (
        "gemma3n",
        25,  # with fewer, llama.cpp finds no keys to share
        {
            "feed_forward_length": 1024,
            "embedding_length_per_layer_input": _INPUT,
            "altup.num_inputs": 4,
            "altup.active_idx": 0,
            "activation_sparsity_scale": [0.0] * 25,
            "attention.shared_kv_layers": 5,
            "attention.sliding_window": 512,
            "attention.sliding_window_pattern": [True, True, True, True, False] * 5,
        }
        | _heads(8, 2),
        _with_inputs,
    ),
    "with pictures": ("cogvlm", 2, {"feed_forward_length": 1536} | _heads(8, 8), _pictured),
    "time mixing": (
        "rwkv6",
        4,
        {
            "feed_forward_length": 1792,
            "attention.head_count": 0,
            "attention.layer_norm_epsilon": 1e-5,
            "wkv.head_size": _HEAD,
            "time_mix_extra_dim": 128,
            "time_decay_extra_dim": 64,
        },
        _time_mixing,
    ),
}
