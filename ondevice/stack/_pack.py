"""Packs a model into a stack: tensor by tensor, in little RAM, and going on where it was stopped.

The parts are first written in any order, each where its shape says; then it is measured which
weights the model's answers depend on most, and the file is written in the order of loading.
"""

from __future__ import annotations

import heapq
import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from ondevice.errors import ModelFileError, UsageError
from ondevice.llama import (
    PLANES,
    Context,
    EvalHook,
    PlanesShape,
    checksum,
    default_threads,
    dequantize,
    encode,
)
from ondevice.stack import _layout
from ondevice.stack._calibrate import (
    RAM,
    Usage,
    default_text,
    divergence,
    log_probabilities,
    sequences,
    usage_of,
)
from ondevice.stack._file import StackFile
from ondevice.stack._layout import BASE_PLANES, VERSION, BlockId, Entry
from ondevice.stack._stack import Stack
from ondevice.weights import gguf
from ondevice.weights.gguf import GGUFFile, TensorInfo
from ondevice.weights.tensor_types import TENSOR_TYPES

_LEAST_WEIGHTS = 1 << 12  # of a matrix; smaller ones stay as they are
_MEASURED_TOKENS = 64
_CURVE_POINTS = 16  # sizes at which the divergence is measured
_MEASURED_PLANES = (4, 6)  # of one matrix, while all others have all


class PackProgress(NamedTuple):
    """How far packing has come."""

    stage: str  # "calibrating", "encoding", "measuring" or "writing"
    done: float  # of this stage, 0 … 1


@dataclass(frozen=True)
class _Plan:
    """What becomes of each tensor of the source."""

    source: GGUFFile
    matrices: Mapping[str, PlanesShape]
    blocks: list[BlockId]  # in the order in which they are written

    def entries(self) -> list[Entry]:
        """The tensors of the stack: those left as they are, then bases, then blocks."""
        kept = [
            Entry(t.name, t.shape, t.type, t.n_bytes)
            for t in self.source.tensors.values()
            if t.name not in self.matrices
        ]
        first = self.source.read_by_row  # they take no RAM in use; then what is hard to stream
        ordered = sorted(
            self.matrices.items(),
            key=lambda item: (item[0] not in first, -item[1].rows * item[1].columns),
        )
        tensors = self.source.tensors
        bases = [_layout.base_entry(name, s, tensors[name].shape[1:]) for name, s in ordered]
        return [
            *kept,
            *bases,
            *(_layout.block_entry(block, self.matrices[block.matrix]) for block in self.blocks),
        ]


class _Writer:
    """The file of a stack, of which every part has its place from the start."""

    def __init__(self, path: Path, plan: _Plan) -> None:
        self._plan = plan
        self._entries = plan.entries()
        self._alignment = plan.source.parts[0].alignment
        self.checksums: dict[str, int] = {}
        self.offsets: dict[str, int] = {}
        front = self._header({})
        at = len(front)
        for entry in self._entries:
            self.offsets[entry.name] = at
            at += _layout.padded(entry.n_bytes, self._alignment)
        self._file: BinaryIO = path.open("r+b" if path.exists() else "w+b")
        self._file.truncate(at)

    def put(self, name: str, offset: int, data: npt.NDArray[np.uint8]) -> None:
        """Write a part of a tensor."""
        self._file.seek(self.offsets[name] + offset)
        self._file.write(data.data)

    def finish(self, checksums: Mapping[str, int], divergences: Mapping[str, float]) -> None:
        """Write the header and let everything reach the disk."""
        self.checksums = dict(checksums)
        self._file.seek(0)
        self._file.write(self._header(divergences))

        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()

    def flush(self) -> None:
        self._file.flush()

    def _header(self, divergences: Mapping[str, float]) -> bytes:
        n_keys, keys = _layout.raw_keys(self._plan.source)
        names = [entry.name for entry in self._entries]
        matrices = self._plan.matrices
        keys += _layout.key_u32("version", VERSION)
        columns = [matrices[name].columns if name in matrices else 0 for name in names]
        keys += _layout.key_array("columns", "I", columns)
        keys += _layout.key_array("checksums", "I", [self.checksums.get(n, 0) for n in names])
        nan = float("nan")
        keys += _layout.key_array("kl", "f", [divergences.get(name, nan) for name in names])
        infos, _ = _layout.tensor_infos(self._entries, self._alignment)
        return _layout.header(len(names), n_keys + 4, keys, infos, self._alignment)


