"""Packs a model into a stack: tensor by tensor, in little RAM, and going on where it was stopped.

The parts are first written in any order, each where its shape says; then it is measured which
weights the model's answers depend on most, and the file is written in the order of loading.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from ondevice import gguf
from ondevice.disk.identity import UnchangedFiles
from ondevice.errors import FileError, ModelFileError, UsageError
from ondevice.gguf import GGUFFile, TensorInfo
from ondevice.gguf.tensor_types import TENSOR_TYPES
from ondevice.holding.stack import _layout
from ondevice.holding.stack._calibrate import Usage, default_text, own_text, usage_of
from ondevice.holding.stack._encoding import encode
from ondevice.holding.stack._layout import (
    BASE_PLANES,
    PLANES,
    VERSION,
    BlockId,
    PlanesShape,
    Quality,
)
from ondevice.holding.stack._order import measure
from ondevice.holding.stack._planes import checksum
from ondevice.holding.stack._writing import Contents, Journal, Writer
from ondevice.llama import dequantize
from ondevice.system.cores import default_threads

_LEAST_WEIGHTS = 1 << 12  # of a matrix; smaller ones stay as they are


class PackProgress(NamedTuple):
    """How far packing has come."""

    stage: str  # "generating", "calibrating", "encoding", "measuring" or "writing"
    done: float  # of this stage, 0 … 1


def pack(
    source: Path,
    target: Path,
    *,
    calibration: str | None = None,
    own_calibration: bool = False,
    jobs: int | None = None,
    on_progress: Callable[[PackProgress], None] = lambda _: None,
) -> None:
    """Write the stack of the model ``source`` to ``target``.

    ``calibration`` is the text on which it is measured what matters, by default one of ours;
    ``own_calibration``: the model writes it. ``jobs``: threads. When stopped, the same call goes on
    with what is in ``target`` + ".part".

    Raises :class:`UsageError` for a stack, :class:`ModelFileError` for a model that cannot be
    packed or was changed meanwhile, :class:`FileError` if ``target`` is being packed already,
    :class:`~ondevice.errors.NativeError` without a compiler, and :class:`OSError` for what cannot
    be written.
    """
    file = gguf.read(source)
    unchanged = UnchangedFiles([source])
    if len(file.parts) > 1:
        raise ModelFileError(f"{source.name} is split. Merge its parts first (llama-gguf-split).")
    if file.is_stack:
        raise UsageError(f"{source.name} is a stack already. Pack the model it was made of.")
    threads = jobs or default_threads()

    def stage(name: str) -> Callable[[float], None]:
        return lambda done: on_progress(PackProgress(name, done))

    with _alone(target):
        text = calibration or default_text()
        written_text = target.with_name(target.name + ".text")
        if own_calibration:
            if not written_text.exists():
                text = own_text(file, threads, stage("generating"))
                written_text.write_text(text, "utf-8")
            text = written_text.read_text("utf-8")
        parts = target.with_name(target.name + ".part")
        journal = Journal(  # now, so that what cannot be written is told before hours of work
            target.with_name(target.name + ".journal"),
            _identity(file, text),
            fresh=not parts.exists(),
        )
        usage = usage_of(file, text, threads, stage("calibrating"))
        contents = _contents(file, usage)
        _encode(contents, parts, journal, usage, threads, stage("encoding"))
        unchanged.check()
        order, qualities = measure(parts, journal, text, threads, stage("measuring"))
        ordered = Contents(file, contents.matrices, order)
        written = target.with_name(target.name + ".new")
        _reorder(parts, written, ordered, journal, qualities, stage("writing"))
        written.replace(target)
        for path in (parts, journal.path, written_text):
            path.unlink(missing_ok=True)


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Of all processes, one packs ``target``; none is kept out where nothing can be locked."""
    lock = FileLock(target.with_name(target.name + ".lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FileError(
            f"{target} is being packed already. Wait until that is done, or name another file "
            "with -o."
        ) from None
    except OSError:  # where it cannot be written either, that is told next
        pass
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(OSError):
                Path(lock.lock_file).unlink()
            lock.release()


def _contents(file: GGUFFile, usage: Usage) -> Contents:
    matrices: dict[str, PlanesShape] = {}
    for tensor in file.tensors.values():
        columns, rows = tensor.shape[0], math.prod(tensor.shape[1:])
        if len(tensor.shape) < 2 or columns % 32 or columns * rows < _LEAST_WEIGHTS:
            continue
        if "ffn_gate_inp" in tensor.name:  # small, and all depends on which experts are chosen
            continue
        if usage.fits(tensor.name):
            matrices[tensor.name] = _layout.shape_of(rows, columns)
    if not matrices:
        raise ModelFileError(f"{file.path.name} has no weights that a stack could hold.")
    every = [block for name, shape in matrices.items() for block in _layout.blocks_of(name, shape)]
    return Contents(file, matrices, sorted(every, key=lambda block: block.plane))


def _identity(file: GGUFFile, text: str) -> str:
    status = file.path.stat()
    told = [VERSION, str(file.path.resolve()), status.st_size, status.st_mtime_ns, text]
    return sha256(json.dumps(told).encode()).hexdigest()


# --------------------------------------------------------------------------- encoding


def _encode(
    contents: Contents,
    path: Path,
    journal: Journal,
    usage: Usage,
    threads: int,
    on_progress: Callable[[float], None],
) -> None:
    """Write every tensor of the stack to ``path``, but for those that the journal has."""
    writer = Writer(path, contents)
    tensors = list(contents.source.tensors.values())
    total = sum(tensor.n_bytes for tensor in tensors)
    done = 0

    def step(part: float) -> None:
        on_progress((done + part * tensor.n_bytes) / total)

    try:
        with contents.source.path.open("rb") as source:
            for tensor in tensors:
                if tensor.name not in journal:
                    shape = contents.matrices.get(tensor.name)
                    if shape is None:
                        source.seek(tensor.offset)
                        data = np.frombuffer(source.read(tensor.n_bytes), np.uint8)
                        writer.put(tensor.name, 0, data)
                        checksums = {tensor.name: _sum(data)}
                        errors: list[list[float]] = []
                    else:
                        checksums, errors = _encode_matrix(
                            source, tensor, shape, usage, threads, writer, step
                        )
                    writer.sync()
                    journal.add(tensor.name, checksums, errors)
                step(1)
                done += tensor.n_bytes
        writer.finish(journal.checksums, {})
    finally:
        writer.close()


def _encode_matrix(
    source: BinaryIO,
    tensor: TensorInfo,
    shape: PlanesShape,
    usage: Usage,
    threads: int,
    writer: Writer,
    on_progress: Callable[[float], None],
) -> tuple[dict[str, int], list[list[float]]]:
    """Write a matrix in planes; returns the checksums of its parts and the errors of its chunks."""
    checksums: dict[str, int] = {}
    errors: list[list[float]] = []
    importance = usage.importance(tensor.name, shape.columns)
    _, block, block_bytes = TENSOR_TYPES[tensor.type]
    row_bytes = shape.columns // block * block_bytes
    base = []
    for number, rows in enumerate(shape.chunks()):
        source.seek(tensor.offset + rows.start * row_bytes)
        weights = dequantize(source.read(len(rows) * row_bytes), tensor.type, shape.columns)
        encoded = encode(weights, importance, threads)
        for plane in range(BASE_PLANES, PLANES):
            name = BlockId(tensor.name, number, plane).name
            writer.put(name, 0, encoded.planes[plane])
            checksums[name] = _sum(encoded.planes[plane])
        base += [encoded.scales, encoded.nibbles, *encoded.planes[:BASE_PLANES]]
        weight = usage.chunk_importance(tensor.name, rows, shape.rows)
        errors.append((encoded.errors * weight).tolist())
        on_progress(rows.stop / shape.rows)
    whole = np.concatenate(base)
    writer.put(tensor.name, 0, whole)
    checksums[tensor.name] = _sum(whole)
    return checksums, errors


def _sum(data: npt.NDArray[np.uint8]) -> int:
    return checksum(data.ctypes.data, data.nbytes)


# ---------------------------------------------------------------------------- writing


def _reorder(
    parts: Path,
    target: Path,
    ordered: Contents,
    journal: Journal,
    qualities: Mapping[str, Quality],
    on_progress: Callable[[float], None],
) -> None:
    """Write ``parts`` anew with the blocks in the order of ``ordered``."""
    entries = ordered.entries()
    offsets = {tensor.name: tensor.offset for tensor in gguf.read(parts).tensors.values()}
    writer = Writer(target, ordered)
    try:
        with parts.open("rb") as source:
            for number, entry in enumerate(entries, 1):
                source.seek(offsets[entry.name])
                data = np.frombuffer(source.read(entry.n_bytes), np.uint8)
                writer.put(entry.name, 0, data)
                on_progress(number / len(entries))
        writer.finish(journal.checksums, qualities)
    finally:
        writer.close()
