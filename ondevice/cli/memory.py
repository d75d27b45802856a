"""``ondevice memory``: what is remembered, and how to have it forgotten."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any, BinaryIO, get_args

import click
import msgspec

from ondevice.cli._input import confirm
from ondevice.cli._json import print_json
from ondevice.cli._options import FilePath, WholeNumber, check_is_new
from ondevice.cli._unlock import forget_code, new_code, unlock, usable
from ondevice.errors import FileError, StoreError, UsageError
from ondevice.memory import (
    GATE,
    Cube,
    Kind,
    Memory,
    Remembered,
    Status,
    Version,
    export_salvaged,
    find_files,
    measure_search,
    parse_label,
)
from ondevice.store import Database, Salvage
from ondevice.system.whole_file import written
from ondevice.text import printable, reason

_OTHER_KIND = "In a folder, only text, Markdown and PDF files are read. Name the file to add it."
_NAMED = 20  # files that are left out, texts that are blanked
_LONGEST_LINE = 64 << 20  # bytes of an export

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
_limit = click.option(
    "-n",
    "limit",
    type=WholeNumber(1),
    default=10,
    show_default=True,
    help=("Maximum number of results."),
)


@click.group(name="memory")
def command() -> None:
    """See, search, move and forget what is remembered.

    The memory is in one file on this device. If it has a passphrase, ondevice takes it from
    ONDEVICE_PASSPHRASE or the system's keyring, or asks for it.
    """


@command.command()
@click.argument("files", nargs=-1, metavar="FILE|DIR…", type=FilePath())
@click.option("--text", help="Remember this text as a note; “-” reads it from a pipe.")
@click.option("--tag", "tags", multiple=True, help="Tag what is added; repeatable.")
@click.option("--keep-secrets", is_flag=True, help="Store passwords and keys in --text as well.")
@_as_json
def add(
    files: tuple[Path, ...],
    text: str | None,
    tags: tuple[str, ...],
    keep_secrets: bool,
    as_json: bool,
) -> None:
    """Remember files, whole folders, or a note.

    Files can be text, Markdown or PDF. If a file has changed since it was last added, its new text
    replaces the old one. Files in a folder that hold no text, or are of another kind, are left out
    and listed.
    """
    if not files and text is None:
        raise UsageError("Name a file or folder to remember, or give a note with --text.")
    if missing := [path for path in files if not path.exists()]:
        raise FileError(
            f'There is no file or folder "{missing[0]}". To remember a note, give it with --text.'
        )
    done: list[dict[str, Any]] = []
    found = [find_files(path) for path in files]
    with _memory() as memory:
        if text is not None:
            note = sys.stdin.read() if text == "-" else text
            remembered = memory.add(note.strip(), tags=tags, keep_secrets=keep_secrets)
            done.append({"note": _cube(remembered.cube), "left_out": remembered.left_out})
            if not as_json:
                _print_remembered(remembered)
        for file in [file for one in found for file in one.to_read]:
            shown = printable(str(file))
            try:
                chunks = memory.add_file(file, tags)
            except FileError as error:
                if file in files:
                    raise
                why = printable(str(error))
                done.append({"file": shown, "left_out": why})
                click.echo(f"Left out: {why}", err=True)
                continue
            done.append({"file": shown, "chunks": len(chunks)})
            if not as_json:
                state = (
                    _plural(len(chunks), "chunk") if chunks else "unchanged since it was last added"
                )
                click.echo(f"{shown}: {state}")
    others = [printable(str(file)) for one in found for file in one.left_out]
    for name in others[:_NAMED]:
        click.echo(f"Left out: {name}: {_OTHER_KIND}", err=True)
    if len(others) > _NAMED:
        click.echo(f"Left out: {len(others) - _NAMED} more such files; --json lists all.", err=True)
    if as_json:
        print_json({"added": done, "left_out": others})


@command.command()
@click.argument("query", nargs=-1, required=True)
@_limit
@_as_json
def search(query: tuple[str, ...], limit: int, as_json: bool) -> None:
    """Find memories by words, names and days.

    \b
      ondevice memory search what did I plan last spring
    """
    with _memory() as memory:
        found = memory.search(" ".join(query), limit=limit)
    if as_json:
        hits = [{"score": hit.score, **_cube(hit.cube)} for hit in found.hits]
        print_json({"confidence": found.confidence, "hits": hits})
    elif not found.hits:
        click.echo("No memories match.")
    elif found.confidence < GATE:
        click.echo("No memory answers this. Closest matches:", err=True)
    for hit in () if as_json else found.hits:
        click.echo(_line(hit.cube))


@command.command(name="list")
@click.option("--kind", type=click.Choice(get_args(Kind)), help="Only memories of this kind.")
@click.option("--status", type=click.Choice(get_args(Status)), help="Only memories in this state.")
@click.option("--tag", help="Only memories with this tag.")
@_limit
@_as_json
def list_(
    kind: Kind | None, status: Status | None, tag: str | None, limit: int, as_json: bool
) -> None:
    """List memories, the latest first.

    With --status proposed, those that may be facts are listed, with the sentence they come from.
    They are used only once you accept them.
    """
    with _memory() as memory:
        cubes = memory.latest(kind=kind, status=status, tag=tag, limit=limit)
        stated = memory.stated_in(cube for cube in cubes if cube.status == "proposed")
    if as_json:
        print_json(
            [
                _cube(cube) | ({"sentence": stated[cube.id]} if cube.id in stated else {})
                for cube in cubes
            ]
        )
    for cube in () if as_json else cubes:
        click.echo(_line(cube))
        if sentence := stated.get(cube.id):
            click.echo(f"{'':10}from “{' '.join(printable(sentence).split())}”")


@command.command()
@click.argument("numbers", nargs=-1, required=True, metavar="NUMBER…")
@_as_json
def accept(numbers: tuple[str, ...], as_json: bool) -> None:
    """Accept proposed facts, so that they are used from now on."""
    with _memory() as memory:
        _print_decided(memory.accept(map(parse_label, numbers)), "Accepted", as_json)


@command.command()
@click.argument("numbers", nargs=-1, required=True, metavar="NUMBER…")
@_as_json
def reject(numbers: tuple[str, ...], as_json: bool) -> None:
    """Reject proposed facts. They are archived, and the same is not proposed again."""
    with _memory() as memory:
        _print_decided(memory.reject(map(parse_label, numbers)), "Rejected", as_json)


@command.command()
@click.argument("number")
@_as_json
def show(number: str, as_json: bool) -> None:
    """Show one memory, such as 3:17, and where it comes from."""
    with _memory() as memory:
        known = memory.history(parse_label(number))
    if as_json:
        print_json({**_cube(known.cube), "tags": known.tags, "links": known.links})
        return
    cube = known.cube
    for name, value in (
        ("kind", cube.kind),
        ("status", cube.status),
        ("said", f"{cube.event_at:%Y-%m-%d %H:%M}"),
        ("about", _span(cube.about_from, cube.about_to)),
        ("written", f"{cube.written_at:%Y-%m-%d %H:%M}, version {cube.version}"),
        ("by", cube.speaker or "you"),
        ("source", f"{cube.source.kind} {cube.source.name}".strip()),
        ("topic", cube.topic),
        ("tags", ", ".join(known.tags)),
    ):
        if value:
            click.echo(f"{name:8} {printable(value)}")
    click.echo(f"\n{printable(cube.content)}")


@command.command()
@click.argument("number")
@_as_json
def history(number: str, as_json: bool) -> None:
    """Show what a memory said before and what replaced it."""
    with _memory() as memory:
        known = memory.history(parse_label(number))
    story: list[Cube | Version] = [
        *reversed(known.earlier),
        *known.versions,
        known.cube,
        *known.later,
    ]
    if as_json:
        print_json(
            [_cube(then) if isinstance(then, Cube) else msgspec.to_builtins(then) for then in story]
        )
        return
    for then in story:
        if isinstance(then, Version):
            text = printable(then.content)
            click.echo(f"{known.cube.label:>8}  {then.event_at.date()}  before an edit: {text}")
        else:
            click.echo(_line(then))


@command.command()
@click.argument("numbers", nargs=-1, required=True, metavar="NUMBER…")
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@_as_json
def forget(numbers: tuple[str, ...], yes: bool, as_json: bool) -> None:
    """Delete memories for good.

    Their versions and what was found in them are deleted too. Whatever quotes them is blanked:
    chat messages, other memories, titles, system prompts, drafts.
    """
    ids = [parse_label(number) for number in numbers]
    with _memory() as memory:
        going = memory.going(ids)
        if not yes:
            for cube in going:
                click.echo(_line(cube), err=as_json)
            blanked = memory.blanked(ids)
            if blanked:
                click.echo("Blanked in:", err=as_json)
            for one in blanked[:_NAMED]:
                click.echo(f"  {one.where}: {printable(one.text)}", err=as_json)
            if len(blanked) > _NAMED:
                click.echo(f"  and {len(blanked) - _NAMED} more", err=as_json)
            confirm(f"Forget {_plural(len(going), 'memory')} for good?")
        count = memory.forget(ids)
    if as_json:
        print_json({"forgotten": [cube.label for cube in going]})
    else:
        click.echo(f"Forgot {_plural(count, 'memory')}.")


@command.command(name="export")
@click.argument("file", type=FilePath())
@click.option(
    "--markdown", is_flag=True, help=("Write readable text, which cannot be imported again.")
)
@click.option("--salvage", is_flag=True, help="Write what can be read from a damaged store.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@_as_json
def export(file: Path, markdown: bool, salvage: bool, force: bool, as_json: bool) -> None:
    """Write the whole memory to FILE, or to the terminal with “-”.

    The default is JSON Lines, including versions and links. The file is not encrypted.
    """
    if salvage and markdown:
        raise UsageError("--salvage writes JSON Lines. Leave out --markdown.")
    check_is_new(file, force)
    failures = 0
    with _target(file, replace=force) as target:
        if salvage:
            store = unlock(Salvage)
            with contextlib.closing(store):
                target.writelines(export_salvaged(store.rows))
            failures = store.failures
        else:
            with _memory() as memory:
                memory.export(target, markdown=markdown)
    if as_json and str(file) != "-":
        print_json({"file": printable(str(file)), "failed_reads": failures})
    elif failures:
        click.echo("Part of the store could not be read; the rest is in the file.", err=True)


@command.command(name="import")
@click.argument("file", type=FilePath())
@_as_json
def import_(file: Path, as_json: bool) -> None:
    """Add the memories of an export that are not here yet.

    “-” reads from a pipe. Memories you have forgotten here stay forgotten.
    """
    with _source(file) as source, _memory() as memory:
        count = memory.import_(_lines(source))
    if as_json:
        print_json({"imported": count})
    else:
        click.echo(f"Imported {_plural(count, 'memory')}.")


@command.command()
@_as_json
def stats(as_json: bool) -> None:
    """Count what is remembered."""
    with _memory() as memory:
        statistics = memory.statistics()
    if as_json:
        print_json(statistics)
        return
    for name, value in msgspec.structs.asdict(statistics).items():
        shown = (
            ", ".join(f"{n} {k}" for k, n in value.items()) if isinstance(value, dict) else value
        )
        click.echo(f"{name.replace('_', ' '):10} {shown}")


@command.command()
@_as_json
def check(as_json: bool) -> None:
    """Check that the store is intact, with no deleted text left."""
    with _memory() as memory:
        problems = memory.check()
    if as_json:
        print_json({"sound": not problems, "problems": problems})
    if problems:
        raise StoreError(
            "\n".join(problems) + "\nRescue what can be read: ondevice memory export --salvage FILE"
        )
    if not as_json:
        click.echo("The store is intact.")


@command.command()
@click.argument("file", type=FilePath())
@_as_json
def bench(file: Path, as_json: bool) -> None:
    """Measure search on conversations whose answers are known.

    FILE is a JSON list of conversations with “turns”, and “questions” that name the turns that
    answer them. Your own memory is not used.
    """
    report = measure_search(file, lambda line: click.echo(line, err=True))
    if as_json:
        print_json(report)
        return
    for name, value in report.figures.items():
        click.echo(f"{name:18} {value:8.3f}")


@command.command()
@click.option("--keyring", is_flag=True, help="Make a new one and keep it in the system's keyring.")
@click.option("--remove", is_flag=True, help="Store everything without encryption from now on.")
def passphrase(keyring: bool, remove: bool) -> None:
    """Set, change or remove the passphrase that encrypts the store.

    With --keyring, ondevice makes a passphrase and keeps it in the system's keyring, so you are
    never asked for it. It is shown once as a recovery code, in case the keyring is lost. If you
    lose the passphrase, the store cannot be opened again.
    """
    if keyring and remove:
        raise UsageError("Give --keyring or --remove, not both.")
    with _memory() as memory:
        if keyring:
            with new_code() as code:
                click.echo(f"Recovery code; write it down: {code}")
                memory.database.set_passphrase(code)
        else:
            memory.database.set_passphrase(None if remove else _new_passphrase())
            forget_code()
    click.echo("The store has no passphrase now." if remove else "The store is encrypted.")


def _new_passphrase() -> str:
    """Typed twice in a terminal, or a line of what is piped in."""
    if sys.stdin.isatty():
        code: str = click.prompt("New passphrase", hide_input=True, confirmation_prompt=True)
        return usable(code)
    if code := sys.stdin.readline().rstrip("\r\n"):
        return usable(code)
    raise UsageError("There is no passphrase. Type it in a terminal, or pipe it in as one line.")


@contextmanager
def _memory() -> Iterator[Memory]:
    database = unlock(Database)
    try:
        yield Memory(database)
    finally:
        database.close()


@contextlib.contextmanager
def _target(file: Path, *, replace: bool) -> Iterator[BinaryIO]:
    """A file for the user only, which takes its name once it is complete; “-” is the terminal."""
    if str(file) == "-":
        if sys.stdout is None:
            raise FileError("The export cannot be written: standard output is closed.")
        yield sys.stdout.buffer
        return
    with written(file, replace=replace) as target:
        yield target


@contextlib.contextmanager
def _source(file: Path) -> Iterator[BinaryIO]:
    """The file; “-” is standard input."""
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    try:
        opened = file.open("rb")
    except OSError as error:
        raise FileError(f"{file} cannot be read: {reason(error)}.") from error
    with opened:
        yield opened


def _lines(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file; what has no ends of lines, as a device, is not read on and on."""
    while line := file.readline(_LONGEST_LINE):
        if len(line) == _LONGEST_LINE:
            raise FileError("The file is not an export of the memory: one of its lines has no end.")
        yield line


