"""What a token takes: seconds, worked out from a model's file and the machine's speeds."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from ondevice.gguf import GGUFFile
from ondevice.holding.experts.blocks import ExpertBlock
from ondevice.holding.speeds import Speeds

PROMPT = 512  # tokens of the prompt whose first token is predicted
DISK_FACTOR = 0.9  # of the disk's speed that streaming reaches

# What a token takes beside the products with weights: measured on models of 135M to 1.5B.
_DECODE_FACTOR, _PREFILL_FACTOR = 1.4, 1.5
_BLOCK_SECONDS = 0.12e-3
_MOST_TENSORS = 64  # of a block; more of them take the time of more blocks
_USUAL_BLOCKS = 30
_DRAFTED = 4  # tokens that a drafter proposes
# The share of them that is right, and what is left of it where the drafter has lost quality:
# measured on a stack of 0.5B that drafts for a model of 1.5B, 180 to 450 MB of it.
_RIGHT, _RIGHT_BY_QUALITY = 0.63, 1 / 6
# Of a model's own prediction block, by what others report of trained ones: 2 tokens, of which 0.7
# are right; and what a pass takes that checks them, of one without them, to compute.
PREDICTED, _PREDICTED_RIGHT, _CHECKING = 2, 0.7, 1.4
# Of the experts that are needed, those that the cache does not hold: so much of the square of the
# share that it does not hold of all. Synthetic routers miss 0.12 if it holds half of
# them and 0.27 with three tenths; others report 0.19 and 0.33 of trained ones, with LRU, a quarter
# and an eighth.
_MISSED = 0.5
_READ_SECONDS = 0.35e-3  # of each tensor that is streamed, whatever its size


def decode_seconds(file: GGUFFile, speeds: Speeds) -> float:
    """For one token, all weights in RAM."""
    products = sum(elements / speeds.decoding(name) for name, elements in _elements(file, 1))
    return _with_all_else(products, max(file.n_blocks, len(file.tensors) / _MOST_TENSORS))


def usual_decode_seconds(n_params: float, type_name: str, speeds: Speeds) -> float:
    """The same, of a model of which only so much is known."""
    return _with_all_else(n_params / speeds.decoding(type_name), _USUAL_BLOCKS)


def prefill_seconds(file: GGUFFile, speeds: Speeds) -> float:
    """For a prompt of ``PROMPT`` tokens, all weights in RAM."""
    products = sum(elements / speeds.prefilling(name) for name, elements in _elements(file, PROMPT))
    return products * _PREFILL_FACTOR


def drafted_seconds(
    computing: float, reading: float, drafting: float, quality: float = 1.0
) -> float:
    """For one token, from those of the model and of its drafter, of which ``quality`` is left."""
    right = _RIGHT * quality**_RIGHT_BY_QUALITY
    given: float = sum(right**n for n in range(_DRAFTED + 1))
    return (max(computing * 2, reading) + drafting * _DRAFTED) / given


def predicted_seconds(file: GGUFFile, computing: float, reading: float, speeds: Speeds) -> float:
    """For one token of a model whose prediction block drafts, from those of the model alone."""
    own = [file.tensors[name] for name in file.prediction - file.read_by_row]
    head = file.output_layer
    if head is not None and not any("shared_head_head" in tensor.name for tensor in own):
        own.append(head)
    drafting = sum(
        math.prod(tensor.shape)
        * (file.experts_share if "_exps" in tensor.name else 1.0)
        / speeds.decoding(tensor.type_name)
        for tensor in own
        if len(tensor.shape) > 1
    )
    given: float = sum(_PREDICTED_RIGHT**n for n in range(PREDICTED + 1))
    return (max(computing * _CHECKING, reading) + drafting * PREDICTED) / given


def streaming_seconds(n_bytes: float, n_reads: int, speeds: Speeds) -> float:
    """To read so many bytes of weights in so many tensors."""
    return n_bytes / (speeds.disk * DISK_FACTOR) + n_reads * _READ_SECONDS


def missed_bytes(file: GGUFFile, blocks: Sequence[ExpertBlock]) -> float:
    """Of the experts of these blocks, those to read for a token."""
    all_bytes = sum(block.expert_bytes for block in blocks)
    absent = sum(block.absent_bytes for block in blocks)
    return absent**2 / all_bytes * file.experts_share * _MISSED if absent else 0.0


def _with_all_else(products: float, n_blocks: float) -> float:
    """Seconds for a token, given those of its products with weights."""
    return products * _DECODE_FACTOR + n_blocks * _BLOCK_SECONDS


def _elements(file: GGUFFile, n_tokens: int) -> Iterator[tuple[str, float]]:
    """Type and multiply-adds of what tokens are multiplied with."""
    for name, elements in file.multiplied.items():
        yield name, elements * n_tokens
    # Of a prompt, only the last token is multiplied with the output layer.
    if file.output_layer and len(file.output_layer.shape) > 1:
        yield file.output_layer.type_name, float(math.prod(file.output_layer.shape))
