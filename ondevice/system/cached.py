"""Writes files of the cache, which can be made again."""

from __future__ import annotations

from contextlib import suppress

from ondevice import paths
from ondevice.system.whole_file import replacing


def write_cache(name: str, content: bytes) -> None:
    """Have a file of the cache hold this; where that is not possible, it is made again."""
    with suppress(OSError), replacing(paths.ensure_private(paths.cache_dir()) / name) as file:
        file.write(content)
