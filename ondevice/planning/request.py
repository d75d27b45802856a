"""What the engine is asked for, made of the user's settings."""

from __future__ import annotations

from ondevice import models
from ondevice.config import Settings
from ondevice.messages import Load
from ondevice.models import InstalledModel
from ondevice.planning import kv_before


def load_request(settings: Settings, model: InstalledModel) -> Load:
    """What the engine is asked to load.

    Raises :class:`ModelNotFound` for a ``draft`` that is not on disk.
    """
    named = None if settings.draft in (None, "none") else settings.draft
    return Load(
        path=model.location,
        n_ctx=settings.ctx,
        kv_type=settings.kv_type,
        kv_type_before=kv_before.of(model.location),
        prefer=settings.prefer,
        n_threads=settings.threads,
        ram=settings.ram_limit,
        drafter=str(models.find(named).path) if named else None,
        predicts=settings.draft is None,
    )
