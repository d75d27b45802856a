"""Files that anybody may put into a folder of models, and that once ended the whole app."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import gguf_mutants as mutants
import tiny_model
from gguf_mutants import ARRAY, F32, TEXT, U32, File, Key, Tensor

_F32, _I8 = 0, 24  # types of tensors


def _sound(path: Path, n_experts: int = 0) -> File:
    return mutants.take_apart(tiny_model.write(path, n_experts).read_bytes())


def _set(file: File, ending: str, value: int) -> None:
    key = file.key(ending)
    assert key is not None
    key.value = value


def no_matrices(path: Path) -> None:
    """No blocks, and nothing that a token could be multiplied with."""
    file = _sound(path)
    _set(file, "block_count", 0)
    file.tensors = [tensor for tensor in file.tensors if len(tensor.shape) == 1]
    path.write_bytes(mutants.put_together(file))


def only_unused_experts(path: Path) -> None:
    file = _sound(path, n_experts=4)
    _set(file, "expert_used_count", 0)
    file.tensors = [tensor for tensor in file.tensors if b"_exps" in tensor.name]
    path.write_bytes(mutants.put_together(file))


def _stack(path: Path, columns: list[int], tensors: list[Tensor]) -> None:
    file = _sound(path)
    file.tensors = tensors
    file.keys += [
        Key(b"ondevice.stack.version", U32, 2),
        Key(b"ondevice.stack.columns", ARRAY, (U32, columns)),
        Key(b"ondevice.stack.checksums", ARRAY, (U32, [0] * len(tensors))),
        Key(b"ondevice.stack.kl", ARRAY, (F32, [0.0] * len(tensors))),
        Key(b"ondevice.stack.perplexity", ARRAY, (F32, [1.0] * len(tensors))),
    ]
    path.write_bytes(mutants.put_together(file))


def stack_of_huge_rows(path: Path) -> None:
    table = Tensor(b"token_embd.weight", [64, 8], _I8, bytes(512))
    _stack(path, [2**31], [table])


def stack_with_a_strange_block(path: Path) -> None:
    """Superscripts are digits to Python, and no numbers."""
    table = Tensor(b"token_embd.weight", [64, 8], _I8, bytes(512))
    block = Tensor("token_embd.weight.².²".encode(), [64, 8], _I8, bytes(512))
    _stack(path, [0, 0], [table, block])


def sixty_thousand_tensors(path: Path, shape: tuple[int, ...] = (8,)) -> None:
    """On top of a sound model; they are holes in the file."""
    file = _sound(path)
    extra = [
        Tensor(f"blk.{number % 2}.x{number}.weight".encode(), [*shape], _F32, b"")
        for number in range(60_000)
    ]
    data, offset = b"", 0
    for tensor in [*file.tensors, *extra]:
        tensor.offset = offset
        offset += -(-mutants.size_of(tensor.shape, tensor.kind) // 32) * 32
        data += tensor.data + bytes(-len(tensor.data) % 32)
    for tensor in file.tensors:
        tensor.data = b""
    file.tensors += extra
    front = mutants.put_together(file)
    path.write_bytes(front + data)
    os.truncate(path, len(front) + offset)


def statistics(path: Path) -> None:
    """What is measured of a model before it is quantized, without a word of what it is."""
    numbers = Tensor(b"blk.0.attn_q.weight.in_sum2", [64], _F32, bytes(256))
    name = Key(b"general.architecture", TEXT, b"imatrix")
    template = Key(b"tokenizer.chat_template", TEXT, b"{{ messages }}")
    path.write_bytes(mutants.put_together(File([name, template], [numbers])))


def adapter(path: Path) -> None:
    """A LoRA that does not say that it is one."""
    file = _sound(path)
    small = Tensor(b"blk.0.attn_q.weight.lora_a", [64, 4], _F32, bytes(1024))
    file.tensors = [small]
    path.write_bytes(mutants.put_together(file))


def unknown_architecture(path: Path) -> None:
    file = _sound(path)
    for key in file.keys:
        key.name = key.name.replace(b"llama.", b"nobodys.")
        if key.name == b"general.architecture":
            key.value = b"nobodys"
    path.write_bytes(mutants.put_together(file))


def vectors_only(path: Path) -> None:
    """Much that costs no time, so that it seems large and fast."""
    file = _sound(path)
    for tensor in file.tensors:
        if tensor.name.startswith(b"blk.") and len(tensor.shape) == 1:
            tensor.shape = [1 << 20]
            tensor.data = struct.pack("<f", 1.0) * (1 << 20)
    path.write_bytes(mutants.put_together(file))


BAD: Mapping[str, Callable[[Path], None]] = MappingProxyType(
    {
        each.__name__.replace("_", " "): each
        for each in (
            no_matrices,
            only_unused_experts,
            stack_of_huge_rows,
            stack_with_a_strange_block,
            sixty_thousand_tensors,
            statistics,
            adapter,
            unknown_architecture,
            vectors_only,
        )
    }
)
