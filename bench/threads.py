"""How threads wait, against the best that one can choose by hand: quiet, busy, and with a quota.

Every side holds the same model, reads a prompt and then writes for some seconds, in turn with the
others, with our products. The busy machine has a busy loop for each core, the half busy one for
every other core, each in a session of its own, as other programs are; the quota is half of the
cores' time (of two cores, one). By hand means: one thread, or any other number of them, spinning or
sleeping, chosen at the start of the process.

``quiet_ratio``: our speed against as many spinning threads as there are cores, which is what
llama.cpp does by itself, on a quiet machine. ``busy_ratio``, ``half_busy_ratio`` and
``quota_ratio``: our speed against the fastest of those chosen by hand. ``spinning_…_ratio``:
against the spinning threads. All are medians of ratios round by round, of the model that does
worst. A quota needs root and a cgroup; without them it is left out.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import frame

from ondevice import llama
from ondevice.products import handlers
from ondevice.system import cgroups, cores

MODELS = ("smollm2-135m-instruct-q4_1.gguf", "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf")
PROMPT, REPLY = 96, 384  # tokens; after these, it writes the reply again
SPAWN = multiprocessing.get_context("spawn")


class Side(NamedTuple):
    """How threads are chosen; None: by ondevice."""

    threads: int | None
    policy: str | None = None  # of OpenMP

    @property
    def name(self) -> str:
        return f"{self.threads} {self.policy}" if self.threads else "ours"


def by_hand() -> list[Side]:
    counts = range(2, cores.usable_cpus() + 1)
    return [Side(1, SPIN), *(Side(n, policy) for n in counts for policy in (SPIN, SLEEP))]


SPIN, SLEEP = "spinning", "sleeping"
OURS = Side(None)


def measure(quick: bool) -> tuple[frame.Figures, frame.Runs]:
    rounds, seconds = (3, 2.0) if quick else (9, 4.0)
    figures: frame.Figures = {}
    runs: frame.Runs = []
    default = Side(cores.default_threads(), SPIN)
    for path in frame.models(*MODELS):
        n_cores = cores.usable_cpus()
        for condition, place in (
            ("quiet", nullcontext()),
            ("half_busy", busy(n_cores // 2)),
            ("busy", busy(n_cores)),
            ("quota", quota()),
        ):
            others = [default] if condition == "quiet" else by_hand()
            with place as group:
                if condition == "quota" and group is None:
                    frame.say("no quota can be set here")
                    continue
                found = race(path, [OURS, *others], group, rounds, seconds, condition)
            runs += [{"model": path.stem, "condition": condition, "speeds": each} for each in found]
            best = max(others, key=lambda side: frame.median(each[side.name] for each in found))
            ratios = {f"{condition}_ratio": best}
            if condition != "quiet":
                ratios[f"spinning_{condition}_ratio"] = default
            for name, side in ratios.items():
                ratio = frame.median(each[OURS.name] / each[side.name] for each in found)
                figures[name] = min(ratio, figures.get(name, ratio))
    return figures, runs


def race(
    path: Path, sides: list[Side], group: Path | None, rounds: int, seconds: float, condition: str
) -> list[dict[str, float]]:
    """Tokens a second of each side in each round; the first round, which warms up, is left out."""
    with ExitStack() as stack:
        ask = {side.name: stack.enter_context(running(path, side, group)) for side in sides}
        found = []
        for number in range(rounds + 1):
            frame.say(f"{path.stem}, {condition}: round {number} of {rounds}")
            found.append({name: once(seconds) for name, once in ask.items()})
        return found[1:]


@contextmanager
def running(path: Path, side: Side, group: Path | None) -> Iterator[Callable[[float], float]]:
    ours, theirs = SPAWN.Pipe()
    waits = {SPIN: {}, SLEEP: {"OMP_WAIT_POLICY": "passive"}}.get(side.policy or "", {})
    os.environ.update(waits)
    process = SPAWN.Process(target=side_process, args=(theirs, path, side, group), daemon=True)
    process.start()
    for name in waits:
        del os.environ[name]

    def once(seconds: float) -> float:
        ours.send(seconds)
        speed: float = ours.recv()
        return speed

    yield once
    ours.send(0.0)
    process.join()


def side_process(pipe: Connection, path: Path, side: Side, group: Path | None) -> None:
    if group is not None:
        (group / "cgroup.procs").write_text(str(os.getpid()))
    llama.start(io.StringIO())
    model = llama.Model(path, use_extra_bufts=False)
    waiting = nullcontext() if side.threads else llama.Waiting()
    hook = llama.EvalHook(*handlers(side.threads))
    context = llama.Context(model, n_ctx=512, n_threads=side.threads, eval_hook=hook)
    while seconds := pipe.recv():
        with waiting:
            context.truncate(0)
            context.decode(range(300, 300 + PROMPT))
            started, written = time.perf_counter(), 0
            while time.perf_counter() < started + seconds:
                context.truncate(PROMPT + written % REPLY)
                context.decode([300 + written % REPLY])
                written += 1
            speed = written / (time.perf_counter() - started)
        pipe.send(speed)


@contextmanager
def busy(n_loops: int) -> Iterator[None]:
    loops = [SPAWN.Process(target=loop, daemon=True) for _ in range(n_loops)]
    for each in loops:
        each.start()
    yield
    for each in loops:
        each.terminate()
        each.join()


def loop() -> None:
    parent = os.getppid()
    if hasattr(os, "setsid"):  # Linux divides the cores' time among sessions before processes
        os.setsid()
    while os.getppid() == parent:
        for _ in range(1_000_000):
            pass


@contextmanager
def quota() -> Iterator[Path | None]:
    """A group with half of the time of the cores; None where none can be made."""
    version, folder = next(cgroups.folders("cpu"), (0, Path()))
    group = folder / f"threads-{os.getpid()}"
    period = 100_000  # µs
    granted = period * cores.usable_cpus() // 2
    try:
        group.mkdir()
        if version == 1:
            (group / "cpu.cfs_period_us").write_text(str(period))
            (group / "cpu.cfs_quota_us").write_text(str(granted))
        else:
            (group / "cpu.max").write_text(f"{granted} {period}")
    except OSError:
        yield None
    else:
        yield group
    finally:
        if group.is_dir():
            group.rmdir()


if __name__ == "__main__":
    frame.run(__doc__, measure)
