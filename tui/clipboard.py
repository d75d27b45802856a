"""Puts text into the clipboard: the terminal's (OSC 52) and, where there is one, the desktop's."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from contextlib import suppress

from textual.app import App

from ondevice import children

#: Programs that take it on standard input; the first one that is there.
_PROGRAMS = (
    ("pbcopy",),
    ("wl-copy",),
    ("xclip", "-selection", "clipboard"),
    ("xsel", "--clipboard", "--input"),
)
_PATIENCE = 5  # seconds


def copy(app: App[object], text: str) -> None:
    """Both ways, since many a terminal ignores the first and over ssh only the first can work."""
    app.copy_to_clipboard(text)
    if "SSH_CONNECTION" not in os.environ:
        for program in _PROGRAMS:
            needs_display = program[0].startswith("x") and "DISPLAY" not in os.environ
            if shutil.which(program[0]) and not needs_display:
                threading.Thread(target=_pipe, args=(program, text), daemon=True).start()
                return


def _pipe(program: tuple[str, ...], text: str) -> None:
    # That it fails is no news: the terminal may have taken it.
    with suppress(OSError, subprocess.SubprocessError):
        subprocess.run(
            program,
            input=text.encode(),
            timeout=_PATIENCE,
            env=children.environment(),
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
