"""Damaged and hostile model files: each ends in one of our errors, quickly, and the app lives."""

from __future__ import annotations

import math
import os
import random
import re
import struct
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gguf_mutants
import numpy as np
import pytest
import shapes
import tiny_model
from gguf import GGMLQuantizationType
from gguf_mutants import File, Key
from peak_ram import peak_ram
from planned import plan

from ondevice import gguf
from ondevice.engine import Engine
from ondevice.errors import MemoryShortError, ModelFileError, OndeviceError
from ondevice.gguf import GGUFFile, runnable
from ondevice.gguf.tensor_types import TENSOR_TYPES
from ondevice.gguf.vocabulary import check_tokens
from ondevice.holding.speeds import USUAL
from ondevice.llama import Model, _model
from ondevice.messages import Generate, Load, Sampling, Turn
from ondevice.models import _scan
from ondevice.ram.available import AvailableRam
from ondevice.ram.need import need
from ondevice.ram.process import of_process

READ_S, REPLY_S = 1.0, 10.0  # no file may keep us for longer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return tiny_model.write(tmp_path_factory.mktemp("tiny") / "tiny.gguf").read_bytes()


@pytest.fixture(scope="module")
def header_bytes(tiny: bytes, tmp_path_factory: pytest.TempPathFactory) -> int:
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    path.write_bytes(tiny)
    return gguf.read(path).parts[0].data_offset


def flipped(data: bytes, end: int, seed: int) -> bytes:
    """``data`` with one to three bytes before ``end`` changed."""
    chance = random.Random(seed)
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        changed[chance.randrange(end)] ^= chance.randrange(1, 256)
    return bytes(changed)


def accepted(path: Path) -> bool:
    """Whether the reader takes the file; it must decide quickly and fail only as ours."""
    started = time.perf_counter()
    try:
        file = gguf.read(path)
        # What the planner asks of it must not fail in another way either.
        _ = file.n_blocks, file.n_heads, file.n_kv_heads, file.key_length, file.quantization
    except ModelFileError as error:
        assert str(path) in str(error)
        return False
    finally:
        assert time.perf_counter() - started < READ_S
    return True


# ------------------------------------------------------------------ the reader


