"""LaTeX formulas as Unicode text: on one line in a sentence, on several where they stand alone.

A formula that is not understood in part keeps that part as it was written; nothing is left out.
The symbols are those of pylatexenc.
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from importlib import import_module

from ondevice.text import printable

_TOKEN = re.compile(r"\\(?:[a-zA-Z]+\*?|.)|\s+|[{}^_&'~]|[^\\{}^_&'~\s]", re.DOTALL)
_MARKS = r"[′″°\u0300-\u036f\u20d0-\u20ff⁰-₎ₐ-ₜ²³¹ᴬ-ᵡⁱⁿⱽ]"
#: A number, a word, or a letter, with what is added to them.
_ATOM = re.compile(rf"√?(?:[\d.,]+|[^\W\d_]+){_MARKS}*")
_SCRIPT = re.compile(_MARKS)
_DEEPEST = 40  # groups within groups; what is deeper stays as it was written

_SUPERSCRIPTS = dict(
    zip(
        "0123456789+-=()abcdefghijklmnoprstuvwxyzABDEGHIJKLMNOPRTUVWβγδθφχ−′∗*",
        "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ᵃᵇᶜᵈᵉᶠᵍʰⁱʲᵏˡᵐⁿᵒᵖʳˢᵗᵘᵛʷˣʸᶻᴬᴮᴰᴱᴳᴴᴵᴶᴷᴸᴹᴺᴼᴾᴿᵀᵁⱽᵂᵝᵞᵟᶿᵠᵡ⁻′**",
        strict=True,
    )
) | {"°": "°", "⊤": "ᵀ", "†": "†", "″": "″", "∘": "°"}
_SUBSCRIPTS = dict(
    zip(
        "0123456789+-=()aehijklmnoprstuvxβγρφχ−",
        "₀₁₂₃₄₅₆₇₈₉₊₋₌₍₎ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓᵦᵧᵨᵩᵪ₋",
        strict=True,
    )
)
_DOUBLE = dict(zip("CHNPQRZ", "ℂℍℕℙℚℝℤ", strict=True))
_ACCENTS = {
    "hat": "\u0302", "widehat": "\u0302", "bar": "\u0304", "overline": "\u0305",
    "vec": "\u20d7", "overrightarrow": "\u20d7", "tilde": "\u0303", "widetilde": "\u0303",
    "dot": "\u0307", "ddot": "\u0308", "underline": "\u0332", "check": "\u030c",
    "acute": "\u0301", "grave": "\u0300", "breve": "\u0306", "mathring": "\u030a",
}  # fmt: skip
_SPACES = {",": " ", ";": " ", ":": " ", " ": " ", "!": "", "quad": "  ", "qquad": "    ", ">": " "}
_AS_IT_IS = (
    "text", "textrm", "textbf", "textit", "texttt", "textsf", "textnormal", "mbox", "hbox",
    "operatorname", "operatorname*",
)  # fmt: skip
_PLAIN = (
    "mathrm", "mathbf", "mathit", "mathsf", "mathtt", "boldsymbol", "bm", "pmb", "mathfrak",
    "mathnormal", "overbrace", "underbrace", "smash", "mathop", "mathrel", "mathbin", "mathord",
    "substack", "ensuremath", "cancel", "emph", "displaylines",
)  # fmt: skip
_NOTHING = (
    "displaystyle", "textstyle", "scriptstyle", "limits", "nolimits", "nonumber", "notag", "left",
    "right", "middle", "big", "Big", "bigg", "Bigg", "bigl", "bigr", "Bigl", "Bigr", "biggl",
    "biggr", "Biggl", "Biggr", "bigm", "hline", "centering", "rm", "bf", "it", "mathstrut", "strut",
    "allowbreak",
)  # fmt: skip
_DROPPED = ("label", "hspace", "vspace", "phantom", "hphantom", "vphantom", "color", "hspace*")
#: What the library lacks, or has in a form that is meant for other ends.
_SYMBOLS = {
    "implies": "⟹", "iff": "⟺", "impliedby": "⟸", "Re": "ℜ", "Im": "ℑ", "ne": "≠", "land": "∧",
    "lor": "∨", "neg": "¬", "lnot": "¬", "degree": "°", "colon": ":", "triangle": "△",
    "models": "⊨", "bot": "⊥", "gcd": "gcd", "det": "det", "Pr": "Pr", "deg": "deg", "dim": "dim",
    "ker": "ker", "arg": "arg", "hom": "hom", "checkmark": "✓", "coloneqq": "≔", "to": "→",
    "gets": "←", "cdot": "·", "cdots": "⋯", "ldots": "…", "dots": "…", "dotsc": "…", "dotsb": "⋯",
    "prime": "′", "ast": "∗", "star": "⋆", "circ": "∘", "bmod": "mod", "mod": "mod",
    "backslash": "\\", "lbrace": "{", "rbrace": "}", "lbrack": "[", "rbrack": "]", "lvert": "|",
    "rvert": "|", "vert": "|", "mid": "|", "lVert": "‖", "rVert": "‖", "Vert": "‖", "top": "⊤",
    "leqslant": "≤", "geqslant": "≥", "varnothing": "∅", "emptyset": "∅", "hbar": "ℏ", "ell": "ℓ",
    "epsilon": "ϵ", "varepsilon": "ε", "phi": "φ", "varphi": "φ", "square": "□", "argmax": "argmax",
    "argmin": "argmin", "tr": "tr", "lim": "lim", "limsup": "lim sup", "liminf": "lim inf",
    "mapsto": "↦", "longrightarrow": "⟶", "longmapsto": "⟼", "therefore": "∴", "because": "∵",
    "blacksquare": "■", "qed": "∎", "surd": "√", "owns": "∋", "not": "\u0338",
}  # fmt: skip
_BRACKETS = {
    "pmatrix": "()", "bmatrix": "[]", "vmatrix": "||", "Vmatrix": "‖‖", "Bmatrix": "{}",
    "matrix": "  ", "smallmatrix": "  ", "array": "  ", "cases": "{ ", "rcases": " }",
    "dcases": "{ ",
}  # fmt: skip
_TALL = {
    "(": "⎛⎜⎜⎝", ")": "⎞⎟⎟⎠", "[": "⎡⎢⎢⎣", "]": "⎤⎥⎥⎦", "{": "⎧⎪⎨⎩", "}": "⎫⎪⎬⎭",
    "|": "││││", "‖": "║║║║",
}  # fmt: skip

Box = list[str]
"""Lines of one width. The one that stands on the line of text is the middle one."""


def inline(latex: str) -> str:
    """On one line."""
    text = _FormulaReader(latex, tall=False).read()
    return printable(" ".join(" ".join(text).split()))


def display(latex: str) -> list[str]:
    """On as many lines as it takes."""
    return [printable(line) for line in _FormulaReader(latex, tall=True).read()]


def atomic(text: str) -> bool:
    """Whether it needs no brackets beside an operator."""
    return len(text) <= 1 or bool(_ATOM.fullmatch(text)) or _bracketed(text)


def _bracketed(text: str) -> bool:
    """Whether it is one pair of brackets, perhaps after a name: a function's value."""
    opening = text.find("(")
    if opening < 0 or not text.endswith(")") or (opening and not _ATOM.fullmatch(text[:opening])):
        return False
    depth = 0
    for place, character in enumerate(text[opening:], opening):
        depth += (character == "(") - (character == ")")
        if depth == 0 and place < len(text) - 1:
            return False
    return True


