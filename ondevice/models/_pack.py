"""Makes a stack of a model on disk, in a process of its own at low priority."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from ondevice.errors import ModelError, PackCancelled
from ondevice.models import _child as apart
from ondevice.models import _library, _own_folder
from ondevice.models._records import InstalledModel, PackNews, PackRequest
from ondevice.text import reason

_MODULE = "ondevice.models._pack_child"


def stack_name(name: str) -> str:
    """What the stack of the model of this name is called."""
    return f"{_own_folder.name_for(Path(name))}-stack"


def pack(
    model: str | InstalledModel,
    on_progress: Callable[[PackNews], None] = lambda _: None,
    cancel: threading.Event | None = None,
    calibration: str | None = None,
) -> InstalledModel:
    """Make a stack of a model, or of the one that a name means; it is ours, called …-stack.

    ``calibration`` is a text like those that it will see. When stopped, the same call goes on.

    Raises as :func:`find`; :class:`DiskSpaceError`,
    :class:`PackCancelled` when ``cancel`` is set; :class:`UsageError` and :class:`ModelFileError`
    for what cannot be packed, and :class:`ModelError` if the process fails.
    """
    source = _library.find_file(model) if isinstance(model, str) else _library.whole(model)
    cancel = cancel or threading.Event()
    request = PackRequest(stack_name(source.name), str(source.path), source.origin, calibration)
    log = apart.log_of(_MODULE)
    try:
        code = apart.run(_MODULE, request, PackNews, on_progress, cancel.is_set)
    except OSError as error:
        raise ModelError(
            f"{log} cannot be written: {reason(error)}. Check its folder, the space on that disk, "
            "and ONDEVICE_HOME if you have set it."
        ) from error
    if cancel.is_set():
        raise PackCancelled
    if code:
        raise ModelError(
            f"The process that packs {source.name} ended unexpectedly ({code}). Try "
            f"again; packing resumes where it stopped. {log} may say why."
        )
    return _library.called(request.name)
