"""Sizing to RAM: does a plan come true, and does the engine make room when others need it?

*Budgets*: the engine is started under random memory limits, from the least with which a model runs
to 1.3 times what all of it takes, and told nothing; it plans, loads, reads a prompt of 512 tokens
and writes. ``peak_error_pct`` is the worst difference between the RAM that its process took at most
and what the plan said, ``speed_error_pct`` the median one of tokens a second, of which the better
of two replies counts: other programs only make it slower. ``oom_kills`` are processes that the
system killed, ``refused`` loads that the planner thought impossible.

*Pressure*: while replies stream, another process within the same limit takes 300 MB and releases
them. ``reaction_s``: from when it begins to take until the weights have made room; ``regrow_s``:
from the release until they are as before; ``stall_s``: the longest time between two pieces of a
reply; each the worst of all rounds. ``pressure_tokens_same``: the part of the replies that say the
same as without pressure.

``plan_ms``: to read the model's header, look at the machine and plan, with everything cached.

Files named ``*.stack.gguf`` in ``ONDEVICE_TEST_MODELS`` are taken along. Needs root or systemd-run.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import frame
from window import in_process

from ondevice import gguf
from ondevice.engine import Engine
from ondevice.errors import EngineDied, MemoryShortError
from ondevice.gguf import GGUFFile
from ondevice.holding.machine import Machine
from ondevice.holding.speeds import USUAL
from ondevice.messages import Chunk, Finished, Generate, Load, Sampling, Turn
from ondevice.planning.measuring import measure as measure_speeds
from ondevice.planning.planner import best_plan, least_ram, plan
from ondevice.ram import available
from ondevice.ram.available import AvailableRam

MODELS = (
    "smollm2-135m-instruct-q4_1.gguf",
    "qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
    "qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
)
PRESSED = MODELS[1]
TAKEN = 300_000_000  # bytes
BESIDE = 160_000_000  # bytes of the limit under pressure beyond what the model takes
ROOMY = 6_000_000_000
NEAR = 20_000_000  # bytes by which the weights may differ from before and count as the same
HELD_S, PATIENCE_S = 3.0, 20.0
TEXT = (Path(__file__).parent / "texts" / "prompt.txt").read_text(encoding="utf-8")
QUESTIONS = ("Explain tides to a child.", "Write a function that sorts words by length.")


def asking(text: str, n_tokens: int) -> Generate:
    return Generate(
        turns=(Turn("user", text),), sampling=Sampling(temperature=0), max_tokens=n_tokens
    )


# ------------------------------------------------------- in the process under the limit


def child(task: dict[str, Any]) -> None:
    """Do one run and print what came of it as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        engine = Engine(log=Path(folder) / "engine.log")
        try:
            print(json.dumps(RUNS[task["kind"]](engine, task)))
        except MemoryShortError as error:
            print(json.dumps({"refused": str(error)}))
        except EngineDied as error:
            print(json.dumps({"died": str(error)}))
        finally:
            engine.close()


def look(_engine: Engine, _task: dict[str, Any]) -> dict[str, Any]:
    """What of a limit can be used, with this process within it."""
    return {"usable": available.look().usable}


def once(engine: Engine, task: dict[str, Any]) -> dict[str, Any]:
    """One load and two replies."""
    loaded = engine.load(Load(path=task["model"]))
    assert loaded.expected is not None
    assert engine.sizing is not None
    result: dict[str, Any] = {
        "plan": loaded.plan,
        "n_ctx": loaded.n_ctx,
        "kv_type": loaded.kv_type,
        "expected_peak": loaded.expected.peak_bytes,
        "expected_per_second": loaded.expected.tokens_per_second,
        "expected_first_token_s": loaded.expected.first_token_s,
        "quality": loaded.expected.quality,
        "resident": [engine.sizing.resident_bytes],  # after the load, the prompt and each reply
        "per_second": [],
        "tokens_per_pass": [],
        "disk_bytes_per_second": [],
    }
    for event in engine.generate(asking(f"Sum this up:\n{TEXT}", 8)):
        if isinstance(event, Finished):
            result["first_token_s"] = event.statistics.prompt_ms / 1e3
            result["prompt_tokens"] = event.statistics.prompt_tokens
    result["resident"].append(engine.sizing.resident_bytes)
    for question in QUESTIONS:
        for event in engine.generate(asking(question, task["n_tokens"])):
            if isinstance(event, Finished):
                result["per_second"].append(event.statistics.generated_per_second)
                result["peak"] = event.statistics.peak_ram_bytes
                if streaming := event.statistics.streaming:
                    passes = event.statistics.generated_tokens - streaming.accepted_tokens
                    done = event.statistics.generated_tokens / passes
                    result["tokens_per_pass"].append(round(done, 3))
                    rate = streaming.bytes_read / max(streaming.read_ms, 1) * 1e3
                    result["disk_bytes_per_second"].append(round(rate))
        result["resident"].append(engine.sizing.resident_bytes)
    result["streamed"] = engine.sizing.absent_bytes
    return result


