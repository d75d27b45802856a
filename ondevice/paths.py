"""Where ondevice keeps its files: the platform's own folders, or all under ``ONDEVICE_HOME``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import platformdirs

from ondevice.errors import UsageError

_APP = "ondevice"


def _folder(kind: str, usual: Callable[..., Path]) -> Path:
    home = os.environ.get("ONDEVICE_HOME")
    try:
        return Path(home).expanduser() / kind if home else usual(_APP, appauthor=False).expanduser()
    except RuntimeError as error:  # a user without a name, as in some containers
        raise UsageError(
            "The home folder of this user is not known. Set HOME, or ONDEVICE_HOME to a folder "
            "for the files of ondevice."
        ) from error


def config_file() -> Path:
    """The TOML file with the user's settings; it need not exist."""
    return _folder("config", platformdirs.user_config_path) / "config.toml"


def data_dir() -> Path:
    """What must not be lost: the private store with conversations and memory."""
    return _folder("data", platformdirs.user_data_path)


def models_dir() -> Path:
    """Model files that ondevice itself has fetched or imported."""
    return data_dir() / "models"


def store_file() -> Path:
    """The one SQLite file with conversations and memory."""
    return data_dir() / "store.db"


def states_dir(store: Path) -> Path:
    """What models have computed of the chats in ``store``, encrypted with keys that are in it."""
    return store.with_suffix(".states")


def cache_dir() -> Path:
    """What can be made again: measurements of the machine, partial downloads."""
    return _folder("cache", platformdirs.user_cache_path)


def log_dir() -> Path:
    """Log files, among them llama.cpp's own lines (``engine.log``)."""
    return _folder("log", platformdirs.user_log_path)


def ensure_private(folder: Path) -> Path:
    """Make ``folder`` with mode 0700 from creation on, parents included, and return it."""
    if not folder.is_dir():
        missing = [folder, *(p for p in folder.parents if not p.exists())]
        for path in reversed(missing):
            path.mkdir(mode=0o700, exist_ok=True)
    return folder
