"""Writes a tiny model of the kind that has a vector for each position, as GPT-2."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

_EMBD, _FF = 64, 128
_TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]


def write(path: Path, n_positions: int) -> Path:
    """It babbles in bytes, and has one block."""
    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "gpt2")
    writer.add_block_count(1)
    writer.add_context_length(n_positions)
    writer.add_embedding_length(_EMBD)
    writer.add_feed_forward_length(_FF)
    writer.add_head_count(2)
    writer.add_layer_norm_eps(1e-5)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(_TOKENS)
    writer.add_token_scores([0.0] * len(_TOKENS))
    kinds = gguf.TokenType
    writer.add_token_types([kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256])
    shapes = {
        "token_embd.weight": (len(_TOKENS), _EMBD),
        "position_embd.weight": (n_positions, _EMBD),
        "blk.0.attn_qkv.weight": (3 * _EMBD, _EMBD),
        "blk.0.attn_qkv.bias": (3 * _EMBD,),
        "blk.0.attn_output.weight": (_EMBD, _EMBD),
        "blk.0.attn_output.bias": (_EMBD,),
        "blk.0.ffn_up.weight": (_FF, _EMBD),
        "blk.0.ffn_up.bias": (_FF,),
        "blk.0.ffn_down.weight": (_EMBD, _FF),
        "blk.0.ffn_down.bias": (_EMBD,),
    }
    for norm in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"):
        shapes |= {f"{norm}.weight": (_EMBD,), f"{norm}.bias": (_EMBD,)}
    for name, shape in shapes.items():
        writer.add_tensor(name, random.standard_normal(shape, np.float32) / 8)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
