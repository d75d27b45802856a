"""Reads what a GGUF file says about itself, and trusts none of it before it is checked.

The header, the metadata and the tensor infos lie at the front of the file, in this order; the
tensor data follows. Only the front is read, a piece at a time: the weights stay on the disk, and
of the vocabulary only its place in the file is kept. The format is that of ggml's
``docs/gguf.md``; what llama.cpp refuses is refused here too, before native code sees the file.
"""

from __future__ import annotations

import re
import stat
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO, NamedTuple, TypeGuard

from ondevice.errors import ModelFileError
from ondevice.terminal import printable


class TensorType(NamedTuple):
    """How ggml stores the elements of a tensor: in blocks along the row."""

    name: str
    block: int  # elements
    block_bytes: int


#: ggml's number of a type → its layout. Numbers that are missing were withdrawn by ggml.
TENSOR_TYPES: Mapping[int, TensorType] = MappingProxyType(
    {
        0: TensorType("F32", 1, 4),
        1: TensorType("F16", 1, 2),
        2: TensorType("Q4_0", 32, 18),
        3: TensorType("Q4_1", 32, 20),
        6: TensorType("Q5_0", 32, 22),
        7: TensorType("Q5_1", 32, 24),
        8: TensorType("Q8_0", 32, 34),
        9: TensorType("Q8_1", 32, 36),
        10: TensorType("Q2_K", 256, 84),
        11: TensorType("Q3_K", 256, 110),
        12: TensorType("Q4_K", 256, 144),
        13: TensorType("Q5_K", 256, 176),
        14: TensorType("Q6_K", 256, 210),
        15: TensorType("Q8_K", 256, 292),
        16: TensorType("IQ2_XXS", 256, 66),
        17: TensorType("IQ2_XS", 256, 74),
        18: TensorType("IQ3_XXS", 256, 98),
        19: TensorType("IQ1_S", 256, 50),
        20: TensorType("IQ4_NL", 32, 18),
        21: TensorType("IQ3_S", 256, 110),
        22: TensorType("IQ2_S", 256, 82),
        23: TensorType("IQ4_XS", 256, 136),
        24: TensorType("I8", 1, 1),
        25: TensorType("I16", 1, 2),
        26: TensorType("I32", 1, 4),
        27: TensorType("I64", 1, 8),
        28: TensorType("F64", 1, 8),
        29: TensorType("IQ1_M", 256, 56),
        30: TensorType("BF16", 1, 2),
        34: TensorType("TQ1_0", 256, 54),
        35: TensorType("TQ2_0", 256, 66),
        39: TensorType("MXFP4", 32, 17),
        40: TensorType("NVFP4", 64, 36),
        41: TensorType("Q1_0", 128, 18),
        42: TensorType("Q2_0", 64, 18),
    }
)

#: ``general.file_type`` → the name under which people know such a mix of tensor types.
FILE_TYPES: Mapping[int, str] = MappingProxyType(
    {
        0: "F32",
        1: "F16",
        2: "Q4_0",
        3: "Q4_1",
        7: "Q8_0",
        8: "Q5_0",
        9: "Q5_1",
        10: "Q2_K",
        11: "Q3_K_S",
        12: "Q3_K_M",
        13: "Q3_K_L",
        14: "Q4_K_S",
        15: "Q4_K_M",
        16: "Q5_K_S",
        17: "Q5_K_M",
        18: "Q6_K",
        19: "IQ2_XXS",
        20: "IQ2_XS",
        21: "Q2_K_S",
        22: "IQ3_XS",
        23: "IQ3_XXS",
        24: "IQ1_S",
        25: "IQ4_NL",
        26: "IQ3_S",
        27: "IQ3_M",
        28: "IQ2_S",
        29: "IQ2_M",
        30: "IQ4_XS",
        31: "IQ1_M",
        32: "BF16",
        36: "TQ1_0",
        37: "TQ2_0",
        38: "MXFP4_MOE",
        39: "NVFP4",
        40: "Q1_0",
        41: "Q2_0",
    }
)

# Limits far above any real model, so that no file makes us loop or allocate for long.
_MAX_HEADER_BYTES = 128 << 20  # everything before the tensor data; large vocabularies take 20 MB
_MAX_KEYS = 1024
_MAX_TENSORS = 1 << 16
_MAX_BLOCKS = 512  # llama.cpp's own limit
_MAX_NAME = 63  # bytes of a tensor's name; ggml keeps 64 with the final zero
_KEPT_ELEMENTS = 512  # longer arrays (the vocabulary) stay on the disk

