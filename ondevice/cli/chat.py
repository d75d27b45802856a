"""``ondevice chat``: the terminal app."""

from __future__ import annotations

import gc
import os
import signal
import sys
from contextlib import closing

import click

from ondevice.chats import Chats
from ondevice.cli._kernels import compile_once
from ondevice.cli._options import chat_flags
from ondevice.cli._unlock import unlock
from ondevice.config import Settings
from ondevice.engine import AnyEngine
from ondevice.errors import UsageError
from ondevice.store import Database


@click.command()
@chat_flags
@click.option("--resume", is_flag=True, help="Show the latest chat.")
def command(settings: Settings, problems: list[str], resume: bool) -> int:
    """Open the terminal app with the tabs that were open when it last ended."""
    if sys.stdout is None or not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("“ondevice chat” needs a terminal. In a pipe, use “ondevice ask”.")
    if (kind := os.environ.get("TERM")) in ("dumb", "unknown"):  # it has no screen, only lines
        raise UsageError(
            f"The app cannot run in this terminal (TERM is “{kind}”). Use “ondevice ask” here, or "
            "open the app in another terminal."
        )
    compile_once()
    gc.disable()  # nothing of what is made until the app runs is garbage
    # Only now: with Textual it takes a third of a second.
    from tui.app import OndeviceApp  # noqa: PLC0415

    with closing(unlock(Database)) as database:
        chats = Chats(database)
        chats.limit_states(settings.state_bytes(database.path.parent))
        latest = chats.used_last() if resume else None
        earlier = chats.load(latest) if latest else None
        first = settings == Settings() and not chats.headings()
        gc.freeze()  # what has been imported stays: there is no use in looking through it again
        gc.enable()
        app = OndeviceApp(AnyEngine(), chats, settings, earlier, first=first, problems=problems)
        app.run(mouse=settings.app.mouse)
        return 128 + signal.SIGINT if app.return_code is None else app.return_code
