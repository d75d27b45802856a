"""How fast and how steady the terminal app is.

- ``start_s``: from starting the process to a letter that was typed, on the screen.
- ``idle_pct``: of a core, what app and engine take together while nothing happens. Linux.
- ``left_processes``: of the tries in ``runs``, at whose random moments the terminal is closed.
- ``clean_runs``: of those in ``runs``, with 300 random keys, clicks and sizes each, that broke and
  lost nothing (``tests/support/random_user.py``).
- ``typing_p95_ms``: from a key press to its letter on the screen while a reply streams as fast as
  the default model writes; the app's own work, without the terminal's.
- ``typing_code_p95_ms``: the same while a block of code of 72 KB is written.
- ``stream_cost_pct``: tokens a second that showing a reply costs the engine, compared with the same
  reply saved but not shown, before and after it; ``stream_app_cpu_pct``: of a core, what the app
  takes from the question to the end of the reply. Medians of many replies.
- ``open_10k_ms``: a conversation of 10,000 messages, from the store to the screen.
- ``jumps_right``: of the jumps in ``runs`` to random messages of it, those after which the message
  is in view; ``jump_p95_ms``: how long they take. ``delete_10k_ms``: to delete it for good.
- ``frame_max_ms``: the longest time for which the app is deaf while that conversation is scrolled;
  ``frame_max_cpu_ms``: the same in processor time, which other programs do not blur.
"""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path
from typing import Any

sys.path.append(sys.path.pop(0))  # this folder comes last, or this file would be the package tui
sys.path.append(str(Path(__file__).parent.parent / "tests" / "support"))

import frame
import tui_app
import tui_process


def measure(quick: bool) -> tuple[frame.Figures, frame.Runs]:
    rounds = 1 if quick else 5
    gc.freeze()  # as the command does
    runs: frame.Runs = []
    for number in range(1, rounds + 1):
        frame.say(f"round {number} of {rounds}")
        run: dict[str, Any] = {"start_s": tui_process.start_s(tui_app.model())}
        run["idle_pct"] = tui_process.idle_pct(tui_app.model(), 10 if quick else 30)
        run |= asyncio.run(tui_app.streaming(300 if quick else 1000, 8 if quick else 12))
        run |= asyncio.run(tui_app.writing_code(15 if quick else 60))
        gc.collect()  # the apps before are garbage that a user's does not have
        run |= asyncio.run(tui_app.long_conversation(40 if quick else 200, 10 if quick else 50))
        runs.append(run)
    figures = {name: frame.median(run[name] for run in runs) for name in runs[0]}
    tries, plays = (10, 3) if quick else (200, 50)
    frame.say(f"{plays} random runs")
    figures["clean_runs"] = asyncio.run(tui_app.clean_runs(plays))
    frame.say(f"{tries} terminals closed")
    figures["left_processes"] = tui_process.left_processes(tui_app.model(), tries)
    runs.append({"plays": plays, "tries": tries})
    return figures, runs


if __name__ == "__main__":
    frame.run(__doc__, measure)
