"""Our own folder: one folder for each model, with its files and where they came from."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ondevice import paths
from ondevice.checking import work_out
from ondevice.errors import DiskSpaceError, ModelError, UsageError
from ondevice.models import _scan
from ondevice.models._records import InstalledModel, Provenance
from ondevice.system.whole_file import replacing
from ondevice.text import reason, size

if TYPE_CHECKING:
    from filelock import FileLock

_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*", re.ASCII)
_PROVENANCE = "provenance.json"
_SPARE_BYTES = 100_000_000  # that a download leaves free


def name_for(file: Path) -> str:
    """A name for the model in this file."""
    return re.sub(r"[^\w.+-]+", "-", _scan.stem(file), flags=re.ASCII).lstrip("._+-") or "model"


def checked_name(name: str) -> str:
    """``name``, if it can be that of a folder and of a file. Raises :class:`UsageError`."""
    if not _NAME.fullmatch(name) or _scan.stem(Path(f"{name}.gguf")) != name:
        raise UsageError(f"{name} is not a valid name: use letters, digits and - . _ +")
    return name


def named(name: str) -> InstalledModel | None:
    """Our model of this name, or None."""
    return in_folder(folder_of(name)) if _NAME.fullmatch(name) else None


def folder_of(name: str) -> Path:
    """Where the model of this name is, or would be."""
    return paths.models_dir() / name


def lock(name: str) -> FileLock:
    """Held by who changes the model's folder. The system frees it when its holder dies."""
    from filelock import FileLock  # noqa: PLC0415 - asyncio comes with it

    folder = paths.ensure_private(paths.models_dir() / ".locks")
    return FileLock(folder / f"{name}.lock")


@contextmanager
def changing(name: str) -> Generator[tuple[Path, Path]]:
    """The model's folder for this process alone, and an empty one in it for what is not done yet.

    What a process that was killed left there goes first, and in the end all of it.

    Raises :class:`DiskSpaceError` and :class:`ModelError` for what the disk does not do.
    """
    folder = folder_of(name)
    try:
        with lock(name):
            scratch = scratch_in(paths.ensure_private(folder))
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            try:
                yield folder, scratch
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
                with suppress(OSError):
                    folder.rmdir()  # if it is empty
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_room(
                folder, f"the disk became full while {name} was being written"
            ) from error
        raise ModelError(f"{name} cannot be written: {reason(error)}. Check {folder}.") from error


def scratch_in(folder: Path) -> Path:
    """Where in a model's folder things lie that are not done yet."""
    return folder / ".scratch"


def models() -> Iterator[InstalledModel]:
    """All models in our folder."""
    try:
        folders = sorted(paths.models_dir().iterdir())
    except OSError:  # nothing was ever fetched
        return
    for folder in folders:
        seen = folder.name.isprintable() and not folder.name.startswith(".")
        if seen and (model := in_folder(folder)):
            yield model


def in_folder(folder: Path) -> InstalledModel | None:
    """The model in this folder of ours, or None."""
    files = next(_scan.models(_scan.walk(folder, depth=1)), None) or _gone(folder)
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


def _gone(folder: Path) -> _scan.ModelFiles | None:
    """A model that was only pointed to, and whose file is no longer where it was."""
    links: list[Path] = []
    with suppress(OSError):
        links = sorted(link for link in folder.glob("*.gguf") if link.is_symlink())
    return _scan.ModelFiles(links[0], 0, tuple(link.name for link in links)) if links else None


def leftovers() -> dict[str, int]:
    """Names of models that are being fetched, or were when something stopped it; bytes there.

    What nobody can go on with is removed.
    """
    _sweep()
    found: dict[str, int] = {}
    for folder in paths.models_dir().glob("[!.]*"):
        parts = [*folder.glob("*.part"), *scratch_in(folder).rglob("*")]
        with suppress(OSError):  # it goes on while we look
            n_bytes = sum(part.stat().st_size for part in parts if part.is_file())
            if n_bytes and folder.name.isprintable():
                found[folder.name] = n_bytes
    return found


def _sweep() -> None:
    """Remove what was not done when its process was killed, which frees the lock."""
    for folder in [*paths.models_dir().glob("[!.]*")]:
        if (scratch := scratch_in(folder)).is_dir():
            with suppress(OSError), lock(folder.name).acquire(timeout=0):  # nobody works in it
                shutil.rmtree(scratch)
                folder.rmdir()  # if it is empty


work_out(Provenance)


def read_provenance(folder: Path) -> Provenance | None:
    """Where the model in this folder came from; None if nobody wrote it down."""
    try:
        return msgspec.json.decode((folder / _PROVENANCE).read_bytes(), type=Provenance)
    except (OSError, msgspec.MsgspecError):
        return None


def write_provenance(folder: Path, provenance: Provenance) -> None:
    """Write down where the model in this folder came from."""
    with replacing(folder / _PROVENANCE, sync=True) as file:
        file.write(msgspec.json.encode(provenance))


def remove_provenance(folder: Path) -> None:
    """There is no model in this folder."""
    (folder / _PROVENANCE).unlink(missing_ok=True)


def check_disk(folder: Path, n_bytes: int) -> None:
    """Raise :class:`DiskSpaceError` unless ``n_bytes`` more fit the disk of ``folder``."""
    free = shutil.disk_usage(folder).free
    needed = n_bytes + _SPARE_BYTES
    if free < needed:
        raise _no_room(folder, f"{size(needed)} is needed and {size(free)} is free")


def _no_room(folder: Path, figures: str) -> DiskSpaceError:
    return DiskSpaceError(
        f"There is not enough space on the disk of {folder}: {figures}. Free some space. A "
        "model's file on another disk can be used where it is: ondevice models import FILE --link"
    )
