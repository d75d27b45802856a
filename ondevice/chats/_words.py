"""What stands in a message for that which is no plain text: code, files, pictures, marks."""

from __future__ import annotations

import json
import re

PICTURE, AUDIO, VIDEO = "[picture]", "[audio]", "[video]"

_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".webp", ".heic", ".svg", ".bmp", ".tif", ".tiff")
_LANGUAGE = re.compile(r"[A-Za-z0-9+#_.-]{1,30}")

# ChatGPT writes citations with characters of its own, of which an export may have lost some.
_SPAN = re.compile("[ \t]*\ue200([a-z_]*)\ue202?([^\ue200\ue201]*)\ue201")
_BARE = re.compile(r"[ \t]*(?:file)?(?:cite|navlist)[^\S\n]?(?:turn\d+[a-z]+\d+)+")
_SOURCE = re.compile(r"[ \t]*【[^【】\n]{0,200}†[^【】\n]{0,200}】")
_REFERENCE = re.compile(r"[ \t]*:contentReference\[oaicite:\d+\](?:\{index=\d+\})?")
_SANDBOX = re.compile(r"!?\[([^\]\n]{0,300})\]\(sandbox:([^)\s]{0,500})\)")
_LEFT = re.compile("[\ue200-\ue206]")


def fenced(text: str, language: str = "", title: str = "") -> str:
    """A block of code that the text itself cannot close, with its title above."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    language = language if _LANGUAGE.fullmatch(language) and language != "unknown" else ""
    title = " ".join(title.split())
    return f"{title}:\n\n" * bool(title) + f"{fence}{language}\n{text.rstrip()}\n{fence}"


def file(name: str, kind: str = "") -> str:
    """A word for a file that is not in the export, by its name and its MIME type."""
    if kind.startswith("image") or name.lower().endswith(_PICTURES):
        return PICTURE
    if kind.startswith("audio"):
        return AUDIO
    return f"[file {name}]" if (name := " ".join(name.split())) else "[file]"


def without_marks(text: str) -> str:
    """A reply of ChatGPT without the marks of its citations."""
    text = _SPAN.sub(_span, text)
    for pattern in (_BARE, _SOURCE, _REFERENCE):
        text = pattern.sub("", text)
    text = _SANDBOX.sub(lambda found: f"{found[1]} {file(found[2].rpartition('/')[2])}", text)
    return _LEFT.sub("", text)


def _span(found: re.Match[str]) -> str:
    """What is left of one: nothing of a citation, the words of a link or a name."""
    before = found[0][: found[0].index("\ue200")]
    if found[1] == "url":
        title, _, url = found[2].partition("\ue202")
        return f"{before}[{title}]({url})" if url else before + title
    if found[1] == "entity":
        try:
            return f"{before}{json.loads(found[2])[1]}"
        except (ValueError, IndexError, TypeError, KeyError):
            return ""
    return ""