def pressed(engine: Engine, task: dict[str, Any]) -> dict[str, Any]:
    """Replies, first alone, and then while another process takes and releases memory."""
    with taker() as take:
        loaded = engine.load(Load(path=task["model"]))
        requests = [asking(question, task["n_tokens"]) for question in QUESTIONS]
        alone = ["".join(reply_of(engine, request)[0]) for request in requests]
        wait(engine, lambda: True)
        rounds: list[dict[str, float]] = []
        at_work = threading.Thread(target=press, args=(engine, take, task["rounds"], rounds))
        at_work.start()
        same, stall = [], 0.0
        while at_work.is_alive():
            for request, undisturbed in zip(requests, alone, strict=True):
                pieces, longest = reply_of(engine, request)
                same.append("".join(pieces) == undisturbed)
                stall = max(stall, longest)
    return {"plan": loaded.plan, "rounds": rounds, "same": same, "stall_s": stall}


def reply_of(engine: Engine, request: Generate) -> tuple[list[str], float]:
    """The pieces of a reply, and the longest time in seconds between two of them."""
    pieces: list[str] = []
    longest = last = 0.0
    for event in engine.generate(request):
        if isinstance(event, Chunk):
            now = time.perf_counter()
            longest = max(longest, now - last) if pieces else 0.0
            pieces.append(event.text)
            last = now
    return pieces, longest


def press(engine: Engine, take: Any, n_rounds: int, rounds: list[dict[str, float]]) -> None:
    """Take and release, and see how long the weights need to follow."""
    for _ in range(n_rounds):
        before = engine.sizing
        assert before is not None
        rest = max(before.room_bytes - TAKEN, before.least_bytes)
        started = time.perf_counter()
        take(True)
        taken = time.perf_counter()
        reached = wait(engine, partial(fits, engine, rest + NEAR))
        time.sleep(HELD_S)
        assert engine.sizing is not None
        small = engine.sizing.resident_bytes
        take(False)
        released = time.perf_counter()
        grown = wait(
            engine, lambda b=before: engine.sizing.resident_bytes >= b.resident_bytes - NEAR
        )
        rounds.append(
            {
                "reaction_s": reached - started,
                "taking_s": taken - started,
                "regrow_s": grown - released,
                "resident_before": before.resident_bytes,
                "resident_pressed": small,
            }
        )


def fits(engine: Engine, most: int) -> bool:
    return engine.sizing is not None and engine.sizing.resident_bytes <= most


def wait(engine: Engine, reached: Any) -> float:
    """When it was so, or when waiting was given up."""
    end = time.perf_counter() + PATIENCE_S
    while (now := time.perf_counter()) < end:
        if engine.sizing is not None and reached():
            break
        time.sleep(0.005)
    return now


