"""Reads the front of one GGUF file, and trusts none of it before it is checked.

The header, the metadata and the tensor infos lie there, in this order; the tensor data follows.
Only the front is read, a piece at a time: the weights stay on the disk, and of the vocabulary
only its place in the file is kept. The format is that of ggml's ``docs/gguf.md``; what llama.cpp
refuses is refused here too, before native code sees the file.
"""

from __future__ import annotations

import math
import os
import re
import stat
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, NamedTuple, TypeVar

from ondevice.errors import ModelFileError
from ondevice.gguf.tensor_types import TENSOR_TYPES

# Limits far above any real model, so that no file makes us loop or allocate for long.
_MAX_HEADER_BYTES = 128 << 20  # everything before the tensor data; large vocabularies take 20 MB
_MAX_KEYS = 1024
_MAX_TENSORS = 1 << 16
_MAX_NAME = 63  # bytes of a tensor's name; ggml keeps 64 with the final zero
_MAX_ELEMENTS = 1 << 46  # of a tensor; no model has as many in all
_KEPT_ELEMENTS = 512  # longer arrays (the vocabulary) stay on the disk

_KEPT_TEXT = 1 << 19  # bytes; a longer text (another app's own copy of a tokenizer) stays there too
_MAX_KEY = (1 << 16) - 1  # bytes, by the format

_WINDOW = 1 << 19  # bytes read from the file at once
_BLOCK_NAME = re.compile(r"blk\.(\d+)\.")

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
#: Of a tensor info with so many dimensions, what follows their number: shape, type, offset.
_REST = tuple(struct.Struct(f"<{n_dims}QIQ") for n_dims in range(5))
_BYTE, _BOOL, _STRING, _ARRAY = 0, 7, 8, 9
_SCALARS: Mapping[int, struct.Struct] = MappingProxyType(
    {kind: struct.Struct(f"<{code}") for kind, code in enumerate("BbHhIifB  Qqd") if code != " "}
)


@dataclass(frozen=True, slots=True)
class ArrayOnDisk:
    """A metadata array or text too long to keep: where it is in the first part."""

    element_type: int  # GGUF's number of a value type; 8 is a string
    length: int  # elements
    offset: int  # bytes from the start of the file
    n_bytes: int


