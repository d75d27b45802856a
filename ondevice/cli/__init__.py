"""The console script. Each command is a module of this package with a ``command`` in it."""

from __future__ import annotations

import difflib
import errno
import importlib
import os
import signal
import sys
from contextlib import suppress
from typing import Any

import click

from ondevice import __version__
from ondevice.errors import OndeviceError
from ondevice.system import children
from ondevice.text import printable, reason

#: Command → its line in ``ondevice --help``. A module is imported only when its command runs.
COMMANDS = {
    "ask": "Answer one question, from the arguments or a pipe.",
    "completion": "Print the script that completes commands in your shell.",
    "chat": "Open the terminal app.",
    "chats": "List, import and export chats, also from other services.",
    "doctor": "Check this machine: RAM, disk, versions and problems.",
    "fit": "Show which models run here, how well and how fast.",
    "memory": "See, search, move and forget what is remembered.",
    "models": "List, download, import and remove models.",
    "pack": "Pack a model into a stack, which fits any amount of RAM.",
    "plan": "Show how a model would run now, and why.",
    "serve": "Serve the models to other programs on this machine.",
    "stack": "Show how good a stack is at each of its sizes.",
}
#: What writing to standard output fails with: a full disk, a closed pipe, a terminal that is gone.
_UNWRITTEN = {errno.ENOSPC, errno.EPIPE, errno.EIO, errno.EBADF, errno.EFBIG}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"ondevice.cli.{cmd_name}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], COMMANDS, 1)
            if not near or "Did you mean" in error.message:  # as other versions of click say
                raise
            ctx.fail(f"{error.message} Did you mean {near[0]}?")

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Settings: flag, then ONDEVICE_… environment variable, then config.toml, then "
    "default. ONDEVICE_HOME moves all files of ondevice into one folder. Exit "
    "codes: 0 done, 1 failed (also where what is named does not exist), 2 wrong usage, 130 "
    "interrupted.",
)
@click.version_option(__version__, prog_name="ondevice")
def cli() -> None:
    """Chat with language models on this device. Nothing leaves it unless you name a server."""


def main(arguments: list[str] | None = None) -> None:
    """Run the console script and exit with 0, 1, 2 or 130."""
    _open_closed()
    for name, value in children.NO_THREADS_OF_NUMPY.items():
        os.environ.setdefault(name, value)
    if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    code = run(arguments)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # nobody is left to answer it
    sys.exit(code)


def _open_closed() -> None:
    """Of what is closed nothing can be read, and what is said there goes nowhere.

    No other file gets its number: native code that writes there would write into the store.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115


def run(arguments: list[str] | None = None) -> int:
    """Run the command in ``arguments`` (or ``sys.argv``) and return its exit code.

    “help chats export” is “chats export --help”.
    """
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["help"]:
        arguments = [*given[1:], "--help"]
    try:
        result: Any = cli.main(arguments, prog_name="ondevice", standalone_mode=False)
        if sys.stdout is not None:
            sys.stdout.flush()
    except (click.exceptions.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return 128 + signal.SIGINT
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except OndeviceError as error:
        click.echo(f"ondevice: {printable(str(error))}", err=True)
        return error.exit_code
    except OSError as error:
        if isinstance(error, PermissionError) and error.filename is not None:
            told = f"ondevice: {error.filename}: {reason(error)}. Make it accessible for this user"
            click.echo(f"{printable(told)}, or set ONDEVICE_HOME to another folder.", err=True)
            return 1
        if error.filename is not None or error.errno not in _UNWRITTEN:
            raise
        with suppress(OSError, ValueError, AttributeError):  # what is left in there is lost
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if error.errno != errno.EPIPE:  # a reader that has enough knows it
            click.echo(f"ondevice: the output cannot be written: {error.strerror}.", err=True)
        return 1
    return result if isinstance(result, int) else 0
