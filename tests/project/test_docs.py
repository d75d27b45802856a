"""README and docs say what holds: their Python runs, their commands, flags and files exist."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from ondevice.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r"^    (.+)$", re.MULTILINE)
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
A_FOLDER = re.compile(r"(?:ondevice|tui|bench|tests|docs|examples|models|\.ci)/[\w./-]+")
A_MODULE = re.compile(r"(?:[\w-]+/)*\w+\.(?:py|c|h)")  # as of a folder named in the text before it
FILES = [
    f"/{p.relative_to(ROOT)}" for p in ROOT.glob("[!.]*/**/*.*") if p.suffix in (".py", ".c", ".h")
]
SNIPPETS = [
    pytest.param(block, id=f"{page.name}-{number}")
    for page in PAGES
    for number, block in enumerate(PYTHON.findall(page.read_text("utf-8")))
]


def commands(text: str) -> Iterator[str]:
    """Every command of ours in a page: lines of its blocks, and what stands in the text as code."""
    for line in (*INDENTED.findall(FENCED.sub("", text)), *INLINE.findall(text)):
        for part in re.split(r"\s#\s|\s{2,}|[|<>]", line):
            if re.match(r"ondevice [a-z]", part.strip()):
                yield part.strip()


def fault_of(line: str) -> str | None:
    """What in this command does not exist; None: all of it does."""
    words = shlex.split(re.sub(r"[…\[\]]", " ", line))[1:]
    command: click.Command = cli
    context = click.Context(cli)
    while words and isinstance(command, click.Group):
        name = words.pop(0)
        found = command.get_command(context, name)
        if found is None:
            return f"no command {name}"
        command = found
    known = {flag for parameter in command.params for flag in parameter.opts}
    known |= {flag for parameter in command.params for flag in parameter.secondary_opts}
    for word in words:
        if word.startswith("-") and word.partition("=")[0] not in {*known, "--help", "-"}:
            return f"no flag {word}"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_link_and_file_of_a_page_exists(page: Path) -> None:
    text = page.read_text("utf-8")
    wrong = [f"{line}: {fault}" for line in commands(text) if (fault := fault_of(line))]
    for link in LINK.findall(text):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / path) if path else page
        if not target.exists():
            wrong.append(f"no file {link}")
        elif anchor and anchor not in anchors(target):
            wrong.append(f"no heading {link}")
    for code in INLINE.findall(text):
        missing = A_FOLDER.fullmatch(code) and not (ROOT / code).exists()
        if A_MODULE.fullmatch(code) and not any(file.endswith(f"/{code}") for file in FILES):
            missing = True
        if missing:
            wrong.append(f"no file {code}")
    assert not wrong


def anchors(page: Path) -> set[str]:
    """The names that headings have as the ends of links."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("block", SNIPPETS)
def test_python_in_a_page_runs(
    block: str, default_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.gguf").symlink_to(default_model)
    exec(compile(block, "page", "exec"), {"__name__": "page"})


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("ondevice ask --ram 700M x", None),
        ("ondevice ask --rum 700M x", "no flag --rum"),
        ("ondevice memory serch x", "no command serch"),
        ("ondevice memory add FILE|DIR… --text TEXT", None),
    ],
)
def test_what_does_not_exist_is_found(line: str, fault: str | None) -> None:
    assert fault_of(line) == fault
