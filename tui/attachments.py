"""Texts that go with a message: files named with an @ in it, and long things that were pasted."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from itertools import islice
from pathlib import Path

from ondevice.chats import Attachment
from ondevice.errors import UsageError
from ondevice.memory import read_file
from ondevice.terminal import printable

_MENTION = re.compile(r'(?<!\S)@(?:"([^"\n]+)"|(\S+))')
_MOST = 50_000_000  # bytes of a file; a PDF has pictures, and of text no model reads that much
_LOOKED_AT = 5000  # entries of a folder at most


def attached(text: str) -> list[Attachment]:
    """The files that ``text`` mentions, such as ``@notes.md`` or ``@"my notes.md"``.

    What is no file is no mention. Raises :class:`UsageError` for a file that holds no text.
    """
    files: dict[Path, Attachment] = {}
    for match in _MENTION.finditer(text):
        for name in (match[1] or match[2], (match[1] or match[2]).rstrip(".,;:!?)")):
            if (path := _file(name)) is not None:
                files.setdefault(path, Attachment(name, read_file(path)))
                break
    return list(files.values())


def _file(name: str) -> Path | None:
    """The file of that name; None: there is none, or it is a folder.

    Raises :class:`UsageError` for one that is too large, and for what has no end, as devices.
    """
    try:
        path = Path(name).expanduser()
        found = path.stat()
    except (OSError, ValueError, RuntimeError):  # no such file; no name for one; no such user
        return None
    if stat.S_ISDIR(found.st_mode):
        return None
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{name} is a pipe or a device, not a file that could be attached.")
    if found.st_size > _MOST:
        raise UsageError(
            f"{name} has {found.st_size / 1e6:.0f} MB; a file of at most {_MOST // 10**6} MB can "
            "be attached."
        )
    return path


def mention(before: str) -> str | None:
    """What has been typed of a file's name, if ``before`` the cursor one begins; else None."""
    match = re.search(r'(?<!\S)@(?:"([^"\n]*)|([^\s"]*))$', before)
    return (match[1] or match[2] or "") if match else None


def files(typed: str, limit: int) -> list[str]:
    """Paths that begin with ``typed``, folders with a slash at their end."""
    folder, beginning = os.path.split(typed)
    found = []
    try:
        with os.scandir(Path(folder or ".").expanduser()) as entries:
            for entry in islice(entries, _LOOKED_AT):
                hidden = entry.name.startswith(".") and not beginning.startswith(".")
                hidden |= entry.name != printable(entry.name)  # it could not be typed either
                if entry.name.lower().startswith(beginning.lower()) and not hidden:
                    path = os.path.join(folder, entry.name)  # noqa: PTH118  (keeps "./")
                    found.append(path + os.sep if entry.is_dir() else path)
    except OSError:
        return []
    return sorted(found)[:limit]


class Pastes:
    """Texts that were pasted; in the prompt a line stands for each long one."""

    _LINES, _CHARACTERS = 12, 1500  # of a text that is short enough to stand in the prompt

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._lines: set[str] = set()  # of the short ones

    def fold(self, text: str) -> str:
        """What to put into the prompt: ``text``, or if it is long what stands for it."""
        lines = len(text.splitlines())
        if lines <= self._LINES and len(text) <= self._CHARACTERS:
            self._lines.update(filter(None, map(str.strip, text.splitlines())))
            return text
        name = f"pasted text {len(self._texts) + 1}, {lines} lines"
        self._texts[name] = text
        return f"[{name}]"

    def bring_back(self, text: str, texts: Mapping[str, str]) -> str:
        """Know ``texts`` that were folded before, under other names if need be; their ``text``."""
        for name, content in texts.items():
            if self._texts.get(name, content) != content:
                text = text.replace(f"[{name}]", self.fold(content))
            else:
                self._texts[name] = content
        return text

    def attached(self, text: str) -> list[Attachment]:
        """Those that ``text`` still mentions."""
        return [
            Attachment(name, content)
            for name, content in self._texts.items()
            if f"[{name}]" in text
        ]

    def lines(self, text: str) -> list[str]:
        """Lines of short ones that stand in ``text``, the longest first."""
        return sorted((line for line in self._lines if line in text), key=len, reverse=True)
