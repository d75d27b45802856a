"""Reads files into chunks that can be found and quoted."""

from __future__ import annotations

import codecs
import logging
import re
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

from ondevice.errors import UsageError

_LONGEST = 1000  # characters of a chunk: about 250 tokens, four of which fit a small context
_TEXT = frozenset({".txt", ".md", ".markdown", ".rst", ".org", ".text", ""})
_PARAGRAPH = re.compile(r"\n\s*\n")
_SENTENCE = re.compile(r"(?<=[.!?…])\s+")


def find_files(path: Path) -> list[Path]:
    """``path`` itself, or the files of its folder that can be read, in order of name.

    Raises :class:`UsageError` when there is none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise UsageError(f"There is no file or folder {path}.")
    files = sorted(
        file
        for file in path.rglob("*")
        if file.is_file()
        and file.suffix.lower() in _TEXT | {".pdf"}
        and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )
    if not files:
        raise UsageError(f"The folder {path} has no text, Markdown or PDF file.")
    return files


def read_file(file: Path) -> str:
    """The text of a text, Markdown or PDF file. Raises :class:`UsageError` when it has none.

    Text is UTF-8, or UTF-16 with a byte order mark, as editors on Windows write it.
    """
    try:
        text = _read_pdf(file) if file.suffix.lower() == ".pdf" else _decode(file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error}.") from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{file} cannot be read as text: it is not UTF-8 ({error.reason} at byte "
            f"{error.start}). If it is a text, save it as UTF-8."
        ) from error
    if not text.strip() or "\0" in text:
        raise UsageError(f"{file} holds no text. A scanned PDF needs text recognition first.")
    return text


def _decode(content: bytes) -> str:
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    return content.decode("utf-16" if marked else "utf-8-sig")


def _read_pdf(file: Path) -> str:
    from pypdf import PdfReader  # noqa: PLC0415  takes a third of a second

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it prints what it then raises
    content = file.read_bytes()
    try:
        return "\n\n".join(page.extract_text() for page in PdfReader(BytesIO(content)).pages)
    except Exception as error:  # of damaged files it raises whatever its parts do
        raise UsageError(f"{file} cannot be read as a PDF: {error}.") from error


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
