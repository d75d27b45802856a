"""Catches llama.cpp's log lines: all go to a file, the errors among them explain a refusal."""

from __future__ import annotations

import ctypes
import re
import sys
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

import llama_cpp

_DEBUG, _INFO, _WARN, _ERROR, _CONTINUED = range(1, 6)  # enum ggml_log_level

_M_MMAP_THRESHOLD = -3  # mallopt's number of it

_file: TextIO = sys.stderr
_errors: deque[str] = deque(maxlen=8)
_buffers: dict[str, float] = {}
_graph: list[int] = []
_watched: dict[str, Callable[[], None]] = {}
_BUFFER = re.compile(r"(KV|RS|compute|output) buffer size\s*=\s*([\d.]+) MiB")
_NODES = re.compile(r"graph:? nodes\s*=\s*(\d+)")


@llama_cpp.llama_log_callback  # type: ignore[untyped-decorator]
def _on_line(level: int, text: bytes, _user_data: Any) -> None:
    line = text.decode("utf-8", "replace")
    if level == _ERROR:
        _errors.append(line.strip())
    elif found := _BUFFER.search(line):
        kind, mebibytes = found.groups()
        _buffers[kind] = _buffers.get(kind, 0.0) + float(mebibytes)
    elif found := _NODES.search(line):
        _graph.append(int(found[1]))
    for part, action in _watched.items():
        if part in line:
            action()
    if level in (_INFO, _WARN, _ERROR):
        _file.write(line)


def start(file: TextIO) -> None:
    """Start the backends; native log lines, debug ones left out, go to ``file`` from now on."""
    global _file  # noqa: PLW0603 - the native library has one log callback for the process
    _file = file
    _return_what_is_freed()
    llama_cpp.llama_log_set(_on_line, None)
    llama_cpp.llama_backend_init()


def _return_what_is_freed() -> None:
    """Have large buffers go back to the system when they are freed.

    glibc would keep new ones of up to 32 MB in its heap, once one of that size was freed.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # another C library
            ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, 1 << 20)


@contextmanager
def watch(part: str, action: Callable[[], None]) -> Iterator[None]:
    """Within this block, call ``action`` when llama.cpp logs a line that holds ``part``.

    Some moments are told by nothing but the log. ``action`` must not raise.
    """
    _watched[part] = action
    try:
        yield
    finally:
        del _watched[part]


def reset() -> None:
    """Forget the errors and sizes seen so far."""
    _errors.clear()
    _buffers.clear()
    _graph.clear()


def last_error() -> str:
    """What llama.cpp said went wrong since the last reset; empty if nothing."""
    return _errors[0] if _errors else ""


def buffer_bytes(*kinds: str) -> int:
    """Bytes of the buffers of these kinds (``KV``, ``RS``, ``compute``, ``output``) since reset.

    llama.cpp has no C function for these sizes; it logs them when it allocates.
    """
    return int(sum(_buffers.get(kind, 0.0) for kind in kinds) * 2**20)


def graph_nodes() -> int:
    """Nodes of the largest graph that was planned since reset; 0: that was not said."""
    return max(_graph, default=0)
