"""BitStack's own method, as a baseline for stacks: how near to a model it comes at which size.

From "BitStack: Any-Size Compression of Large Language Models in Variable Memory Environments"
(Wang et al., 2024), sections 3.1 and 3.2: the columns of each linear layer are scaled by the norms
of their activations; a block is the signs of what is left times the best approximation of its
absolute values by rank 16; and so on with what that leaves. Embeddings and the head stay as they
are, and are not counted.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ondevice.gguf import GGUFFile, TensorInfo
from ondevice.holding.stack._calibrate import Usage
from ondevice.llama import dequantize

RANK = 16
_OVERSAMPLED = 8  # more columns than the rank, so that the approximation is nearly the best one

Floats = npt.NDArray[np.floating]


def linears(file: GGUFFile) -> list[TensorInfo]:
    """The weights that are decomposed: those of the blocks of the model."""
    return [t for t in file.tensors.values() if len(t.shape) == 2 and t.name.startswith("blk.")]


def block_bytes(tensor: TensorInfo) -> int:
    """Of a weight's signs and of the two factors, as F16."""
    columns, rows = tensor.shape
    return columns * rows // 8 + 2 * RANK * (columns + rows)


def write(
    source: GGUFFile, usage: Usage, levels: Sequence[int], folder: Path
) -> Iterator[tuple[int, int, Path]]:
    """For each number of blocks: that number, the bytes of the linears, and the model as F16."""
    paths = {level: folder / f"bitstack-{level}.gguf" for level in levels}
    for path in paths.values():
        shutil.copyfile(source.path, path)
    for tensor in linears(source):
        with source.path.open("rb") as file:
            file.seek(tensor.offset)
            weights = dequantize(file.read(tensor.n_bytes), tensor.type, tensor.shape[0])
        importance = usage.importance(tensor.name, tensor.shape[0])
        for level, approximated in enumerate(_blocks(weights, np.sqrt(importance), max(levels)), 1):
            if level in paths:
                with paths[level].open("r+b") as file:
                    file.seek(tensor.offset)
                    file.write(approximated.astype(np.float16).tobytes())
    for level, path in paths.items():
        total = sum(level * block_bytes(t) + 2 * t.shape[0] for t in linears(source))
        yield level, total, path
        path.unlink()


def _blocks(weights: Floats, scales: Floats, n: int) -> Iterator[Floats]:
    """The weights as 1 … n blocks have them."""
    left = weights * scales
    total = np.zeros_like(left)
    for number in range(n):
        block = np.sign(left) * _low_rank(np.abs(left), number)
        total += block
        left -= block
        yield total / scales


def _low_rank(matrix: Floats, seed: int) -> Floats:
    """By a randomized singular value decomposition with one power iteration (Halko et al.)."""
    random = np.random.default_rng(seed)
    probe = random.standard_normal((matrix.shape[1], RANK + _OVERSAMPLED), np.float32)
    basis, _ = np.linalg.qr(matrix @ (matrix.T @ (matrix @ probe)))
    left, values, right = np.linalg.svd(basis.T @ matrix, full_matrices=False)
    return np.asarray((basis @ left[:, :RANK] * values[:RANK]) @ right[:RANK], np.float32)