@contextmanager
def taker() -> Iterator[Any]:
    """Another process of this limit; ``take(True)`` returns once it has ``TAKEN`` bytes."""
    script = (
        "import mmap, sys\n"
        "for line in sys.stdin:\n"
        "    if line == 'take\\n':\n"
        f"        held = mmap.mmap(-1, {TAKEN}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
        f"        for at in range(0, {TAKEN}, 4096): held[at] = 1\n"
        "    else:\n"
        "        held.close()\n"
        "    print(flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    orders, done = process.stdin, process.stdout
    assert orders is not None
    assert done is not None

    def take(yes: bool) -> None:
        orders.write("take\n" if yes else "release\n")
        orders.flush()
        if not done.readline():
            raise EngineDied("The process that takes memory was killed.")

    try:
        yield take
    finally:
        orders.close()
        process.wait()


RUNS = {"look": look, "once": once, "pressed": pressed}

# ------------------------------------------------------------------------- the parent


def run(kind: str, limit: int, model: Path, **more: Any) -> dict[str, Any]:
    """One run under a limit; one that is killed as a whole has died too."""
    task = {"kind": kind, "model": str(model), **more}
    try:
        answer = in_process("sizing", task, limit, model)
    except subprocess.CalledProcessError as error:
        answer = {"died": f"exit code {error.returncode}"}
    return {"kind": kind, "model": model.name, "limit": limit} | answer


def measure(quick: bool) -> tuple[frame.Figures, frame.Runs]:
    found = frame.models(*MODELS)
    folder = Path(os.environ.get("ONDEVICE_TEST_MODELS", ""))
    found += sorted(folder.glob("*.stack.gguf"))[:1]
    with tempfile.TemporaryDirectory(prefix="ondevice-bench-") as home:
        os.environ["ONDEVICE_HOME"] = home  # with this machine's speeds as they are now
        frame.say("measuring the processor and the disk")
        measure_speeds()
        runs = [
            *(one for path in found for one in budgets(path, 4 if quick else 15)),
            *(
                one
                for path in found
                if path.name == PRESSED
                for one in [under_pressure(path, quick)]
            ),
        ]
        figures = figures_of(runs)
        if found:
            figures["plan_ms"] = max(map(plan_ms, found))
    return figures, runs


def budgets(model: Path, count: int) -> Iterator[dict[str, Any]]:
    chosen = random.Random(model.name)
    file = gguf.read(model)
    limit = most_ram(file) * 2
    beside = limit - run("look", limit, model)["usable"]
    low, high = least_ram(file) + beside, int(1.3 * most_ram(file)) + beside
    for _ in range(count):
        limit = chosen.randrange(low, high)
        frame.say(f"{model.name}, {limit / 1e6:.0f} MB of {low / 1e6:.0f} to {high / 1e6:.0f}")
        result = run("once", limit, model, n_tokens=48)
        frame.say(json.dumps(result))
        yield result


def under_pressure(model: Path, quick: bool) -> dict[str, Any]:
    # All of it fits, but not twice, so that it is held as pages that can be given up.
    limit = most_ram(gguf.read(model)) + BESIDE
    frame.say(f"{model.name} under pressure, {limit / 1e6:.0f} MB")
    result = run("pressed", limit, model, n_tokens=100, rounds=3 if quick else 10)
    frame.say(json.dumps(result))
    return result


def most_ram(file: GGUFFile) -> int:
    """Bytes with which nothing is given up."""
    roomy = Machine(AvailableRam(1 << 50, 1 << 50, "all RAM of this machine"), USUAL)
    return best_plan(file, Load(path=str(file.path)), roomy).peak_bytes


def plan_ms(model: Path) -> float:
    times = []
    for _ in range(7):
        started = time.perf_counter()
        with suppress(MemoryShortError):
            plan(gguf.read(model), Load(path=str(model)), Machine.now(600_000_000))
        times.append((time.perf_counter() - started) * 1e3)
    return frame.median(times)


def figures_of(runs: frame.Runs) -> frame.Figures:
    single = [run for run in runs if run["kind"] == "once"]
    done = [run for run in single if "peak" in run]
    figures: frame.Figures = {
        "budgets": len(single),
        "oom_kills": sum("died" in run for run in single),
        "refused": sum("refused" in run for run in single),
    }
    if done:
        figures["peak_error_pct"] = max(
            abs(run["peak"] / run["expected_peak"] - 1) * 100 for run in done
        )
        figures["speed_error_pct"] = frame.median(
            abs(max(run["per_second"]) / run["expected_per_second"] - 1) * 100 for run in done
        )
        figures["first_token_error_pct"] = frame.median(
            abs(
                run["first_token_s"] * 512 / run["prompt_tokens"] / run["expected_first_token_s"]
                - 1
            )
            * 100
            for run in done
        )
    pressure = [run for run in runs if run["kind"] == "pressed"]
    if pressure:
        figures["pressure_kills"] = sum("died" in run for run in pressure)
    rounds = [one for run in pressure for one in run.get("rounds", ())]
    for name in ("reaction_s", "regrow_s") if rounds else ():
        figures[name] = max(one[name] for one in rounds)
    if rounds:
        figures["stall_s"] = max(run["stall_s"] for run in pressure if "rounds" in run)
        figures["pressure_tokens_same"] = frame.mean(
            same for run in pressure for same in run.get("same", ())
        )
    return figures


if __name__ == "__main__":
    frame.run(__doc__, measure)
