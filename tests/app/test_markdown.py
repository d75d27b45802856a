"""Replies as lines: Markdown, HTML, formulas, tables and code, whole or in pieces."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from random import Random

import pytest

from tui.markdown import formulas
from tui.markdown.code import Code
from tui.markdown.document import Document
from tui.markdown.layout import CodeLine, Look
from tui.markdown.lines import width_of

Rounds = Callable[[int], Iterator[Random]]


def document(*pieces: str, width: int = 60, look: Look | None = None) -> Document:
    """Of a reply that comes in pieces, and ends."""
    found = Document(linear=bool(look and look.linear))
    found.lay(width, look or Look())
    for piece in pieces:
        found.append(piece)
        if found.to_read:
            found.adopt(found.read())
    if not found.close():
        found.adopt(found.read(whole=True))
    return found


def lines(*pieces: str, width: int = 60, look: Look | None = None) -> list[str]:
    found = document(*pieces, width=width, look=look)
    return [found.line(y).text.rstrip() for y in range(found.height)]


@pytest.mark.parametrize(
    "text",
    [
        "use the <div> tag, a<br>b and <b>x</b>",
        "<details>\n<summary>More</summary>\nrest\n</details>",
        "<!-- a comment -->\nand text",
        "- <li>one</li>\n- two <br>",
        "| a | b |\n|---|---|\n| <td> | x<br>y |",
        "<script>alert(1)</script>",
    ],
)
def test_html_is_shown_as_it_was_written(text: str) -> None:
    shown = " ".join(lines(text))
    for word in text.replace("|---|---|", "").replace("|", " ").replace("- ", " ").split():
        assert word in shown


def test_entities_are_the_characters_that_they_mean() -> None:
    assert lines("a &amp; b &lt;p&gt;") == ["a & b <p>"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (r"so \( a^2 + b_1 \) is", "so a² + b₁ is"),
        (r"$\frac{a+1}{2}$ and $x$", "(a+1)/2 and x"),
        (r"$$E = mc^2$$", "  E = mc²"),
        ("\\[\n\\int_0^\\infty e^{-x^2}\\,dx = \\frac{\\sqrt{\\pi}}{2}\n\\]", None),
        (r"$\alpha \leq \beta \to \mathbb{R}^n$", "α ≤ β → ℝⁿ"),
        (r"\begin{equation} \hat{y} = \sum_{k=1}^n x_k \end{equation}", "  ŷ = ∑ₖ₌₁ⁿ xₖ"),
        ("| $x^2$ |\n|---|\n| 1 |", "x²"),
    ],
)
def test_formulas_are_readable(text: str, shown: str | None) -> None:
    assert lines(text)[0] == (shown or "  ∫₀^∞ e^(−x²) dx = √π/2")


@pytest.mark.parametrize(
    "text",
    [
        "It costs $5 and $10, or 15$ in all.",
        "between $5-$10 and $1,000 (or $900)",
        "echo $HOME/bin:$PATH and $USER's",
        "`$x^2$` and `\\(a\\)`",
        "US$5, A$AP",
        "an unclosed $x^2 and \\( y",
    ],
)
def test_prices_and_variables_are_no_formulas(text: str) -> None:
    assert lines(text)[0] == text.replace("`", "").replace("and \\( y", "and ( y")


def test_code_is_shown_as_it_is() -> None:
    code = "x = $a^2$  # \\( b \\) <b>\n\ty & &amp;"
    shown = lines(f"```sh\n{code}\n```")
    assert shown[0].split() == ["▎", "sh", "copy"]
    assert [line[2:] for line in shown[1:]] == code.expandtabs(4).split("\n")


def test_matrices_and_cases_take_several_lines() -> None:
    assert formulas.display(r"A = \begin{pmatrix} a & b \\ c & d \end{pmatrix}") == [
        "A = ⎛ a  b ⎞",
        "    ⎝ c  d ⎠",
    ]
    assert formulas.inline(r"\begin{pmatrix} a & b \\ c & d \end{pmatrix}") == "(a b; c d)"


def test_what_a_formula_does_not_understand_stays() -> None:
    assert formulas.inline(r"\foo{x} + \zzz") == r"\foo{x} + \zzz"


def test_tasks_lists_and_headings() -> None:
    text = "# Big\n\n- [ ] to do\n- [x] done\n- plain\n  1. one\n"
    assert lines(text) == ["Big", "", "☐ to do", "☑ done", "• plain", "  1. one"]
    linear = lines(text, look=Look(linear=True))
    assert linear == ["# Big", "", "- [ ] to do", "- [x] done", "- plain", "  1. one"]


def test_tables_fit_the_width() -> None:
    row = "| alpha | 12 | a long text that has to be wrapped in its own column |"
    text = f"| name | size | what |\n|---|--:|---|\n{row}\n"
    assert lines(text)[2] == "alpha    12  a long text that has to be wrapped in its own"
    assert lines(text)[3].strip() == "column"
    many = "|" + " word |" * 9
    narrow = lines(f"{many}\n|{'---|' * 9}\n{many}", width=40)
    assert narrow == ["word: word"] * 9
    for width in (10, 20, 40, 80):
        assert all(width_of(line) <= width for line in lines(text, width=width))


@pytest.mark.parametrize(
    "text",
    ["a\tb", "`a\tb`", "# a\tb", "- a\tb", "> **a\tb**", "[a\tb](http://x)", "![a\tb](u)",
     "| a\tb | `c\td` |\n|---|---|\n| e\tf | `g\th` |", "```\na\tb\n```", "<b>a\tb</b>",
     "$a\tb$", "$$\na\tb\n$$", "\\frac{a\tb}{"],
)  # fmt: skip
def test_no_tab_reaches_the_screen(text: str) -> None:
    for width in (8, 60):
        assert not any("\t" in line for line in lines(text, width=width))


def test_prose_is_no_wider_than_a_page_and_everything_is_wrapped() -> None:
    words = "word " * 100
    assert max(map(len, lines(words, width=190))) <= 100
    url = "https://example.com/" + "a" * 300
    assert "".join(lines(f"see {url}")) == f"see{url}"


def test_code_is_wrapped_or_cut_and_copied_as_it_came() -> None:
    code = "\tif x:\n" + "long " * 30 + "\n"
    text = f"```python\n{code}```\n\n- in a list\n\n  ~~~\n  {'y' * 90}\n  ~~~\n"
    found = document(text, width=40)
    assert [block.code.text for block in found.blocks] == [code, "y" * 90 + "\n"]
    assert all(width_of(found.line(y).text) <= 40 for y in range(found.height))
    cut = lines(text, width=40, look=Look(wrapped=False, shift=5))
    assert cut[2].startswith("▎‹long") and cut[2].endswith("›")


def test_a_piece_costs_as_much_in_a_long_block_as_in_a_short_one() -> None:
    source = "    value = compute(argument, other)  # and why\n"

    def cost(text: str) -> float:
        found = document()
        found.append(f"```python\n{text}")
        found.adopt(found.read())
        started = time.thread_time()
        for _ in range(20):
            found.append(source)
            assert not found.to_read
        return time.thread_time() - started

    assert cost(source * 1500) < 10 * cost(source * 20) + 0.02


def test_colours_come_in_small_steps_and_are_those_of_the_whole() -> None:
    source = 'def f(x):\n    """Say\n    so."""\n    return "a" + x  # why\n\n' * 100
    whole = Code("python")
    whole.prepare()
    whole.finish(source)
    while whole.colour(len(whole.lines), 1):
        pass
    grown = Code("python")
    for start in range(0, len(source), 37):
        grown.append(source[start : start + 37])
        grown.colour(len(grown.lines), 1)
    for row in range(len(whole.lines)):
        end = len(whole.lines[row])
        styles = [
            [piece.styles for piece in code.pieces(row, 0, end) for _ in piece.text]
            for code in (whole, grown)
        ]
        assert styles[0] == styles[1], whole.lines[row]
    assert any(piece.styles for piece in whole.pieces(0, 0, 9))


def test_the_parts_of_a_long_block_are_read_once() -> None:
    found = Document()
    found.lay(60, Look())
    for number in range(200):
        found.append(f"Paragraph {number} of it.\n\n")
        assert found.to_read < 100
        found.adopt(found.read())
    assert found.height == 399


def test_a_reply_that_goes_on_after_its_end_is_one() -> None:
    found = document("- a\n\n```py\nx", "\n")
    found.append("y = 1\n```\n\nOne, ")
    found.adopt(found.read())
    assert not found.close()
    found.adopt(found.read(whole=True))
    found.append("two.")
    found.adopt(found.read())
    shown = [found.line(y).text.rstrip() for y in range(found.height)]
    assert shown[3:] == ["▎ x", "▎ y = 1", "", "One, two."]


PARTS = [
    "# Title\n", "para one\ntwo\n", "\n", "- a\n", "- b\n", "  - c\n", "1. x\n", "2. y\n", "1",
    "```python\ndef f():\n\treturn 1\n", "```\n", "    indented\n", "> quote\n", "> more\n", "-",
    "| a | b |\n", "|---|--:|\n", "| 1 | `x` |\n", "---\n", "===\n", "$$\nx^2\n$$\n", "\\[ a \\]\n",
    "<div>\n", "<b>x</b> & &lt;\n", "*em* **st** `c`\n", "[l](http://x)\n", "[r]: http://x\n", "#",
    "[r]\n", "- [ ] todo\n", "~~~\n", "~~~ js\nx\n", "text $x$, \\(y\\) $5 and $10\n", "\t tab\n",
    "*", "`", "$", " ", "\n\n", "漢字👩‍👩‍👧\n", "   ```\n", "````\n", "https://a.b/c?d=1\n",
    "\\begin{cases} a & b \\\\ c\n", "\\end{cases}\n", "^", "{", "}", "<", "|", "[", "](",
    "\\frac{", "![p](q)",
]  # fmt: skip


@pytest.mark.parametrize("end", ["`", "\n", "-|", " x", "-\nx"])
def test_a_table_may_turn_out_to_be_none(end: str) -> None:
    text = f"above\n| a\n|-{end}"
    assert lines(*text) == lines(text)


@pytest.mark.random
def test_a_reply_in_pieces_becomes_what_it_is_as_a_whole(rounds: Rounds) -> None:
    for random in rounds(40):
        text = "".join(random.choice(PARTS) for _ in range(random.randint(1, 14)))
        places = {random.randrange(len(text) + 1) for _ in range(random.choice([1, 5, 40]))}
        cuts = sorted({0, len(text), *places})
        width = random.choice([1, 5, 20, 40, 60, 120])
        pieces = [text[start:end] for start, end in pairwise(cuts)]
        whole = document(text, width=width)
        assert lines(*pieces, width=width) == lines(text, width=width), pieces
        if width > 20:
            wide = (whole.line(y).text for y in range(whole.height))
            assert all(width_of(line) <= width for line in wide), text
        for block in whole.blocks:
            assert any(isinstance(whole.line(y), CodeLine) for y in range(block.first, block.last))
