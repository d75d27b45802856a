"""Programs that we start: what they see of our environment, and how they end with us."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

#: The key of the private store and that of servers: nobody but us has use for them, least of all
#: native code that reads files of unknown origin.
_SECRETS = ("ONDEVICE_PASSPHRASE", "ONDEVICE_API_KEY")
#: Of ours, none multiplies matrices with numpy, whose library for that starts a thread for each
#: core all the same when it is loaded, and those spin for a while.
NO_THREADS_OF_NUMPY = {"OPENBLAS_NUM_THREADS": "1"}
_LOOK_S = 0.1  # between two looks whether a program is still wanted


def environment(**more: str) -> dict[str, str]:
    """Our environment for a child, without our secrets and with ``more``."""
    ours = {name: value for name, value in os.environ.items() if name not in _SECRETS}
    return NO_THREADS_OF_NUMPY | ours | more


def output(
    command: Sequence[str], patience_s: float, cancelled: Callable[[], bool] = lambda: False
) -> bytes:
    """What the program writes to standard output; it calls :func:`end_with_parent`.

    Raises :class:`OSError` if it cannot be started and :class:`subprocess.SubprocessError` if it
    fails, has taken ``patience_s`` seconds, or is ``cancelled``; then it is killed at once.
    """
    lifeline, ours = os.pipe()  # which closes however we end
    try:
        with subprocess.Popen(
            command,
            stdin=lifeline,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
        ) as process:
            try:
                return _read(process, time.monotonic() + patience_s, cancelled)
            finally:
                process.kill()  # unless it has ended
    finally:
        os.close(lifeline)
        os.close(ours)


def _read(
    process: subprocess.Popen[bytes], deadline: float, cancelled: Callable[[], bool]
) -> bytes:
    while True:
        with suppress(subprocess.TimeoutExpired):
            written, errors = process.communicate(timeout=_LOOK_S)
            break
        if cancelled():
            raise subprocess.SubprocessError("it was cancelled")
        if time.monotonic() > deadline:
            raise subprocess.SubprocessError("it takes too long")
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, process.args, written, errors)
    return written


def end_with_parent() -> None:
    """In a program that :func:`output` runs: end as soon as who started it has ended."""

    def wait() -> None:
        os.read(sys.stdin.fileno(), 1)
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
