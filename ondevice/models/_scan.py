"""Looks for GGUF files in folders that may be anybody's.

Depth and number of entries are bounded. What has a name that could steer a terminal is passed
over, and so is what cannot be read.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ondevice import gguf
from ondevice.errors import ModelFileError
from ondevice.gguf import runnable
from ondevice.gguf.architectures import is_diffusion, is_encoder

_MAX_ENTRIES = 5000  # files and folders that are looked at below one folder of another app
_MAX_LICENSE = 40  # characters

#: ``general.type`` of files that cannot chat by themselves.
_PARTIAL_TYPES = ("adapter", "imatrix", "mmproj")


class ModelFiles(NamedTuple):
    """The files of one model."""

    first: Path  # what is opened; of a split model it may be missing
    size_bytes: int  # of the parts that are there
    missing: tuple[str, ...]  # names of parts


def stem(path: Path) -> str:
    """The file's name without its ending and the number of the part."""
    return re.sub(r"(-\d{5}-of-\d{5})?\.gguf$", "", path.name, flags=re.IGNORECASE)


def walk(
    folder: Path,
    depth: int,
    most: int = _MAX_ENTRIES,
    on_more: Callable[[], None] = lambda: None,
) -> Iterator[Path]:
    """Files below ``folder``, in at most ``depth`` levels of folders, in the order of their names.

    Hidden ones are left out. Where there are more than ``most`` files and folders, ``on_more`` is
    called, and the rest is not looked at.
    """
    left = most
    folders = [(folder, depth)]
    while folders:
        here, levels = folders.pop()
        entries: list[os.DirEntry[str]] = []
        try:
            with os.scandir(here) as found:
                for entry in found:
                    left -= 1
                    if left < 0:
                        break
                    if entry.name.isprintable() and not entry.name.startswith("."):
                        entries.append(entry)
        except OSError:
            continue
        deeper: list[tuple[Path, int]] = []
        for entry in sorted(entries, key=lambda entry: entry.name):
            try:
                if entry.is_file():
                    yield Path(entry.path)
                elif levels > 1 and entry.is_dir():
                    deeper.append((Path(entry.path), levels - 1))
            except OSError:
                continue
        folders.extend(reversed(deeper))
    if left < 0:
        on_more()


def models(files: Iterable[Path]) -> Iterator[ModelFiles]:
    """The models among these files; the parts of a split one are one model."""
    groups: dict[Path, tuple[list[str], list[Path]]] = {}  # first part → names, files there
    for file in files:
        if file.suffix.lower() == ".gguf":
            names = gguf.part_names(file.name)
            groups.setdefault(file.with_name(names[0]), (names, []))[1].append(file)
    for first, (names, there) in groups.items():
        found = {file.name for file in there}
        missing = tuple(name for name in names if name not in found)
        try:
            yield ModelFiles(first, sum(file.stat().st_size for file in there), missing)
        except OSError:  # gone since it was found
            continue


class Nature(NamedTuple):
    """What a file says of itself, as far as a list of models shows it."""

    can_chat: bool
    license: str


def nature(path: Path) -> Nature | None:
    """What the file says of itself, or None if it is no GGUF file that can be read."""
    try:
        with runnable.blamed(path):
            summary = gguf.read_summary(path)
    except ModelFileError:
        return None
    kind, architecture = summary.get("general.type"), summary.get("general.architecture")
    license_ = summary.get("general.license")
    return Nature(
        can_chat=isinstance(architecture, str)
        and kind not in _PARTIAL_TYPES
        and not is_encoder(architecture)
        and not is_diffusion(architecture),
        license=plain(license_)[:_MAX_LICENSE] if isinstance(license_, str) else "",
    )


def plain(text: str) -> str:
    """``text`` as one line without anything but characters that are seen."""
    return "".join(filter(str.isprintable, text))
