"""Reads files into chunks that can be found and quoted."""

from __future__ import annotations

import codecs
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ondevice.errors import FileError
from ondevice.memory import _pdf_text
from ondevice.system import children
from ondevice.system.regular import open_regular
from ondevice.text import reason, size

_LONGEST = 1000  # characters of a chunk: about 250 tokens, four of which fit a small context
_LARGEST, _LARGEST_PDF = 20_000_000, 100_000_000  # bytes of a file
_TEXT = frozenset({".txt", ".md", ".markdown", ".rst", ".org", ".text", ""})
_PARAGRAPH = re.compile(r"\n\s*\n")
_SENTENCE = re.compile(r"(?<=[.!?…])\s+")
_CONTROL = re.compile(r"[\0-\x08\x0e-\x1a\x1c-\x1f]")  # of no text, but of ANSI colours and pages
_SAMPLE = 200_000  # bytes from which the encoding is guessed
_WESTERN = "cp1252"
_ENCODINGS = [  # that people have files in; of all that there are, too many fit anything
    *("cp1250", "cp1251", _WESTERN, "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r"),
    *("iso8859_2", "shift_jis", "euc_jp", "gb18030", "big5", "euc_kr"),
]
_FEW_ACCENTS = 0.35  # of the letters; in scripts other than Latin, nearly all have the high bit
_LITTLE = 500  # letters: too few to tell by how often each is there


@dataclass(frozen=True, slots=True)
class FolderContents:
    """What is in a folder, in order of name."""

    to_read: tuple[Path, ...]
    left_out: tuple[Path, ...] = ()  # other kinds of files, and what is no ordinary file


def find_files(path: Path) -> FolderContents:
    """``path`` itself, or the files of its folder. Hidden ones do not count.

    Raises :class:`FileError` when there is none that can be read.
    """
    if not path.is_dir():
        if not path.exists():
            raise FileError(f'There is no file or folder "{path}".')
        return FolderContents((path,))
    to_read: list[Path] = []
    left_out: list[Path] = []
    for file in sorted(path.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if hidden or file.is_dir():
            continue
        if file.is_file() and file.suffix.lower() in _TEXT | {".pdf"}:
            to_read.append(file)
        elif file.exists():  # a link may lead nowhere
            left_out.append(file)
    if not to_read:
        raise FileError(f"The folder {path} has no text, Markdown or PDF file.")
    return FolderContents(tuple(to_read), tuple(left_out))


def read_file(file: Path) -> str:
    """The text of a text, Markdown or PDF file. Raises :class:`FileError` when it has none.

    Text is UTF-8, or UTF-16 with a byte order mark, as editors on Windows write it, or in an older
    encoding, which is guessed.
    """
    is_pdf = file.suffix.lower() == ".pdf"
    largest = _LARGEST_PDF if is_pdf else _LARGEST
    try:
        with open_regular(file) as opened:
            content = opened.read(largest + 1)
    except OSError as error:
        raise FileError(f"{file} cannot be read: {reason(error)}.") from error
    if len(content) > largest:
        raise FileError(
            f"{file} is larger than {size(largest)}, the most that can be read. Split it, "
            "or take the part that matters."
        )
    text = _read_pdf(file, content) if is_pdf else _decode(file, content)
    if not text.strip() or "\0" in text:
        hint = " A scanned PDF needs text recognition first." if is_pdf else ""
        raise FileError(f"{file} contains no text.{hint}")
    return text


def _decode(file: Path, content: bytes) -> str:
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return content.decode("utf-16" if marked else "utf-8-sig")
    except UnicodeDecodeError:
        text = None if b"\0" in content else _guessed(content)
    if text is None or _CONTROL.search(text):
        raise FileError(
            f"{file} cannot be read as text: its encoding is unknown. If it is text, save "
            "it as UTF-8."
        )
    return text


def _guessed(content: bytes) -> str | None:
    """The text in an encoding of a time before UTF-8; None: it is in none."""
    western = content.decode(_WESTERN, "replace")
    letters = [character for character in western[:_SAMPLE] if character.isalpha()]
    accents = sum(character > "\x7f" for character in letters)
    is_latin = "\ufffd" not in western and accents <= _FEW_ACCENTS * len(letters)
    if is_latin and len(letters) < _LITTLE:
        return western
    from charset_normalizer import from_bytes  # noqa: PLC0415 - only for such files

    matches = from_bytes(content[:_SAMPLE], cp_isolation=_ENCODINGS)
    if (best := matches.best()) is None:
        return None
    # The most common one, where the languages of several use the same letters.
    as_good = (match for match in matches if match.coherence >= best.coherence)
    is_western = any(_WESTERN in match.could_be_from_charset for match in as_good)
    return content.decode(_WESTERN if is_western else best.encoding, "replace")


def _read_pdf(file: Path, content: bytes) -> str:
    try:
        done = subprocess.run(
            [sys.executable, "-P", _pdf_text.__file__],
            input=content,
            capture_output=True,
            env=children.environment(),
            timeout=_pdf_text.MOST_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        code = _pdf_text.TOO_MUCH
    else:
        code = done.returncode
    if code == 0:
        return done.stdout.decode()
    if code == _pdf_text.DAMAGED:
        why = f"it is damaged or has a password ({done.stdout.decode('utf-8', 'replace')})"
    else:
        why = "it takes too much memory, or longer than a minute"
    raise FileError(f"{file} cannot be read as a PDF: {why}.")


def chunks(text: str) -> Iterator[str]:
    """``text`` in pieces of at most 1000 characters, cut between paragraphs where that can be."""
    chunk = ""
    for piece in _pieces(text):
        if chunk and len(chunk) + 2 + len(piece) > _LONGEST:
            yield chunk
            chunk = ""
        chunk = f"{chunk}\n\n{piece}" if chunk else piece
    if chunk:
        yield chunk


def _pieces(text: str) -> Iterator[str]:
    """Paragraphs, those that are too long as sentences, and those as plain cuts."""
    for paragraph in _PARAGRAPH.split(text):
        parts = [paragraph] if len(paragraph) <= _LONGEST else _SENTENCE.split(paragraph)
        for part in map(str.strip, parts):
            for start in range(0, len(part), _LONGEST):
                yield part[start : start + _LONGEST]
