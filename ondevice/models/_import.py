"""Takes a GGUF file of the user's into our folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO, Literal

from ondevice import gguf
from ondevice.errors import ModelError, ModelFileError, UsageError
from ondevice.models import _own_folder, _scan
from ondevice.models._meter import Meter
from ondevice.models._records import InstalledModel, OnProgress, Provenance
from ondevice.text import reason

#: "share" is a hard link, which takes no room; on another disk it is a copy. "move" is the same,
#: and the file is gone from where it was. "link" is a symbolic link.
How = Literal["share", "move", "link"]

_PIECE = 1 << 20  # bytes


def import_file(
    path: Path,
    name: str | None = None,
    how: How = "share",
    on_progress: OnProgress = lambda _: None,
) -> InstalledModel:
    """Make the model at ``path`` one of ours; of a split one any part will do.

    Raises :class:`ModelFileError` if it is no model that can chat, :class:`DiskSpaceError`, and
    :class:`ModelError` if there is another model of this name.
    """
    parts = [part.path for part in gguf.read(path).parts]
    nature = _scan.nature(parts[0])
    if nature is None or not nature.can_chat:
        raise ModelFileError(f"{path} is not a chat model. Choose another file.")
    if how == "move" and any(part.is_symlink() for part in parts):
        raise UsageError(f"{path} is a link. Name the file it points to, or leave out --move.")
    name = _own_folder.checked_name(name or _own_folder.name_for(parts[0]))
    meter = Meter(sum(part.stat().st_size for part in parts))
    with _own_folder.changing(name) as (folder, scratch):
        if there := _own_folder.in_folder(folder):
            raise ModelError(
                f"There is already a model named {name}: {there.path}. Choose another "
                f"name with --name, or remove that model first: ondevice models rm {name}"
            )
        places = [scratch / each for each in _names(name, len(parts))]
        sha256 = tuple(
            _place(part, place, how, meter, on_progress)
            for part, place in zip(parts, places, strict=True)
        )
        _own_folder.write_provenance(
            folder, Provenance(origin=_scan.plain(str(path.absolute())), sha256=sha256)
        )
        for place in places:
            place.replace(folder / place.name)
        model = _own_folder.in_folder(folder)
    assert model is not None
    if how == "move":
        for part in parts:
            try:
                part.unlink()
            except OSError as error:
                raise ModelError(
                    f"{name} was imported, but {part} could not be removed: {reason(error)}. "
                    "Delete it yourself if you want to."
                ) from error
    return model


def _names(name: str, n_parts: int) -> list[str]:
    """What the files are called with us, whatever they were called before."""
    number = f"-00001-of-{n_parts:05}" if n_parts > 1 else ""
    return gguf.part_names(f"{name}{number}.gguf")


def _place(part: Path, target: Path, how: How, meter: Meter, on_progress: OnProgress) -> str:
    """Put the file at ``target`` and return its sha256."""
    source = part.resolve()
    if how == "link":
        try:
            target.symlink_to(source)
        except OSError as error:  # FAT and exFAT; Windows, which lets only developers make links
            raise ModelError(
                f"No link can be made in {target.parent.parent}: {reason(error)}. "
                "Import the file without a link; it is copied if need be."
            ) from error
    else:
        try:
            os.link(source, target)
        except OSError:  # another disk, or one without hard links
            _own_folder.check_disk(target.parent, meter.total - meter.done)
            with source.open("rb") as file, target.open("wb") as copy:
                return _digest(file, copy, meter, on_progress)
    with source.open("rb") as file:
        return _digest(file, None, meter, on_progress)


def _digest(file: BinaryIO, copy: BinaryIO | None, meter: Meter, on_progress: OnProgress) -> str:
    """The sha256 of ``file``, which is copied in the same pass if it is to be."""
    digest = hashlib.sha256()
    while piece := file.read(_PIECE):
        digest.update(piece)
        if copy:
            copy.write(piece)
        meter.done += len(piece)
        on_progress(meter.read())
    if copy:
        copy.flush()
        os.fsync(copy.fileno())
    return digest.hexdigest()
