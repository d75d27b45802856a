"""Hands what was copied to tmux and the desktop, since many a terminal ignores OSC 52.

Nobody answers that, so it is never known whether a terminal has taken it. Over ssh it is the only
way there is.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from typing import Any

from textual.app import App

from ondevice.system import children

#: Programs that take it on standard input; the first one that is there.
_PROGRAMS = (
    ("pbcopy",),
    ("wl-copy",),
    ("xclip", "-selection", "clipboard"),
    ("xsel", "--clipboard", "--input"),
)
#: Into a buffer of tmux, which hands it to the terminal around it: what applications send to the
#: terminal themselves, tmux leaves out unless it is told otherwise.
_TMUX = ("tmux", "load-buffer", "-w", "-")
_TMUX_ALONE = ("tmux", "load-buffer", "-")  # before 3.2
_PATIENCE = 5  # seconds


async def hand_over(app: App[Any], text: str, what: str) -> None:
    """Do so, and tell what is copied (empty: not that), or that it is not."""
    taken = False
    if in_tmux := bool(os.environ.get("TMUX")):
        taken = await _piped(_TMUX, text) or await _piped(_TMUX_ALONE, text)
    if "SSH_CONNECTION" not in os.environ and (program := next(filter(_is_there, _PROGRAMS), None)):
        taken = await _piped(program, text) or taken
    if in_tmux and not taken:
        app.notify("Nothing was copied: tmux refused the text.", severity="error")
    elif what:
        app.notify(f"{what} was copied.")


def _is_there(program: tuple[str, ...]) -> bool:
    needs_display = {"x": "DISPLAY", "w": "WAYLAND_DISPLAY"}.get(program[0][0])
    return shutil.which(program[0]) is not None and (
        needs_display is None or needs_display in os.environ
    )


async def _piped(program: tuple[str, ...], text: str) -> bool:
    """Whether the program took it."""
    return await asyncio.to_thread(_pipe, program, text)


def _pipe(program: tuple[str, ...], text: str) -> bool:
    try:
        done = subprocess.run(
            program,
            input=text.encode(),
            timeout=_PATIENCE,
            env=children.environment(),
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
