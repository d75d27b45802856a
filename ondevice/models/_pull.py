"""Fetches models in a process of its own, so that a download can be ended at once.

The next pull goes on from what is on the disk.
"""

from __future__ import annotations

import re
import threading
from pathlib import Path

from ondevice import gguf
from ondevice.errors import DownloadCancelled, DownloadError, ModelError
from ondevice.models import _child as apart
from ondevice.models import _library, _own_folder
from ondevice.models._catalogue import catalogue
from ondevice.models._import import import_file
from ondevice.models._records import (
    HubSource,
    InstalledModel,
    OnProgress,
    PullProgress,
    PullRequest,
)
from ondevice.text import reason

_MODULE = "ondevice.models._pull_child"
_HUB_FILE = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)/(?P<file>(?:[^/\s]+/)*[^/\s]+\.gguf)", re.ASCII)
#: A repository alone, and maybe which of its files, as Ollama and llama.cpp write it.
_HUB_REPO = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<tag>[\w.-]+))?", re.ASCII)
#: What may stand before either; the pages of files have more in between.
_HUB_URL = re.compile(r"(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|hf://")
_HUB_PAGE = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)/(?:resolve|blob|raw|tree)/[^/]+/?", re.ASCII)


def pull(
    wanted: str,
    on_progress: OnProgress = lambda _: None,
    cancel: threading.Event | None = None,
    name: str | None = None,
) -> InstalledModel:
    """Fetch a model, unless it is on disk, and return it.

    ``wanted`` is a name in the catalogue, or ``owner/repo/file.gguf`` for any file on the Hugging
    Face hub, or its address; of a split model, any part. ``owner/repo:Q4_K_M`` is the file of this
    quantization, ``owner/repo`` that of the usual one. It gets the name ``name``; by default that
    of the catalogue or of the file. What is on disk under another name gets ``name`` without a
    download.

    Raises :class:`ModelNotFound`, :class:`DiskSpaceError`, :class:`ModelFileError`,
    :class:`DownloadError`, :class:`DownloadCancelled` when ``cancel`` is set, and
    :class:`ModelError` if another model has the name.
    """
    request = _request(wanted, name)
    origins = {source.origin for source in request.sources}
    there: list[InstalledModel] = []
    for model in _library.installed():
        ours = model.place == "ondevice" and model.name == request.name
        is_wanted = not origins.isdisjoint(model.origins) or (ours and not model.origin)
        if is_wanted and not model.missing:
            if name is None or model.name == name:
                return model
            there.append(model)
    if there:  # under another name
        known = _own_folder.named(request.name)
        if known and known.origin == str(there[0].path):
            return known
        return import_file(there[0].path, request.name, on_progress=on_progress)
    _fetch(request, on_progress, cancel or threading.Event())
    return _library.called(request.name)


def _request(wanted: str, name: str | None) -> PullRequest:
    recipe = next((recipe for recipe in catalogue() if recipe.name == wanted), None)
    if recipe:
        return PullRequest(
            _own_folder.checked_name(name or recipe.name), recipe.sources, recipe.size_bytes
        )
    place = _on_hub(wanted)
    if found := _HUB_REPO.fullmatch(place):
        source = _file_in(found["repo"], found["tag"] or "")
        return PullRequest(
            _own_folder.checked_name(name or _own_folder.name_for(Path(source.file))), (source,)
        )
    on_hub = _HUB_FILE.fullmatch(place)
    if not on_hub or ".." in place.split("/"):
        raise _library.unknown(wanted, set())
    folder, _, file = on_hub["file"].rpartition("/")
    first = gguf.part_names(file)[0]
    source = HubSource(repo=on_hub["repo"], file=f"{folder}/{first}" if folder else first)
    return PullRequest(
        _own_folder.checked_name(name or _own_folder.name_for(Path(first))), (source,)
    )


def _on_hub(wanted: str) -> str:
    """``owner/repo``, ``owner/repo:tag`` or ``owner/repo/file.gguf``, whatever stands before."""
    place = _HUB_URL.sub("", wanted, count=1) if _HUB_URL.match(wanted) else wanted
    page = _HUB_PAGE.match(place)
    if page:
        place = f"{page['repo']}/{place[page.end() :]}"
    return place.partition("?")[0].rstrip("/")


def _file_in(repo: str, tag: str) -> HubSource:
    """The file of a repository whose quantization is ``tag``; without one, the usual one."""
    from ondevice.models import _hub  # noqa: PLC0415 - half a second

    return HubSource(repo=repo, file=_hub.file_in(repo, tag))


def _fetch(request: PullRequest, on_progress: OnProgress, cancel: threading.Event) -> None:
    log = apart.log_of(_MODULE)
    try:
        code = apart.run(_MODULE, request, PullProgress, on_progress, cancel.is_set)
    except OSError as error:
        raise ModelError(
            f"{log} cannot be written: {reason(error)}. Check its folder, the space on that disk, "
            "and ONDEVICE_HOME if you have set it."
        ) from error
    if cancel.is_set():
        raise DownloadCancelled
    if code:
        raise DownloadError(
            f"The process that downloads {request.name} ended unexpectedly ({code}). Try "
            f"again; {log} may say why."
        )
