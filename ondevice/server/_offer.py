"""The models that clients may name, and the one that the engine holds of them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ondevice import gguf
from ondevice.config import AUTO, Settings
from ondevice.disk.identity import FileIdentity
from ondevice.engine import Engine
from ondevice.errors import UsageError
from ondevice.messages import Load
from ondevice.models import InstalledModel, find, installed
from ondevice.planning.choice import choose
from ondevice.server._errors import no_model

_State = tuple[FileIdentity | None, ...]  # of each file of a model; None: it is not there


class _LoadedModel(NamedTuple):
    """What the engine has loaded."""

    model: InstalledModel
    files: tuple[Path, ...]
    state: _State
    asked: set[str]  # the names by which it was asked for


class Offer:
    """What is on disk, and the model of the settings if it is somewhere else.

    Raises :class:`UsageError` and :class:`ModelNotFound` for settings that name no such model.
    """

    def __init__(self, engine: Engine, settings: Settings) -> None:
        self._engine = engine
        self._settings = settings
        self._own = None if settings.model == AUTO else find(settings.model)
        if self._own is not None and self._own.place == "server":
            raise UsageError("Models on other servers are not passed on. Name one on this disk.")
        self._held: _LoadedModel | None = None

    def models(self) -> list[InstalledModel]:
        """All that may be named, each name once."""
        there = [model for model in installed() if not model.missing]
        if self._own is not None and all(model.path != self._own.path for model in there):
            there.insert(0, self._own)
        return list({model.name: model for model in reversed(there)}.values())[::-1]

    def called(self, name: str) -> InstalledModel | None:
        """The model of this name; that of the settings may be called as it is called there."""
        if self._own is not None and name in (self._settings.model, self._own.name):
            return self._own
        return next((model for model in self.models() if model.name == name), None)

    def load(self, name: str) -> str:
        """Have the engine hold the model of this name, or that of the settings for an empty one.

        What was chosen for want of a name stays while it is there. Returns the model's name.

        Raises :class:`Refused` for a name that is not offered, and what loading raises.
        """
        name = "" if name == AUTO else name
        loaded, held = self._engine.loaded, self._held
        if loaded is not None and held is not None and held.state == _state(held.files):
            if name in held.asked or (not name and self._own is None):
                return held.model.name
        else:
            held = None
        model = self._own
        if name and (model := self.called(name)) is None:
            raise no_model(name)
        choice = choose(self._settings, str(model.path) if model else None)
        if held is None or held.files[0] != Path(choice.request.path):
            files = _files(choice.request)
            held = _LoadedModel(model or choice.model, files, _state(files), set())
            self._held = None
            self._engine.load(choice.request)
            self._held = held
        held.asked.update((name, held.model.name))
        return held.model.name

    def forget(self) -> None:
        """Load anew for the next request."""
        self._held = None


def _files(request: Load) -> tuple[Path, ...]:
    """The files that are read for it, that which is named first."""
    first = Path(request.path)
    named = (first, Path(request.drafter)) if request.drafter else (first,)
    parts = {file.with_name(part) for file in named for part in gguf.part_names(file.name)}
    return (first, *sorted(parts - {first}))


def _state(files: tuple[Path, ...]) -> _State:
    found: list[FileIdentity | None] = []
    for file in files:
        try:
            found.append(FileIdentity.of(file.stat()))
        except OSError:
            found.append(None)
    return tuple(found)
