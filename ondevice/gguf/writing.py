"""Headers of GGUF files, written."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ondevice.gguf._file import GGUFFile
from ondevice.gguf._front import Part

_STRING_LENGTH = struct.Struct("<Q")


class TensorEntry(NamedTuple):
    """A tensor of a GGUF file as its header names it."""

    name: str
    shape: tuple[int, ...]
    type: int
    n_bytes: int


@dataclass(frozen=True)
class HollowHeader:
    """What llama.cpp is to find in a file: the header may be another than on the disk."""

    name: str
    content: bytes  # everything before the tensor data
    file_bytes: int

    @classmethod
    def of(cls, part: Part) -> HollowHeader:
        with part.path.open("rb") as file:
            return cls(part.path.name, file.read(part.data_offset), part.file_bytes)


def tensor_infos(entries: Iterable[TensorEntry], alignment: int) -> tuple[bytes, int]:
    """The tensor infos of a GGUF header, and the bytes of the data section."""
    parts = []
    offset = 0
    for name, shape, kind, n_bytes in entries:
        parts += [
            packed_string(name),
            struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset),
        ]
        offset += padded(n_bytes, alignment)
    return b"".join(parts), offset


def header(n_tensors: int, n_keys: int, keys: bytes, infos: bytes, alignment: int) -> bytes:
    """Everything before the data section of a GGUF file."""
    front = struct.pack("<4sIQQ", b"GGUF", 3, n_tensors, n_keys) + keys + infos
    return front + bytes(padded(len(front), alignment) - len(front))


def raw_keys(file: GGUFFile) -> tuple[int, bytes]:
    """The number of metadata keys of a file of one part, and their bytes as they are.

    Raises :class:`ValueError` if its tensors do not lie one after the other.
    """
    (part,) = file.parts
    with part.path.open("rb") as opened:
        front = opened.read(part.data_offset)
    entries = [TensorEntry(t.name, t.shape, t.type, t.n_bytes) for t in file.tensors.values()]
    infos, _ = tensor_infos(entries, part.alignment)
    return struct.unpack_from("<Q", front, 16)[0], front[24 : front.rindex(infos)]


def packed_string(text: str) -> bytes:
    data = text.encode()
    return _STRING_LENGTH.pack(len(data)) + data


def padded(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment
