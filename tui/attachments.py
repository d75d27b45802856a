"""Texts that go with a message: files named with an @ in it, and long things that were pasted."""

from __future__ import annotations

import os
import re
import stat
import time
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from difflib import SequenceMatcher
from itertools import count, islice
from pathlib import Path

from ondevice.chats import Attachment
from ondevice.errors import FileError
from ondevice.text import printable, size

#: What is added to the name of an attachment of which only a part was sent, by what was kept.
PARTS = {"beginning": "beginning", "relevant": "passages"}

_MENTION = re.compile(r'(?<!\S)@(?:"([^"\n]+)"|(\S+))')
_MOST = 50_000_000  # bytes of a file; a PDF has pictures, and of text no model reads that much
_LOOKED_AT = 5000  # entries of folders at most
_DEEP = 4  # folders that are looked into one within the other
_SECONDS = 0.03  # of looking for names that are like one, since somebody is typing
_LIKE = 0.9  # of 1: what stands for a paste, but for a letter or two
_MARK_LENGTHS = range(18, 34)  # characters of these

#: Endings of names that are meant as a file's, and not as somebody's handle or address.
_ENDINGS = """
txt md markdown rst text pdf csv tsv json jsonl xml yaml yml toml ini cfg conf log html htm css js
ts tsx jsx py ipynb java c h cpp hpp cc cs go rs rb php pl sh bash bat ps1 sql swift kt lua tex bib
srt eml doc docx odt rtf xls xlsx ods ppt pptx odp epub png jpg jpeg gif webp bmp tif tiff heic svg
mp3 wav flac ogg mp4 mkv mov avi webm zip tar gz tgz bz2 xz 7z rar gguf exe bin dll db sqlite
"""
#: How files begin that hold no text, and what they are then.
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"BM", "a picture"),
    (b"II*\0", "a picture"),
    (b"MM\0*", "a picture"),
    (b"RIFF", "a picture, audio or video file"),
    (b"ID3", "sound"),
    (b"fLaC", "sound"),
    (b"OggS", "audio or video"),
    (b"\x1aE\xdf\xa3", "a video"),
    (b"PK\x03\x04", "an archive or an office document"),
    (b"\xd0\xcf\x11\xe0", "an office document"),
    (b"\x1f\x8b", "an archive"),
    (b"BZh", "an archive"),
    (b"7z\xbc\xaf", "an archive"),
    (b"\xfd7zXZ", "an archive"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"GGUF", "a model"),
    (b"SQLite format", "a database"),
)
_FILM = 4  # where “ftyp” stands in films and pictures of phones

#: What stands, or is to stand, for a paste.
_MARK = re.compile(r"\[pasted text \d+, \d+ lines?\]")


def attached(text: str) -> list[Attachment]:
    """The files that ``text`` mentions, such as ``@notes.md`` or ``@"my notes.md"``.

    Raises :class:`FileError` for a file that holds no text, for a folder, and for what can only
    be meant as a file that is not there. Other words with an @ are words.
    """
    files: dict[Path, Attachment] = {}
    for match in _MENTION.finditer(text):
        whole = match[1] or match[2]
        bare = whole.rstrip(".,;:!?)")
        if not bare.strip("./\\~"):
            continue
        for name in (whole, bare):
            if (path := _file(name)) is not None:
                files.setdefault(path, Attachment(name, _read(name, path)))
                break
        else:
            if match[1] or _is_meant(bare):
                raise FileError(f"There is no file {bare}. Correct the name or remove the @.")
    return list(files.values())


def _is_meant(name: str) -> bool:
    """Whether a name that no file has is a file's all the same: not “@user” or “@types/node”."""
    stem, dot, ending = name.rpartition(".")
    if dot and stem.strip("./~") and "@" not in name and ending.lower() in _ENDINGS.split():
        return True
    if name.startswith(("/", "./", "../", "~/", ".\\", "..\\")):
        return len(name.strip("./~\\")) > 0
    first = re.split(r"[/\\]", name)[0]
    try:
        return first not in (name, "") and Path(first).is_dir()
    except (OSError, ValueError):
        return False


def _read(name: str, path: Path) -> str:
    """The text of a file. Raises :class:`FileError` with what it is if it has none."""
    try:
        with path.open("rb") as file:
            start = file.read(32)
    except OSError as error:
        raise FileError(f"{name} cannot be read: {error.strerror}.") from error
    kind = next((kind for magic, kind in _MAGIC if start.startswith(magic) and _binary(start)), "")
    if start[_FILM:].startswith(b"ftyp"):
        kind = "a picture or a video"
    if kind:
        raise FileError(
            f"{name} is {kind}. Only text can be attached: text, Markdown and PDF files."
        )
    from ondevice.memory import read_file  # noqa: PLC0415 - a faster start

    return read_file(path)


def _binary(start: bytes) -> bool:
    """Whether this is more than letters that happen to be the same."""
    return any(byte < 9 or byte > 126 for byte in start)


def _file(name: str) -> Path | None:
    """The file of that name; None: there is none.

    Raises :class:`FileError` for a folder, for a file that is too large, and for what has no end,
    as devices.
    """
    try:
        path = Path(name).expanduser()
        found = path.stat()
    except (OSError, ValueError, RuntimeError):  # no such file; no name for one; no such user
        return None
    if stat.S_ISDIR(found.st_mode):
        raise FileError(f"{name} is a folder. Name a file in it or remove the @.")
    if not stat.S_ISREG(found.st_mode):
        raise FileError(f"{name} is a pipe or a device, so it cannot be attached.")
    if found.st_size > _MOST:
        raise FileError(
            f"{name} is too large to attach: it is {size(found.st_size)}, and the limit "
            f"is {size(_MOST)}."
        )
    return path


def whole_name(name: str) -> str:
    """The name of what an attachment is a part of."""
    for part in PARTS.values():
        name = name.removesuffix(f" ({part})")
    return name


def mention(before: str) -> str | None:
    """What has been typed of a file's name, if ``before`` the cursor one begins; else None."""
    match = re.search(r'(?<!\S)@(?:"([^"\n]*)|([^\s"]*))$', before)
    return (match[1] or match[2] or "") if match else None


def files(typed: str, limit: int) -> list[str]:
    """Paths that are like ``typed``, the likest first, folders with a slash at their end.

    First those that begin so, in the folder that it names, then those that have its letters in
    their order, also in the folders within that one.
    """
    folder, beginning = os.path.split(typed)
    letters = re.compile(".*?".join(map(re.escape, beginning)), re.IGNORECASE | re.DOTALL)
    found: list[tuple[tuple[int, int, int, str], str]] = []
    for path, name, depth in _entries(folder, hidden=beginning.startswith(".")):
        within = path[len(folder) :].lstrip(os.sep)
        if depth == 0 and name.lower().startswith(beginning.lower()):
            found.append(((0, 0, 0, path), path))
        elif beginning and (match := letters.search(within)):
            in_name = letters.search(name)
            span = in_name.end() - in_name.start() if in_name else match.end() - match.start()
            found.append(((1 if in_name else 2, span, len(within), path), path))
    return [path for _, path in sorted(found)[:limit]]


def _entries(folder: str, *, hidden: bool) -> Iterator[tuple[str, str, int]]:
    """What is in a folder and those within it: path, name, and how deep. The nearest first.

    Not more of it than can be looked at in an instant.
    """
    folders = deque([(folder, 0)])
    seen, end = 0, time.monotonic() + _SECONDS
    while folders and seen < _LOOKED_AT:
        at, depth = folders.popleft()
        try:
            with os.scandir(Path(at or ".").expanduser()) as entries:
                for entry in islice(entries, _LOOKED_AT - seen):
                    seen += 1
                    # What cannot be printed could not be typed either.
                    if entry.name.startswith(".") and not (hidden and depth == 0):
                        continue
                    if entry.name != printable(entry.name).replace("\n", ""):
                        continue
                    path = os.path.join(at, entry.name)  # noqa: PTH118  (keeps "./")
                    is_folder = entry.is_dir()
                    if is_folder and depth < _DEEP and not entry.is_symlink():
                        folders.append((path, depth + 1))
                    yield path + os.sep if is_folder else path, entry.name, depth
        except OSError:
            continue
        if time.monotonic() > end:
            return


class Pastes:
    """Texts that were pasted; in the prompt a line stands for each long one."""

    _LINES, _CHARACTERS = 12, 1500  # of a text that is short enough to stand in the prompt

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._lines: set[str] = set()  # of the short ones

    def fold(self, text: str, among: str = "") -> str:
        """What to put into the prompt: ``text``, or if it is long what stands for it.

        Under a name that nothing has yet, not even in the text ``among`` which it comes.
        """
        lines = len(text.splitlines())
        if lines <= self._LINES and len(text) <= self._CHARACTERS:
            self._lines.update(filter(None, map(str.strip, text.splitlines())))
            return text
        taken = " ".join((among, *self._texts))
        number = next(n for n in count(1) if f"pasted text {n}," not in taken)
        name = f"pasted text {number}, {lines} {'line' if lines == 1 else 'lines'}"
        self._texts[name] = text
        return f"[{name}]"

    def bring_back(self, text: str, texts: Mapping[str, str]) -> str:
        """Know ``texts`` that were folded before, under other names if need be; their ``text``."""
        for name, content in texts.items():
            if self._texts.get(name, content) != content:
                text = text.replace(f"[{name}]", self.fold(content, text))
            else:
                self._texts[name] = content
        return text

    def attached(self, text: str, others: Collection[str] = ()) -> list[Attachment]:
        """Those that ``text`` still mentions.

        Raises :class:`FileError` for what stands for none of them, and is not the name of one of
        ``others`` that go along: its text is gone, or the name was damaged.
        """
        known = {f"[{name}]" for name in (*self._texts, *others)}
        rest = text
        for mark in known:
            rest = rest.replace(mark, "")
        if gone := _MARK.search(rest):
            raise FileError(
                f"The text behind {gone[0]} is gone. Paste it again and delete this marker."
            )
        if damaged := _damaged_mark(rest):
            raise FileError(
                f"{damaged} looks like the marker of a pasted text that was edited, so "
                "the text is gone. Undo the edit or delete the whole marker."
            )
        return self.mentioned(text)

    def mentioned(self, text: str) -> list[Attachment]:
        """Those that ``text`` mentions, whatever else there is in it."""
        return [
            Attachment(name, content)
            for name, content in self._texts.items()
            if f"[{name}]" in text
        ]

    def lines(self, text: str) -> list[str]:
        """Lines of short ones that stand in ``text``, the longest first."""
        return sorted((line for line in self._lines if line in text), key=len, reverse=True)


def _damaged_mark(text: str) -> str | None:
    """What stands for a paste, but for a letter or two, if there is such a thing."""
    for bracket in re.finditer(r"[\[\]]", text):
        at = bracket.start()
        if bracket[0] == "[":
            windows = [text[at : at + length] for length in _MARK_LENGTHS]
        else:
            windows = [text[max(0, at + 1 - length) : at + 1] for length in _MARK_LENGTHS]
        if sum(part in windows[-1] for part in ("past", "aste", "text", "line")) < 2:
            continue
        best, window = max((_likeness(window), window) for window in windows)
        if best > _LIKE:
            return window
    return None


def _likeness(text: str) -> float:
    """How much it is like what stands for a paste, 0 … 1."""
    words = re.sub(r"\d+", "0", text)
    marks = ("[pasted text 0, 0 lines]", "[pasted text 0, 0 line]")
    return max(SequenceMatcher(None, mark, words, autojunk=False).ratio() for mark in marks)
