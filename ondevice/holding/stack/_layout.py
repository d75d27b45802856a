"""Where everything lies in the file of a stack, worked out from the shapes alone.

``docs/design/stack-format.md`` is the description for others.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ondevice.gguf.writing import TensorEntry, packed_string

VERSION = 2
PLANES = 7  #: of a matrix at most
FIRST_PLANE = 2  #: parts of a chunk that come before its planes: scales and nibbles
WORD = 32  #: a row is a multiple of it
SPAN = 256  #: weights that share a scale
CHUNK_STEP = 4  #: rows of a chunk are a multiple of it
PREFIX = "ondevice.stack."
BASE_PLANES = 2  # of each matrix, always loaded
I8 = 24  # ggml's number of that type
_CHUNK_BYTES = 1 << 20  # of one plane of one chunk, at most
MOST_COLUMNS = _CHUNK_BYTES * 8
_BLOCK_NAME = re.compile(r"(.+)\.(0|[1-9][0-9]{0,8})\.([0-9])", re.DOTALL)
_SEAL = "header_checksum"


class PlanesShape(NamedTuple):
    """How large the parts of a matrix are. Rows are cut into chunks, of which each has planes."""

    rows: int
    columns: int
    chunk_rows: int  # the last chunk may have fewer

    @property
    def n_weights(self) -> int:
        return self.rows * self.columns

    def chunks(self) -> list[range]:
        """The rows of each chunk."""
        return [
            range(at, min(at + self.chunk_rows, self.rows))
            for at in range(0, self.rows, self.chunk_rows)
        ]

    def part_bytes(self, n_rows: int) -> list[int]:
        """Of so many rows: scales, nibbles and one plane."""
        return [
            n_rows * -(-self.columns // SPAN) * 2,
            n_rows * self.columns // WORD,
            n_rows * self.columns // 8,
        ]


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
    return PlanesShape(rows, columns, -(-chunk_rows // CHUNK_STEP) * CHUNK_STEP)


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


def base_entry(name: str, shape: PlanesShape, dimensions: Sequence[int]) -> TensorEntry:
    """``dimensions``: of the source's tensor after the row, whose product is the number of rows."""
    total = base_bytes(shape, shape.rows)
    return TensorEntry(name, (total // shape.rows, *dimensions), I8, total)


def block_entry(block: BlockId, shape: PlanesShape) -> TensorEntry:
    n_rows = len(shape.chunks()[block.chunk])
    *_, plane = shape.part_bytes(n_rows)
    return TensorEntry(block.name, (shape.columns // 8, n_rows), I8, plane)


def blocks_of(name: str, shape: PlanesShape) -> list[BlockId]:
    """All blocks of a matrix, plane after plane."""
    chunks = range(len(shape.chunks()))
    return [BlockId(name, c, p) for p in range(BASE_PLANES, PLANES) for c in chunks]


# ----------------------------------------------------------------------------- headers


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
    return packed_string(PREFIX + name) + struct.pack("<II", 4, value)


def key_array(name: str, kind: str, values: Sequence[float]) -> bytes:
    """An array of u32 ("I") or float ("f")."""
    element = {"I": 4, "f": 6}[kind]
    return (
        packed_string(PREFIX + name)
        + struct.pack("<IIQ", 9, element, len(values))
        + struct.pack(f"<{len(values)}{kind}", *values)
    )
