"""One name means one thing, and one thing reads the same everywhere."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

from ondevice.text import size

ROOT = Path(__file__).parents[2]
_BY_HAND = re.compile(r"/ (?:1e[369]|10+|\w*_000)(?::[^}]*)?\} ?[kKMG]i?B")


def modules() -> list[Path]:
    return sorted(file for top in ("ondevice", "tui") for file in (ROOT / top).rglob("*.py"))


def test_no_two_classes_have_the_same_name() -> None:
    """A leading underscore makes no other name; a class in another one is called by both names."""
    places: dict[str, list[str]] = defaultdict(list)

    def collect(node: ast.AST, file: Path, within: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                name = within + child.name.lstrip("_")
                places[name].append(f"{file.relative_to(ROOT)}:{child.lineno}")
                collect(child, file, f"{name}.")
            else:
                collect(child, file, within)

    for file in modules():
        collect(ast.parse(file.read_text("utf-8")), file, "")
    assert {name: at for name, at in places.items() if len(at) > 1} == {}


@pytest.mark.parametrize(
    ("n_bytes", "words"),
    [
        (0, "0 MB"),
        (1, "1 byte"),
        (2, "2 bytes"),
        (999, "999 bytes"),
        (1000, "1 KB"),
        (640_000, "640 KB"),
        (999_499, "999 KB"),
        (999_500, "1 MB"),
        (830_000_000, "830 MB"),
        (999_499_999, "999 MB"),
        (999_500_000, "1.0 GB"),
        (1_117_000_000, "1.1 GB"),
    ],
)
def test_a_size_reads_the_same_everywhere(n_bytes: int, words: str) -> None:
    assert size(n_bytes) == words


def test_sizes_are_written_by_one_function() -> None:
    text = ROOT / "ondevice" / "text.py"
    by_hand = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in modules()
        for number, line in enumerate(file.read_text("utf-8").splitlines(), 1)
        if file != text and _BY_HAND.search(line)
    ]
    assert by_hand == []
