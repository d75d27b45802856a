"""Which models run on this machine, how well and how fast."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from datetime import datetime
from typing import Literal

import msgspec
from msgspec.structs import replace

from ondevice import models
from ondevice.config import Settings
from ondevice.errors import MemoryShortError, ModelFileError
from ondevice.gguf import GGUFFile, runnable
from ondevice.gguf.quality import effective_params, quality_of
from ondevice.holding.costs import streaming_seconds, usual_decode_seconds
from ondevice.holding.machine import Machine
from ondevice.holding.plan import READING, Plan
from ondevice.holding.speeds import USUAL, Speeds
from ondevice.messages import Load
from ondevice.models import InstalledModel, Recipe
from ondevice.planning import planner, replies
from ondevice.planning.request import load_request
from ondevice.planning.suggestion import BESIDE_WEIGHTS
from ondevice.text import size

#: Where a speed is from: replies of this model, the measured speeds of this machine (on a "busy"
#: one: for a while), or a guess.
SpeedFrom = Literal["replies", "machine", "busy", "estimate"]


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """How one model runs here."""

    name: str
    on_disk: bool
    size_bytes: int
    how: str  # "in RAM", "streamed", or why it does not run
    peak_bytes: int = 0
    streamed_bytes: int = 0  # of its weights, not in RAM
    tokens_per_second: float = 0.0  # of what is not on disk, a rough estimate; 0: it does not run
    #: The quality: parameters of a dense, unquantized model that is about as good.
    effective_params: float = 0.0
    quantization_loss: float = 0.0  # of 1, in that: what quantizing the model has cost
    speed_from: SpeedFrom = "estimate"
    speed_at: float = 0.0  # seconds since 1970: when that was measured
    is_base: bool = False  # goes on with a text, and was not made to chat


def plan_of(file: GGUFFile, load: Load, machine: Machine) -> Plan:
    """As :func:`planner.plan`, with the speed that the model has shown here if it has."""
    return with_shown_speed(planner.plan(file, load, machine), load)


def with_shown_speed(chosen: Plan, load: Load) -> Plan:
    """The plan with the speed of replies that were written so, if there were any."""
    seen = replies.of(_held(chosen, load))
    return dataclasses.replace(chosen, tokens_per_second=seen.per_second) if seen else chosen


def speed_of(chosen: Plan, load: Load, speeds: Speeds) -> tuple[SpeedFrom, float]:
    """Where the speed of this plan is from, and when that was measured (seconds since 1970)."""
    if seen := replies.of(_held(chosen, load)):
        return "replies", seen.at
    if speeds is USUAL:
        return "estimate", 0.0
    return ("busy" if speeds.busy else "machine"), speeds.measured_at


def _held(chosen: Plan, load: Load) -> replies.Held:
    return replies.Held.of(
        chosen.file.path,
        load.n_threads,
        chosen.drafter.file.path if chosen.drafter else None,
        resident=chosen.resident_bytes,
        streamed=chosen.streamed_bytes,
        left_out=chosen.left_out_bytes,
    )


def speed_figure(fit: Fit) -> str:
    """In tokens a second, with a ``~`` if it is estimated; empty if it does not run."""
    figure = fit.tokens_per_second
    if not figure:
        return ""
    about = "" if fit.speed_from == "replies" else "~"
    digits = f"{figure:.1g}" if figure < 1 else f"{figure:.{1 if figure < 10 else 0}f}"
    return f"{about}{digits} tok/s"


def speed_words(source: SpeedFrom, at: float) -> str:
    """How far a speed is to be trusted, in words that follow it."""
    match source:
        case "replies":
            return f"measured in replies {_when(at)}"
        case "machine":
            return f"estimated from this machine's speed, measured {_when(at)}"
        case "busy":
            return "estimated on a busy machine, and measured again later"
        case "estimate":
            return "estimated"


def _when(at: float) -> str:
    if not at:
        return "earlier"
    then, now = datetime.fromtimestamp(at), datetime.now()  # noqa: DTZ005, DTZ006 - local
    if then.date() == now.date():
        return "today"
    year = "" if then.year == now.year else f" {then.year}"
    return f"on {then.day} {then:%b}{year}"


def loss_words(loss: float) -> str:
    """What quantization costs, of 1."""
    return f"{loss:.0%}" if loss >= 0.005 else "nothing"


def recommended(fits: Iterable[Fit]) -> Fit | None:
    """The best of those that chat, are all in RAM and write about as fast as one reads."""
    good = [
        f for f in fits if not f.is_base and not f.streamed_bytes and f.tokens_per_second >= READING
    ]
    return max(good, key=lambda f: f.effective_params, default=None)


def of_installed(model: InstalledModel, settings: Settings, machine: Machine) -> Fit:
    """How a model on disk runs."""
    fit = Fit(name=model.name, on_disk=True, size_bytes=model.size_bytes, how="")
    if model.missing:
        return replace(fit, how=model.lacks)
    try:
        load = load_request(settings, model)
        chosen = plan_of(runnable.read(model.path), load, machine)
        source, at = speed_of(chosen, load, machine.speeds)
    except (ModelFileError, MemoryShortError) as error:
        return replace(fit, how=str(error))
    return replace(
        fit,
        how=_how(chosen.streamed_bytes, chosen.peak_bytes),
        peak_bytes=chosen.peak_bytes,
        streamed_bytes=chosen.streamed_bytes,
        tokens_per_second=chosen.tokens_per_second,
        effective_params=chosen.effective_params,
        quantization_loss=1 - chosen.quality,
        speed_from=source,
        speed_at=at,
        is_base=chosen.file.is_base,
    )


def of_recipe(recipe: Recipe, machine: Machine) -> Fit:
    """From what the catalogue says; the file itself will tell more exactly."""
    total, active = models.params_of(recipe)
    ram, speeds = machine.ram, machine.speeds
    peak = recipe.size_bytes + BESIDE_WEIGHTS
    streamed = max(0, peak - ram.usable)
    reading = streaming_seconds(streamed * (active / total), 0, speeds)
    computing = usual_decode_seconds(
        active, recipe.quantization.removesuffix("_M").removesuffix("_S"), speeds
    )
    left = quality_of(recipe.size_bytes, total, recipe.quantization)
    return Fit(
        name=recipe.name,
        on_disk=False,
        size_bytes=recipe.size_bytes,
        how=_how(streamed, min(peak, ram.usable)),
        peak_bytes=min(peak, ram.usable),
        streamed_bytes=streamed,
        tokens_per_second=1 / max(computing, reading),
        effective_params=effective_params(total, active, left),
        quantization_loss=1 - left,
    )


def _how(streamed_bytes: int, peak_bytes: int) -> str:
    if streamed_bytes:
        return f"{size(streamed_bytes)} of it streamed from the disk"
    return f"{size(peak_bytes)}, all in RAM"
