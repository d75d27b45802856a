"""Our own folder: one folder for each model, with its files and where they came from."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
from filelock import FileLock

from ondevice import paths
from ondevice.errors import DiskSpaceError
from ondevice.models import _scan
from ondevice.models._records import InstalledModel, Provenance

_PROVENANCE = "provenance.json"
_SPARE_BYTES = 100_000_000  # that a download leaves free


def folder_of(name: str) -> Path:
    """Where the model of this name is, or would be."""
    return paths.models_dir() / name


def lock(name: str) -> FileLock:
    """Held by who changes the model's folder. The system frees it when its holder dies."""
    folder = paths.ensure_private(paths.models_dir() / ".locks")
    return FileLock(folder / f"{name}.lock")


def models() -> Iterator[InstalledModel]:
    """All models in our folder."""
    try:
        folders = sorted(paths.models_dir().iterdir())
    except OSError:  # nothing was ever fetched
        return
    for folder in folders:
        model = None if folder.name.startswith(".") else in_folder(folder)
        if model:
            yield model


def in_folder(folder: Path) -> InstalledModel | None:
    """The model in this folder of ours, or None."""
    files = next(_scan.models(_scan.walk(folder, depth=1)), None)
    if files is None:
        return None
    provenance = read_provenance(folder)
    nature = _scan.nature(files.first)
    return InstalledModel(
        name=folder.name,
        path=files.first,
        size_bytes=files.size_bytes,
        place="ondevice",
        origin=provenance.origin if provenance else "",
        license=nature.license if nature else "",
        missing=files.missing,
    )


def partly_fetched() -> dict[str, int]:
    """Names of models whose download was interrupted, and the bytes that are there."""
    found: dict[str, int] = {}
    for part in paths.models_dir().glob("*/*.part"):
        found[part.parent.name] = found.get(part.parent.name, 0) + part.stat().st_size
    return found


def read_provenance(folder: Path) -> Provenance | None:
    """Where the model in this folder came from; None if nobody wrote it down."""
    try:
        return msgspec.json.decode((folder / _PROVENANCE).read_bytes(), type=Provenance)
    except (OSError, msgspec.MsgspecError):
        return None


def write_provenance(folder: Path, provenance: Provenance) -> None:
    """Write down where the model in this folder came from."""
    fresh = folder / f"{_PROVENANCE}.new"
    fresh.write_bytes(msgspec.json.encode(provenance))
    fresh.replace(folder / _PROVENANCE)


def check_disk(folder: Path, n_bytes: int) -> None:
    """Raise :class:`DiskSpaceError` unless ``n_bytes`` more fit the disk of ``folder``."""
    free = shutil.disk_usage(folder).free
    needed = n_bytes + _SPARE_BYTES
    if free < needed:
        raise no_room(folder, f"{needed / 1e6:.0f} MB are needed and {free / 1e6:.0f} MB are free")


def no_room(folder: Path, figures: str) -> DiskSpaceError:
    return DiskSpaceError(
        f"There is not enough room on the disk of {folder}: {figures}. "
        "Make room, or set ONDEVICE_HOME to a folder on another disk."
    )