def pack(
    source: Path,
    target: Path,
    *,
    calibration: str | None = None,
    jobs: int | None = None,
    on_progress: Callable[[PackProgress], None] = lambda _: None,
) -> None:
    """Write the stack of the model ``source`` to ``target``.

    ``calibration`` is the text on which it is measured what matters; ``jobs`` the threads. When
    stopped, the same call goes on with what is in ``target`` + ".part".

    Raises :class:`UsageError` for a stack, :class:`ModelFileError` for a model that cannot be
    packed and :class:`~ondevice.errors.NativeError` without a compiler.
    """
    file = gguf.read(source)
    if len(file.parts) > 1:
        raise ModelFileError(f"{source.name} is split. Merge its parts first (llama-gguf-split).")
    if f"{_layout.PREFIX}version" in file.metadata:
        raise UsageError(f"{source.name} is a stack already. Pack the model it was made of.")
    text = calibration or default_text()
    threads = jobs or default_threads()

    def stage(name: str) -> Callable[[float], None]:
        return lambda done: on_progress(PackProgress(name, done))

    usage = usage_of(file, text, threads, stage("calibrating"))
    plan = _plan(file, usage)
    parts = target.with_name(target.name + ".part")
    journal = _Journal(
        target.with_name(target.name + ".journal"),
        _identity(file, text),
        fresh=not parts.exists(),
    )
    _encode(plan, parts, journal, usage, threads, stage("encoding"))
    order, divergences = _measure(parts, journal, text, threads, stage("measuring"))
    ordered = _Plan(file, plan.matrices, order)
    written = target.with_name(target.name + ".new")
    _reorder(parts, written, ordered, journal, divergences, stage("writing"))
    written.replace(target)
    parts.unlink()
    journal.path.unlink()


def _plan(file: GGUFFile, usage: Usage) -> _Plan:
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
    return _Plan(file, matrices, sorted(every, key=lambda block: block.plane))


# --------------------------------------------------------------------------- encoding


class _Journal:
    """What of a packing is done: a line of JSON for each tensor, so that it can be resumed."""

    def __init__(self, path: Path, identity: str, *, fresh: bool) -> None:
        self.path = path
        self.checksums: dict[str, int] = {}
        #: Matrix → weighted squared error left by 0 … PLANES planes, for each chunk.
        self.errors: dict[str, npt.NDArray[np.float64]] = {}
        self._done: set[str] = set()
        lines = path.read_text().splitlines() if path.exists() and not fresh else []
        if lines and lines[0] == identity:
            for line in lines[1:]:
                if line.endswith("}"):  # a line that was being written is not
                    self._take(json.loads(line))
        else:
            path.write_text(identity + "\n")

    def __contains__(self, name: str) -> bool:
        return name in self._done

    def add(self, name: str, checksums: dict[str, int], errors: list[list[float]]) -> None:
        entry: dict[str, object] = {"name": name, "errors": errors, "checksums": checksums}
        self._take(entry)
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")

    def _take(self, entry: dict[str, object]) -> None:
        name, errors, checksums = entry["name"], entry["errors"], entry["checksums"]
        assert isinstance(name, str)
        assert isinstance(checksums, dict)
        self._done.add(name)
        self.checksums.update(checksums)
        if errors:
            self.errors[name] = np.array(errors, np.float64)


def _identity(file: GGUFFile, text: str) -> str:
    status = file.path.stat()
    told = [VERSION, str(file.path.resolve()), status.st_size, status.st_mtime_ns, text]
    return sha256(json.dumps(told).encode()).hexdigest()


