"""The file of a stack while it is made: what goes into it, where, and what of it is done."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ondevice.gguf import GGUFFile, writing
from ondevice.gguf.writing import TensorEntry
from ondevice.holding.stack import _layout
from ondevice.holding.stack._layout import VERSION, BlockId, PlanesShape, Quality


@dataclass(frozen=True)
class Contents:
    """What becomes of each tensor of the source."""

    source: GGUFFile
    matrices: Mapping[str, PlanesShape]
    blocks: list[BlockId]  # in the order in which they are written

    def entries(self) -> list[TensorEntry]:
        """The tensors of the stack: those left as they are, then bases, then blocks."""
        kept = [
            TensorEntry(t.name, t.shape, t.type, t.n_bytes)
            for t in self.source.tensors.values()
            if t.name not in self.matrices
        ]
        first = self.source.read_by_row  # they take no RAM in use; then what is hard to stream
        ordered = sorted(
            self.matrices.items(),
            key=lambda item: (item[0] not in first, -item[1].rows * item[1].columns),
        )
        tensors = self.source.tensors
        bases = [_layout.base_entry(name, s, tensors[name].shape[1:]) for name, s in ordered]
        return [
            *kept,
            *bases,
            *(_layout.block_entry(block, self.matrices[block.matrix]) for block in self.blocks),
        ]


class Writer:
    """The file of a stack, of which every part has its place from the start."""

    def __init__(self, path: Path, contents: Contents) -> None:
        self._contents = contents
        self._entries = contents.entries()
        self._alignment = contents.source.parts[0].alignment
        self.offsets: dict[str, int] = {}
        front = self._header({}, {})
        at = len(front)
        for entry in self._entries:
            self.offsets[entry.name] = at
            at += writing.padded(entry.n_bytes, self._alignment)
        self._file: BinaryIO = path.open("r+b" if path.exists() else "w+b")
        self._file.truncate(at)

    def put(self, name: str, offset: int, data: npt.NDArray[np.uint8]) -> None:
        """Write a part of a tensor."""
        self._file.seek(self.offsets[name] + offset)
        self._file.write(data.data)

    def sync(self) -> None:
        """Let everything reach the disk."""
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self, checksums: Mapping[str, int], qualities: Mapping[str, Quality]) -> None:
        """Write the header, and let everything reach the disk."""
        self._file.seek(0)
        self._file.write(self._header(checksums, qualities))
        self.sync()

    def close(self) -> None:
        self._file.close()

    def _header(self, checksums: Mapping[str, int], qualities: Mapping[str, Quality]) -> bytes:
        n_keys, keys = writing.raw_keys(self._contents.source)
        names = [entry.name for entry in self._entries]
        matrices = self._contents.matrices
        keys += _layout.key_u32("version", VERSION)
        columns = [matrices[name].columns if name in matrices else 0 for name in names]
        keys += _layout.key_array("columns", "I", columns)
        keys += _layout.key_array("checksums", "I", [checksums.get(name, 0) for name in names])
        known = [qualities.get(name, _layout.NOT_MEASURED) for name in names]
        keys += _layout.key_array("kl", "f", [quality.kl for quality in known])
        keys += _layout.key_array("perplexity", "f", [quality.perplexity for quality in known])
        keys += _layout.seal()
        infos, _ = writing.tensor_infos(self._entries, self._alignment)
        return _layout.sealed(writing.header(len(names), n_keys + 6, keys, infos, self._alignment))


class Journal:
    """What of a packing is done: a line of JSON for each part, so that it can be resumed."""

    def __init__(self, path: Path, identity: str, *, fresh: bool) -> None:
        self.path = path
        self.checksums: dict[str, int] = {}
        #: Matrix → weighted squared error left by 0 … PLANES planes, for each chunk.
        self.errors: dict[str, npt.NDArray[np.float64]] = {}
        #: Matrix → the model's divergence without the blocks of this matrix.
        self.divergences: dict[str, float] = {}
        self._encoded: set[str] = set()
        known = path.exists() and not fresh
        lines = path.read_text(errors="replace").splitlines(True) if known else []
        kept = [identity + "\n"]
        if lines[:1] == kept:
            for line in lines[1:]:
                if not line.endswith("\n"):  # it was being written
                    break
                try:
                    self._take(json.loads(line))
                except (ValueError, LookupError, TypeError):  # nor did all of this reach the disk
                    break
                kept.append(line)
        path.write_text("".join(kept))

    def __contains__(self, name: str) -> bool:
        """Whether this tensor is encoded."""
        return name in self._encoded

    def add(self, name: str, checksums: dict[str, int], errors: list[list[float]]) -> None:
        """Take down that a tensor is encoded."""
        self._write({"name": name, "errors": errors, "checksums": checksums})

    def add_divergence(self, name: str, kl: float) -> None:
        self._write({"name": name, "kl": kl})

    def _write(self, entry: dict[str, Any]) -> None:
        self._take(entry)
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def _take(self, entry: dict[str, Any]) -> None:
        name = entry["name"]
        if "kl" in entry:
            self.divergences[name] = entry["kl"]
            return
        self._encoded.add(name)
        self.checksums.update(entry["checksums"])
        if entry["errors"]:
            self.errors[name] = np.array(entry["errors"], np.float64)