@pytest.mark.parametrize("percent", range(0, 100, 5))
def test_a_header_that_is_cut_is_refused(
    tiny: bytes, header_bytes: int, tmp_path: Path, percent: int
) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny[: header_bytes * percent // 100])
    with pytest.raises(ModelFileError, match="Download it again"):
        gguf.read(path)


def test_data_that_is_cut_is_refused(tiny: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.gguf"
    path.write_bytes(tiny[:-1])
    with pytest.raises(ModelFileError, match="cut short"):
        gguf.read(path)


def test_flipped_bytes_never_break_the_reader(
    tiny: bytes, header_bytes: int, tmp_path: Path
) -> None:
    peak = peak_ram()
    path = tmp_path / "flipped.gguf"
    outcomes = Counter[bool]()
    for seed in range(2000):
        path.write_bytes(flipped(tiny, header_bytes, seed))
        outcomes[accepted(path)] += 1
    assert min(outcomes[True], outcomes[False]) > 200  # both ways are taken
    assert peak_ram() - peak < 50_000_000


def test_flipped_bytes_in_a_real_model_never_break_the_reader(
    default_model: Path, tmp_path: Path
) -> None:
    part = gguf.read(default_model).parts[0]
    with default_model.open("rb") as file:
        header = file.read(part.data_offset)
    tensor_infos = header.rindex(b"general.quantization_version")  # the last key
    path = tmp_path / "flipped.gguf"
    with path.open("wb") as file:
        file.write(header)
        file.truncate(part.file_bytes)
    chance = random.Random(0)
    for case in range(150):
        where = chance.randrange(tensor_infos if case % 2 else 0, len(header))
        with path.open("r+b") as file:
            file.seek(where)
            file.write(bytes([header[where] ^ chance.randrange(1, 256)]))
        accepted(path)
        with path.open("r+b") as file:
            file.seek(where)
            file.write(header[where : where + 1])
    assert accepted(path)


def header(n_tensors: int = 0, n_keys: int = 0, version: int = 3) -> bytes:
    return b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_keys)


def text(value: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(value) if length is None else length) + value


def tensor(name: bytes, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    dimensions = struct.pack(f"<I{len(shape)}Q", len(shape), *shape)
    return text(name) + dimensions + struct.pack("<IQ", kind, offset)


HUGE = 2**63
HOSTILE = {
    "nothing": b"",
    "another format": b"PK\x03\x04" + bytes(100),
    "only the magic": b"GGUF",
    "version 1": header(version=1) + bytes(100),
    "version 99": header(version=99) + bytes(100),
    "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 1, 1) + bytes(100),
    "huge number of tensors": header(n_tensors=HUGE) + bytes(100),
    "many tensors": header(n_tensors=65536) + bytes(1000),
    "huge number of keys": header(n_keys=HUGE) + bytes(100),
    "huge key": header(n_keys=1) + text(b"key", HUGE),
    "huge string": header(n_keys=1) + text(b"key") + struct.pack("<I", 8) + text(b"", 2**40),
    "huge array": header(n_keys=1) + text(b"key") + struct.pack("<IIQ", 9, 4, HUGE),
    "huge array of strings": header(n_keys=1) + text(b"key") + struct.pack("<IIQ", 9, 8, HUGE),
    "array of arrays": header(n_keys=1) + text(b"key") + struct.pack("<IIQ", 9, 9, 1) * 1000,
    "unknown type of value": header(n_keys=1) + text(b"key") + struct.pack("<I", 13) + bytes(100),
    "empty key": header(n_keys=1) + text(b"") + struct.pack("<II", 4, 1),
    "key twice": header(n_keys=2) + (text(b"key") + struct.pack("<II", 4, 1)) * 2,
    "alignment 0": header(n_keys=1) + text(b"general.alignment") + struct.pack("<II", 4, 0),
    "alignment 3": header(n_keys=1) + text(b"general.alignment") + struct.pack("<II", 4, 3),
    "no tensors": header(),
    "no architecture": header(n_tensors=1) + tensor(b"t", (32,)) + bytes(1000),
    "long name": header(n_tensors=1) + tensor(b"t" * 64, (32,)) + bytes(1000),
    "no dimensions": header(n_tensors=1) + tensor(b"t", ()) + bytes(1000),
    "five dimensions": header(n_tensors=1) + tensor(b"t", (1,) * 5) + bytes(1000),
    "empty dimension": header(n_tensors=1) + tensor(b"t", (32, 0)) + bytes(1000),
    "overflowing shape": header(n_tensors=1) + tensor(b"t", (2**32, 2**32)) + bytes(1000),
    "wrapping shape": header(n_tensors=1) + tensor(b"t", (2**63, 2, 2**63, 2)) + bytes(1000),
    "negative dimension": header(n_tensors=1) + tensor(b"t", (2**64 - 1,)) + bytes(1000),
    "unknown type of tensor": header(n_tensors=1) + tensor(b"t", (32,), kind=43) + bytes(1000),
    "withdrawn type": header(n_tensors=1) + tensor(b"t", (32,), kind=4) + bytes(1000),
    "half a block": header(n_tensors=1) + tensor(b"t", (48,), kind=8) + bytes(1000),
    "offset outside": header(n_tensors=1) + tensor(b"t", (32,), offset=2**40) + bytes(1000),
    "offset not aligned": header(n_tensors=1) + tensor(b"t", (32,), offset=8) + bytes(1000),
    "data outside": header(n_tensors=1) + tensor(b"t", (1000,)) + bytes(1000),
    "tensors that overlap": header(n_tensors=2)
    + tensor(b"a", (32,))
    + tensor(b"b", (32,), offset=64)
    + bytes(1000),
    "tensor twice": header(n_tensors=2)
    + tensor(b"a", (32,))
    + tensor(b"a", (32,), offset=128)
    + bytes(1000),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(HOSTILE[name])
    assert not accepted(path)


def test_a_string_that_fills_a_huge_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(header(n_keys=1) + text(b"key") + struct.pack("<I", 8) + text(b"", 2**40))
    with path.open("r+b") as file:
        file.truncate(2**40 + 1000)
    assert not accepted(path)


def test_empty_strings_without_end_are_given_up(tmp_path: Path) -> None:
    path = tmp_path / "hostile.gguf"
    path.write_bytes(header(n_keys=1) + text(b"key") + struct.pack("<IIQ", 9, 8, 2**30))
    with path.open("r+b") as file:
        file.truncate(2**34)  # of zeros: each eight are an empty string
    started = time.perf_counter()
    with pytest.raises(ModelFileError):
        gguf.read(path)
    assert time.perf_counter() - started < REPLY_S


def test_what_is_no_readable_file_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.gguf"
    os.mkfifo(pipe)
    with pytest.raises(ModelFileError, match="is a folder"):
        gguf.read(tmp_path)
    with pytest.raises(ModelFileError, match="is not a file"):
        gguf.read(pipe)
    with pytest.raises(ModelFileError, match="is not a file"):
        gguf.read(Path("/dev/zero"))
    with pytest.raises(ModelFileError, match="No such file"):
        gguf.read(tmp_path / "missing.gguf")
    with pytest.raises(ModelFileError, match="cannot be read"):
        gguf.read(Path("zero\0byte.gguf"))


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs POSIX users")
def test_a_file_without_permission_is_refused(tiny: bytes, tmp_path: Path) -> None:
    path = tmp_path / "secret.gguf"
    path.write_bytes(tiny)
    path.chmod(0)
    user = os.geteuid()
    try:
        if user == 0:  # who may read everything
            os.seteuid(65534)
        with pytest.raises(ModelFileError, match="Permission denied"):
            gguf.read(path)
    finally:
        os.seteuid(user)


# ------------------------------------------------------------------ the whole way


@contextmanager
def killed_after(engine: Engine, seconds: float) -> Iterator[threading.Event]:
    """Kills an engine that hangs, so that the test goes on, and says so."""
    hung = threading.Event()

    def kill() -> None:
        hung.set()
        if engine.pid:
            os.kill(engine.pid, 9)

    timer = threading.Timer(seconds, kill)
    timer.start()
    try:
        yield hung
    finally:
        timer.cancel()


def reply(engine: Engine, path: Path) -> str:
    """Load the file and generate two tokens: "Finished", or the name of our error."""
    turns = (Turn(role="user", content="Hello"),)
    request = Generate(turns=turns, sampling=Sampling(temperature=0), max_tokens=2)
    with killed_after(engine, REPLY_S) as hung:
        try:
            engine.load(Load(path=str(path), n_ctx=64, n_threads=1))
            *_, last = engine.generate(request)
        except (ModelFileError, MemoryShortError) as error:
            assert path.name in str(error)
            return type(error).__name__
        except OndeviceError as error:
            assert str(error)
            return type(error).__name__
        finally:
            assert not hung.is_set(), f"{path} made the engine hang"
    return type(last).__name__


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Models to make mutants of."""
    folder = tmp_path_factory.mktemp("sound")
    writers = [
        tiny_model.write(folder / "dense.gguf"),
        tiny_model.write(folder / "experts.gguf", 4),
        tiny_model.write(folder / "untied.gguf", tied=False),
    ]
    return [path.read_bytes() for path in writers]


@pytest.mark.random
def test_a_mutant_is_refused_or_planned_soon(
    sound: list[bytes], rounds: Callable[[int], Iterator[random.Random]], tmp_path: Path
) -> None:
    path = tmp_path / "mutant.gguf"
    peak = peak_ram()
    outcomes = Counter[str]()
    for chance in rounds(200):
        what, data = gguf_mutants.mutant(chance.choice(sound), chance)
        path.write_bytes(data)
        started = time.process_time()
        outcomes[planned(path)] += 1
        assert time.process_time() - started < READ_S, what
    assert min(outcomes["planned"], outcomes["refused"]) > 20  # both ways are taken
    assert peak_ram() - peak < 300_000_000


def planned(path: Path) -> str:
    """What comes of listing, reading and planning a file; it may fail only as ours, by name."""
    _scan.nature(path)
    try:
        file = runnable.read(path)
        need(file)
        for usable in (10**11, file.weights_bytes // 2 + 78_000_000):
            plan(file, AvailableRam(usable, usable, "all RAM"), USUAL)
    except (ModelFileError, MemoryShortError) as error:
        assert path.name in str(error)
        assert "cannot be used" not in str(error)  # the cause is known, and not just caught
        return "refused"
    return "planned"


@pytest.mark.random
def test_the_app_survives_every_mutant(
    sound: list[bytes], rounds: Callable[[int], Iterator[random.Random]], tmp_path: Path
) -> None:
    """What the reader accepts goes to llama.cpp. It may crash there, and the next reply works."""
    healthy = tmp_path / "healthy.gguf"
    healthy.write_bytes(sound[0])
    outcomes = Counter[str]()
    with Engine(log=tmp_path / "engine.log") as engine:
        for number, chance in enumerate(rounds(40)):
            path = tmp_path / f"{number}.gguf"  # never the same: the engine may have it mapped
            what, data = gguf_mutants.mutant(chance.choice(sound), chance)
            path.write_bytes(data)
            outcomes[reply(engine, path)] += 1
            if engine.pid and (own := of_process(engine.pid)):
                assert own.resident < 1_000_000_000, what
            path.unlink()
        assert reply(engine, healthy) == "Finished"
    assert outcomes["ModelFileError"] > 5
    assert outcomes["Finished"] > 5


# ------------------------------------------------------------------ what no model has


def changed(ending: str, value: object, kind: int | None = None) -> Callable[[File], None]:
    """Sets a hyperparameter of the file; one that it has not needs its ``kind``."""

    def change(file: File) -> None:
        key = file.key(ending)
        if key is None:
            assert kind is not None
            key = Key(f"llama.{ending}".encode(), kind, value)
            file.keys.append(key)
        key.value, key.kind = value, key.kind if kind is None else kind

    return change


def retyped(ending: str, kind: str) -> Callable[[File], None]:
    def change(file: File) -> None:
        (number,) = (n for n, each in TENSOR_TYPES.items() if each.name == kind)
        for tensor in file.tensors:
            if tensor.name.endswith(ending.encode()):
                tensor.kind = number
                tensor.data = bytes(gguf_mutants.size_of(tensor.shape, number))

    return change


def renamed(ending: bytes, to: bytes) -> Callable[[File], None]:
    def change(file: File) -> None:
        for tensor in file.tensors:
            tensor.name = tensor.name.replace(ending, to)

    return change


def gate_bias(file: File) -> None:
    file.tensors.append(gguf_mutants.Tensor(b"blk.0.ffn_gate_inp.bias", [4], 1, bytes(8)))


def few_positions(file: File) -> None:
    changed("context_length", 255)(file)
    file.tensors[0].name = b"position_embd.weight"


U32, F32 = gguf_mutants.U32, gguf_mutants.F32
ARRAY, TEXT = gguf_mutants.ARRAY, gguf_mutants.TEXT
NONSENSE: dict[str, tuple[Callable[[File], None], str]] = {
    "many blocks": (changed("block_count", 513), "513 blocks"),
    "drafting blocks": (changed("nextn_predict_layers", 3, U32), "3 of its 2 blocks"),
    "more experts in use": (changed("expert_used_count", 5), "uses 5 of 4 experts"),
    "no expert in use": (changed("expert_used_count", 0), "uses none"),
    "no experts": (changed("expert_count", 0), "uses 2 of 0 experts"),
    "many experts": (changed("expert_count", 513), "513 experts"),
    "many groups": (changed("expert_group_count", 4, U32), "in 4 groups"),
    "odd groups": (changed("expert_group_count", 3, U32), "in 3 groups"),
    "no group in use": (changed("expert_group_count", 2, U32), "0 of them in use"),
    "negative epsilon": (changed("rms_epsilon", -1.0), "epsilon of its norms is -1.0"),
    "no epsilon": (changed("rms_epsilon", math.nan), "epsilon of its norms is nan"),
    "endless epsilon": (changed("rms_epsilon", math.inf), "epsilon of its norms is inf"),
    "heads that do not divide": (changed("head_count_kv", 3), "cannot share 3 heads"),
    "heads of a block": (changed("head_count_kv", (U32, [4, 3]), ARRAY), "cannot share 3 heads"),
    "many heads": (changed("head_count", 2**31), "2147483648 attention heads"),
    "few positions": (few_positions, "positions for 255 tokens only"),
    "zero in a key": (changed("feed_forward\0_length", 1, U32), "has a zero in it"),
    "zero in a tensor's name": (renamed(b"ffn_norm.weight", b"ffn_norm.weight\0"), "has a zero"),
    "bias of a gate in F16": (gate_bias, "of type F16 but can only"),
    "a new scaling": (changed("rope.scaling.type", b"magic", TEXT), "'magic'"),
    **{
        f"matrices in {kind}": (retyped("attn_q.weight", kind), f"of type {kind}, which weights")
        for kind in ("Q8_1", "I8", "I16", "I32", "I64", "F64")
    },
    **{
        f"norms in {kind}": (retyped("attn_norm.weight", kind), f"of type {kind} but can only")
        for kind in ("Q8_0", "F16", "BF16")
    },
}


@pytest.mark.parametrize("name", NONSENSE)
def test_what_no_model_has_is_refused(sound: list[bytes], tmp_path: Path, name: str) -> None:
    change, words = NONSENSE[name]
    file = gguf_mutants.take_apart(sound[1])
    change(file)
    path = tmp_path / "nonsense.gguf"
    path.write_bytes(gguf_mutants.put_together(file))
    with pytest.raises(ModelFileError, match=re.escape(words)) as error:
        gguf.read(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("architecture", "turned", "in_windows"),
    [("maple", 0, 0), ("maple", 0, None), ("gemma3", 0, 16), ("gemma3", 16, 0), ("maple", 0, 16)],
)
def test_positions_that_turn_nothing_are_refused(
    architecture: str,
    turned: int,
    in_windows: int | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """llama.cpp would compute for ever, and whoever asked would wait. But for Maple, which turns
    keys in windows alone: here another model passes for one."""
    path = shapes.write_random(
        tmp_path, "sliding window", GGMLQuantizationType.F16, np.random.default_rng(1)
    )
    file = gguf_mutants.take_apart(path.read_bytes())
    file.keys = [each for each in file.keys if b"rope.dimension_count" not in each.name]
    file.keys.append(Key(b"gemma3.rope.dimension_count", U32, turned))
    if in_windows is not None:
        file.keys.append(Key(b"gemma3.rope.dimension_count_swa", U32, in_windows))
    path.write_bytes(gguf_mutants.put_together(file))
    if architecture == "maple":
        monkeypatch.setattr(_model, "TURNED_IN_WINDOWS", {"gemma3"})
    if in_windows and architecture == "maple":
        Model(path).close()
        return
    with pytest.raises(ModelFileError, match="positions turn 0 elements"):
        Model(path)


NO_FACTORS = {
    "ssm_a": [1, 4],
    "ssm_d": [1, 4],
    "ssm_conv1d.weight": [4, 64],
    "ssm_conv1d_q.weight": [4, 1, 64],
    "shortconv.conv.weight": [3, 64],
    "time_mix_lerp_fused.weight": [64, 1, 1, 5],
    "attn_q_norm.weight": [16, 4],
    "ffn_up_exps.bias": [64, 4],
}


def with_tensor(path: Path, data: bytes, name: str, shape: list[int], kind: str) -> Path:
    file = gguf_mutants.take_apart(data)
    (number,) = (n for n, each in TENSOR_TYPES.items() if each.name == kind)
    content = bytes(gguf_mutants.size_of(shape, number))
    file.tensors.append(gguf_mutants.Tensor(name.encode(), shape, number, content))
    path.write_bytes(gguf_mutants.put_together(file))
    return path


@pytest.mark.parametrize("name", NO_FACTORS)
@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_what_is_no_factor_is_refused_in_another_type(
    sound: list[bytes], tmp_path: Path, name: str, kind: str
) -> None:
    """llama.cpp loads it, and the first token ends the process."""
    shape, path = NO_FACTORS[name], tmp_path / "typed.gguf"
    with pytest.raises(ModelFileError, match="can only be computed with in F32"):
        gguf.read(with_tensor(path, sound[0], f"blk.1.{name}", shape, kind))
    gguf.read(with_tensor(path, sound[0], f"blk.1.{name}", shape, "F32"))


@pytest.mark.parametrize("name", ["ssm_in.weight", "time_mix_first.weight", "attn_q_b.weight"])
def test_what_is_a_factor_may_be_of_any_type(sound: list[bytes], tmp_path: Path, name: str) -> None:
    gguf.read(with_tensor(tmp_path / "typed.gguf", sound[0], f"blk.1.{name}", [32, 4], "Q8_0"))


def test_planes_of_a_stack_are_no_weights_of_another_type(
    sound: list[bytes], tmp_path: Path
) -> None:
    file = gguf_mutants.take_apart(sound[0])
    file.keys.append(Key(b"ondevice.stack.version", U32, 2))
    data = gguf_mutants.put_together(file)
    gguf.read(with_tensor(tmp_path / "planes.gguf", data, "blk.1.attn_q.weight.0.2", [8, 4], "I8"))


def rwkv(tokens: list[bytes]) -> list[bytes]:
    plain = [f"\\x{byte:02x}".encode() for byte in range(256)]
    return [b"<s>", *plain, *tokens]


VOCABULARIES: dict[str, tuple[str, list[bytes], str]] = {
    "a token twice": ("gpt2", [b"a", b"b", b"a"], "token 2, 'a', comes twice"),
    "the name of an empty one": ("gpt2", [b"", b"[EMPTY_0]"], "comes twice"),
    "a byte less": ("llama", [f"<0x{b:02X}>".encode() for b in range(255)], "1 of the 256 bytes"),
    "no first byte": ("rwkv", [t for t in rwkv([b"hello"]) if t != b"\\x68"], "b'h' is no token"),
    "none": ("no_vocab", [], "it has no vocabulary"),
}
SOUND_VOCABULARIES: dict[str, tuple[str, list[bytes]]] = {
    "empty ones": ("gpt2", [b"a", b"", b"", b"b"]),
    "all bytes": ("llama", [f"<0x{byte:02X}>".encode() for byte in range(256)]),
    "no bytes": ("llama", [b"a", b"b", b"c"]),
    "what is no text": ("gpt2", [b"\xff", b"\xfe", b"\xff\xfe"]),
    "world": ("rwkv", rwkv([b"hello", b"\\n\\n", b"\\\\", b"\\xe4\\xbd"])),
    "a large one": ("gpt2", [f"token {number}".encode() for number in range(3000)]),
}


def with_vocabulary(path: Path, data: bytes, kind: str, tokens: list[bytes]) -> GGUFFile:
    file = gguf_mutants.take_apart(data)
    for ending, value in (("ggml.model", kind.encode()), ("ggml.tokens", (TEXT, tokens))):
        key = file.key(ending)
        assert key is not None
        key.value = value
    file.keys = [key for key in file.keys if not key.name.endswith((b"scores", b"token_type"))]
    path.write_bytes(gguf_mutants.put_together(file))
    return gguf.read(path)


@pytest.mark.parametrize("name", VOCABULARIES)
@pytest.mark.parametrize("more", [0, 1000], ids=["small", "large"])
def test_a_vocabulary_that_ends_llama_cpp_is_refused(
    sound: list[bytes], tmp_path: Path, name: str, more: int
) -> None:
    """Small ones are kept when the file is read, large ones stay on the disk."""
    kind, tokens, words = VOCABULARIES[name]
    tokens = [*tokens, *(f"{number}h".encode() for number in range(more))]
    file = with_vocabulary(tmp_path / "words.gguf", sound[0], kind, tokens)
    with pytest.raises(ModelFileError, match=re.escape(words)) as error:
        check_tokens(file)
    assert str(file.path) in str(error.value)


@pytest.mark.parametrize("name", SOUND_VOCABULARIES)
def test_a_vocabulary_that_works_is_taken(sound: list[bytes], tmp_path: Path, name: str) -> None:
    check_tokens(with_vocabulary(tmp_path / "words.gguf", sound[0], *SOUND_VOCABULARIES[name]))


def test_sound_models_of_all_shapes_are_taken(tmp_path: Path, default_model: Path) -> None:
    for name in shapes.SHAPES:
        runnable.read(shapes.write(tmp_path, name))
    check_tokens(runnable.read(default_model))


def test_a_long_text_is_not_kept(sound: list[bytes], tmp_path: Path) -> None:
    file = gguf_mutants.take_apart(sound[0])
    file.keys.append(Key(b"tokenizer.huggingface.json", TEXT, b"\xff" * 50_000_000))
    path = tmp_path / "long.gguf"
    path.write_bytes(gguf_mutants.put_together(file))
    tracemalloc.start()
    read = runnable.read(path)
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
    assert read.length("tokenizer.huggingface.json") == 50_000_000
    assert read.text("tokenizer.huggingface.json") is None
