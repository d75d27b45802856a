"""``ondevice chats``: chats that come from files and go to files."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec

from ondevice.chats import Chats, Heading
from ondevice.cli._input import confirm, stopped_by_ctrl_c
from ondevice.cli._json import print_json
from ondevice.cli._options import FilePath, WholeNumber, check_is_new
from ondevice.cli._unlock import unlock
from ondevice.errors import NotFound, UsageError
from ondevice.store import Database
from ondevice.text import printable

_NAMED = 10  # of each kind

_as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(name="chats")
def command() -> None:
    """List, import and export chats.

    All chats are in one file on this device. If it has a passphrase, ondevice takes it from
    ONDEVICE_PASSPHRASE or the system's keyring, or asks for it.
    """


@command.command(name="list")
@click.option("--archived", is_flag=True, help="List archived chats.")
@_as_json
def list_(archived: bool, as_json: bool) -> None:
    """List chats, the latest first, with the numbers that export takes."""
    with _chats() as chats:
        headings = chats.headings(archived=archived)
    if as_json:
        print_json([msgspec.to_builtins(heading) for heading in headings])
        return
    for heading in headings:
        day = f"{heading.updated_at.astimezone():%Y-%m-%d}"
        click.echo(f"{heading.id:>6}  {day}  {heading.messages:>5}  {printable(heading.title)}")


@command.command(name="import")
@click.argument("file", metavar="FILE|DIR", type=FilePath())
@click.option("--deleted", is_flag=True, help="Restore chats that were deleted here.")
@click.option("--remember", is_flag=True, help="Remember what you said in them.")
@_as_json
def import_(file: Path, deleted: bool, remember: bool, as_json: bool) -> None:
    """Add the chats and messages of an export that are not here yet.

    FILE is a JSON export from ondevice, or an export from ChatGPT, Claude or Open WebUI: the
    archive, the unpacked folder, or conversations.json in it. Ctrl+C stops the import: what was
    imported so far stays, until “ondevice chats undo”.
    """
    remembered = 0
    with _chats() as chats, stopped_by_ctrl_c() as cancel:
        progress = None if as_json or not sys.stderr.isatty() else _show
        result = chats.import_(file, progress, cancel, None, deleted)
        if progress:
            click.echo(f"\r{'':<40}\r", nl=False, err=True)
        if remember and result and not cancel.is_set():
            remembered = chats.remember(result, None, cancel, run=result.run)
    if as_json:
        print_json(
            {
                "new": result.new,
                "grown": result.grown,
                "unchanged": result.unchanged,
                "deleted": result.deleted,
                "left_out": result.left_out,
                "chats": list(result),
                "remembered": remembered,
                "stopped": cancel.is_set(),
            }
        )
    else:
        for what, names in (("Left out", result.left_out), ("Deleted here", result.deleted)):
            for name in names[:_NAMED]:
                click.echo(f"{what}: {printable(name)}", err=True)
            if len(names) > _NAMED:
                more = len(names) - _NAMED
                click.echo(f"{what}: {more} more; --json lists all.", err=True)
        if result.deleted:
            click.echo("Add --deleted to restore what was deleted here.", err=True)
        click.echo(f"Chats: {result}.")
        if remembered:
            click.echo(f"Remembered {remembered} of your messages.")
    if cancel.is_set():
        raise click.Abort


@command.command()
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@_as_json
def undo(yes: bool, as_json: bool) -> None:
    """Undo the latest import, with what is remembered from it.

    Chats in which you have written since are kept.
    """
    with _chats() as chats:
        run = chats.last_import()
        if run is None:
            raise NotFound("There is no import to undo.")
        if not yes:
            at = f"{run.at.astimezone():%Y-%m-%d %H:%M}"
            what = f"{run.chats} new, {run.grown} grown"
            question = f"Undo the import of {printable(run.name)} of {at} ({what})?"
            confirm(question)
        undone = chats.undo_import(run)
    if as_json:
        print_json(msgspec.to_builtins(undone))
    else:
        kept = f", {undone.kept} kept" if undone.kept else ""
        click.echo(
            f"Chats: {undone.removed} removed, {undone.shrunk} restored to what they were{kept}."
        )


@command.command()
@click.argument("file", type=FilePath())
@click.argument("numbers", nargs=-1, type=WholeNumber(), metavar="[NUMBER…]")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@_as_json
def export(file: Path, numbers: tuple[int, ...], force: bool, as_json: bool) -> None:
    """Export all chats, or those with these numbers, to FILE.

    If the name of FILE ends in .json, it gets JSON with all branches, which can be imported again;
    otherwise it gets one chat as Markdown. Neither is encrypted.
    """
    check_is_new(file, force)
    with _chats() as chats:
        if numbers:
            wanted = list(numbers)
            if missing := [number for number in wanted if chats.heading(number) is None]:
                raise NotFound(
                    f"There is no chat {missing[0]}. “ondevice chats list” shows the numbers."
                )
        else:
            found: list[Heading] = [*chats.headings(), *chats.headings(archived=True)]
            wanted = [heading.id for heading in found]
        if not wanted:
            raise NotFound("There are no chats yet.")
        if file.suffix.lower() == ".json":
            chats.export_all(wanted, file, replace=force)
        elif len(wanted) == 1:
            chats.export(wanted[0], file, replace=force)
        else:
            raise UsageError(
                "Markdown holds one chat. Give its number, or a file that ends in .json."
            )
    where = printable(str(file.absolute()))
    if as_json:
        print_json({"file": where, "chats": len(wanted)})
    else:
        click.echo(f"{len(wanted)} chat{'s' * (len(wanted) != 1)} in {where}")


@contextmanager
def _chats() -> Iterator[Chats]:
    database = unlock(Database)
    try:
        yield Chats(database)
    finally:
        database.close()


def _show(count: int) -> None:
    click.echo(f"\r{f'Importing: {count} chats':<40}\r", nl=False, err=True)
