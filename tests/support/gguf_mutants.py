"""Takes GGUF files apart and puts them together again with something wrong in them.

A mutant is a sound file but for one or two changes that know where they are: a number that becomes
extreme, a value of another type, a tensor of another shape, a name twice. Most of them get past
the first checks, which flipped bytes hardly ever do.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random
from typing import Any

from ondevice.gguf.tensor_types import TENSOR_TYPES

U8, I8, U16, I16, U32, I32, F32, BOOL, TEXT, ARRAY, U64, I64, F64 = range(13)
CODES = {U8: "B", I8: "b", U16: "H", I16: "h", U32: "I", I32: "i"}
CODES |= {F32: "f", BOOL: "?", U64: "Q", I64: "q", F64: "d"}
ALIGNMENT = 32


@dataclass
class Key:
    name: bytes
    kind: int
    value: Any
    """A number, bytes, or (kind of the elements, list of them)."""


@dataclass
class Tensor:
    name: bytes
    shape: list[int]
    kind: int
    data: bytes
    offset: int | None = None
    """None: where it belongs."""


@dataclass
class File:
    keys: list[Key] = field(default_factory=list)
    tensors: list[Tensor] = field(default_factory=list)
    counts: tuple[int, int] | None = None
    """Of tensors and keys, as the header tells them; None: as they are."""

    def key(self, ending: str) -> Key | None:
        return next((key for key in self.keys if key.name.endswith(ending.encode())), None)


# ------------------------------------------------------------------ reading and writing


def take_apart(data: bytes) -> File:
    n_tensors, n_keys = struct.unpack_from("<QQ", data, 8)
    at = 24

    def number(code: str) -> int | float:
        nonlocal at
        value: int | float = struct.unpack_from(f"<{code}", data, at)[0]
        at += struct.calcsize(f"<{code}")
        return value

    def text() -> bytes:
        nonlocal at
        length = int(number("Q"))
        at += length
        return data[at - length : at]

    def value(kind: int) -> object:
        if kind == TEXT:
            return text()
        if kind == ARRAY:
            element, length = int(number("I")), int(number("Q"))
            return element, [value(element) for _ in range(length)]
        return number(CODES[kind])

    file = File()
    for _ in range(n_keys):
        name = text()
        kind = int(number("I"))
        file.keys.append(Key(name, kind, value(kind)))
    for _ in range(n_tensors):
        name = text()
        shape = [int(number("Q")) for _ in range(int(number("I")))]
        file.tensors.append(Tensor(name, shape, int(number("I")), b"", int(number("Q"))))
    start = _padded(at)
    for tensor in file.tensors:
        first = start + (tensor.offset or 0)
        tensor.data = data[first : first + size_of(tensor.shape, tensor.kind)]
        tensor.offset = None
    return file


def put_together(file: File) -> bytes:
    n_tensors, n_keys = file.counts or (len(file.tensors), len(file.keys))
    parts = [b"GGUF", struct.pack("<IQQ", 3, n_tensors % 2**64, n_keys % 2**64)]
    for key in file.keys:
        parts += [_text(key.name), struct.pack("<I", key.kind), _value(key.kind, key.value)]
    offset = 0
    for tensor in file.tensors:
        shape = [dimension % 2**64 for dimension in tensor.shape]
        where = offset if tensor.offset is None else tensor.offset
        parts.append(_text(tensor.name))
        parts.append(struct.pack(f"<I{len(shape)}Q", len(shape), *shape))
        parts.append(struct.pack("<IQ", tensor.kind, where % 2**64))
        offset += _padded(len(tensor.data))
    front = b"".join(parts)
    data = [tensor.data + bytes(-len(tensor.data) % ALIGNMENT) for tensor in file.tensors]
    return b"".join([front, bytes(-len(front) % ALIGNMENT), *data])


def size_of(shape: list[int], kind: int) -> int:
    """Bytes; 0 for what has none."""
    if kind not in TENSOR_TYPES:
        return 0
    _, block, block_bytes = TENSOR_TYPES[kind]
    return math.prod(shape) // block * block_bytes


def _padded(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT


def _text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def _value(kind: int, value: object) -> bytes:
    if isinstance(value, tuple):
        element, values = value
        if element in CODES:
            return struct.pack(f"<IQ{len(values)}{CODES[element]}", element, len(values), *values)
        return struct.pack("<IQ", element, len(values)) + b"".join(map(_text, values))
    if isinstance(value, bytes):
        return _text(value)
    return struct.pack(f"<{CODES[kind]}", value)


# ------------------------------------------------------------------ what goes wrong

_WORDS = (
    *(b"", b"\0", b"\xff\xfe", b"none", b"llama", b"gpt2", b"bert", b"rwkv", b"t5", b"plamo2"),
    *(b"qwen2", b"mamba", b"clip", b"gemma3", b"linear", b"yarn", b"x" * 70_000, b"{{ x"),
)


def _extreme(chance: Random, kind: int, value: int | float) -> int | float:
    if kind in (F32, F64):
        return chance.choice(
            [0.0, -1.0, math.nan, math.inf, -math.inf, 1e-45, 3e38, float(value) * 2, 0.5]
        )
    if kind == BOOL:
        return not value
    bits = struct.calcsize(f"<{CODES[kind]}") * 8
    low, high = (
        (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        if kind in (I8, I16, I32, I64)
        else (
            0,
            2**bits - 1,
        )
    )
    near = [0, 1, 2, 3, value - 1, value + 1, value * 2, value // 2, value + 2**16]
    wanted = chance.choice([*near, low, high, high // 2, high // 2 + 1, 513, 1 << 20])
    return int(min(max(wanted, low), high))


def _number(file: File, chance: Random) -> None:
    key = chance.choice([key for key in file.keys if key.kind in CODES])
    key.value = _extreme(chance, key.kind, key.value)


def _kind(file: File, chance: Random) -> None:
    key = chance.choice([key for key in file.keys if key.kind in CODES])
    kind = chance.choice([kind for kind in (*CODES, TEXT, ARRAY) if kind != key.kind])
    number = key.value if isinstance(key.value, int | float) else 0
    if kind == TEXT:
        key.value = str(number).encode()
    elif kind == ARRAY:
        key.value = (key.kind, [key.value] * chance.choice([0, 1, 2, 3, 513]))
    else:
        whole = int(number) if math.isfinite(number) else 0
        key.value = float(whole) if kind in (F32, F64) else whole % 128
    key.kind = kind


def _array(file: File, chance: Random) -> None:
    arrays = [key for key in file.keys if key.kind == ARRAY]
    key = chance.choice(arrays)
    element, values = key.value
    match chance.randrange(6):
        case 0:
            values = values[: chance.randrange(len(values) + 1)]
        case 1:
            values = values + values[: chance.randrange(len(values) + 1)]
        case 2:
            values = []
        case 3 if element in CODES and values:
            place = chance.randrange(len(values))
            values = [*values]
            values[place] = _extreme(chance, element, values[place])
        case 4 if values:
            element, values = chance.choice(
                [(I32, [1] * len(values)), (F32, [1.0] * len(values)), (U8, [1] * len(values))]
            )
        case _:
            element, values = TEXT, [b"x"] * len(values)
    key.value = (element, values)


def _words(file: File, chance: Random) -> None:
    key = chance.choice([key for key in file.keys if key.kind == TEXT])
    key.value = chance.choice([*_WORDS, key.value * 2, b"a" * (1 << 21)])


def _tokens(file: File, chance: Random) -> None:
    key = file.key("tokenizer.ggml.tokens")
    if key is None:
        return _words(file, chance)
    element, values = key.value
    values = [*values]
    first, second = chance.randrange(len(values)), chance.randrange(len(values))
    match chance.randrange(5):
        case 0:
            values[first] = values[second]
        case 1:
            values[first] = b""
        case 2:
            values[first] = chance.choice([b"\0", b"\xff", b" ", b"<unk>", b"z" * 100_000])
        case 3:
            chance.shuffle(values)
        case _:
            del values[first]
    key.value = (element, values)
    return None


def _keys(file: File, chance: Random) -> None:
    place = chance.randrange(len(file.keys))
    match chance.randrange(4):
        case 0:
            del file.keys[place]
        case 1:
            file.keys.append(deepcopy(file.keys[place]))
        case 2:
            file.keys[place].name = chance.choice([b"", b"x", b"general.architecture", b"k" * 9000])
        case _:
            chance.shuffle(file.keys)


def _new_key(file: File, chance: Random) -> None:
    """A hyperparameter that the file has not, and that some architectures have."""
    architecture = file.key("general.architecture")
    name = architecture.value if architecture and isinstance(architecture.value, bytes) else b"x"
    ending, kind = chance.choice(
        [
            *((ending, U32) for ending in (b"expert_count", b"expert_used_count")),
            *((ending, U32) for ending in (b"expert_group_count", b"nextn_predict_layers")),
            *((ending, U32) for ending in (b"attention.key_length", b"attention.value_length")),
            *((ending, U32) for ending in (b"attention.sliding_window", b"rope.scaling.factor")),
            *((ending, U32) for ending in (b"attention.shared_kv_layers", b"pooling_type")),
            *((ending, U32) for ending in (b"full_attention_interval", b"ssm.state_size")),
            *((ending, F32) for ending in (b"rope.freq_base", b"logit_scale")),
            *((ending, BOOL) for ending in (b"attention.causal", b"expert_weights_norm")),
            (b"rope.scaling.type", TEXT),
        ]
    )
    value: object = b"nothing" if kind == TEXT else _extreme(chance, kind, chance.randrange(9))
    file.keys.append(Key(name + b"." + ending, kind, value))


def _shape(file: File, chance: Random) -> None:
    tensor = chance.choice(file.tensors)
    match chance.randrange(6):
        case 0:
            tensor.shape.reverse()
        case 1:
            tensor.shape.append(1)
        case 2:
            tensor.shape = [math.prod(tensor.shape)]
        case 3:
            tensor.shape[chance.randrange(len(tensor.shape))] = chance.choice(
                [0, 1, 2**31, 2**32, 2**62, 2**63]
            )
        case 4:  # with bytes for what it now claims
            place = chance.randrange(len(tensor.shape))
            tensor.shape[place] = max(1, tensor.shape[place] // 2)
            tensor.data = tensor.data[: size_of(tensor.shape, tensor.kind)]
        case _:
            tensor.shape[-1] *= 2
            tensor.data *= 2


def _type(file: File, chance: Random) -> None:
    """Of all tensors of a name in the blocks, or of one; mostly with as many bytes as it takes."""
    ending = chance.choice(file.tensors).name.split(b".", 2)[-1]
    meant = [tensor for tensor in file.tensors if tensor.name.endswith(ending)]
    kind = chance.choice([*TENSOR_TYPES, 4, 31, 99])
    for tensor in meant if chance.random() < 0.5 else meant[:1]:
        tensor.kind = kind
        if chance.random() < 0.9:
            size = size_of(tensor.shape, kind)
            tensor.data = (tensor.data * (size // max(1, len(tensor.data)) + 1))[:size]


def _name(file: File, chance: Random) -> None:
    first, second = chance.choice(file.tensors), chance.choice(file.tensors)
    match chance.randrange(6):
        case 0:
            first.name, second.name = second.name, first.name
        case 1:
            first.name = second.name
        case 2:
            first.name = b""
        case 3:
            first.name += chance.choice(
                [b".x", b"\0", b"\xff", ".².²".encode(), b".9.9", b"n" * 99]
            )
        case 4:
            first.name = first.name.replace(
                b"blk.0", chance.choice([b"blk.99", b"blk.", b"blk.00"])
            )
        case _:
            first.name = f"blk.{10 ** chance.randrange(40)}.x".encode()


def _tensors(file: File, chance: Random) -> None:
    place = chance.randrange(len(file.tensors))
    match chance.randrange(5):
        case 0:
            del file.tensors[place]
        case 1:
            extra = deepcopy(file.tensors[place])
            extra.name += b"2"
            file.tensors.append(extra)
        case 2:
            file.tensors = file.tensors[:place]
        case 3:
            chance.shuffle(file.tensors)
        case _:
            n_more = chance.choice([100, 1000, 5000])
            file.tensors += [
                Tensor(f"blk.{number % 3}.t{number}".encode(), [8], 0, bytes(32))
                for number in range(n_more)
            ]


def _offset(file: File, chance: Random) -> None:
    tensor = chance.choice(file.tensors)
    tensor.offset = chance.choice([0, 1, 32, 2**31, 2**40, 2**63, 2**64 - 32])


def _counts(file: File, chance: Random) -> None:
    ours = len(file.tensors), len(file.keys)
    strange = (0, 1, ours[0] - 1, ours[0] + 1, 65536, 2**31, 2**63)
    file.counts = chance.choice(
        [(chance.choice(strange), ours[1]), (ours[0], chance.choice(strange))]
    )


def _numbers_in_data(file: File, chance: Random) -> None:
    """Weights that are no numbers, or huge."""
    tensor = chance.choice(file.tensors)
    pattern = chance.choice([b"\xff", b"\x7f", b"\0", struct.pack("<f", math.nan), b"\x00\x7c"])
    tensor.data = (pattern * len(tensor.data))[: len(tensor.data)]


_CHANGES: tuple[Callable[[File, Random], None], ...] = (
    *(_number, _number, _number, _kind, _array, _words, _tokens, _keys, _new_key, _new_key),
    *(_shape, _type, _type, _name, _tensors, _offset, _counts, _numbers_in_data),
)


def mutant(data: bytes, chance: Random) -> tuple[str, bytes]:
    """What was changed, and the file with it; ``data`` is a sound one."""
    if chance.random() < 0.1:
        return "truncated", data[: chance.randrange(len(data))]
    if chance.random() < 0.1:
        changed = bytearray(data)
        for _ in range(chance.choice((1, 1, 1, 2, 3))):
            changed[chance.randrange(min(len(data), 20_000))] ^= chance.randrange(1, 256)
        return "flipped", bytes(changed)
    file = take_apart(data)
    changes = chance.sample(_CHANGES, chance.choice((1, 1, 1, 2)))
    for change in changes:
        try:
            change(file, chance)
        except (IndexError, ValueError):  # nothing of that kind is left
            continue
    try:
        return "+".join(change.__name__.strip("_") for change in changes), put_together(file)
    except struct.error:  # two changes that cannot be written
        return "truncated", data[: len(data) // 2]
