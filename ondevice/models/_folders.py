"""Finds the models in folders that the user has named: ``models_folder`` of the settings.

Such a folder may be on a network, or hold anything; nobody waits for it longer than a few seconds.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ondevice import config
from ondevice.errors import OndeviceError
from ondevice.models import _scan
from ondevice.models._records import InstalledModel
from ondevice.text import printable

_DEPTH = 5  # levels of folders
_MOST = 200_000  # files and folders in one of them that are looked at
_PATIENCE_S = 3.0  # for all of them

_News = InstalledModel | OSError | str | None  # a model, or why there are no more; None: all well


def of_settings() -> tuple[Path, ...]:
    """The folders of the user's settings; none while these cannot be read."""
    try:
        return config.load().folders
    except OndeviceError:  # whoever runs a command is told by the command itself
        return ()


def models(
    folders: Sequence[Path], on_problem: Callable[[str], None], patience_s: float = _PATIENCE_S
) -> list[InstalledModel]:
    """What is in these folders, damaged files as well, so that they can be named.

    ``on_problem`` gets a sentence for a folder that is not there or could not be read to its end.
    """
    found: queue.SimpleQueue[tuple[Path, _News]] = queue.SimpleQueue()
    for folder in folders:
        # Daemons: a program that ends does not wait for a network that does not answer.
        threading.Thread(target=_scan_folder, args=(folder, found.put), daemon=True).start()
    kept: list[InstalledModel] = []
    open_ = list(folders)
    deadline = time.monotonic() + patience_s
    while open_:
        try:
            folder, news = found.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            break
        if isinstance(news, InstalledModel):
            kept.append(news)
            continue
        open_.remove(folder)
        if isinstance(news, OSError):
            on_problem(f"The models folder {printable(str(folder))} cannot be read: {_why(news)}.")
        elif news:
            on_problem(f"The models folder {printable(str(folder))} {news}.")
    for folder in open_:
        on_problem(
            f"The models folder {printable(str(folder))} is slow, so not all of it is listed."
        )
    return kept


def in_folder(folder: Path, on_more: Callable[[], None] = lambda: None) -> Iterator[InstalledModel]:
    """The models in one folder. What cannot chat (a projector, an embedding model) is left out.

    ``on_more`` is called where there is too much in it to look at all.
    """
    for files in _scan.models(_scan.walk(folder, _DEPTH, _MOST, on_more)):
        nature = _scan.nature(files.first)
        if nature is None or nature.can_chat:
            yield InstalledModel(
                name=_scan.stem(files.first),
                path=files.first.absolute(),
                size_bytes=files.size_bytes,
                place="your folder",
                origin=str(files.first.absolute()),
                license=nature.license if nature else "",
                missing=files.missing,
            )


def _scan_folder(folder: Path, put: Callable[[tuple[Path, _News]], None]) -> None:
    more: list[str] = []
    what = f"holds more than {_MOST} files, so not all of its models are listed"
    try:
        next(iter(folder.iterdir()), None)  # fails where there is no folder
        for model in in_folder(folder, lambda: more.append(what)):
            put((folder, model))
    except OSError as error:
        put((folder, error))
    else:
        put((folder, more[0] if more else None))


def _why(error: OSError) -> str:
    if isinstance(error, FileNotFoundError):
        return "it is not there"
    if isinstance(error, NotADirectoryError):
        return "it is not a folder"
    return (error.strerror or type(error).__name__).lower()
