"""Reads a path as people type it, drag it into a terminal or paste it from elsewhere."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit

_QUOTES = "\"'"
_BEGINNINGS = ("/", "~", "./", "../", "file:", *_QUOTES)


def looks_like_path(text: str) -> bool:
    """Whether ``text`` can only be meant as a path, be there something or not."""
    text = text.strip()
    return (
        text.startswith(_BEGINNINGS)
        or text in (".", "..")
        or (os.name == "nt" and bool(re.match(r"[a-zA-Z]:[\\/]|\\\\", text)))
    )


def typed_path(text: str) -> Path:
    """The path that is meant: without quotes, escapes, ``file://`` and the slash at its end.

    A file of exactly this name goes before any other reading of it.
    """
    plain = Path(_at_home(text))
    if _exists(plain):
        return plain
    text = text.strip()
    if text.startswith("file:"):
        from urllib.request import url2pathname  # noqa: PLC0415 - which brings HTTP along

        return Path(url2pathname(urlsplit(text).path))
    if len(text) > 1 and text[0] in _QUOTES and text[-1] == text[0]:
        return Path(_at_home(text[1:-1]))
    if os.name == "posix" and not _exists(Path(_at_home(text))):
        text = re.sub(r"\\(.)", r"\1", text)  # as terminals write a file that is dragged in
    return Path(_at_home(text))


def _at_home(text: str) -> str:
    return os.path.expanduser(text)  # noqa: PTH111 - that of pathlib fails for "~nobody"


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # too long for a path, or a zero byte in it
        return False