_Parsed = TypeVar("_Parsed")
Value = bool | int | float | str | tuple[bool | int | float | str, ...] | ArrayOnDisk


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies, and what it looks like."""

    name: str
    shape: tuple[int, ...]  # elements, ggml's order: shape[0] is the length of a row
    type: int  # key of TENSOR_TYPES
    part: int  # index into GGUFFile.parts
    offset: int  # bytes from the start of that part
    n_bytes: int

    @property
    def type_name(self) -> str:
        return TENSOR_TYPES[self.type].name

    @property
    def block(self) -> int | None:
        """N of ``blk.N.…``; None for a tensor that belongs to no block."""
        return block_of(self.name)


@dataclass(frozen=True, slots=True)
class Part:
    """One file on the disk."""

    path: Path
    file_bytes: int
    data_offset: int  # bytes; tensor data starts here
    alignment: int  # bytes; every tensor starts at a multiple of it from data_offset


class Front(NamedTuple):
    """What precedes the tensor data of one file."""

    part: Part
    version: int
    metadata: dict[str, Value]
    tensors: dict[str, TensorInfo]  # ``part`` is 0 in all of them


def block_of(tensor_name: str) -> int | None:
    """N of ``blk.N.…``; None for a tensor that belongs to no block."""
    match = _BLOCK_NAME.match(tensor_name)
    return int(match[1]) if match else None


class _Damage(Exception):
    """What is wrong with a file, as the end of the sentence "the file is damaged: …"."""


def damaged(path: Path, reason: str) -> ModelFileError:
    return ModelFileError(f"{path} is damaged: {reason}. Download it again.")


def read_front(path: Path) -> Front:
    """The front of the file at ``path``. Raises :class:`ModelFileError`."""
    return _parse(path, _parse_front)


def read_summary(path: Path) -> dict[str, Value]:
    """What a file says of itself before its vocabulary: some kilobytes, however large it is.

    Raises :class:`ModelFileError`.
    """
    return _parse(path, _parse_summary)


def _parse(path: Path, parse: Callable[[Path, _HeaderCursor, int], _Parsed]) -> _Parsed:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ModelFileError(f"{path} is a folder. Name the GGUF file in it.")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its other end
            raise ModelFileError(f"{path} is not a file. Name a GGUF file.")
        if status.st_size == 0:
            raise damaged(path, "it is empty")
        with path.open("rb") as file:
            if hasattr(os, "posix_fadvise"):
                # Or the system reads ahead, and whenever one of these pages is used, again.
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
            return parse(path, _HeaderCursor(file, status.st_size), status.st_size)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelFileError(
            f"{path} cannot be read: {reason}. Check the path and its permissions."
        ) from error
    except _Damage as damage:
        raise damaged(path, str(damage)) from damage


def _parse_header(path: Path, cursor: _HeaderCursor) -> tuple[int, int, int]:
    """The version and the numbers of tensors and keys."""
    magic = cursor.take(4)
    if magic != b"GGUF":
        raise ModelFileError(
            f"{path} is not a GGUF file: it does not begin with “GGUF”. Name a file in that format."
        )
    (version,) = cursor.unpack(_U32)
    if version not in (2, 3):
        if version & 0xFFFF == 0:
            raise ModelFileError(
                f"{path} is a big-endian GGUF file. Download the little-endian one."
            )
        raise ModelFileError(
            f"{path} is a GGUF file of version {version}; ondevice reads versions 2 and "
            "3. Download a newer file of this model, or update ondevice."
        )
    (n_tensors,) = cursor.unpack(_U64)
    (n_keys,) = cursor.unpack(_U64)
    if n_tensors > _MAX_TENSORS or n_keys > _MAX_KEYS:
        raise _Damage(f"it claims {n_tensors} tensors and {n_keys} keys")
    return version, n_tensors, n_keys


def _parse_summary(path: Path, cursor: _HeaderCursor, _file_bytes: int) -> dict[str, Value]:
    _, _, n_keys = _parse_header(path, cursor)
    summary: dict[str, Value] = {}
    for _ in range(n_keys):
        key = cursor.name()
        if key.startswith("tokenizer."):
            break
        summary[key] = cursor.value()
    return summary


def _parse_front(path: Path, cursor: _HeaderCursor, file_bytes: int) -> Front:
    version, n_tensors, n_keys = _parse_header(path, cursor)
    metadata: dict[str, Value] = {}
    for _ in range(n_keys):
        key = cursor.name()
        if not key or key in metadata:
            raise _Damage(f"its key {key!r} is empty or comes twice")
        metadata[key] = cursor.value()
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment <= 0 or alignment & (alignment - 1):
        raise _Damage(f"its alignment is {alignment!r}")
    shapes = [cursor.tensor_info() for _ in range(n_tensors)]
    data_offset = _padded(cursor.position, alignment)
    tensors: dict[str, TensorInfo] = {}
    expected = 0  # like llama.cpp: one tensor after the other, nothing between but padding
    for name, shape, kind, offset in shapes:
        if name in tensors:
            raise _Damage(f"its tensor {name!r} comes twice")
        n_bytes = _tensor_bytes(name, shape, kind)
        if offset != expected:
            raise _Damage(f"its tensor {name!r} is at {offset} and should be at {expected}")
        if data_offset + offset + n_bytes > file_bytes:
            raise _Damage(f"it is cut short at {file_bytes} bytes, within or before {name!r}")
        expected = _padded(offset + n_bytes, alignment)
        tensors[name] = TensorInfo(name, shape, kind, 0, data_offset + offset, n_bytes)
    return Front(Part(path, file_bytes, data_offset, alignment), version, metadata, tensors)


def _padded(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def _tensor_bytes(name: str, shape: tuple[int, ...], kind: int) -> int:
    if kind not in TENSOR_TYPES:
        raise _Damage(f"its tensor {name!r} has the unknown type {kind}")
    _, block, block_bytes = TENSOR_TYPES[kind]
    n_elements = math.prod(shape)
    if not 0 < n_elements < _MAX_ELEMENTS or shape[0] % block:
        raise _Damage(f"its tensor {name!r} has the impossible shape {shape}")
    return n_elements // block * block_bytes


def _past_strings(window: bytes, at: int, count: int) -> tuple[int, int]:
    """Where ``count`` strings from ``at`` on end, and how many of them start past the window.

    A vocabulary has hundreds of thousands: nothing but what is needed is in the loop.
    """
    length_at = _U64.unpack_from
    last = len(window) - 8
    for left in range(count, 0, -1):
        if at > last:
            return at, left
        at += 8 + length_at(window, at)[0]
    return at, 0


class _HeaderCursor:
    """Reads forward through the front of a file, a window at a time.

    Raises :class:`_Damage` instead of going past the end.
    """

    def __init__(self, file: BinaryIO, file_bytes: int) -> None:
        self._file = file
        self._end = min(file_bytes, _MAX_HEADER_BYTES)
        self._window = b""
        self._window_start = 0  # bytes from the start of the file
        self._at = 0  # bytes from the start of the window

    @property
    def position(self) -> int:
        return self._window_start + self._at

    def _want(self, n_bytes: int) -> None:
        """Have the next ``n_bytes`` in the window."""
        if self._at + n_bytes <= len(self._window):
            return
        position = self.position
        if n_bytes > self._end - position:
            raise _Damage(f"its header goes past byte {self._end}")
        self._file.seek(position)
        self._window = self._file.read(min(max(n_bytes, _WINDOW), self._end - position))
        self._window_start, self._at = position, 0
        if len(self._window) < n_bytes:
            raise _Damage("it became shorter while it was being read")

    def take(self, n_bytes: int) -> bytes:
        self._want(n_bytes)
        self._at += n_bytes
        return self._window[self._at - n_bytes : self._at]

    def unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        self._want(layout.size)
        self._at += layout.size
        return layout.unpack_from(self._window, self._at - layout.size)

    def skip(self, n_bytes: int) -> None:
        if n_bytes > self._end - self.position:
            raise _Damage(f"its header goes past byte {self._end}")
        self._at += n_bytes

    def skip_strings(self, count: int) -> None:
        while count:
            self._want(8)
            end, count = _past_strings(self._window, self._at, count)
            self.skip(end - self._at)

    def string(self, most: int = _KEPT_TEXT) -> str:
        """One of at most so many bytes."""
        (length,) = self.unpack(_U64)
        if length > min(most, self._end - self.position):
            raise _Damage(f"a name or text in its header claims {length} bytes")
        return self.take(length).decode("utf-8", errors="replace")

    def name(self) -> str:
        """Of a key or a tensor. llama.cpp reads it up to a zero, and would take it for another."""
        name = self.string(_MAX_KEY)
        if "\0" in name:
            raise _Damage(f"the name {name[:_MAX_NAME]!r} has a zero in it")
        return name

    def value(self) -> Value:
        (kind,) = self.unpack(_U32)
        if kind == _STRING:
            return self._text()
        if kind == _ARRAY:
            return self._array()
        return self._scalar(kind)

    def _text(self) -> str | ArrayOnDisk:
        (length,) = self.unpack(_U64)
        if length <= _KEPT_TEXT:
            return self.take(length).decode("utf-8", errors="replace")
        start = self.position
        self.skip(length)
        return ArrayOnDisk(_BYTE, length, start, length)

    def _scalar(self, kind: int) -> bool | int | float:
        if kind not in _SCALARS:
            raise _Damage(f"it holds a value of the unknown type {kind}")
        (number,) = self.unpack(_SCALARS[kind])
        return number != 0 if kind == _BOOL else number

    def _array(self) -> tuple[bool | int | float | str, ...] | ArrayOnDisk:
        (kind,) = self.unpack(_U32)
        (length,) = self.unpack(_U64)
        if kind != _STRING and kind not in _SCALARS:  # an array of arrays, too: like llama.cpp
            raise _Damage(f"it holds an array of the unknown type {kind}")
        if length <= _KEPT_ELEMENTS:
            return tuple(
                self.string() if kind == _STRING else self._scalar(kind) for _ in range(length)
            )
        start = self.position
        if kind == _STRING:
            self.skip_strings(length)
        else:
            self.skip(length * _SCALARS[kind].size)
        return ArrayOnDisk(kind, length, start, self.position - start)

    def tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        """Name, shape, type and offset in the data section."""
        name = self.name()
        if len(name.encode()) > _MAX_NAME:
            raise _Damage(f"the name of its tensor {name[:_MAX_NAME]!r}… is too long")
        (n_dims,) = self.unpack(_U32)
        if not 1 <= n_dims <= 4:
            raise _Damage(f"its tensor {name!r} has {n_dims} dimensions")
        *shape, kind, offset = self.unpack(_REST[n_dims])
        return name, tuple(shape), kind, offset
