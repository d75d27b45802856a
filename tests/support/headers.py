"""Models without a file: what the header of one would say."""

from __future__ import annotations

from itertools import accumulate
from pathlib import Path

from ondevice.gguf import GGUFFile, Part, TensorInfo, Value


def model(tensors: dict[str, tuple[int, ...]], **hyperparameters: Value) -> GGUFFile:
    """A file of the architecture "test" with F16 ``tensors`` (name → shape)."""
    sizes = [2 * shape[0] * shape[-1] for shape in tensors.values()]
    offsets = accumulate(sizes, initial=0)
    return GGUFFile(
        parts=(Part(Path("test.gguf"), 0, 0, 32),),
        version=3,
        metadata={
            "general.architecture": "test",
            "general.name": "Test",
            **{f"test.{key.replace('__', '.')}": value for key, value in hyperparameters.items()},
        },
        tensors={
            name: TensorInfo(name, shape, 1, 0, offset, size)
            for (name, shape), offset, size in zip(tensors.items(), offsets, sizes, strict=False)
        },
    )


def dense(n_blocks: int = 4) -> GGUFFile:
    """8 MB of weights, and 8 kB of KV cache for a token."""
    return model(
        {
            "token_embd.weight": (1000, 1000),
            "output.weight": (1000, 1000),
            **{f"blk.{block}.attn_k.weight": (1000, 512) for block in range(n_blocks)},
            **{f"blk.{block}.attn_v.weight": (1000, 512) for block in range(n_blocks)},
        },
        block_count=n_blocks,
        embedding_length=1000,
        attention__head_count=8,
        attention__key_length=128,
        attention__value_length=128,
    )
