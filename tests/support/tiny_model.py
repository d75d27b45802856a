"""Writes a model of 200 kB that llama.cpp loads in milliseconds and that babbles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import gguf
import numpy as np

_BLOCKS, _EMBD, _FF, _HEADS, _CTX = 2, 64, 128, 4, 256
_TOKENS = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
_TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"


def write(
    path: Path,
    n_experts: int = 0,
    *,
    tied: bool = True,
    marks: Mapping[str, gguf.TokenType] | None = None,
    template: str = _TEMPLATE,
    architecture: str = "llama",
    space: bool = True,
) -> Path:
    """The same file each time; its tokens are the 256 bytes. 0 experts: no mixture of them.

    ``tied``: the table of tokens is the output layer as well. ``marks`` are more tokens.
    ``space``: the tokenizer puts one before each text.
    """
    marks = marks or {}
    tokens = [*_TOKENS, *marks]
    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("Tiny")
    writer.add_block_count(_BLOCKS)
    writer.add_context_length(_CTX)
    writer.add_embedding_length(_EMBD)
    writer.add_feed_forward_length(_FF)
    writer.add_head_count(_HEADS)
    writer.add_head_count_kv(_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(_EMBD // _HEADS)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0)
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores([0.0] * len(tokens))
    kinds = gguf.TokenType
    first = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL]
    writer.add_token_types([*first, *[kinds.BYTE] * 256, *marks.values()])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    if not space:
        writer.add_add_space_prefix(False)
    if template:
        writer.add_chat_template(template)

    if n_experts:
        writer.add_expert_count(n_experts)
        writer.add_expert_used_count(2)

    def matrix(name: str, *shape: int) -> None:
        values = random.standard_normal(shape, np.float32) / 8
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quants.quantize(values, kind), raw_dtype=kind)

    def norm(name: str) -> None:
        writer.add_tensor(name, np.ones(_EMBD, np.float32))

    matrix("token_embd.weight", len(tokens), _EMBD)
    norm("output_norm.weight")
    for block in range(_BLOCKS):
        norm(f"blk.{block}.attn_norm.weight")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            matrix(f"blk.{block}.{name}.weight", _EMBD, _EMBD)
        norm(f"blk.{block}.ffn_norm.weight")
        if n_experts:
            matrix(f"blk.{block}.ffn_gate_inp.weight", n_experts, _EMBD)
            matrix(f"blk.{block}.ffn_gate_exps.weight", n_experts, _FF, _EMBD)
            matrix(f"blk.{block}.ffn_up_exps.weight", n_experts, _FF, _EMBD)
            matrix(f"blk.{block}.ffn_down_exps.weight", n_experts, _EMBD, _FF)
        else:
            matrix(f"blk.{block}.ffn_gate.weight", _FF, _EMBD)
            matrix(f"blk.{block}.ffn_up.weight", _FF, _EMBD)
            matrix(f"blk.{block}.ffn_down.weight", _EMBD, _FF)
    if not tied:
        matrix("output.weight", len(tokens), _EMBD)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