class _FormulaReader:
    """Reads a formula once from left to right."""

    def __init__(self, latex: str, *, tall: bool) -> None:
        self._tokens = _TOKEN.findall(latex)
        self._place = 0
        self._depth = 0
        self._tall = tall

    def read(self) -> list[str]:
        lines: list[str] = []
        rows = self._rows(None)
        if len(rows) > 1 and any(len(row) > 1 for row in rows):
            lines = _aligned(rows)
        else:
            for row in rows:
                box = _beside([cell for cell in row if cell != [""]])
                lines += [box[0].strip()] if len(box) == 1 else box
        lines = [line.rstrip() for line in lines]
        return [line for line in lines if line] or [""]

    # ------------------------------------------------------------------ tokens

    def _peek(self) -> str:
        return self._tokens[self._place] if self._place < len(self._tokens) else ""

    def _next(self) -> str:
        token = self._peek()
        self._place += bool(token)
        return token

    def _skip_space(self) -> None:
        while self._peek().isspace():
            self._place += 1

    def _argument(self) -> Box:
        """What a macro or a script applies to: a group, or one token."""
        self._skip_space()
        if self._peek() == "{":
            self._next()
            return self._group("}")
        if self._peek() in ("", "}", "&", "\\\\"):
            return [""]
        self._depth += 1
        box = self._item() if self._depth < _DEEPEST else [self._next()]
        self._depth -= 1
        return box

    def _flat(self) -> str:
        return _one_line(self._argument())

    def _raw(self) -> str:
        """A group as it was written."""
        self._skip_space()
        if self._peek() != "{":
            return self._next()
        depth, start = 0, self._place
        while token := self._next():
            depth += (token == "{") - (token == "}")
            if depth == 0:
                break
        end = self._place - (depth == 0)
        return "".join(self._tokens[start + 1 : end])

    def _optional(self) -> str:
        """What stands between square brackets, if there are any."""
        if self._peek() != "[":
            return ""
        end = self._place
        while end < len(self._tokens) and self._tokens[end] != "]":
            end += 1
        text = "".join(self._tokens[self._place + 1 : end])
        self._place = end + 1
        return inline(text)

    # ------------------------------------------------------------------ groups

    def _group(self, stop: str) -> Box:
        rows = self._rows(stop)
        if len(rows) == 1 and len(rows[0]) == 1:
            return rows[0][0]
        return [", ".join(_one_line(_beside(row)) for row in rows)]

    def _rows(self, stop: str | None) -> list[list[Box]]:
        """Up to ``stop`` (a token, or the name of an environment): rows of cells."""
        self._depth += 1
        rows: list[list[Box]] = [[]]
        parts: list[Box] = []

        def end_cell() -> None:
            rows[-1].append(_beside(parts))
            parts.clear()

        while token := self._peek():
            if token == stop:
                self._next()
                break
            if token == r"\end" and (stop is None or len(stop) > 1):
                self._next()
                self._raw()
                if stop is not None:
                    break
            elif token == "&":
                self._next()
                end_cell()
            elif token in ("\\\\", "\\cr", "\\newline"):
                self._next()
                if self._peek() == "[":
                    self._optional()
                end_cell()
                rows.append([])
            elif self._depth >= _DEEPEST:
                parts.append([self._next()])
            else:
                _add(parts, self._item())
        end_cell()
        if len(rows) > 1 and rows[-1] == [[""]]:
            rows.pop()
        self._depth -= 1
        return rows

    def _item(self) -> Box:
        token = self._next()
        if token == "{":
            return self._group("}")
        if token in ("^", "_"):
            return [_script(self._flat(), token)]
        if token == "'":
            return ["′"]
        if token == "~" or token.isspace():
            return [" "]
        if token == "-":
            return ["−"]
        if token == "*":
            return ["∗"]
        if token.startswith("\\"):
            return self._macro(token)
        return [token]

    def _macro(self, token: str) -> Box:
        name = token[1:]
        if name in _SPACES:
            return [_SPACES[name]]
        if name in ("{", "}", "$", "%", "&", "#", "_"):
            return [name]
        if name == "|":
            return ["‖"]
        if name in ("frac", "dfrac", "tfrac", "cfrac"):
            return [_fraction(self._flat(), self._flat())]
        if name == "sqrt":
            root = self._optional()
            under = self._flat()
            sign = {"": "√", "3": "∛", "4": "∜"}.get(root, f"{_script(root, '^')}√")
            return [sign + (under if atomic(under) else f"({under})")]
        if name in ("binom", "dbinom", "tbinom"):
            return [f"C({self._flat()}, {self._flat()})"]
        if name in _AS_IT_IS:
            text = self._raw()
            return [inline(text) if "\\" in text or "$" in text else re.sub(r"\s+", " ", text)]
        if name in _PLAIN:
            return self._argument()
        if name in ("left", "right", "middle") or name in _NOTHING:
            if name in ("left", "right", "middle") and self._peek() == ".":
                self._next()
            return [""]
        if name in _DROPPED:
            self._raw()
            return [""]
        if name == "textcolor":
            self._raw()
            return self._argument()
        if name in _ACCENTS:
            text = self._flat()
            return [unicodedata.normalize("NFC", text + _ACCENTS[name]) if len(text) == 1 else text]
        if name == "mathbb":
            return ["".join(_letter(c, 0x1D538, _DOUBLE) for c in self._flat())]
        if name in ("mathcal", "mathscr"):
            return ["".join(_known(f"mathcal{c}") or c for c in self._flat())]
        if name in ("overset", "stackrel"):
            over, base = self._flat(), self._flat()
            return [base + _script(over, "^")]
        if name == "underset":
            under, base = self._flat(), self._flat()
            return [base + _script(under, "_")]
        if name in ("xrightarrow", "xleftarrow"):
            self._optional()
            arrow = "⟶" if name == "xrightarrow" else "⟵"
            over = self._flat()
            return [arrow + (f"({over})" if over else "")]
        if name == "boxed":
            return [f"[{self._flat()}]"]
        if name in ("pmod", "pod"):
            return [f" (mod {self._flat()})"]
        if name == "tag":
            return [f"   ({self._flat()})"]
        if name == "not":
            self._skip_space()
            return [unicodedata.normalize("NFC", self._flat() + "\u0338")]
        if name == "begin":
            return self._environment()
        if name.endswith("*") and (symbol := _known(name[:-1])):
            return [f"{symbol}∗"]
        symbol = _known(name)
        if symbol is None:  # with what it applies to, as it was written
            while self._peek() == "{":
                token += f"{{{self._raw()}}}"
            return [token]
        return [symbol]

    def _environment(self) -> Box:
        name = self._raw().rstrip("*")
        if name == "array":
            self._optional()
            self._skip_space()
            self._raw()
        rows = self._rows(f"\\end{{{name}}}")
        if name not in _BRACKETS:
            lines = _aligned(rows)
            return lines if self._tall else ["; ".join(line.strip() for line in lines)]
        opened, closed = _BRACKETS[name][0], _BRACKETS[name][1]
        if not self._tall:
            text = "; ".join("  ".join(_one_line(cell).strip() for cell in row) for row in rows)
            return [f"{opened}{text}{closed}".strip()]
        columns = max(map(len, rows))
        cells = [[_one_line(cell).strip() for cell in row] for row in rows]
        cells = [row + [""] * (columns - len(row)) for row in cells]
        widths = [max(len(row[place]) for row in cells) for place in range(columns)]
        lines = ["  ".join(map(str.ljust, row, widths)) for row in cells]
        if opened == "{" and len(lines) == 2:
            lines.insert(1, " " * len(lines[0]))  # its point is between the two
        return [
            f"{_edge(opened, place, len(lines))} {line} {_edge(closed, place, len(lines))}"
            for place, line in enumerate(lines)
        ]


