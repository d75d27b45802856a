"""How much RAM a model needs, worked out from its file before anything is loaded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from ondevice.gguf import GGUFFile
from ondevice.gguf.architectures import LOGITS_OF_ALL
from ondevice.messages import KVType

# What ondevice.llama.Context asks of llama.cpp, in tokens.
_BATCH = 512
_OUTPUTS = 16
DRAFT_BATCH = 128  #: What a drafter asks, with the logits of one.
_EMBEDDING_LOGITS = (32_000_000, 6_000_000)  # bytes, of the tokens that are embedded at once
_CTX_STEP = 256  # llama.cpp rounds the context up to a multiple of it
_DEFAULT_CTX = 4096

_KV_BITS: dict[KVType, float] = {"f16": 16, "q8_0": 8.5, "q4_0": 4.5}  # an element
_FLOAT = 4  # bytes

# Measured on x86-64 Linux: Python, its modules and llama.cpp, after a prompt of 3,300 tokens and a
# reply with drafts, which take 8 MB of this; then what its tokenizer keeps.
_ENGINE = 70_000_000  # bytes, 26 MB of it shared libraries
_TOKEN, _MERGE = 190, 160  # bytes each
_SCHEMAS, _SCHEMA_TOKEN = 5_000_000, 280  # llguidance; and what it knows of each token

_SEQUENCES = 2  # that decoded, and one by which parts of it are kept
#: A block with one of these has a state of fixed size instead of keys and values, or beside them.
_RECURRENT = ("ssm_a", "ssm_conv1d.weight", "shortconv.conv.weight", "time_mix_key.weight")
#: A block with one of these keeps keys by which it chooses what to look back on, beside the others.
_INDEX_KEYS = ("indexer.attn_k", "indexer.k_proj")


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes of RAM with which each token is computed without reading weights from the disk."""

    n_ctx: int  # tokens, as llama.cpp will allocate
    weights: int  # what each token reads
    kv: int  # KV cache, and the state of recurrent blocks
    compute: int  # buffers for activations and logits
    engine: int  # the process itself and the vocabulary

    @property
    def total(self) -> int:
        return self.weights + self.kv + self.compute + self.engine

    def to_draft(self, n_vocab: int) -> Need:
        """The same for a drafter: smaller batches, beside a model in the same process.

        It has the logits of one token for each sequence: of a second one if it is recurrent.
        """
        compute = self.compute * DRAFT_BATCH // _BATCH + _SEQUENCES * n_vocab * _FLOAT
        return replace(self, compute=compute, engine=0)