_WINDOW = 1 << 20  # bytes read from the file at once
_SPLIT_NAME = re.compile(r"(?P<prefix>.*)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.DOTALL)
_BLOCK_NAME = re.compile(r"blk\.(\d+)\.")

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_BOOL, _STRING, _ARRAY = 7, 8, 9
_SCALARS: Mapping[int, struct.Struct] = MappingProxyType(
    {kind: struct.Struct(f"<{code}") for kind, code in enumerate("BbHhIifB  Qqd") if code != " "}
)


@dataclass(frozen=True, slots=True)
class ArrayOnDisk:
    """A metadata array too long to keep: where its elements are in the first part."""

    element_type: int  # GGUF's number of a value type; 8 is a string
    length: int  # elements
    offset: int  # bytes from the start of the file
    n_bytes: int


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

    @cached_property
    def n_params(self) -> int:
        return sum(
            tensor.n_bytes // kind.block_bytes * kind.block
            for tensor in self.tensors.values()
            for kind in (TENSOR_TYPES[tensor.type],)
        )

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
    def n_blocks(self) -> int:
        """Raises :class:`ModelFileError` for a number that no model has."""
        n_blocks = self.hyperparameter("block_count")
        if not 0 <= n_blocks <= _MAX_BLOCKS:
            raise _damaged(self.path, f"it claims {n_blocks} blocks")
        return n_blocks

    @property
    def n_ctx_train(self) -> int:
        """Tokens; 0 if the file does not say."""
        return self.hyperparameter("context_length")

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

    @property
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


def block_of(tensor_name: str) -> int | None:
    """N of ``blk.N.…``; None for a tensor that belongs to no block."""
    match = _BLOCK_NAME.match(tensor_name)
    return int(match[1]) if match else None


def read(path: Path) -> GGUFFile:
    """What the GGUF file at ``path`` holds; any part of a split one stands for the whole.

    Raises :class:`ModelFileError` if it is not a GGUF file that llama.cpp could load: missing,
    unreadable, foreign, damaged, cut short, or a part without its siblings.
    """
    front = _read_front(path)
    paths = _all_parts(path, front.metadata)
    fronts = [front if part == path else _read_front(part) for part in paths]
    front = fronts[0]
    tensors: dict[str, TensorInfo] = {}
    for number, (part, (_, _, metadata, infos)) in enumerate(zip(paths, fronts, strict=True)):
        if len(paths) > 1 and (metadata.get("split.no"), metadata.get("split.count")) != (
            number,
            len(paths),
        ):
            raise _damaged(part, "its name and its content say different parts of a model")
        if tensors.keys() & infos.keys():
            raise _damaged(part, "it repeats tensors of another part")
        tensors |= {name: replace(info, part=number) for name, info in infos.items()}
    if not tensors:
        raise _damaged(path, "it holds no weights")
    n_tensors = front.metadata.get("split.tensors.count", len(tensors))
    if len(paths) > 1 and n_tensors != len(tensors):
        raise _damaged(path, f"all parts hold {len(tensors)} tensors, and should {n_tensors}")
    if not isinstance(front.metadata.get("general.architecture"), str):
        raise _damaged(path, "it does not say what kind of model it is")
    return GGUFFile(
        parts=tuple(part for part, _, _, _ in fronts),
        version=front.version,
        metadata=MappingProxyType(front.metadata),
        tensors=MappingProxyType(tensors),
    )


def _all_parts(path: Path, metadata: Mapping[str, Value]) -> list[Path]:
    count = metadata.get("split.count", 1)
    if not isinstance(count, int) or count <= 1:
        return [path]
    name = _SPLIT_NAME.fullmatch(path.name)
    if not name or int(name["count"]) != count:
        raise ModelFileError(
            f"{path} is one of {count} parts of a model, and its name does not end in "
            f"-00001-of-{count:05}.gguf. Give all parts the names they were published under."
        )
    paths = [
        path.with_name(f"{name['prefix']}-{number:05}-of-{count:05}.gguf")
        for number in range(1, count + 1)
    ]
    missing = [part.name for part in paths if not part.exists()]
    if missing:
        some = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if missing[3:] else "")
        raise ModelFileError(
            f"{path} is one of {count} parts of a model, and of the others {some} "
            f"{'is' if len(missing) == 1 else 'are'} missing. Download the missing parts into "
            f"{path.parent}."
        )
    return paths


