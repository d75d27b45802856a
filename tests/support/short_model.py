"""The default model with its first blocks only: real weights, real tokens, a fifth of the work."""

from __future__ import annotations

import struct
from pathlib import Path

from ondevice import gguf
from ondevice.gguf import block_of, writing

N_BLOCKS = 5
_UINT32 = 4  # as GGUF numbers its types of values


def write(source: Path, target: Path) -> Path:
    """Write the first blocks of the model ``source`` to ``target``."""
    file = gguf.read(source)
    (part,) = file.parts
    n_keys, keys = writing.raw_keys(file)
    key = f"{file.architecture}.block_count"
    whole, first = (
        writing.packed_string(key) + struct.pack("<II", _UINT32, n)
        for n in (file.metadata[key], N_BLOCKS)
    )
    assert keys.count(whole) == 1
    kept = [tensor for name, tensor in file.tensors.items() if (block_of(name) or 0) < N_BLOCKS]
    entries = [writing.TensorEntry(t.name, t.shape, t.type, t.n_bytes) for t in kept]
    infos, _ = writing.tensor_infos(entries, part.alignment)
    front = writing.header(len(kept), n_keys, keys.replace(whole, first), infos, part.alignment)
    with source.open("rb") as weights, target.open("wb") as out:
        out.write(front)
        for tensor in kept:
            weights.seek(tensor.offset)
            out.write(weights.read(tensor.n_bytes))
            out.write(bytes(writing.padded(tensor.n_bytes, part.alignment) - tensor.n_bytes))
    return target
