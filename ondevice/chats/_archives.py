"""Finds the texts with chats in what a service sends: a file, a zip archive, or its folder."""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePath
from typing import BinaryIO, TypeVar

from ondevice.errors import FileError
from ondevice.system.regular import open_regular

_PIECE = 1 << 20  # bytes that are read at a time
_MOST_FILES = 100_000  # of a folder that are looked at
_MOST_TEXTS = 10_000
_LONGEST_DIRECTORY = 64 << 20  # bytes of the list of files in an archive; 50 to 150 a file
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # no service uses others

# A text is packed to a tenth, not to a thousandth.
_UNSUSPICIOUS = 64 << 20  # bytes
_MOST_RATIO = 200  # of a text, unpacked to packed
_UNSUSPICIOUS_IN_ALL, _MOST_RATIO_IN_ALL = 1 << 30, 100

#: conversations.json; of today's ChatGPT conversations-000.json, -001.json, … in some folder.
_NAME = re.compile(r"(conversations?|group_chats?)([-_ .(].*)?\.json", re.IGNORECASE)

#: The name of a text, and what gives it piece by piece.
Text = tuple[str, Callable[[], Iterator[bytes]]]


_T = TypeVar("_T")


class Unreadable(Exception):
    """Why a text, or the rest of it, cannot be read."""


def texts(path: Path) -> Iterator[Text]:
    """The texts in ``path`` that may hold chats, in order of name.

    Raises :class:`FileError` when there is none. What is read of them raises
    :class:`Unreadable`.
    """
    try:
        if path.is_dir():
            yield from _in_folder(path)
            return
        with open_regular(path) as file:
            packed = file.read(2) == b"PK"
            file.seek(0)
            if packed:
                yield from _in_archive(path, file)
            else:
                yield path.name, partial(_pieces, file)
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}.") from error
    except ValueError as error:
        raise FileError(f"{path} cannot be the name of a file.") from error


def _in_folder(folder: Path) -> Iterator[Text]:
    found: list[Path] = []
    looked_at = 0
    for inside, folders, names in os.walk(folder):
        folders.sort()
        found += (Path(inside, name) for name in names if _is_chats(PurePath(inside, name)))
        looked_at += len(names) + len(folders)
        if looked_at > _MOST_FILES:
            raise FileError(f"The folder {folder} has too many files. Name one of the files in it.")
    if not found:
        raise FileError(
            f"The folder {folder} has no conversations.json, so there are no chats to import."
        )

    def pieces(file: Path) -> Iterator[bytes]:
        try:
            with open_regular(file) as opened:
                yield from _pieces(opened)
        except FileError as error:
            raise Unreadable("it is not an ordinary file") from error
        except OSError as error:
            raise Unreadable(error.strerror or str(error)) from error

    for file in _in_order(found)[:_MOST_TEXTS]:
        yield str(file.relative_to(folder)), partial(pieces, file)


def _in_archive(path: Path, file: BinaryIO) -> Iterator[Text]:
    if _directory_length(file) > _LONGEST_DIRECTORY:
        raise FileError(f"{path} has too many files to be an export of chats.")
    try:
        archive = zipfile.ZipFile(file)
    except Exception as error:  # of damaged archives it raises whatever its parts do
        raise FileError(f"{path} cannot be read as a zip archive: it is damaged.") from error
    with archive:
        files = [info for info in archive.infolist() if not info.filename.endswith("/")]
        jsons = [info for info in files if PurePath(info.filename).suffix.lower() == ".json"]
        named = [info for info in jsons if _is_chats(PurePath(info.filename))]
        found = _in_order(named or jsons, lambda info: info.filename)[:_MOST_TEXTS]
        if not found:
            raise FileError(
                f"The archive {path} has no conversations.json, so there are no chats to import."
            )
        unpacked = 0
        size = max(1, path.stat().st_size)

        def pieces(info: zipfile.ZipInfo) -> Iterator[bytes]:
            nonlocal unpacked
            if info.flag_bits & 1:
                raise Unreadable("it has a password. Unpack the archive and name the folder")
            if info.compress_type not in _METHODS:
                raise Unreadable("it uses an unknown compression")
            length = 0
            for piece in _member(archive, info):
                length += len(piece)
                unpacked += len(piece)
                if _is_bomb(length, info.compress_size, unpacked, size):
                    raise Unreadable("it unpacks to far more than any export")
                yield piece

        for info in found:
            yield info.filename, partial(pieces, info)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Iterator[bytes]:
    try:
        with archive.open(info) as member:
            while piece := member.read(_PIECE):
                yield piece
    except Exception as error:  # as above
        raise Unreadable("the archive is damaged") from error


def _is_bomb(length: int, packed: int, unpacked: int, size: int) -> bool:
    return (length > _UNSUSPICIOUS and length > _MOST_RATIO * packed) or (
        unpacked > _UNSUSPICIOUS_IN_ALL and unpacked > _MOST_RATIO_IN_ALL * size
    )


def _directory_length(file: BinaryIO) -> int:
    """Bytes of the archive's list of files, which is read whole, as its end says."""
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - (1 << 16) - 200))
    end = file.read()
    file.seek(0)
    length = 0
    for mark, at, n_bytes in ((b"PK\5\6", 12, 4), (b"PK\6\6", 40, 8)):  # the latter: of zip64
        if (start := end.rfind(mark)) >= 0:
            found = int.from_bytes(end[start + at : start + at + n_bytes], "little")
            length = max(length, 0 if found == 0xFFFFFFFF else found)
    return length


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    try:
        while piece := file.read(_PIECE):
            yield piece
    except OSError as error:
        raise Unreadable(error.strerror or str(error)) from error


def _is_chats(name: PurePath) -> bool:
    if "__MACOSX" in name.parts:
        return False
    in_folder = name.suffix.lower() == ".json" and name.parent.name.lower() == "conversations"
    return bool(_NAME.fullmatch(name.name)) or in_folder


def _in_order(found: list[_T], name: Callable[[_T], object] = str) -> list[_T]:
    """By name, where -2 comes before -10."""

    def parts(one: _T) -> list[str]:
        return [part.zfill(12) for part in re.split(r"(\d+)", str(name(one)))]

    return sorted(found, key=parts)