class _Damage(Exception):
    """What is wrong with a file, as the end of the sentence "the file is damaged: …"."""


def _damaged(path: Path, reason: str) -> ModelFileError:
    return ModelFileError(f"{path} is damaged: {reason}. Download it again.")


class _Front(NamedTuple):
    """What precedes the tensor data of one file."""

    part: Part
    version: int
    metadata: dict[str, Value]
    tensors: dict[str, TensorInfo]  # ``part`` is 0 in all of them


def _read_front(path: Path) -> _Front:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise ModelFileError(f"{path} is a folder. Name the GGUF file in it.")
        if not stat.S_ISREG(status.st_mode):  # opening a pipe would wait for its other end
            raise ModelFileError(f"{path} is not a file. Name a GGUF file.")
        with path.open("rb", buffering=0) as file:
            return _parse_front(path, file, status.st_size)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise ModelFileError(
            f"{path} cannot be read: {reason}. Check the path and its permissions."
        ) from error
    except _Damage as damage:
        raise _damaged(path, str(damage)) from damage


def _parse_front(path: Path, file: BinaryIO, file_bytes: int) -> _Front:
    if file_bytes == 0:
        raise _Damage("it is empty")
    cursor = _Cursor(file, file_bytes)
    magic = cursor.take(4)
    if magic != b"GGUF":
        raise ModelFileError(
            f"{path} is not a GGUF file: it starts with {magic!r}. Name a file in the GGUF format."
        )
    (version,) = cursor.unpack(_U32)
    if version not in (2, 3):
        if version & 0xFFFF == 0:
            raise ModelFileError(f"{path} is a big-endian GGUF file. Get the little-endian one.")
        raise ModelFileError(
            f"{path} is a GGUF file of version {version}, and 2 and 3 are known. "
            "Get a newer file of this model, or a newer ondevice."
        )
    (n_tensors,) = cursor.unpack(_U64)
    (n_keys,) = cursor.unpack(_U64)
    if n_tensors > _MAX_TENSORS or n_keys > _MAX_KEYS:
        raise _Damage(f"it claims {n_tensors} tensors and {n_keys} keys")
    metadata: dict[str, Value] = {}
    for _ in range(n_keys):
        key = cursor.string()
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
    return _Front(Part(path, file_bytes, data_offset, alignment), version, metadata, tensors)


def _padded(position: int, alignment: int) -> int:
    return -(-position // alignment) * alignment


def _tensor_bytes(name: str, shape: tuple[int, ...], kind: int) -> int:
    if kind not in TENSOR_TYPES:
        raise _Damage(f"its tensor {name!r} has the unknown type {kind}")
    _, block, block_bytes = TENSOR_TYPES[kind]
    n_elements = 1
    for length in shape:
        n_elements *= length
    if not 0 < n_elements < 1 << 63 or shape[0] % block:
        raise _Damage(f"its tensor {name!r} has the impossible shape {shape}")
    return n_elements // block * block_bytes


class _Cursor:
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
            raise _Damage("it became shorter while it was read")

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
        """Go past ``count`` strings. A vocabulary has hundreds of thousands: the loop is tight."""
        length_at = _U64.unpack_from
        while count:
            self._want(8)
            window, at = self._window, self._at
            last = len(window) - 8
            while at <= last and count:
                (length,) = length_at(window, at)
                at += 8 + length
                count -= 1
            self.skip(at - self._at)

    def string(self) -> str:
        (length,) = self.unpack(_U64)
        return self.take(length).decode("utf-8", errors="replace")

    def value(self) -> Value:
        (kind,) = self.unpack(_U32)
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array()
        return self._scalar(kind)

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
        name = self.string()
        if len(name.encode()) > _MAX_NAME:
            raise _Damage(f"the name of its tensor {name[:_MAX_NAME]!r}… is too long")
        (n_dims,) = self.unpack(_U32)
        if not 1 <= n_dims <= 4:
            raise _Damage(f"its tensor {name!r} has {n_dims} dimensions")
        shape = tuple(self.unpack(_U64)[0] for _ in range(n_dims))
        (kind,) = self.unpack(_U32)
        (offset,) = self.unpack(_U64)
        return name, shape, kind, offset
