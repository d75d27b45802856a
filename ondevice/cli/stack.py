"""``ondevice stack``: look at a stack, the quality that each size of it has."""

from __future__ import annotations

import math
from html import escape
from itertools import pairwise
from pathlib import Path

import click
import numpy as np

from ondevice import gguf
from ondevice.cli._json import print_json
from ondevice.cli._options import FilePath, complete_model, model_file
from ondevice.engine import running
from ondevice.errors import FileError
from ondevice.holding.stack import StackFile
from ondevice.text import printable, size

_ROWS, _COLUMNS = 12, 60  # of the curve in the terminal
_TABLE = 8  # rows of the table below it


@click.group(name="stack")
def command() -> None:
    """See what is in a stack."""


@command.command(name="show")
@click.argument("stack", metavar="NAME|FILE", shell_complete=complete_model)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--svg", type=FilePath(), help="Write the curve to this file.")
def show(stack: str, as_json: bool, svg: Path | None) -> None:
    """Show how good a stack is at each size, and how much is in RAM.

    The divergence says how far the answers are from those of the whole stack, as measured when it
    was packed: 0.01 is hardly noticeable, 1 is a different model. The perplexity is measured on the
    calibration text.
    """
    file = model_file(stack)
    read = gguf.read(file)
    if not read.is_stack:
        raise FileError(f"{stack} is not a stack. Create one with: ondevice pack {stack}")
    found = StackFile.of(read)
    sizes = [found.base_end, *(block.end for block in found.blocks)]
    qualities = [found.base_quality, *(block.quality for block in found.blocks)]
    curve = [quality.kl for quality in qualities]
    largest = max((b - a for a, b in pairwise(sizes)), default=0)
    loaded = [r for r in running() if Path(r.path) == read.path.resolve()]
    if svg is not None:
        svg.write_text(_svg(sizes, curve, read.name), "utf-8")
    if as_json:
        names = ["base", *(block.tensor.name for block in found.blocks)]
        steps = [
            {
                "name": name,
                "bytes": n_bytes,
                "kl": _rounded(quality.kl),
                "perplexity": _rounded(quality.perplexity),
            }
            for name, n_bytes, quality in zip(names, sizes, qualities, strict=True)
        ]
        now = [
            {"pid": r.pid, "bytes": r.sizing.resident_bytes, "blocks": r.sizing.n_blocks}
            for r in loaded
        ]
        told = {"path": str(file), "largest_step": largest, "steps": steps, "loaded": now}
        print_json(told)
        return
    click.echo(
        f"{printable(read.name)}: {size(sizes[0])} to {size(sizes[-1])}, "
        f"{len(found.blocks)} steps of at most {size(largest)}"
    )
    for line in _drawn(sizes, curve):
        click.echo(line)
    click.echo("\n    size  divergence  perplexity")
    for number in np.linspace(0, len(found.blocks), _TABLE).astype(int):
        kl, perplexity = qualities[number]
        click.echo(f"{size(sizes[number]):>8}  {kl:10.3g}  {perplexity:10.4g}")
    for engine in loaded:
        blocks = engine.sizing.n_blocks
        click.echo(
            f"\nProcess {engine.pid} has {size(engine.sizing.resident_bytes)} of it in "
            f"RAM and computes with {blocks} of the {len(found.blocks)} steps: divergence "
            f"{curve[blocks]:.3g}."
        )
    if not loaded:
        click.echo("\nNo engine has it in RAM now.")


def _rounded(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 6)


def _points(sizes: list[int], curve: list[float]) -> tuple[list[float], list[float]]:
    """Megabytes and the logarithm of the divergence, without the last step, where it is zero."""
    known = [
        (n_bytes / 1e6, math.log10(kl))
        for n_bytes, kl in zip(sizes, curve, strict=True)
        if not math.isnan(kl) and kl > 1e-5
    ]
    return [x for x, _ in known], [y for _, y in known]


def _drawn(sizes: list[int], curve: list[float]) -> list[str]:
    """The curve in characters, a row for each step of the logarithm."""
    megabytes, logs = _points(sizes, curve)
    if len(megabytes) < 2 or max(logs) == min(logs):
        return ["Its divergence was not measured when it was packed."]
    at = np.linspace(megabytes[0], megabytes[-1], _COLUMNS)
    heights = np.interp(at, megabytes, logs)
    low, high = min(logs), max(logs)
    rows = np.round((high - heights) / (high - low) * (_ROWS - 1)).astype(int)
    lines = ["divergence"]
    for row in range(_ROWS):
        value = 10 ** (high - (high - low) * row / (_ROWS - 1))
        lines.append(f"{value:10.3g} │" + "".join("●" if r == row else " " for r in rows).rstrip())
    lines.append(" " * 11 + "└" + "─" * _COLUMNS)
    left, right = size(megabytes[0] * 1e6), size(megabytes[-1] * 1e6)
    lines.append(" " * 12 + left + right.rjust(_COLUMNS - len(left)))
    return lines


def _svg(sizes: list[int], curve: list[float], title: str) -> str:
    """The curve as a picture."""
    width, height, margin = 640, 400, 60
    megabytes, logs = _points(sizes, curve)
    if len(megabytes) < 2 or max(logs) == min(logs):
        raise FileError("The divergence of this stack was not measured when it was packed.")
    low, high = math.floor(min(logs)), math.ceil(max(logs))
    first, last = megabytes[0], megabytes[-1]

    def x(megabyte: float) -> float:
        return margin + (megabyte - first) / (last - first) * (width - 2 * margin)

    def y(log: float) -> float:
        return margin + (high - log) / (high - low) * (height - 2 * margin)

    line = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in zip(megabytes, logs, strict=True))
    labels = [
        f'<text x="{margin - 8}" y="{y(tick):.1f}" text-anchor="end">{10.0**tick:g}</text>'
        f'<path d="M{margin} {y(tick):.1f}H{width - margin}" stroke="#ddd"/>'
        for tick in range(low, high + 1)
    ] + [
        f'<text x="{x(mb):.1f}" y="{height - margin + 20}" text-anchor="middle">{mb:.0f}</text>'
        for mb in np.linspace(first, last, 6)
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{width}" height="{height}" fill="white"/>',
            f'<text x="{margin}" y="30" font-size="15">{escape(printable(title))}: divergence '
            "from the whole stack, by MB loaded</text>",
            *labels,
            f'<polyline points="{line}" fill="none" stroke="#2a6fb0" stroke-width="2"/>',
            "</svg>\n",
        ]
    )
