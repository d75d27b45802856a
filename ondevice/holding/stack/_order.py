"""The order of loading: first what brings a model nearest to itself for its bytes, as measured."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from statistics import fmean

import numpy as np
import numpy.typing as npt

from ondevice import gguf
from ondevice.holding.stack import _layout
from ondevice.holding.stack._calibrate import (
    divergence,
    log_probabilities,
    not_finite,
    perplexity,
    sequences,
)
from ondevice.holding.stack._file import Matrix, StackFile
from ondevice.holding.stack._layout import BASE_PLANES, PLANES, BlockId, PlanesShape, Quality
from ondevice.holding.stack._writing import Journal
from ondevice.holding.stack.stack import Stack
from ondevice.llama import Context, EvalHook
from ondevice.ram import available

_TOKENS = 64
_CURVE_POINTS = 16  # sizes at which the divergence is measured
_SMALL = 1 / 8  # of the mean size of matrices
_RAM = 450_000_000  # bytes for the weights meanwhile, if it can do with that


def measure(
    path: Path,
    journal: Journal,
    text: str,
    threads: int,
    on_progress: Callable[[float], None],
) -> tuple[list[BlockId], dict[str, Quality]]:
    """The blocks of the stack at ``path`` in the order of loading, and the quality up to each.

    The journal has the errors, and takes down what is measured of each matrix.
    """
    file = gguf.read(path)
    budget = max(_RAM, StackFile.of(file).least_streaming_bytes)
    with ExitStack() as open_:
        # Every pass reads the same: past the page cache only if there is no room in it.
        cached = file.file_bytes < available.look().usable
        # A pass needs nearly all experts, and of how many planes is said of chunks.
        stack = Stack(file, budget, whole=True, cached=cached, by_expert=False, threads=threads)
        open_.callback(stack.close)
        model = stack.load_model()
        open_.callback(model.close)
        context = Context(
            model,
            n_ctx=_TOKENS,
            n_threads=threads,
            batch_tokens=_TOKENS,
            max_outputs=_TOKENS,
            eval_hook=EvalHook(stack),
        )
        open_.callback(context.close)
        tokens = list(chain(*sequences(model, text, _TOKENS)))  # at once: a pass reads everything
        reference = log_probabilities(context, tokens)
        if not np.isfinite(reference).all():
            raise not_finite(file)

        def with_levels(levels: Mapping[str, npt.NDArray[np.int32]]) -> Quality:
            stack.products.use(stack.file.blocks)
            stack.products.use_at_most(levels)
            now = log_probabilities(context, tokens)
            return Quality(divergence(reference, now), perplexity(now, tokens))

        shapes = {name: matrix.shape for name, matrix in stack.file.matrices.items()}
        groups = _measured_together(stack.file.matrices)
        steps = len(groups) + _CURVE_POINTS
        for done, names in enumerate(groups, 1):
            if not journal.divergences.keys() >= set(names):
                # Without any block: what less takes away drowns in the rounding of activations.
                kl = with_levels({name: _base_levels(shapes[name]) for name in names}).kl
                for name in names:
                    journal.add_divergence(name, kl)
            on_progress(done / steps)
        order = _order(shapes, journal.errors, journal.divergences)
        last = len(order) - max(1, len(order) // 50)
        qualities = {len(order): Quality(0.0, perplexity(reference, tokens))}
        for done, point in enumerate(np.linspace(0, last, _CURVE_POINTS).astype(int), 1):
            qualities[int(point)] = with_levels(_levels(shapes, order[:point]))
            on_progress((steps - _CURVE_POINTS + done) / steps)
    return order, _curve(list(shapes), order, qualities)


def _measured_together(matrices: Mapping[str, Matrix]) -> list[list[str]]:
    """The matrices in groups that share a measurement.

    Those are small ones of the same block: a plane too many of them costs next to nothing.
    """
    small = _SMALL * fmean(matrix.shape.n_weights for matrix in matrices.values())
    groups: dict[int | str, list[str]] = {}
    for name, matrix in matrices.items():
        block = matrix.base.block if matrix.shape.n_weights < small else None
        groups.setdefault(name if block is None else block, []).append(name)
    return list(groups.values())


def _order(
    shapes: Mapping[str, PlanesShape],
    errors: Mapping[str, npt.NDArray[np.float64]],
    divergences: Mapping[str, float],
) -> list[BlockId]:
    """All blocks, those first that lessen the divergence most for their bytes.

    ``errors`` and ``divergences`` are a journal's. The divergence grows with the square of the
    error, so each plane of a chunk is worth its part of the error.
    """
    queue: list[tuple[float, str, BlockId]] = []
    gains: dict[BlockId, float] = {}
    for name, shape in shapes.items():
        whole = errors[name][:, BASE_PLANES].sum() - errors[name][:, PLANES].sum()
        for number, of_chunk in enumerate(errors[name]):
            blocks = [BlockId(name, number, plane) for plane in range(BASE_PLANES, PLANES)]
            n_bytes = _layout.block_entry(blocks[0], shape).n_bytes
            falls = np.maximum(-np.diff(of_chunk)[BASE_PLANES:], 0.0)
            less = falls * (divergences[name] / max(whole, 1e-30))
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


def _base_levels(shape: PlanesShape) -> npt.NDArray[np.int32]:
    return np.full(len(shape.chunks()), BASE_PLANES, np.int32)


def _levels(
    shapes: Mapping[str, PlanesShape], blocks: list[BlockId]
) -> dict[str, npt.NDArray[np.int32]]:
    """Planes of each chunk once these blocks are loaded."""
    levels = {name: _base_levels(shape) for name, shape in shapes.items()}
    for block in blocks:
        levels[block.matrix][block.chunk] = block.plane + 1
    return levels


def _curve(
    names: list[str], order: list[BlockId], qualities: Mapping[int, Quality]
) -> dict[str, Quality]:
    """The quality after each block, in between the measured ones on a line in the logarithm.

    More blocks are never expected to be worse, whatever chance made of a short text.
    """
    points = sorted(qualities)
    logs = np.log([np.maximum(qualities[point], 1e-5) for point in points])
    logs = np.maximum.accumulate(logs[::-1])[::-1]
    at = np.arange(len(order) + 1)
    lines = np.exp([np.interp(at, points, of) for of in logs.T]).T
    every = [Quality(float(kl), float(perplexity)) for kl, perplexity in lines]
    return {
        **dict.fromkeys(names, every[0]),
        **{block.name: quality for block, quality in zip(order, every[1:], strict=True)},
    }
