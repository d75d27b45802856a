"""Writes a mixture of experts of the qwen3moe architecture, with random weights and real habits.

No trained model is needed to measure how experts are fetched, but the router must behave like a
trained one: no expert is much busier than the others for long, and the experts of one token are
likely to serve the next ones. Here tokens belong to topics, and topics to fields; the embedding of
a token is a mix of all three, the router a random matrix, and a text (:func:`text`) goes from
topic to topic, mostly within a field.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt

N_TOPICS = 64
N_FIELDS = 8
_SHARES = (0.15, 0.38, 0.47)  # of field, topic and the token itself in an embedding's variance
_RUN = 40  # tokens about one topic, on average
_EDIT = 25  # tokens from one change to the next, on average
_SAME_FIELD = 0.7  # of the changes of topic

_Q4_K, _Q6_K, _Q8_0, _F32 = (gguf.GGMLQuantizationType[n] for n in ("Q4_K", "Q6_K", "Q8_0", "F32"))
_HEAD = 128  # elements


@dataclass(frozen=True)
class Shape:
    """How large a model is to be."""

    n_blocks: int
    n_embd: int
    n_ff: int  # of one expert
    n_experts: int
    n_used: int  # experts for each token
    n_vocab: int = 4096
    n_heads: int = 16
    n_kv_heads: int = 4


#: The shape of OLMoE-1B-7B with somewhat narrower experts: 2.9 GB.
LARGE = Shape(n_blocks=16, n_embd=2048, n_ff=768, n_experts=64, n_used=8)
#: A few megabytes, for tests.
SMALL = Shape(
    n_blocks=3, n_embd=256, n_ff=256, n_experts=16, n_used=2, n_vocab=512, n_heads=2, n_kv_heads=1
)


def write(path: Path, shape: Shape, seed: int = 1, *, speaks: bool = False) -> None:
    """Write the model, without a vocabulary: it takes and gives the numbers of tokens.

    ``speaks``: with one of bytes, and other tokens that no text has.
    """
    choose = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "qwen3moe")
    writer.add_block_count(shape.n_blocks)
    writer.add_context_length(4096)
    writer.add_embedding_length(shape.n_embd)
    writer.add_feed_forward_length(shape.n_ff)
    writer.add_expert_feed_forward_length(shape.n_ff)
    writer.add_expert_count(shape.n_experts)
    writer.add_expert_used_count(shape.n_used)
    writer.add_head_count(shape.n_heads)
    writer.add_head_count_kv(shape.n_kv_heads)
    writer.add_key_length(_HEAD)
    writer.add_value_length(_HEAD)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1e6)
    writer.add_vocab_size(shape.n_vocab)
    if speaks:
        add_vocabulary(writer, shape.n_vocab)
    else:
        writer.add_tokenizer_model("no_vocab")
    tensors = list(_tensors(shape))
    for name, size, kind, _ in tensors:
        array = np.empty(0, np.float32 if kind == _F32 else np.uint8)
        row = gguf.quant_shape_to_byte_shape(size, kind) if kind != _F32 else size
        n_bytes = int(np.prod(row)) * array.itemsize
        writer.add_tensor_info(name, row, array.dtype, n_bytes, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for name, size, kind, scale in tensors:
        if name == "token_embd.weight":
            weights = gguf.quantize(_embeddings(shape, choose), kind)
        else:
            weights = random_weights(size, kind, scale, choose)
        writer.write_tensor_data(weights)
    writer.close()


def add_vocabulary(writer: gguf.GGUFWriter, n_vocab: int) -> None:
    """Tokens for bytes, and others that no text has."""
    kinds = gguf.TokenType
    n_others = n_vocab - 3 - 256
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256]
    writer.add_tokenizer_model("llama")
    writer.add_token_list([*tokens, *(f"<unused{number}>" for number in range(n_others))])
    writer.add_token_scores([0.0] * n_vocab)
    writer.add_token_types([*types, *[kinds.UNUSED] * n_others])


def text(n_tokens: int, shape: Shape, seed: int = 1) -> list[int]:
    """A text of that many tokens, in runs about related topics."""
    choose = random.Random(seed)
    topic = choose.randrange(N_TOPICS)
    tokens: list[int] = []
    while len(tokens) < n_tokens:
        for _ in range(max(1, round(choose.expovariate(1 / _RUN)))):
            tokens.append(choose.randrange(shape.n_vocab // N_TOPICS) * N_TOPICS + topic)
        if choose.random() < _SAME_FIELD:
            topic = choose.randrange(N_TOPICS // N_FIELDS) * N_FIELDS + topic % N_FIELDS
        else:
            topic = choose.randrange(N_TOPICS)
    return tokens[:n_tokens]


def edited(n_tokens: int, shape: Shape, seed: int = 1) -> list[int]:
    """:func:`text` with one of about 25 tokens changed."""
    choose = random.Random(seed)
    return [
        choose.randrange(shape.n_vocab) if choose.random() < 1 / _EDIT else token
        for token in text(n_tokens, shape, seed)
    ]


def _embeddings(shape: Shape, choose: np.random.Generator) -> npt.NDArray[np.float32]:
    field, topic, own = (
        choose.standard_normal((n, shape.n_embd), np.float32) * float(share**0.5)
        for n, share in zip((N_FIELDS, N_TOPICS, shape.n_vocab), _SHARES, strict=True)
    )
    tokens = np.arange(shape.n_vocab)
    mixed: npt.NDArray[np.float32] = own + topic[tokens % N_TOPICS] + field[tokens % N_FIELDS]
    return mixed


_Tensor = tuple[str, tuple[int, ...], gguf.GGMLQuantizationType, float]


def _tensors(shape: Shape) -> Iterator[_Tensor]:
    """Name, shape (rows last), type and standard deviation (0: all ones) of each tensor."""
    wide, heads, ff = shape.n_embd, shape.n_heads * _HEAD, shape.n_ff
    values = shape.n_kv_heads * _HEAD
    yield "token_embd.weight", (shape.n_vocab, wide), _Q8_0, 0
    yield "output.weight", (shape.n_vocab, wide), _Q6_K, wide**-0.5
    yield "output_norm.weight", (wide,), _F32, 0
    for block in range(shape.n_blocks):
        matrices = {
            "attn_q": ((heads, wide), _Q4_K, wide**-0.5),
            "attn_k": ((values, wide), _Q4_K, wide**-0.5),
            "attn_v": ((values, wide), _Q4_K, wide**-0.5),
            "attn_output": ((wide, heads), _Q4_K, 0.3 * heads**-0.5),
            "ffn_gate_inp": ((shape.n_experts, wide), _F32, wide**-0.5),
            "ffn_gate_exps": ((shape.n_experts, ff, wide), _Q4_K, wide**-0.5),
            "ffn_up_exps": ((shape.n_experts, ff, wide), _Q4_K, wide**-0.5),
            "ffn_down_exps": (
                (shape.n_experts, wide, ff),
                _Q6_K if block % 2 else _Q4_K,  # as llama.cpp's mixtures of types have it
                0.5 * ff**-0.5,
            ),
            "attn_norm": ((wide,), _F32, 0),
            "ffn_norm": ((wide,), _F32, 0),
            "attn_q_norm": ((_HEAD,), _F32, 0),
            "attn_k_norm": ((_HEAD,), _F32, 0),
        }
        for name, (size, kind, scale) in matrices.items():
            yield f"blk.{block}.{name}.weight", size, kind, scale


def random_weights(
    size: tuple[int, ...],
    kind: gguf.GGMLQuantizationType,
    scale: float,
    choose: np.random.Generator,
) -> npt.NDArray[np.generic]:
    """Weights of mean 0: quantized ones as random bytes but for the scales of their blocks.

    Without a scale, floats are 1 and quantized ones 0.
    """
    if kind == _F32:
        weights = choose.standard_normal(size, np.float32) * np.float32(scale)
        return weights if scale else np.ones(size, np.float32)
    per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    n_blocks = int(np.prod(size)) // per_block
    bits = np.frombuffer(choose.bytes(n_blocks * block_bytes), np.uint8)
    blocks = bits.reshape(n_blocks, block_bytes).copy()
    halves = blocks.view(np.float16)
    if kind == _Q4_K:  # d, dmin, then 6-bit scales and minima, then 4-bit weights
        halves[:, 0], halves[:, 1] = scale / 260, 7.5 * scale / 260
    else:  # Q6_K: 6-bit weights, 8-bit scales, and d at the end
        halves[:, -1] = scale / 1350
    return blocks.reshape(*size[:-1], -1)
