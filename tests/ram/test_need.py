"""What a model needs: the estimate is what llama.cpp takes, and what does not fit is refused."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import shapes
from headers import dense, model
from planned import plan

from ondevice import gguf, llama
from ondevice.engine import Engine
from ondevice.gguf import GGUFFile
from ondevice.holding.speeds import USUAL
from ondevice.messages import KVType, Load
from ondevice.planning.planner import why
from ondevice.ram.available import AvailableRam
from ondevice.ram.need import need
from ondevice.ram.process import of_process

MB = 1_000_000


def ram(available: int) -> AvailableRam:
    return AvailableRam(2 * available, available, "all RAM of this machine")


# ------------------------------------------------------------------ what llama.cpp takes


MODELS = [
    "smollm2-135m-instruct-q4_1.gguf",
    "gemma-3-270m-q4_k_m.gguf",
    "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize(("n_ctx", "kv_type"), [(700, "f16"), (8192, "f16"), (2048, "q8_0")])
def test_the_estimate_is_what_llama_cpp_takes(
    big_model: Callable[[str], Path], tmp_path: Path, name: str, n_ctx: int, kv_type: KVType
) -> None:
    path = big_model(name)
    expected = need(gguf.read(path), n_ctx, kv_type)
    with Engine(log=tmp_path / "engine.log") as engine:
        loaded = engine.load(Load(path=str(path), n_ctx=n_ctx, kv_type=kv_type))
    assert expected.n_ctx == loaded.n_ctx
    assert expected.kv == pytest.approx(loaded.kv_bytes, rel=0.002)
    assert 0.95 * loaded.compute_bytes < expected.compute < 1.08 * loaded.compute_bytes


@pytest.mark.parametrize(("trained", "n_ctx"), [(1024, 1024), (1000, 768), (100, 256)])
def test_a_context_is_no_longer_than_a_table_of_positions(
    tmp_path: Path, trained: int, n_ctx: int
) -> None:
    file = gguf.read(shapes.write(tmp_path, "dense"))
    known = f"{file.architecture}.context_length"
    file = replace(file, metadata={**file.metadata, known: trained})
    assert need(file, 8192).n_ctx == 8192
    positions = replace(file.tensors["token_embd.weight"], name="position_embd.weight")
    file = replace(file, tensors={**file.tensors, positions.name: positions})
    assert need(file, 8192).n_ctx == n_ctx
    assert need(file).n_ctx == n_ctx
    available = ram(10**10)
    assert f"{n_ctx} tokens: the model takes no more" in why(
        plan(file, available, USUAL, n_ctx=8192), available, 8192
    )


@pytest.mark.parametrize("name", shapes.SHAPES)
@pytest.mark.parametrize(("n_ctx", "kv_type"), [(1024, "f16"), (4096, "q8_0"), (8192, "f16")])
def test_the_estimate_holds_for_every_kind_of_block(
    tmp_path: Path, name: str, n_ctx: int, kv_type: KVType
) -> None:
    path = shapes.write(tmp_path, name)
    expected = need(gguf.read(path), n_ctx, kv_type)
    llama.start(io.StringIO())
    loaded = llama.Model(path)
    context = llama.Context(loaded, n_ctx=n_ctx, kv_type=kv_type, keeps_state=True)
    try:
        assert expected.kv == pytest.approx(context.kv_bytes, rel=0.003)
        assert 0.95 * context.compute_bytes < expected.compute < 1.2 * context.compute_bytes
    finally:
        context.close()
        loaded.close()


def test_keys_for_choosing_what_to_look_back_on_count() -> None:
    plain = dense()
    index: dict[str, tuple[int, ...]] = {
        f"blk.{b}.indexer.attn_k.weight": (1000, 128) for b in range(2)
    }
    more = model(index, attention__indexer__key_length=128, attention__indexer__head_count=8)
    file = replace(
        plain,
        metadata={**plain.metadata, **more.metadata},
        tensors={**plain.tensors, **more.tensors},
    )
    assert need(file, 512).kv > need(plain, 512).kv
    scores = 5 * 4 * 512 * (4096 - 512)  # the longer the context, the more there is to choose from
    grown = need(file, 4096).compute - need(file, 512).compute
    assert grown >= need(plain, 4096).compute - need(plain, 512).compute + scores


def test_an_input_for_each_block_counts() -> None:
    plain = dense()
    projection = model({"per_layer_model_proj.weight": (512, 4 * 256)}).tensors
    more = need(replace(plain, tensors={**plain.tensors, **projection})).compute
    more -= need(plain).compute
    assert more >= 4 * 256 * 512 * 4


def test_blocks_of_a_hybrid_without_attention_have_no_keys() -> None:
    plain = dense()
    metadata = {**plain.metadata, "test.attention.head_count_kv": (8, 0, 8, 0)}
    assert need(replace(plain, metadata=metadata), 512).kv == need(plain, 512).kv // 2


def test_the_engine_takes_no_more_than_the_need_and_a_second_copy(engine: Engine) -> None:
    assert engine.loaded is not None
    assert engine.pid is not None
    expected = need(gguf.read(Path(engine.loaded.path)), engine.loaded.n_ctx)
    taken = of_process(engine.pid)
    assert taken is not None
    assert expected.kv == pytest.approx(engine.loaded.kv_bytes, rel=0.002)
    assert taken.peak < expected.total + expected.weights


# ------------------------------------------------------------------ what counts


def test_a_table_that_is_read_by_row_need_not_be_in_ram() -> None:
    file = dense(n_blocks=1)
    assert need(file, 512).weights == file.weights_bytes - file.tensors["token_embd.weight"].n_bytes


def test_an_embedding_that_is_also_the_output_layer_must_be_in_ram() -> None:
    file = model({"token_embd.weight": (1000, 1000)}, block_count=0)
    assert need(file, 512).weights == file.weights_bytes


def test_the_context_is_rounded_up_as_llama_cpp_does() -> None:
    assert need(dense(), 700) == need(dense(), 768)


def test_the_default_context_is_what_the_model_was_trained_on_at_most_4096() -> None:
    assert need(model({}, block_count=0, context_length=2048)).n_ctx == 2048
    assert need(model({}, block_count=0, context_length=131072)).n_ctx == 4096
    assert need(model({}, block_count=0)).n_ctx == 4096


def test_recurrent_blocks_have_a_state_and_no_kv_cache() -> None:
    file = model(
        {
            "blk.0.shortconv.conv.weight": (3, 1000),
            "blk.1.attn_k.weight": (1000, 256),
            "blk.1.attn_v.weight": (1000, 256),
        },
        block_count=2,
        embedding_length=1000,
        attention__head_count=8,
        shortconv__l_cache=3,
    )
    assert need(file, 1024).kv == 1024 * 2 * 256 * 2 + 2 * (1000 * 2 * 4)


def test_blocks_that_share_the_cache_of_others_have_none() -> None:
    full = dense()
    sharing = GGUFFile(
        full.parts,
        3,
        {**full.metadata, "test.attention.shared_kv_layers": 3},
        full.tensors,
    )
    assert need(sharing, 1024).kv * 4 == need(full, 1024).kv


def test_latent_attention_keeps_one_key_for_all_heads() -> None:
    file = model(
        {"blk.0.attn_kv_a_mqa.weight": (1000, 576)},
        block_count=1,
        embedding_length=1000,
        attention__head_count=16,
        attention__head_count_kv=1,
        attention__key_length=576,
        attention__key_length_mla=192,
        attention__value_length=512,
    )
    assert need(file, 1024).kv == 1024 * 576 * 2
