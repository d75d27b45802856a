"""Reading GGUF headers: what is found, and that nothing is trusted."""

from __future__ import annotations

import struct
from pathlib import Path

import gguf as reference
import numpy as np
import pytest

from ondevice import gguf
from ondevice.errors import ModelFileError
from ondevice.gguf.tensor_types import TENSOR_TYPES


def write_model(
    path: Path, *, n_blocks: int = 2, split: tuple[int, int, int] | None = None
) -> Path:
    """A small GGUF file by llama.cpp's own writer; ``split`` is (number, parts, all tensors)."""
    writer = reference.GGUFWriter(path, "qwen2")
    if split:
        writer.add_uint16("split.no", split[0])
        writer.add_uint16("split.count", split[1])
        writer.add_int32("split.tensors.count", split[2])
    if not split or split[0] == 0:
        writer.add_name("Tiny")
        writer.add_block_count(n_blocks)
        writer.add_context_length(2048)
        writer.add_embedding_length(64)
        writer.add_head_count([4] * n_blocks)
        writer.add_head_count_kv([2, 1][:n_blocks])
        writer.add_sliding_window(512)
        writer.add_file_type(7)
        writer.add_bool("tokenizer.ggml.add_bos_token", True)
        writer.add_token_list([f"token {number}" for number in range(1000)])
        writer.add_token_scores([0.5] * 1000)
        writer.add_chat_template("{{ messages }}")
        writer.add_array("general.tags", ["small", "für Tests"])
    for block in range(n_blocks) if not split else (split[0],):
        writer.add_tensor(f"blk.{block}.ffn_up.weight", np.ones((3, 64), np.float32))
        quantized = reference.quants.quantize(
            np.ones((5, 64), np.float32), reference.GGMLQuantizationType.Q8_0
        )
        writer.add_tensor(
            f"blk.{block}.ffn_down.weight",
            quantized,
            raw_dtype=reference.GGMLQuantizationType.Q8_0,
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "tiny.gguf")


def test_what_the_file_says_is_found(model: Path) -> None:
    file = gguf.read(model)
    assert file.path == model
    assert (file.name, file.architecture, file.quantization) == ("Tiny", "qwen2", "Q8_0")
    assert (file.n_blocks, file.n_ctx_train, file.n_embd, file.n_vocab) == (2, 2048, 64, 1000)
    assert (file.n_heads, file.n_kv_heads) == ((4, 4), (2, 1))
    assert (file.key_length, file.value_length, file.sliding_window) == (16, 16, 512)
    assert file.chat_template == "{{ messages }}"
    assert file.metadata["general.tags"] == ("small", "für Tests")
    assert file.metadata["tokenizer.ggml.add_bos_token"] is True
    assert file.n_params == 2 * (3 * 64 + 5 * 64)


def test_tensors_lie_where_the_reference_reader_finds_them(model: Path) -> None:
    expected = reference.GGUFReader(model)
    file = gguf.read(model)
    assert [
        (tensor.name, tensor.shape, tensor.type, tensor.offset, tensor.n_bytes)
        for tensor in file.tensors.values()
    ] == [
        (each.name, tuple(each.shape), each.tensor_type, each.data_offset, each.n_bytes)
        for each in expected.tensors
    ]
    assert file.parts[0].data_offset == expected.data_offset
    assert file.tensors["blk.1.ffn_up.weight"].block == 1


def test_a_name_cannot_steer_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "evil.gguf"
    writer = reference.GGUFWriter(path, "llama")
    writer.add_name("\x1b[2JModel\x07")
    writer.add_tensor("output_norm.weight", np.ones(32, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert gguf.read(path).name == "[2JModel"


def test_long_arrays_stay_on_the_disk_and_can_be_found_there(model: Path) -> None:
    tokens = gguf.read(model).metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, gguf.ArrayOnDisk)
    data = model.read_bytes()[tokens.offset : tokens.offset + tokens.n_bytes]
    assert data.startswith(struct.pack("<Q", 7) + b"token 0")
    assert data.endswith(b"token 999")


@pytest.mark.parametrize("name", ["output.weight", "blk.x.w", "v.blk.3.w", "blk.3"])
def test_tensors_outside_the_blocks_have_no_block(name: str) -> None:
    assert gguf.block_of(name) is None


def test_tensor_types_are_laid_out_as_ggml_does() -> None:
    ours = {number: kind[1:] for number, kind in TENSOR_TYPES.items()}
    for kind, layout in reference.GGML_QUANT_SIZES.items():
        if kind.name != "Q8_1":  # gguf-py is wrong here: ggml's block has two 16-bit numbers
            assert ours[kind.value] == layout, kind.name


# ------------------------------------------------------------------ split files


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    return [
        write_model(tmp_path / f"big-0000{number + 1}-of-00002.gguf", split=(number, 2, 4))
        for number in range(2)
    ]


@pytest.mark.parametrize("opened", [0, 1])
def test_any_part_of_a_split_model_finds_the_others(parts: list[Path], opened: int) -> None:
    file = gguf.read(parts[opened])
    assert [part.path for part in file.parts] == parts
    assert file.name == "Tiny"
    assert file.tensors["blk.0.ffn_up.weight"].part == 0
    assert file.tensors["blk.1.ffn_up.weight"].part == 1
    assert file.file_bytes == sum(part.stat().st_size for part in parts)


def test_an_incomplete_set_is_refused_by_what_is_missing(parts: list[Path]) -> None:
    parts[1].unlink()
    with pytest.raises(ModelFileError, match=r"big-00002-of-00002\.gguf is missing"):
        gguf.read(parts[0])


def test_a_part_that_is_another_part_renamed_is_refused(parts: list[Path]) -> None:
    parts[1].write_bytes(parts[0].read_bytes())
    with pytest.raises(ModelFileError, match="disagree about which part"):
        gguf.read(parts[0])


def test_a_part_under_a_foreign_name_is_refused(parts: list[Path]) -> None:
    renamed = parts[0].rename(parts[0].with_name("model.gguf"))
    with pytest.raises(ModelFileError, match="-00001-of-00002"):
        gguf.read(renamed)


def test_parts_that_lack_tensors_are_refused(tmp_path: Path) -> None:
    for number in range(2):
        write_model(tmp_path / f"big-0000{number + 1}-of-00002.gguf", split=(number, 2, 5))
    with pytest.raises(ModelFileError, match="contain 4 tensors instead of 5"):
        gguf.read(tmp_path / "big-00001-of-00002.gguf")


# -------------------------------------------------------------------- real models


def test_a_real_model_is_read_as_the_reference_reader_reads_it(
    default_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It looks at a vocabulary piece by piece, for which a mapped array takes three times as long.
    monkeypatch.setattr(np, "memmap", lambda path, mode: np.fromfile(path, np.uint8))
    expected = reference.GGUFReader(default_model)
    file = gguf.read(default_model)
    assert [(t.name, t.offset, t.n_bytes) for t in file.tensors.values()] == [
        (each.name, each.data_offset, each.n_bytes) for each in expected.tensors
    ]
    assert (file.name, file.n_blocks, file.n_kv_heads[0]) == (
        "Smollm2 135M 8k Lc100K Mix1 Ep2",
        30,
        3,
    )
