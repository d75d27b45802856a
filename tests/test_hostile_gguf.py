"""Damaged and hostile model files: each ends in one of our errors, quickly, and the app lives."""

from __future__ import annotations

import os
import random
import resource
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny_model

from ondevice.engine import Engine
from ondevice.engine.messages import Generate, Load, Sampling, Turn
from ondevice.errors import ModelFileError, OndeviceError
from ondevice.weights import gguf

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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    path = tmp_path / "flipped.gguf"
    outcomes = Counter[bool]()
    for seed in range(2000):
        path.write_bytes(flipped(tiny, header_bytes, seed))
        outcomes[accepted(path)] += 1
    assert min(outcomes[True], outcomes[False]) > 200  # both ways are taken
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 50_000  # kB


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
    for case in range(500):
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
        except OndeviceError as error:
            assert str(error)
            return type(error).__name__
        finally:
            assert not hung.is_set(), f"{path} made the engine hang"
    return type(last).__name__


def test_the_app_survives_every_damaged_file(
    tiny: bytes, header_bytes: int, tmp_path: Path
) -> None:
    """What the reader accepts goes to llama.cpp. It may crash there, and the next reply works."""
    sound = tmp_path / "sound.gguf"
    sound.write_bytes(tiny)
    outcomes = Counter[str]()
    with Engine(log=tmp_path / "engine.log") as engine:
        for seed in range(200):
            path = tmp_path / f"{seed}.gguf"  # never the same: the engine may have it mapped
            path.write_bytes(flipped(tiny, header_bytes, seed))
            outcomes[reply(engine, path)] += 1
            path.unlink()
        assert reply(engine, sound) == "Finished"
    assert outcomes["ModelFileError"] > 50
    assert outcomes["Finished"] > 20  # flips that change a number or a word, and no structure
