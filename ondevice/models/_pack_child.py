"""The process that packs one model: a request on standard input, news on standard output.

It ends when nobody reads its news any more; what is done is kept for the next time.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import psutil
from filelock import Timeout

from ondevice import gguf, paths
from ondevice.errors import ModelError
from ondevice.holding.stack.pack import PackProgress, pack
from ondevice.models import _child as apart
from ondevice.models import _own_folder
from ondevice.models._records import PackNews, PackRequest, Provenance
from ondevice.system.cores import default_threads
from ondevice.text import reason

_NICE = 10


def main() -> None:
    """Do what the request says, and end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent; the pipe tells us
    if sys.platform == "win32":
        psutil.Process().nice(psutil.BELOW_NORMAL_PRIORITY_CLASS)
    else:
        psutil.Process().nice(_NICE)
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=PackRequest)
    latest = [PackNews("calibrating", 0.0)]

    def keep(progress: PackProgress) -> None:
        latest[0] = PackNews(progress.stage, progress.done)

    apart.answer(lambda: _pack(request, keep), lambda: latest[0])


def _pack(request: PackRequest, on_progress: Callable[[PackProgress], None]) -> None:
    source = Path(request.source)
    try:
        with _own_folder.lock(request.name).acquire(timeout=0):
            folder = paths.ensure_private(_own_folder.folder_of(request.name))
            if _own_folder.in_folder(folder):
                raise ModelError(
                    f"There is already a model named {request.name}. To pack it again, remove "
                    f"that one first: ondevice models rm {request.name}"
                )
            # About a byte for each weight, twice: it is put in order at the end.
            _own_folder.check_disk(folder, 2 * gguf.read(source).n_params)
            target = folder / f"{request.name}.gguf"
            jobs = max(1, default_threads() - 1)  # one core stays for who waits for a reply
            pack(
                source,
                target,
                calibration=request.calibration,
                jobs=jobs,
                on_progress=on_progress,
            )
            origin = f"stack of {request.origin or source}"
            _own_folder.write_provenance(folder, Provenance(origin=origin, sha256=()))
    except Timeout as error:
        raise ModelError(
            f"{request.name} is already being packed. Wait until that is done."
        ) from error
    except OSError as error:
        raise ModelError(f"{request.name} cannot be written: {reason(error)}.") from error


if __name__ == "__main__":
    main()
