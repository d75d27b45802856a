"""Small GGUF files of several kinds, written as llama.cpp's own tools do."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np


def write(
    path: Path,
    architecture: str = "llama",
    *,
    kind: str | None = None,
    license: str | None = None,
    part: tuple[int, int] | None = None,
) -> Path:
    """A file with a header and one tensor; ``part`` is (number from 0, how many)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture)
    if kind:
        writer.add_type(kind)
    if license:
        writer.add_license(license)
    if part:
        writer.add_uint16("split.no", part[0])
        writer.add_uint16("split.count", part[1])
        writer.add_int32("split.tensors.count", part[1])
    writer.add_block_count(1)
    number = part[0] if part else 0
    writer.add_tensor(f"blk.{number}.ffn_up.weight", np.ones((3, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_split(folder: Path, stem: str, count: int) -> list[Path]:
    """All parts of a split model."""
    return [
        write(folder / f"{stem}-{number + 1:05}-of-{count:05}.gguf", part=(number, count))
        for number in range(count)
    ]
