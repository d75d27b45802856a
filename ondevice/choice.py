"""Chooses what the user has not: which of the models on disk answers, and which drafts for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from ondevice import fit, models
from ondevice.config import AUTO, FIRST, Settings
from ondevice.engine.messages import Load
from ondevice.errors import MemoryShortError, ModelFileError, ModelNotFound
from ondevice.models import InstalledModel
from ondevice.ram import planner, speeds
from ondevice.ram.available import AvailableRam
from ondevice.ram.instead import instead
from ondevice.ram.planner import Plan
from ondevice.weights import gguf
from ondevice.weights.gguf import GGUFFile
from ondevice.weights.vocabulary import share_vocabulary

_SMALLER = 2  # times: a drafter that is not that much smaller than its model costs too much


@dataclass(frozen=True, slots=True)
class Choice:
    """What to load."""

    model: InstalledModel
    request: Load
    why: str = ""  # a plain sentence; empty if there was nothing to choose


def choose(settings: Settings, name: str | None = None) -> Choice:
    """The model that ``name`` or the settings mean, or the best one on disk for this machine.

    Raises :class:`ModelNotFound`, :class:`ModelFileError`, and :class:`MemoryShortError` if there
    are models on disk and none of them fits.
    """
    ram = fit.usable_ram(settings)
    name = name or settings.model
    why = ""
    if name == AUTO:
        model, why = _best(settings, ram)
    else:
        model = models.find(name)
    request = settings.load_request(model)
    if model.place != "server" and settings.draft is None:
        drafter = _drafter(model, settings, ram)
        request = replace(request, drafter=str(drafter) if drafter else None)
    return Choice(model, request, why)


def _best(settings: Settings, ram: AvailableRam) -> tuple[InstalledModel, str]:
    there = [model for model in models.installed() if not model.missing]
    if not there:
        return models.find(FIRST), ""  # which says how to get it
    if len(there) == 1:
        return _first_that_may_chat(there), ""
    plans: dict[Path, Plan] = {}
    least: dict[int, GGUFFile] = {}
    for model in there:
        try:
            file = gguf.read(model.path)
        except ModelFileError:
            continue  # ``ondevice fit`` says why
        if file.chat_template is None:
            continue
        least[planner.least_ram(file, settings.ctx, settings.kv_type)] = file
        with suppress(MemoryShortError):
            plans[model.path] = _plan(file, settings, ram)
    if not plans:
        if least:
            _plan(least[min(least)], settings, ram)  # which says what is missing
        return _first_that_may_chat(there), ""
    chosen = planner.best(list(plans.values()), settings.prefer)
    model = next(m for m in there if plans.get(m.path) is chosen)
    return model, (
        f"Of the {len(plans)} models on disk that run here, {model.name} is the best for its "
        f"{chosen.tokens_per_second:.0f} tokens a second"
        f"{', read from the disk in part' if chosen.streamed_bytes else ''}."
    )


def _first_that_may_chat(there: list[InstalledModel]) -> InstalledModel:
    """Raises :class:`ModelNotFound` if none is made for it."""
    for model in there:
        try:
            if gguf.read(model.path).chat_template is not None:
                return model
        except ModelFileError:
            return model  # the engine says why
    raise ModelNotFound(
        f"No model on disk is made to chat: {there[0].name} has no chat template and may go on "
        f"with your text in place of an answer. Name it with -m {there[0].name} to use it all the "
        f"same, or fetch another with 'ondevice models pull {FIRST}'."
    )


def _drafter(model: InstalledModel, settings: Settings, ram: AvailableRam) -> Path | None:
    """What makes a model that is larger than RAM faster, for all the RAM that it takes itself."""
    try:
        target = gguf.read(model.path)
        alone = _plan(target, settings, ram)
    except (ModelFileError, MemoryShortError):
        return None  # the engine says why
    if alone.kind != "window":
        return None
    drafted = [(_plan(target, settings, ram, drafter), drafter) for drafter in drafters_for(target)]
    best = max([(alone, target), *drafted], key=lambda each: each[0].worth(settings.prefer))
    return best[0].drafter.path if best[0].drafter else None


def drafters_for(target: GGUFFile) -> Iterator[GGUFFile]:
    """The models on disk that could draft for this one."""
    for model in models.installed():
        if model.missing or model.size_bytes * _SMALLER > target.file_bytes:
            continue
        try:
            file = gguf.read(model.path)
        except ModelFileError:
            continue
        if not planner.is_stack(file) and share_vocabulary(file, target):
            yield file


def _plan(
    file: GGUFFile, settings: Settings, ram: AvailableRam, drafter: GGUFFile | None = None
) -> Plan:
    return planner.plan(
        file,
        ram,
        speeds.known(),
        n_ctx=settings.ctx,
        kv_type=settings.kv_type,
        drafter=drafter,
        preference=settings.prefer,
        instead=partial(instead, ram),
    )
