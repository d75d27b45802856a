"""A GGUF model: where its tensors lie, and what its metadata says, typed.

A split model (``-00001-of-0000N.gguf``) is one model; any of its parts stands for all.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TypeGuard

from ondevice.errors import ModelFileError
from ondevice.gguf._front import (
    ArrayOnDisk,
    Part,
    TensorInfo,
    Value,
    damaged,
    read_front,
)
from ondevice.gguf._sense import POSITIONS, STACK, faults
from ondevice.gguf.architectures import KEYS_OF_ALL, PREDICTING
from ondevice.gguf.quality import quality_of
from ondevice.gguf.tensor_types import FILE_TYPES
from ondevice.text import printable

_MAX_PARTS = 256  # of a split model
_ROWS = ("token_embd", "per_layer_token_embd", "position_embd", "token_types")  # looked up
#: What a prediction block cannot do without; and embeddings of its own, which it may have.
_PREDICTING = ("nextn.eh_proj.weight", "nextn.enorm.weight", "nextn.hnorm.weight")
_PREDICTED_ROWS = "nextn.embed_tokens.weight"
#: What blocks that look back on the keys and values of others have of their own, and do not use.
_SHARED = ("attn_k.", "attn_v.", "attn_k_norm.")
_OF_PICTURES = ("vis_",)  # what blocks compute the parts of a picture with, which none is given
#: Words in the names of models that only go on with texts, and of those made to chat.
_BASE = frozenset({"base", "pretrained", "pretrain", "pt"})
_MADE_TO_CHAT = frozenset({"instruct", "it", "chat", "assistant", "sft", "dpo", "rlhf"})
_WORD = re.compile(r"[a-z]+")
_SPLIT_NAME = re.compile(r"(?P<prefix>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)


@dataclass(frozen=True)
class GGUFFile:
    """A model as its files describe it; all parts of a split one together."""

    parts: tuple[Part, ...]  # in order; one unless split
    version: int
    metadata: Mapping[str, Value]  # of the first part
    tensors: Mapping[str, TensorInfo]  # in the order of the files

    @property
    def path(self) -> Path:
        """The file that llama.cpp is given: the first part."""
        return self.parts[0].path

    @property
    def file_bytes(self) -> int:
        return sum(part.file_bytes for part in self.parts)

    @cached_property
    def weights_bytes(self) -> int:
        """Bytes of all tensors, padding left out."""
        return sum(tensor.n_bytes for tensor in self.tensors.values())

    @property
    def quality(self) -> float:
        """Of 1: what quantizing has left of it; see :func:`quality_of`."""
        return quality_of(self.weights_bytes, self.n_params, self.quantization)

    @cached_property
    def read_by_row(self) -> frozenset[str]:
        """Tensors of which a token needs a few rows only: they may stay on the disk.

        When ``output.weight`` is missing, the output layer shares the token embeddings and needs
        all of them.
        """
        rows = {f"{name}.weight" for name in _ROWS} & self.tensors.keys()
        rows |= {name for name in self.prediction if name.endswith(_PREDICTED_ROWS)}
        return frozenset(rows if "output.weight" in self.tensors else rows - {"token_embd.weight"})

    @property
    def n_computed_blocks(self) -> int:
        """Blocks that a pass computes: those behind them predict further tokens, and are unused."""
        return max(0, self.n_blocks - self.hyperparameter("nextn_predict_layers"))

    @property
    def n_cached_blocks(self) -> int:
        """Blocks with keys and values of their own; those behind them look back on these."""
        n_blocks = self.n_blocks if self.architecture in KEYS_OF_ALL else self.n_computed_blocks
        return max(0, n_blocks - self.hyperparameter("attention.shared_kv_layers"))

    @cached_property
    def unread(self) -> frozenset[str]:
        """Tensors that no pass reads: they need no RAM and no room in a plan.

        Those of the :attr:`prediction` block are among them, which only drafts. Should a pass read
        one after all, it finds it where its file is mapped.
        """
        computed, cached = self.n_computed_blocks, self.n_cached_blocks
        return frozenset(
            tensor.name
            for tensor in self.tensors.values()
            if tensor.block is not None
            and (
                tensor.block >= computed
                or tensor.name.split(".", 2)[2].startswith(_OF_PICTURES)
                or (tensor.block >= cached and tensor.name.split(".", 2)[2].startswith(_SHARED))
            )
        )

    @cached_property
    def prediction(self) -> frozenset[str]:
        """Tensors of the block that predicts further tokens, if it can be used to draft."""
        block = self.n_computed_blocks
        names = frozenset(t.name for t in self.tensors.values() if t.block == block)
        can_be_used = (
            self.architecture in PREDICTING
            and self.n_blocks == block + 1
            and all(f"blk.{block}.{name}" in names for name in _PREDICTING)
        )
        return names if can_be_used else frozenset()

    @property
    def output_layer(self) -> TensorInfo | None:
        """What the logits are computed with: a tensor of its own, or the token embeddings."""
        return self.tensors.get("output.weight") or self.tensors.get("token_embd.weight")

    @cached_property
    def n_params(self) -> int:
        return sum(math.prod(tensor.shape) for tensor in self.tensors.values())

    @cached_property
    def n_active_params(self) -> int:
        """Of these, what is used for one token: of the experts a few."""
        if not self.n_experts:
            return self.n_params
        experts = sum(math.prod(t.shape) for t in self.tensors.values() if "_exps" in t.name)
        return self.n_params - experts + experts * self.n_experts_used // self.n_experts

    @property
    def experts_share(self) -> float:
        """The part of the experts that a token uses; 1 if there are none."""
        return self.n_experts_used / self.n_experts if self.n_experts else 1.0

    def holds_experts(self, tensor: TensorInfo) -> bool:
        """Whether a tensor holds a matrix of each expert, as ``MUL_MAT_ID`` takes it."""
        shape = tensor.shape
        return "_exps." in tensor.name and len(shape) == 3 and shape[2] == self.n_experts

    @cached_property
    def multiplied(self) -> Mapping[str, float]:
        """Type → elements of it that a token is multiplied with, the output layer left out."""
        passed_over = self.read_by_row | self.unread
        elements: dict[str, float] = {}
        for tensor in self.tensors.values():
            if len(tensor.shape) < 2 or tensor.name in passed_over:
                continue
            if tensor is not self.output_layer:
                part = math.prod(tensor.shape) * (
                    self.experts_share if "_exps" in tensor.name else 1.0
                )
                elements[tensor.type_name] = elements.get(tensor.type_name, 0.0) + part
        return elements

    # ------------------------------------------------------- metadata, typed

    def text(self, key: str) -> str | None:
        """The string under ``key``, or None."""
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str, default: int = 0) -> int:
        """The count under ``key``; of an array the largest; ``default`` if there is none."""
        value = self.metadata.get(key)
        values = value if isinstance(value, tuple) else (value,)
        return max((each for each in values if _is_count(each)), default=default)

    def length(self, key: str) -> int:
        """Elements of the array under ``key``; 0 if there is none."""
        value = self.metadata.get(key)
        if isinstance(value, ArrayOnDisk):
            return value.length
        return len(value) if isinstance(value, tuple) else 0

    def hyperparameter(self, key: str, default: int = 0) -> int:
        """The number under ``key`` of this architecture, such as "embedding_length"."""
        return self.number(f"{self.architecture}.{key}", default)

    def per_block(self, key: str, default: int = 0) -> tuple[int, ...]:
        """A hyperparameter for each block: an array as it is, a single number repeated."""
        value = self.metadata.get(f"{self.architecture}.{key}")
        if isinstance(value, tuple) and len(value) >= self.n_blocks:
            return tuple(each if _is_count(each) else default for each in value[: self.n_blocks])
        return (self.hyperparameter(key, default),) * self.n_blocks

    @property
    def architecture(self) -> str:
        """llama.cpp's name, such as "qwen2"."""
        return self.text("general.architecture") or ""

    @property
    def name(self) -> str:
        """What the model calls itself, harmless for a terminal, or the name of the file."""
        return printable(self.text("general.name") or "").strip() or self.path.stem

    @property
    def chat_template(self) -> str | None:
        return self.text("tokenizer.chat_template")

    @property
    def is_base(self) -> bool:
        """Whether it goes on with a text and was not made to chat, by its template or its names."""
        if self.chat_template is None:
            return True
        named = (self.text(f"general.{key}") for key in ("name", "finetune"))
        words = {
            w for each in (*named, self.path.stem) for w in _WORD.findall((each or "").lower())
        }
        return bool(words & _BASE) and not words & _MADE_TO_CHAT

    @property
    def quantization(self) -> str:
        """Such as "Q4_K_M"; if the file does not say, the type that most of its bytes have."""
        known = FILE_TYPES.get(self.number("general.file_type", -1))
        if known:
            return known
        sizes: dict[str, int] = {}
        for tensor in self.tensors.values():
            sizes[tensor.type_name] = sizes.get(tensor.type_name, 0) + tensor.n_bytes
        return max(sizes, key=sizes.__getitem__)

    @property
    def is_stack(self) -> bool:
        """Whether it is a stack of ours, whose size is a dial."""
        return self.number(STACK) > 0

    @property
    def n_blocks(self) -> int:
        return self.hyperparameter("block_count")

    @property
    def n_ctx_train(self) -> int:
        """Tokens; 0 if the file does not say."""
        return self.hyperparameter("context_length")

    @property
    def n_positions(self) -> int | None:
        """Tokens that there can be at most where each position has a vector; None: it has none."""
        return self.n_ctx_train if POSITIONS in self.tensors else None

    @property
    def n_embd(self) -> int:
        return self.hyperparameter("embedding_length")

    @property
    def n_vocab(self) -> int:
        return self.length("tokenizer.ggml.tokens") or self.hyperparameter("vocab_size")

    @property
    def n_heads(self) -> tuple[int, ...]:
        """Attention heads of each block."""
        return self.per_block("attention.head_count")

    @cached_property
    def n_kv_heads(self) -> tuple[int, ...]:
        """Key and value heads of each block; 0 where a block has no attention."""
        if f"{self.architecture}.attention.head_count_kv" not in self.metadata:
            return self.n_heads
        return self.per_block("attention.head_count_kv")

    @property
    def key_length(self) -> int:
        """Elements of one head's key."""
        return self.hyperparameter("attention.key_length", self._head_length)

    @property
    def value_length(self) -> int:
        """Elements of one head's value."""
        return self.hyperparameter("attention.value_length", self._head_length)

    @property
    def _head_length(self) -> int:
        return self.n_embd // max(1, self.hyperparameter("attention.head_count"))

    @property
    def n_experts(self) -> int:
        return self.hyperparameter("expert_count")

    @property
    def n_experts_used(self) -> int:
        return self.hyperparameter("expert_used_count")

    @property
    def sliding_window(self) -> int:
        """Tokens that a block with sliding-window attention looks back on; 0: there is none."""
        return self.hyperparameter("attention.sliding_window")


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and value >= 0