def need(
    file: GGUFFile,
    n_ctx: int | None = None,
    kv_type: KVType = "f16",
    *,
    predicts: bool = False,
) -> Need:
    """What the model needs with a context of ``n_ctx`` tokens.

    None is as long as it was trained on, at most 4096 tokens. It is never longer than that for a
    model which has a vector for each position: with another one, llama.cpp ends the process.
    ``predicts``: its prediction block drafts.
    """
    if n_ctx is None:
        n_ctx = min(file.n_ctx_train or _DEFAULT_CTX, _DEFAULT_CTX)
    n_ctx = -(-n_ctx // _CTX_STEP) * _CTX_STEP
    if file.n_positions is not None:
        n_ctx = min(n_ctx, max(_CTX_STEP, file.n_positions // _CTX_STEP * _CTX_STEP))
    alone = Need(
        n_ctx=n_ctx,
        weights=file.weights_bytes
        - sum(file.tensors[name].n_bytes for name in file.read_by_row | file.unread),
        kv=int(n_ctx * _kv_elements(file, range(file.n_cached_blocks)) * _KV_BITS[kv_type] / 8)
        + _states(file),
        compute=_compute(file, n_ctx),
        engine=_ENGINE
        + file.length("tokenizer.ggml.tokens") * _TOKEN
        + file.length("tokenizer.ggml.merges") * _MERGE,
    )
    if not predicts:
        return alone
    block = file.n_computed_blocks
    small = alone.to_draft(file.n_vocab)
    return replace(
        alone,
        weights=alone.weights
        + sum(file.tensors[name].n_bytes for name in file.prediction - file.read_by_row),
        kv=alone.kv + int(n_ctx * _kv_elements(file, (block,)) * _KV_BITS[kv_type] / 8),
        # and the states after the tokens of a batch, twice
        compute=alone.compute + small.compute + 2 * _BATCH * file.n_embd * _FLOAT,
    )


def for_schemas(file: GGUFFile) -> int:
    """Bytes that the tokens take in the form in which JSON schemas are followed."""
    return _SCHEMAS + file.n_vocab * _SCHEMA_TOKEN


def for_embedding(file: GGUFFile, n_ctx: int, batch_tokens: int) -> int:
    """Bytes that a context takes which turns texts into vectors.

    llama.cpp computes the logits of each token of a batch, and has room for them twice.
    """
    alone = need(file, n_ctx)
    logits = 2 * batch_tokens * file.n_vocab * _FLOAT
    return alone.kv + alone.compute * batch_tokens // _BATCH + logits


def embedding_batches(file: GGUFFile) -> list[int]:
    """How many tokens to embed at once, the fastest first; they need not see each other.

    In RAM, the first takes up to 1.3 times as long as 512 tokens do, which would take 620 MB with
    150,000 tokens to choose from.
    """
    return [
        max(1, min(_BATCH, n_bytes // (file.n_vocab * _FLOAT))) for n_bytes in _EMBEDDING_LOGITS
    ]


def _kv_elements(file: GGUFFile, blocks: Iterable[int]) -> int:
    """Elements of keys and values for one token, in these blocks.

    Blocks with a sliding window count like the others: their cache has full length, so that the
    start of a conversation can be used again.
    """
    kv_heads, key_length, value_length = file.n_kv_heads, file.key_length, file.value_length
    if file.hyperparameter("attention.key_length_mla"):  # latent attention keeps no values
        value_length = 0
    index_length = file.hyperparameter("attention.indexer.key_length")
    elements = 0
    for block in blocks:
        if any(f"blk.{block}.{name}.weight" in file.tensors for name in _INDEX_KEYS):
            elements += index_length + value_length
            if f"blk.{block}.indexer_compressor_gate.weight" in file.tensors:
                elements += 2 * index_length
        if not kv_heads[block]:
            continue
        keys = file.tensors.get(f"blk.{block}.attn_k.weight")
        values = file.tensors.get(f"blk.{block}.attn_v.weight", keys)
        if keys and values:
            elements += keys.shape[-1] + values.shape[-1]
        elif not _is_recurrent(file, block):
            elements += kv_heads[block] * (key_length + value_length)
    return elements


def _is_recurrent(file: GGUFFile, block: int) -> bool:
    kv_heads = file.n_kv_heads
    if kv_heads[block] and 0 in kv_heads:  # a hybrid, and one of its blocks with attention
        return False
    return any(f"blk.{block}.{name}" in file.tensors for name in _RECURRENT)


def _states(file: GGUFFile) -> int:
    """Bytes of the states of all recurrent blocks, as llama.cpp sizes them: for two sequences."""
    n_blocks = sum(_is_recurrent(file, block) for block in range(file.n_computed_blocks))
    rwkv = file.hyperparameter("wkv.head_size")
    short = file.hyperparameter("shortconv.l_cache")
    if rwkv:
        elements = file.n_embd * (file.hyperparameter("token_shift_count", 2) + rwkv)
    elif short:
        elements = file.n_embd * (short - 1)
    else:
        inner, convolved = _ssm_widths(file)
        elements = inner * file.hyperparameter("ssm.state_size") + convolved * max(
            0, file.hyperparameter("ssm.conv_kernel") - 1
        )
    return _SEQUENCES * n_blocks * elements * _FLOAT


def _ssm_widths(file: GGUFFile) -> tuple[int, int]:
    """Elements for one token inside a state-space block, and of these with what is convolved."""
    inner = file.hyperparameter("ssm.inner_size")
    groups = file.hyperparameter("ssm.group_count")
    return inner, inner + 2 * groups * file.hyperparameter("ssm.state_size")


# ------------------------------------------------------------------ buffers


def _compute(file: GGUFFile, n_ctx: int) -> int:
    """Bytes of the compute and output buffers: the most that is alive at one time.

    How many activations that is in each kind of block was found by comparing with what llama.cpp
    allocates for models of two dozen shapes, 0.1B to 30B-A3B. That is at most 5 % more than this;
    for some mixtures of experts it is a third less.
    """
    n_embd, n_vocab = file.n_embd, file.n_vocab
    experts = file.n_experts_used if file.n_experts else 0
    hidden = max(
        file.hyperparameter("feed_forward_length"),
        experts * file.hyperparameter("expert_feed_forward_length"),
    )
    queries = file.hyperparameter("attention.head_count") * file.key_length
    keys = file.hyperparameter("attention.head_count_kv") * file.key_length
    inner, convolved = _ssm_widths(file)
    widest = max(
        (4 + experts) * n_embd + 3 * hidden,  # feed-forward
        3 * n_embd + 2 * queries + 2 * keys,  # attention
        n_embd + 2 * convolved + 5 * inner,  # state space
        _time_mixing(file),
    )
    # One more input for each block, there from the first to the last, with what it is gated by; and
    # as many streams of activations as the model has.
    projection = file.tensors.get("per_layer_model_proj.weight")
    inputs = projection.shape[-1] if projection else 0
    streams = file.hyperparameter("altup.num_inputs") * n_embd
    if inputs:
        widest = max(widest + inputs + streams + 3 * n_embd, 4 * inputs + 2 * n_embd)
    if indexers := file.hyperparameter("attention.indexer.head_count"):
        # Queries of all indexers, and what each token of the context is worth to each of the batch.
        widest += 2 * indexers * file.hyperparameter("attention.indexer.key_length") + 5 * n_ctx
    outputs = _BATCH if file.architecture in LOGITS_OF_ALL else _OUTPUTS
    logits = outputs * n_vocab + _BATCH * 2 * n_embd
    n_masks = (2 if file.sliding_window else 1) if queries else 0
    masks = _BATCH * n_ctx * 2 * n_masks  # 2 bytes an element
    sequences = _SEQUENCES + bool(file.sliding_window)  # which needs a third one
    return max(_BATCH * widest, logits) * _FLOAT + masks + (sequences - 1) * n_vocab * _FLOAT


def _time_mixing(file: GGUFFile) -> int:
    """Elements for one token inside a block of RWKV 6, or of RWKV 7, which has more of them."""
    if not file.hyperparameter("wkv.head_size"):
        return 0
    return (16 if file.architecture.startswith("rwkv6") else 20) * file.n_embd
