"""Text for a terminal: sizes in words, and what comes from outside made harmless."""

from __future__ import annotations

import errno
import re
import subprocess
from collections.abc import Sequence

#: Letters and signs of Thai, Lao, Burmese and Khmer.
SOUTH_EAST = (
    "\u0e00-\u0e3a\u0e40-\u0e4e\u0e80-\u0ecf\u0edc-\u0edf\u1000-\u103f\u1050-\u108f\u1780-\u17d3"
)
#: Letters of scripts that put no spaces between words, or, as Korean, endings to them.
UNSPACED = f"\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff{SOUTH_EAST}"
#: What changes the direction of the text around it, and the letters of tags, which nobody sees.
_HIDDEN = "\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f"
#: Control characters but newline and tab: ESC and the C1 set begin escape sequences.
_CONTROLS = re.compile(rf"[\x00-\x08\x0b-\x1f\x7f-\x9f{_HIDDEN}]")
#: What Python makes of names that are not UTF-8; it cannot be printed.
_NO_TEXT = re.compile("[\ud800-\udfff]")
_LONGEST = 300  # characters of a reason: some libraries quote all that they were sent
_NUMBER = re.compile(r"^\[Errno -?\d+\] ")
_ESCAPED = re.compile(rf"[\x7f-\x9f{_HIDDEN}]")


def size(n_bytes: float) -> str:
    """Bytes as they read everywhere in ondevice: "640 KB", "830 MB", "1.1 GB"."""
    if 0 < n_bytes < 999.5:
        return "1 byte" if n_bytes < 1.5 else f"{n_bytes:.0f} bytes"
    if 0 < n_bytes < 999.5e3:
        return f"{n_bytes / 1e3:.0f} KB"
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 999.5e6 else f"{n_bytes / 1e6:.0f} MB"


def alternatives(items: Sequence[str]) -> str:
    """“A, B or C”; ``items`` must not be empty."""
    *others, last = items
    return f"{', '.join(others)} or {last}" if others else last


def reason(error: BaseException) -> str:
    """Why something failed, in words: of an error of the system without its number and path."""
    match error:
        case OSError(errno=errno.EMFILE):
            return f"{error.strerror} (allow more with 'ulimit -n 1024')"
        case OSError() if error.strerror:
            return error.strerror.partition(" (while")[0]  # Python names the address as well
        case UnicodeDecodeError():
            return "it is not UTF-8 text"
        case subprocess.CalledProcessError():
            return f"the process ended unexpectedly ({error.returncode})"
        case subprocess.TimeoutExpired():
            return "it took too long"
    words = _NUMBER.sub("", str(error))
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"


def printable(text: str) -> str:
    """``text`` without control and hidden characters; newlines and tabs stay.

    A byte of a name that is not UTF-8 is shown as U+FFFD, so that nothing seems to be missing.

    Each character is judged alone, so pieces of a stream may be cleaned one by one.
    """
    return _NO_TEXT.sub("\ufffd", _CONTROLS.sub("", text))


def printable_json(text: bytes) -> str:
    """JSON that means the same, without what a terminal would obey or hide.

    The lower control characters are escaped in JSON anyway, the others need not be.
    """

    def escaped(found: re.Match[str]) -> str:
        units = found[0].encode("utf-16-be").hex()
        return "".join(f"\\u{units[n : n + 4]}" for n in range(0, len(units), 4))

    return _ESCAPED.sub(escaped, text.decode())