def read(path: str | os.PathLike[str]) -> GGUFFile:
    """What the GGUF file at ``path`` holds; any part of a split one stands for the whole.

    Raises :class:`ModelFileError` if it is not a GGUF file that llama.cpp could load: missing,
    unreadable, foreign, damaged, cut short, a part without its siblings, or of numbers that no
    model has.
    """
    path = Path(path)
    front = read_front(path)
    paths = _all_parts(path, front.metadata)
    fronts = [front if part == path else read_front(part) for part in paths]
    front = fronts[0]
    tensors: dict[str, TensorInfo] = {}
    for number, (part, (_, _, metadata, infos)) in enumerate(zip(paths, fronts, strict=True)):
        if len(paths) > 1 and (metadata.get("split.no"), metadata.get("split.count")) != (
            number,
            len(paths),
        ):
            raise damaged(
                part, ("its name and its contents disagree about which part of a model it is")
            )
        if tensors.keys() & infos.keys():
            raise damaged(part, "it repeats tensors of another part")
        tensors |= (
            {name: replace(info, part=number) for name, info in infos.items()} if number else infos
        )
    if not tensors:
        raise damaged(path, "it contains no weights")
    n_tensors = front.metadata.get("split.tensors.count", len(tensors))
    if len(paths) > 1 and n_tensors != len(tensors):
        raise damaged(
            path, (f"all parts together contain {len(tensors)} tensors instead of {n_tensors}")
        )
    if not isinstance(front.metadata.get("general.architecture"), str):
        raise damaged(path, "it does not say what kind of model it is")
    for fault in faults(front.metadata, tensors.values()):
        raise damaged(path, fault)
    return GGUFFile(
        parts=tuple(part for part, _, _, _ in fronts),
        version=front.version,
        metadata=MappingProxyType(front.metadata),
        tensors=MappingProxyType(tensors),
    )


def part_names(name: str) -> list[str]:
    """The names of all parts of the split model that a file of this name is a part of.

    Just the name itself if it is not that of a part.
    """
    match = _SPLIT_NAME.fullmatch(name)
    if not match or not 0 < int(match["number"]) <= int(match["count"]) <= _MAX_PARTS:
        return [name]
    prefix, count = match["prefix"], int(match["count"])
    return [f"{prefix}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]


def _all_parts(path: Path, metadata: Mapping[str, Value]) -> list[Path]:
    count = metadata.get("split.count", 1)
    if not isinstance(count, int) or count <= 1:
        return [path]
    names = part_names(path.name)
    if len(names) != count:
        raise ModelFileError(
            f"{path} is one of {count} parts of a model, but its name does not end in "
            f"-00001-of-{count:05}.gguf. Give all parts the names they were published "
            "under."
        )
    paths = [path.with_name(name) for name in names]
    missing = [part.name for part in paths if not part.exists()]
    if missing:
        some = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if missing[3:] else "")
        raise ModelFileError(
            f"{path} is one of {count} parts of a model, and {some} "
            f"{('is' if len(missing) == 1 else 'are')} missing. Download the missing "
            f"parts into {path.parent}."
        )
    return paths
