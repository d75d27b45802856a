"""Chooses what the user has not: which of the models on disk answers, and which drafts for it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from ondevice import models
from ondevice.config import AUTO, FIRST, Settings
from ondevice.errors import MemoryShortError, ModelFileError, ModelNotFound
from ondevice.gguf import GGUFFile, runnable
from ondevice.gguf.vocabulary import share_vocabulary
from ondevice.holding.machine import Machine
from ondevice.holding.plan import Plan
from ondevice.messages import Load
from ondevice.models import InstalledModel
from ondevice.planning import fit, planner
from ondevice.planning.request import load_request

_SMALLER = 2  # times: a drafter that is not that much smaller than its model costs too much


@dataclass(frozen=True, slots=True)
class Choice:
    """What to load."""

    model: InstalledModel
    request: Load
    why: str = ""  # a plain sentence; empty if there was nothing to choose


def choose(settings: Settings, name: str | None = None, engine: int | None = None) -> Choice:
    """The model that ``name`` or the settings mean, or the best one on disk for this machine.

    ``engine`` is the id of the engine's process whose model is to make way for it.

    Raises :class:`ModelNotFound`, :class:`ModelFileError`, and :class:`MemoryShortError` if there
    are models on disk and none of them fits.
    """
    machine = Machine.now(settings.ram_limit, engine)
    name = settings.model if name is None else name
    why = ""
    if name == AUTO:
        model, why = _best(settings, machine)
    else:
        model = models.find(name, settings.folders)
    if "adapter" in model.not_used:
        why = f"{why} {model.place} adds an adapter to {model.name}, which is not applied.".strip()
    request = load_request(settings, model)
    if model.place != "server" and settings.draft is None:
        request = replace(request, drafter=_drafter(request, machine))
    return Choice(model, request, why)


def _best(settings: Settings, machine: Machine) -> tuple[InstalledModel, str]:
    there = [model for model in models.installed(settings.folders) if not model.missing]
    if not there:
        return models.find(FIRST), ""  # which says how to get it
    if len(there) == 1:
        if runnable.read(there[0].path).is_base:
            raise _none_chats(there[0])
        return there[0], ""
    plans: dict[Path, Plan] = {}
    least: dict[int, tuple[GGUFFile, Load]] = {}
    refused: dict[Path, ModelFileError] = {}  # ``ondevice fit`` tells of them
    for model in there:
        try:
            file = runnable.read(model.path)
            if file.is_base:
                continue
            load = load_request(settings, model)
            with runnable.blamed(model.path):
                needed = planner.least_ram(file, settings.ctx, settings.kv_type, settings.prefer)
                least[needed] = file, load
            with suppress(MemoryShortError):
                plans[model.path] = fit.plan_of(file, load, machine)
        except ModelFileError as error:
            refused[model.path] = error
    if len(refused) == len(there):
        raise refused[there[0].path]
    if not plans:
        if least:
            fit.plan_of(*least[min(least)], machine)  # which says what is missing
        raise _none_chats(next(model for model in there if model.path not in refused))
    chosen = planner.best(list(plans.values()), settings.prefer)
    model = next(m for m in there if plans.get(m.path) is chosen)
    return model, (
        f"Of the {len(plans)} models on disk that run here, {model.name} is the best for its "
        f"{chosen.tokens_per_second:.0f} tokens a second"
        f"{', read from the disk in part' if chosen.streamed_bytes else ''}."
    )


def _none_chats(model: InstalledModel) -> ModelNotFound:
    has_template = runnable.read(model.path).chat_template is not None
    what = "is a base model" if has_template else "has no chat template"
    return ModelNotFound(
        f"No model on disk is made to chat: {model.name} {what} and may go on with "
        f"your text in place of an answer. Name it with -m {model.name} to use it all the same, or "
        f"download another with 'ondevice models pull {FIRST}'."
    )


def _drafter(load: Load, machine: Machine) -> str | None:
    """What makes a model that is larger than RAM faster, for all the RAM that it takes itself."""
    try:
        target = runnable.read(Path(load.path))
        alone = fit.plan_of(target, load, machine)
    except (ModelFileError, MemoryShortError):
        return None  # the engine says why
    if not alone.streamed_bytes or alone.way.drafts_itself:
        return None
    plans = [alone]
    machine = machine.reading(target)
    for drafter in drafters_for(target):
        with suppress(ModelFileError), runnable.blamed(target.path):
            drafted = planner.best_plan(target, load, machine, drafter)
            plans.append(fit.with_shown_speed(drafted, load))
    chosen = planner.best(plans, load.prefer)
    return str(chosen.drafter.file.path) if chosen.drafter else None


def drafters_for(target: GGUFFile) -> Iterator[GGUFFile]:
    """The models on disk that could draft for this one."""
    for model in models.installed():
        if model.missing:
            continue
        try:
            file = runnable.read(model.path)
            with runnable.blamed(model.path):
                is_smaller = file.n_params * _SMALLER <= target.n_params
                fits = is_smaller and share_vocabulary(file, target)
        except ModelFileError:
            continue
        if fits:
            yield file