def _line(cube: Cube) -> str:
    state = "" if cube.status == "active" else f" ({cube.status})"
    who = f"{printable(cube.speaker)}: " if cube.speaker else ""
    text = " ".join(printable(cube.content).split())
    return f"{cube.label:>8}  {cube.event_at.date()}  {cube.kind}{state}: {who}{text}"


def _span(first: date | None, last: date | None) -> str:
    """“2026-06-05”, or “2026-06-08 to 2026-06-14”; empty when it is not known."""
    return " to ".join(str(day) for day in dict.fromkeys((first, last)) if day)


def _cube(cube: Cube) -> dict[str, Any]:
    """For JSON: with the number that people and the other commands use."""
    return {"number": cube.label, **msgspec.to_builtins(cube)}


def _print_decided(cubes: list[Cube], done: str, as_json: bool) -> None:
    if as_json:
        print_json([_cube(cube) for cube in cubes])
    for cube in () if as_json else cubes:
        click.echo(f"{done}: {printable(cube.content)}")


def _print_remembered(remembered: Remembered) -> None:
    click.echo(f"Remembered as {remembered.cube.label}.")
    for fact in remembered.facts:
        click.echo(f"Understood: {printable(fact.content)}")
    for fact in remembered.proposed:
        click.echo(f"Proposed as {fact.label}: {printable(fact.content)}")
    if remembered.left_out:
        click.echo(
            f"Left out: {', '.join(remembered.left_out)}. Store it anyway with --keep-secrets."
        )


def _plural(count: int, what: str) -> str:
    plural = what if count == 1 else f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{count} {plural}"