def _encode(
    plan: _Plan,
    path: Path,
    journal: _Journal,
    usage: Usage,
    threads: int,
    on_progress: Callable[[float], None],
) -> None:
    """Write every tensor of the stack to ``path``, but for those that the journal has."""
    writer = _Writer(path, plan)
    tensors = list(plan.source.tensors.values())
    total = sum(tensor.n_bytes for tensor in tensors)
    done = 0
    try:
        with plan.source.path.open("rb") as source:
            for tensor in tensors:
                if tensor.name not in journal:
                    shape = plan.matrices.get(tensor.name)
                    if shape is None:
                        source.seek(tensor.offset)
                        data = np.frombuffer(source.read(tensor.n_bytes), np.uint8)
                        writer.put(tensor.name, 0, data)
                        checksums = {tensor.name: _sum(data)}
                        errors: list[list[float]] = []
                    else:
                        checksums, errors = _encode_matrix(
                            source, tensor, shape, usage, threads, writer
                        )
                    writer.flush()
                    journal.add(tensor.name, checksums, errors)
                done += tensor.n_bytes
                on_progress(done / total)
        writer.finish(journal.checksums, {})
    finally:
        writer.close()


def _encode_matrix(
    source: BinaryIO,
    tensor: TensorInfo,
    shape: PlanesShape,
    usage: Usage,
    threads: int,
    writer: _Writer,
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
    whole = np.concatenate(base)
    writer.put(tensor.name, 0, whole)
    checksums[tensor.name] = _sum(whole)
    return checksums, errors


def _sum(data: npt.NDArray[np.uint8]) -> int:
    return checksum(data.ctypes.data, data.nbytes)


# -------------------------------------------------------------------------- measuring


def _measure(
    path: Path,
    journal: _Journal,
    text: str,
    threads: int,
    on_progress: Callable[[float], None],
) -> tuple[list[BlockId], dict[str, float]]:
    """The blocks in the order of loading, and the divergence expected up to some of them."""
    file = gguf.read(path)
    budget = max(RAM, StackFile.of(file).least_whole_bytes)
    with ExitStack() as open_:
        stack = Stack(file, budget, whole=True, threads=threads)
        open_.callback(stack.close)
        model = stack.load_model()
        open_.callback(model.close)
        context = Context(
            model,
            n_ctx=_MEASURED_TOKENS,
            n_threads=threads,
            batch_tokens=_MEASURED_TOKENS,
            max_outputs=_MEASURED_TOKENS,
            eval_hook=EvalHook(stack),
        )
        open_.callback(context.close)
        texts = sequences(model, text, _MEASURED_TOKENS)
        reference = [log_probabilities(context, tokens) for tokens in texts]

        def diverges(levels: Mapping[str, npt.NDArray[np.int32]]) -> float:
            stack.products.use(stack.file.blocks)
            stack.products.use_at_most(levels)
            pairs = zip(reference, texts, strict=True)
            return fmean(divergence(was, log_probabilities(context, now)) for was, now in pairs)

        shapes = {name: matrix.shape for name, matrix in stack.file.matrices.items()}
        steps = len(shapes) * len(_MEASURED_PLANES) + _CURVE_POINTS
        measured: dict[str, dict[int, float]] = {}
        for name, shape in shapes.items():
            n_chunks = len(shape.chunks())
            measured[name] = {}
            for n in _MEASURED_PLANES:
                measured[name][n] = diverges({name: np.full(n_chunks, n, np.int32)})
            on_progress(len(measured) * len(_MEASURED_PLANES) / steps)
        order = _order(shapes, journal, measured)
        last = len(order) - max(1, len(order) // 50)
        divergences = {len(order): 0.0}
        for done, point in enumerate(np.linspace(0, last, _CURVE_POINTS).astype(int), 1):
            divergences[int(point)] = diverges(_levels(shapes, order[:point]))
            on_progress((steps - _CURVE_POINTS + done) / steps)
    return order, _curve(list(shapes), order, divergences)


def _order(
    shapes: Mapping[str, PlanesShape],
    journal: _Journal,
    divergences: Mapping[str, Mapping[int, float]],
) -> list[BlockId]:
    """All blocks, those first that lessen the divergence most for their bytes.

    ``divergences``: for each matrix, what it is with so many planes of it and all of the others.
    """
    queue: list[tuple[float, str, BlockId]] = []
    gains: dict[BlockId, float] = {}
    for name, shape in shapes.items():
        for number, errors in enumerate(journal.errors[name]):
            blocks = [BlockId(name, number, plane) for plane in range(BASE_PLANES, PLANES)]
            n_bytes = _layout.block_entry(blocks[0], shape).n_bytes
            less = _lessened(errors, journal.errors[name].sum(axis=0), divergences[name])
            gains |= dict(zip(blocks, _falling(less / n_bytes), strict=True))
            heapq.heappush(queue, (-gains[blocks[0]], blocks[0].name, blocks[0]))
    order = []
    while queue:
        _, _, block = heapq.heappop(queue)
        order.append(block)
        following = BlockId(block.matrix, block.chunk, block.plane + 1)
        if following in gains:
            heapq.heappush(queue, (-gains[following], following.name, following))
    return order


def _lessened(
    errors: npt.NDArray[np.float64],
    of_matrix: npt.NDArray[np.float64],
    divergences: Mapping[int, float],
) -> npt.NDArray[np.float64]:
    """By how much each plane from BASE_PLANES on of a chunk lessens the divergence.

    It grows with the square of small errors: so planes below and between those numbers of planes
    for which it was measured are worth what they take away of the error. The chunks of a matrix
    share it as they do the error.
    """
    tiny = 1e-30
    falls = np.maximum(of_matrix[:-1] - of_matrix[1:], 0.0) + tiny
    measured = [*sorted(divergences), PLANES]
    worth = falls * divergences[measured[0]] / falls[measured[0] :].sum()
    for low, high in pairwise(measured):
        less = max(divergences[low] - divergences.get(high, 0.0), 0.0)
        worth[low:high] = falls[low:high] * less / falls[low:high].sum()
    share = errors[:-1] / np.maximum(of_matrix[:-1], tiny)
    return np.asarray((share * worth)[BASE_PLANES:])


def _falling(gains: npt.NDArray[np.float64]) -> list[float]:
    """Gains of which none is larger than the one before: where one would be, both count as their
    mean, since the later one cannot be had without the earlier."""
    groups: list[tuple[float, int]] = []
    for gain in gains:
        groups.append((float(gain), 1))
        while len(groups) > 1 and groups[-1][0] > groups[-2][0]:
            (last, n_last), (before, n_before) = groups.pop(), groups.pop()
            n = n_last + n_before
            groups.append(((last * n_last + before * n_before) / n, n))
    return [gain for gain, n in groups for _ in range(n)]


def _levels(
    shapes: Mapping[str, PlanesShape], blocks: list[BlockId]
) -> dict[str, npt.NDArray[np.int32]]:
    """Planes of each chunk once these blocks are loaded."""
    levels = {n: np.full(len(s.chunks()), BASE_PLANES, np.int32) for n, s in shapes.items()}
    for block in blocks:
        levels[block.matrix][block.chunk] = block.plane + 1
    return levels


def _curve(
    names: list[str], order: list[BlockId], divergences: Mapping[int, float]
) -> dict[str, float]:
    """The divergence after each block, in between the measured ones on a line in the logarithm."""
    points = sorted(divergences)
    logs = np.log([max(divergences[point], 1e-5) for point in points])
    every = np.exp(np.interp(np.arange(len(order) + 1), points, logs))
    return {
        **dict.fromkeys(names, float(every[0])),
        **{block.name: float(kl) for block, kl in zip(order, every[1:], strict=True)},
    }


# ---------------------------------------------------------------------------- writing


def _reorder(
    parts: Path,
    target: Path,
    ordered: _Plan,
    journal: _Journal,
    divergences: Mapping[str, float],
    on_progress: Callable[[float], None],
) -> None:
    """Write ``parts`` anew with the blocks in the order of ``ordered``."""
    entries = ordered.entries()
    offsets = {tensor.name: tensor.offset for tensor in gguf.read(parts).tensors.values()}
    writer = _Writer(target, ordered)
    try:
        with parts.open("rb") as source:
            for number, entry in enumerate(entries, 1):
                source.seek(offsets[entry.name])
                data = np.frombuffer(source.read(entry.n_bytes), np.uint8)
                writer.put(entry.name, 0, data)
                on_progress(number / len(entries))
        writer.finish(journal.checksums, divergences)
    finally:
        writer.close()
