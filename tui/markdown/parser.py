"""The Markdown of GitHub, with formulas, and with HTML as the text that it is in a terminal."""

from __future__ import annotations

import re
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.rules_block import StateBlock
from markdown_it.rules_core import StateCore
from markdown_it.rules_inline import StateInline

from ondevice.text import printable

_CLOSING = {"$$": "$$", "\\[": "\\]", "\\(": "\\)"}
_OPENING = re.compile(r"\$\$|\\\[|\\begin\{(?P<name>[a-zA-Z]+\*?)\}")
_ENVIRONMENTS = re.compile(
    r"(?:equation|align|aligned|alignat|gather|gathered|multline|split|cases|eqnarray|math"
    r"|displaymath|[pbvVB]?matrix|array)\*?"
)
#: What can only be meant for LaTeX: a command, a script, a group, a relation.
_LATEX = re.compile(r"\\[a-zA-Z,;!]|[\^_{}=<>]")
_WORD = re.compile(r"[a-zA-Z]{3,}")
_TWO = re.compile(r"[a-zA-Z]{2,}")
_LONGEST = 2000  # characters of a formula in a sentence
_PART = re.compile(r".{1,4000}(?:(?<=\s)|\Z)|.{1,4000}", re.DOTALL)
_DEEPEST = 100  # blocks within blocks; what is deeper is left out


class Parser(MarkdownIt):
    """Where ``env["open"]`` is the text, it goes on: a formula without an end may still get one."""

    def __init__(self, *, linear: bool) -> None:
        super().__init__("gfm-like", {"html": False, "maxNesting": _DEEPEST})
        self.core.ruler.at("inline", _in_parts)
        if linear:  # for a screen reader both are better as they were written than drawn
            self.disable(["table", "hr"])
        self.inline.ruler.before("escape", "formula", _inline)
        self.block.ruler.before(
            "fence", "formula_block", _block, {"alt": ["paragraph", "blockquote", "list"]}
        )

    def normalizeLinkText(self, link: str) -> str:
        # Percent-decoding for display could bring control characters back.
        return printable(super().normalizeLinkText(link))


@cache
def parser(*, linear: bool = False) -> Parser:
    return Parser(linear=linear)


def _in_parts(state: StateCore) -> None:
    """Read what stands in paragraphs, a long one in parts: the time for one grows with its square.

    What begins in one part and ends in another, such as bold words, is not seen.
    """
    for token in state.tokens:
        if token.type == "inline":
            token.children = []
            for part in _PART.findall(token.content):
                state.md.inline.parse(part, state.md, state.env, token.children)


# ---------------------------------------------------------------------- in a sentence


def _inline(state: StateInline, silent: bool) -> bool:
    text, start = state.src, state.pos
    opening = text[start : start + 2]
    if opening not in _CLOSING:
        if not opening.startswith("$"):
            return False
        opening = "$"
    found = _dollar(state) if opening == "$" else _delimited(state, opening)
    if found is None:
        return False
    latex, end = found
    if not silent:
        token = state.push("formula", "", 0)
        token.content = latex
        token.markup = opening
    state.pos = end
    return True


def _delimited(state: StateInline, opening: str) -> tuple[str, int] | None:
    text, start = state.src, state.pos + 2
    end = text.find(_CLOSING[opening], start, start + _LONGEST)
    if end < 0:
        if state.env.get("open") and _is_last(state) and opening != "$$":
            return text[start:], len(text)
        return None
    latex = text[start:end]
    if not latex.strip() or (opening == "\\[" and not _is_formula(latex)):
        return None
    return latex, end + 2


def _dollar(state: StateInline) -> tuple[str, int] | None:
    """Between single dollar signs, which mostly are prices, variables of a shell and the like."""
    text, start = state.src, state.pos + 1
    if start >= len(text) or text[start].isspace():
        return None
    if state.pos and (text[state.pos - 1].isalnum() or text[state.pos - 1] in "\\$"):
        return None
    end = start
    while (end := text.find("$", end, start + _LONGEST)) >= 0 and text[end - 1] == "\\":
        end += 1
    if end < 0:
        latex = text[start:]
        going_on = state.env.get("open") and _is_last(state) and re.match(r"\\[a-zA-Z]", latex)
        return (latex, len(text)) if going_on and len(latex) < _LONGEST else None
    latex, after = text[start:end], text[end + 1 : end + 2]
    if not latex or latex[-1].isspace() or after.isdigit() or after == "$" or "`" in latex:
        return None
    if after.isalpha() and (latex.isupper() or _WORD.search(latex)):  # $A$B, in a shell
        return None
    return (latex, end + 1) if _is_formula(latex) else None


def _is_formula(latex: str) -> bool:
    words = _WORD.findall(latex)
    if _LATEX.search(latex):
        return "\\" in latex or len(words) < 3
    return bool(latex.strip()) and not words and not (" " in latex and _TWO.search(latex))


def _is_last(state: StateInline) -> bool:
    """Whether it is the end of a text that goes on."""
    return bool(state.src) and state.env["open"].endswith(state.src[-60:].rstrip())


# ---------------------------------------------------------------------- on lines of its own


def _block(state: StateBlock, first: int, end: int, silent: bool) -> bool:
    if state.is_code_block(first):
        return False
    text = state.src[state.bMarks[first] + state.tShift[first] : state.eMarks[first]]
    match = _OPENING.match(text)
    if not match:
        return False
    name = match["name"]
    if name and not _ENVIRONMENTS.fullmatch(name):
        return False
    opening = match[0]
    closing = f"\\end{{{name}}}" if name else _CLOSING[opening]
    lines = [text[len(opening) :]]
    line = first
    while closing not in lines[-1]:
        line += 1
        if line >= end or state.isEmpty(line) or state.sCount[line] < state.blkIndent:
            if not (state.env.get("open") and line >= end):
                return False
            break
        lines.append(state.src[state.bMarks[line] + state.tShift[line] : state.eMarks[line]])
    latex, closed, rest = "\n".join(lines).rpartition(closing)
    if not closed:
        latex, rest = rest, ""
    if rest.strip(" .,;") or closing in latex or (opening == "\\[" and not _is_formula(latex)):
        return False  # a sentence that begins with a formula
    if not silent:
        token = state.push("formula_block", "", 0)
        token.content = f"{opening}{latex}{closing}" if name else latex
        token.map = [first, line + bool(closed)]
        ends = closed and not (line + 1 >= state.lineMax and not state.src.endswith("\n"))
        token.info = "" if ends else "open"
    state.line = line + bool(closed)
    return True