# ---------------------------------------------------------------------- pieces


def _add(parts: list[Box], box: Box) -> None:
    """Append, with a space between what would otherwise be read as one word."""
    if parts and len(box) == 1 and len(parts[-1]) == 1:
        before, after = parts[-1][0], box[0]
        begins = after[:1].isalnum() and not _SCRIPT.match(after)
        word = len(before) > 1 and before.isalpha() and before.isascii() and begins
        fraction = len(before) > 1 and "/" in before and begins
        number = len(after) > 1 and "/" in after and before[-1:].isalnum()
        if word or fraction or number:
            parts.append([" "])
    parts.append(box)


def _beside(boxes: list[Box]) -> Box:
    """One after the other, their middles on one line."""
    if all(len(box) == 1 for box in boxes):
        return ["".join(box[0] for box in boxes)]
    above = max((len(box) - 1) // 2 for box in boxes)
    below = max(len(box) - 1 - (len(box) - 1) // 2 for box in boxes)
    lines = [""] * (above + 1 + below)
    for box in boxes:
        width = max(map(len, box))
        first = above - (len(box) - 1) // 2
        for place in range(len(lines)):
            inside = first <= place < first + len(box)
            lines[place] += (box[place - first] if inside else "").ljust(width)
    return lines


def _aligned(rows: list[list[Box]]) -> Box:
    """Rows whose cells stand below each other, each first one of two flush right."""
    flat = [[_beside([cell]) for cell in row] for row in rows]
    n_columns = max(map(len, flat))
    widths = [
        max((len(line) for row in flat if place < len(row) for line in row[place]), default=0)
        for place in range(n_columns)
    ]
    lines: Box = []
    for row in flat:
        cells = []
        for place, box in enumerate(row):
            right = n_columns > 1 and place % 2 == 0
            pad = str.rjust if right else str.ljust
            cells.append([pad(line, widths[place]) for line in box])
        lines += _beside(cells)
    return lines


def _one_line(box: Box) -> str:
    return box[0] if len(box) == 1 else "; ".join(line.strip() for line in box)


def _fraction(above: str, below: str) -> str:
    above, below = above.strip(), below.strip()
    return "/".join(part if atomic(part) else f"({part})" for part in (above, below))


def _script(text: str, kind: str) -> str:
    text = text.strip()
    known = _SUPERSCRIPTS if kind == "^" else _SUBSCRIPTS
    tight = text.replace(" ", "")
    if all(character in known for character in tight):
        return "".join(known[character] for character in tight)
    return f"{kind}{text}" if atomic(text) and len(text) == 1 else f"{kind}({text})"


def _letter(character: str, first: int, known: dict[str, str]) -> str:
    if character in known:
        return known[character]
    return chr(first + ord(character) - 65) if "A" <= character <= "Z" else character


def _edge(bracket: str, place: int, count: int) -> str:
    if count == 1 or bracket not in _TALL:
        return bracket
    first, rest, middle, last = [*_TALL[bracket]]
    if place in (0, count - 1):
        return first if place == 0 else last
    return middle if place == count // 2 else rest


def _known(name: str) -> str | None:
    if name in _SYMBOLS:
        return _SYMBOLS[name]
    return _library().get(name)


@cache
def _library() -> dict[str, str]:
    # Only now: few replies have formulas.
    latex2text = import_module("pylatexenc.latex2text")

    found: dict[str, str] = {}
    context = latex2text.get_default_latex_context_db()
    for category in context.categories():
        for spec in context.iter_macro_specs([category]):
            symbol = spec.simplify_repl
            if isinstance(symbol, str) and "%" not in symbol:
                found.setdefault(spec.macroname, symbol.strip())
    script = dict(zip("BEFHILMRegoABCD", "ℬℰℱℋℐℒℳℛℯℊℴ𝒜ℬ𝒞𝒟", strict=True))
    for place in range(26):
        letter = chr(65 + place)
        found[f"mathcal{letter}"] = script.get(letter, chr(0x1D49C + place))
    return found
