"""Where everything lies in the file of a stack, worked out from the shapes alone.

``docs/stack-format.md`` is the description for others.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ondevice.llama import PLANES, PlanesShape
from ondevice.weights.gguf import GGUFFile

VERSION = 2
PREFIX = "ondevice.stack."
BASE_PLANES = 2  # of each matrix, always loaded
I8 = 24  # ggml's number of that type
_CHUNK_BYTES = 1 << 20  # of one plane of one chunk, at most
_CHUNK_STEP = 4  # rows
MOST_COLUMNS = _CHUNK_BYTES * 8
_BLOCK_NAME = re.compile(r"(.+)\.(0|[1-9][0-9]{0,8})\.([0-9])", re.DOTALL)
_SEAL = "header_checksum"

_STRING_LENGTH = struct.Struct("<Q")


class Entry(NamedTuple):
    """A tensor of a GGUF file as its header names it."""

    name: str
    shape: tuple[int, ...]
    type: int
    n_bytes: int


class Quality(NamedTuple):
    """How good the model is up to somewhere in the file, on the text it was packed with."""

    kl: float  # mean divergence from the whole stack, nats a token
    perplexity: float


NOT_MEASURED = Quality(float("nan"), float("nan"))


@dataclass(frozen=True, slots=True)
class BlockId:
    """Which residual block: one plane of some rows of one matrix."""

    matrix: str
    chunk: int
    plane: int

    @property
    def name(self) -> str:
        return f"{self.matrix}.{self.chunk}.{self.plane}"

    @classmethod
    def of(cls, name: str) -> BlockId | None:
        match = _BLOCK_NAME.fullmatch(name)
        return cls(match[1], int(match[2]), int(match[3])) if match else None


def shape_of(rows: int, columns: int) -> PlanesShape:
    """The shape of a matrix of at most ``MOST_COLUMNS`` with its rows cut into chunks."""
    fitting = MOST_COLUMNS // columns
    n_chunks = -(-rows // fitting)
    chunk_rows = -(-rows // n_chunks)
    return PlanesShape(rows, columns, -(-chunk_rows // _CHUNK_STEP) * _CHUNK_STEP)


def base_bytes(shape: PlanesShape, n_rows: int) -> int:
    """Of scales, nibbles and the first planes of so many rows."""
    scales, nibbles, plane = shape.part_bytes(n_rows)
    return scales + nibbles + BASE_PLANES * plane


def base_parts(shape: PlanesShape, chunk: range) -> list[int]:
    """Where scales, nibbles and first planes of a chunk lie: bytes from the base's start."""
    scales, nibbles, plane = shape.part_bytes(len(chunk))
    start = base_bytes(shape, chunk.start)
    planes = [start + scales + nibbles + n * plane for n in range(BASE_PLANES)]
    return [start, start + scales, *planes]


def base_entry(name: str, shape: PlanesShape, dimensions: Sequence[int]) -> Entry:
    """``dimensions``: of the source's tensor after the row, whose product is the number of rows."""
    total = base_bytes(shape, shape.rows)
    return Entry(name, (total // shape.rows, *dimensions), I8, total)


def block_entry(block: BlockId, shape: PlanesShape) -> Entry:
    n_rows = len(shape.chunks()[block.chunk])
    *_, plane = shape.part_bytes(n_rows)
    return Entry(block.name, (shape.columns // 8, n_rows), I8, plane)


def blocks_of(name: str, shape: PlanesShape) -> list[BlockId]:
    """All blocks of a matrix, plane after plane."""
    chunks = range(len(shape.chunks()))
    return [BlockId(name, c, p) for p in range(BASE_PLANES, PLANES) for c in chunks]


# ----------------------------------------------------------------------------- headers


def tensor_infos(entries: Iterable[Entry], alignment: int) -> tuple[bytes, int]:
    """The tensor infos of a GGUF header, and the bytes of the data section."""
    parts = []
    offset = 0
    for name, shape, kind, n_bytes in entries:
        parts += [
            _string(name),
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
    entries = [Entry(t.name, t.shape, t.type, t.n_bytes) for t in file.tensors.values()]
    infos, _ = tensor_infos(entries, part.alignment)
    return struct.unpack_from("<Q", front, 16)[0], front[24 : front.rindex(infos)]


def seal() -> bytes:
    """The key for the checksum of a header, which :func:`sealed` puts in."""
    return key_u32(_SEAL, 0)


def sealed(front: bytes) -> bytes:
    """A header with its checksum: the CRC-32 of all of it, with zeros in place of the checksum."""
    at = _seal_at(front)
    return front[:at] + struct.pack("<I", zlib.crc32(front)) + front[at + 4 :]


def is_whole(front: bytes) -> bool:
    """Whether a header is as it was written; True also for those that have no checksum."""
    at = _seal_at(front)
    if at < 0:
        return True
    blank = front[:at] + bytes(4) + front[at + 4 :]
    return zlib.crc32(blank) == int.from_bytes(front[at : at + 4], "little")


def _seal_at(front: bytes) -> int:
    key = seal()[:-4]
    found = front.rfind(key)
    return found + len(key) if found >= 0 else found


def key_u32(name: str, value: int) -> bytes:
    return _string(PREFIX + name) + struct.pack("<II", 4, value)


def key_array(name: str, kind: str, values: Sequence[float]) -> bytes:
    """An array of u32 ("I") or float ("f")."""
    element = {"I": 4, "f": 6}[kind]
    return (
        _string(PREFIX + name)
        + struct.pack("<IIQ", 9, element, len(values))
        + struct.pack(f"<{len(values)}{kind}", *values)
    )


def _string(text: str) -> bytes:
    data = text.encode()
    return _STRING_LENGTH.pack(len(data)) + data


def padded(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment
