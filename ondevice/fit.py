"""Which models run on this machine, how well and how fast."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import msgspec
from msgspec.structs import replace

from ondevice.config import Settings
from ondevice.errors import MemoryShortError, ModelFileError
from ondevice.models import InstalledModel, Recipe
from ondevice.ram import available, planner
from ondevice.ram.available import AvailableRam, parse_size
from ondevice.ram.instead import BESIDE_WEIGHTS, instead
from ondevice.ram.planner import Plan
from ondevice.ram.speeds import Speeds
from ondevice.weights import runnable
from ondevice.weights.gguf import GGUFFile

_READING = 8.0  # tokens a second


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """How one model runs here."""

    name: str
    on_disk: bool
    size_bytes: int
    how: str  # "in RAM", "streamed", or why it does not run
    peak_bytes: int = 0
    streamed_bytes: int = 0  # of its weights, not in RAM
    tokens_per_second: float = 0.0  # of what is not on disk, a rough estimate; 0: it does not run
    quality: float = 0.0  # of 1: what is left of the unquantized model's
    effective_params: float = 0.0  # of a dense, unquantized model that is about as good


def usable_ram(settings: Settings) -> AvailableRam:
    """What there is now, within the limit of the settings."""
    return available.look(parse_size(settings.ram) if settings.ram else None)


def plan_of(path: Path, settings: Settings, ram: AvailableRam, speeds: Speeds) -> Plan:
    """How the model in this file would be run. Raises what reading it and the planner raise."""
    drafter = settings.drafter()
    small = runnable.read(drafter) if drafter else None
    return plan_file(runnable.read(path), settings, ram, speeds, small)


def plan_file(
    file: GGUFFile,
    settings: Settings,
    ram: AvailableRam,
    speeds: Speeds,
    drafter: GGUFFile | None = None,
) -> Plan:
    """As :func:`plan_of`, for a file that was read; ``drafter`` may be used."""
    with runnable.blamed(file.path):
        return planner.plan(
            file,
            ram,
            speeds,
            n_ctx=settings.ctx,
            kv_type=settings.kv_type,
            drafter=drafter,
            preference=settings.prefer,
            instead=partial(instead, ram),
        )


def recommended(fits: Iterable[Fit]) -> Fit | None:
    """The best of those that are all in RAM and write about as fast as one reads."""
    good = [f for f in fits if not f.streamed_bytes and f.tokens_per_second >= _READING]
    return max(good, key=lambda f: f.effective_params, default=None)


def of_installed(
    model: InstalledModel, settings: Settings, ram: AvailableRam, speeds: Speeds
) -> Fit:
    """How a model on disk runs."""
    fit = Fit(name=model.name, on_disk=True, size_bytes=model.size_bytes, how="")
    if model.missing:
        return replace(fit, how=model.lacks)
    try:
        chosen = plan_of(model.path, settings, ram, speeds)
    except (ModelFileError, MemoryShortError) as error:
        return replace(fit, how=str(error))
    return replace(
        fit,
        how=_how(chosen.streamed_bytes, chosen.peak_bytes),
        peak_bytes=chosen.peak_bytes,
        streamed_bytes=chosen.streamed_bytes,
        tokens_per_second=chosen.tokens_per_second,
        quality=chosen.quality,
        effective_params=chosen.effective_params,
    )


def of_recipe(recipe: Recipe, ram: AvailableRam, speeds: Speeds) -> Fit:
    """From what the catalogue says; the file itself will tell more exactly."""
    total, active = _params(recipe.parameters)
    peak = recipe.size_bytes + BESIDE_WEIGHTS
    streamed = max(0, peak - ram.usable)
    reading = planner.streaming_seconds(streamed * (active / total), 0, speeds)
    computing = planner.usual_decode_seconds(
        active, recipe.quantization.removesuffix("_M").removesuffix("_S"), speeds
    )
    quality = planner.quality_of(recipe.size_bytes, total)
    return Fit(
        name=recipe.name,
        on_disk=False,
        size_bytes=recipe.size_bytes,
        how=_how(streamed, min(peak, ram.usable)),
        peak_bytes=min(peak, ram.usable),
        streamed_bytes=streamed,
        tokens_per_second=1 / max(computing, reading),
        quality=quality,
        effective_params=(total * active) ** 0.5 * quality,
    )


def _how(streamed_bytes: int, peak_bytes: int) -> str:
    if streamed_bytes:
        return f"{_size(streamed_bytes)} of it streamed from the disk"
    return f"{_size(peak_bytes)}, all in RAM"


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.0f} MB"


def _params(text: str) -> tuple[float, float]:
    """Of "30B-A3B": 30e9 parameters, of which each token uses 3e9."""
    total, active = re.fullmatch(r"([\d.]+[BM])(?:-A([\d.]+[BM]))?", text).groups()  # type: ignore[union-attr]
    return _number(total), _number(active or total)


def _number(text: str) -> float:
    return float(text[:-1]) * {"M": 1e6, "B": 1e9}[text[-1]]
