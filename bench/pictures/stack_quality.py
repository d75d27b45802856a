"""Draws docs/measurements/stack-quality.svg: a stack of each size, and single files.

Usage::

    python bench/stack.py > figures.json
    python bench/pictures/stack_quality.py figures.json MODEL
"""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path

WIDTH, HEIGHT, MARGIN = 640, 400, 60
Point = tuple[float, float]  # MB, divergence


def curve_of(run: dict[str, float]) -> list[Point]:
    """The stack."""
    return sorted((float(name[6:-2]), kl) for name, kl in run.items() if name.startswith("curve_"))


def files_of(run: dict[str, float]) -> list[tuple[str, Point]]:
    """Single files: K-quants with and without importance matrix."""
    names = [name[:-3] for name in run if re.match(r"Q\d_K.*_mb$", name)]
    return [(name, (run[f"{name}_mb"], run[f"{name}_kl"])) for name in names]


def draw(title: str, curve: list[Point], files: list[tuple[str, Point]]) -> str:
    points = curve + [point for _, point in files]
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    logs = [math.log10(max(kl, 1e-4)) for _, kl in points]
    low, high = math.floor(min(logs)), math.ceil(max(logs))

    def at(point: Point) -> str:
        x = MARGIN + (point[0] - first) / (last - first) * (WIDTH - 2 * MARGIN)
        log = math.log10(max(point[1], 1e-4))
        y = MARGIN + (high - log) / (high - low) * (HEIGHT - 2 * MARGIN)
        return f"{x:.1f},{y:.1f}"

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{MARGIN}" y="28" font-size="15">{title}</text>',
        f'<text x="{MARGIN}" y="46">Divergence from the F16 source, by MB of weights: '
        "the stack, and single files</text>",
    ]
    for tick in range(low, high + 1):
        left, y = at((first, 10.0**tick)).split(",")
        lines.append(f'<path d="M{left} {y}H{WIDTH - MARGIN}" stroke="#ddd"/>')
        lines.append(f'<text x="{MARGIN - 8}" y="{y}" text-anchor="end">{10.0**tick:g}</text>')
    for number in range(6):
        size = first + (last - first) * number / 5
        x = at((size, 1.0)).split(",")[0]
        label = f"{size:.0f} MB"
        lines.append(
            f'<text x="{x}" y="{HEIGHT - MARGIN + 20}" text-anchor="middle">{label}</text>'
        )
    lines.append(
        f'<polyline points="{" ".join(map(at, curve))}" fill="none" stroke="#2a6fb0" '
        'stroke-width="2"/>'
    )
    for name, point in files:
        x, y = at(point).split(",")
        calibrated = name.endswith("_imatrix")
        fill = "none" if calibrated else "#c05020"
        lines.append(f'<circle cx="{x}" cy="{y}" r="4" fill="{fill}" stroke="#c05020"/>')
        if not calibrated:
            lines.append(f'<text x="{float(x) + 8:.1f}" y="{y}">{name}</text>')
    lines.append(
        f'<text x="{WIDTH - MARGIN}" y="{HEIGHT - 12}" text-anchor="end">'
        "hollow: with importance matrix</text>"
    )
    return "\n".join([*lines, "</svg>\n"])


def main(figures: str, model: str) -> None:
    runs = json.loads(Path(figures).read_text("utf-8"))["runs"]
    run = next(run for run in runs if run["model"] == model)
    target = Path(__file__).parents[2] / "docs" / "measurements" / "stack-quality.svg"
    target.write_text(draw(f"One stack: {model}", curve_of(run), files_of(run)), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
