"""Long work in a process of its own: it can be ended at once, and if it fails we go on.

The request goes to its standard input, news come from its standard output, both as JSON. When the
pipe of the news closes, be it that the user cancelled or that we died, the process ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import psutil

from ondevice import errors, paths
from ondevice.errors import OndeviceError
from ondevice.system import children

_END_S = 2.0  # after which a process that does not end is killed
_BEAT = 0.1  # seconds between two pieces of news

_News = TypeVar("_News", bound=msgspec.Struct)


class ChildFailed(msgspec.Struct, frozen=True, tag="failed"):
    """Why it could not."""

    error: str  # class name in ondevice.errors
    message: str


def run(
    module: str,
    request: msgspec.Struct,
    news: type[_News],
    on_news: Callable[[_News], None],
    cancelled: Callable[[], bool],
) -> int:
    """Run ``module`` until it is done or ``cancelled``; return its exit code, 0 if all went well.

    It has called :func:`answer`; its log is that of :func:`log_of`. Raises what it raised, and
    :class:`OSError` if it cannot be started.
    """
    log = log_of(module)
    paths.ensure_private(log.parent)
    with log.open("wb") as errors_to:
        process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors_to,
            env=children.environment(),
        )
    assert process.stdin is not None
    assert process.stdout is not None
    failure: ChildFailed | None = None
    try:
        with suppress(BrokenPipeError):  # it died; how, its return code says
            process.stdin.write(msgspec.json.encode(request))
            process.stdin.close()
        for line in process.stdout:  # one comes several times a second
            if cancelled():
                break
            said: Any = msgspec.json.decode(line, type=news | ChildFailed)
            if isinstance(said, ChildFailed):
                failure = said
            else:
                on_news(said)
    finally:
        process.stdout.close()
        try:
            process.wait(_END_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if failure:
        raise errors.BY_NAME[failure.error](failure.message)
    return process.returncode


def log_of(module: str) -> Path:
    """What such a process writes on standard error."""
    return paths.log_dir() / f"{module.rpartition('.')[2].strip('_')}.log"


def answer(
    work: Callable[[], None],
    news: Callable[[], msgspec.Struct],
    on_end: Callable[[], None] = lambda: None,
) -> None:
    """In that process: do the work and tell ``news()`` several times a second, and at the end.

    When nobody listens any more, ``on_end`` is called and the process and its children end.
    """
    threading.Thread(target=_beat, args=(news, on_end), daemon=True).start()
    try:
        work()
    except OndeviceError as error:
        _send_news(ChildFailed(type(error).__name__, str(error)))
    else:
        _send_news(news())


def _beat(news: Callable[[], msgspec.Struct], on_end: Callable[[], None]) -> None:
    try:
        while True:
            _send_news(news())
            time.sleep(_BEAT)
    except OSError:
        for child in psutil.Process().children(recursive=True):
            child.kill()
        on_end()
        os._exit(1)


def _send_news(news: msgspec.Struct) -> None:
    os.write(sys.stdout.fileno(), msgspec.json.encode(news) + b"\n")
