"""``ondevice doctor``: what this machine can do, what is wrong with it, and how to fix it."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Literal

import click
import msgspec
import psutil

from ondevice import __version__, config, paths
from ondevice.cli._json import print_json
from ondevice.cli._kernels import compile_now
from ondevice.config import Settings
from ondevice.disk import speed as disk_speed
from ondevice.disk import states
from ondevice.errors import (
    ConfigError,
    MemoryShortError,
    ModelFileError,
    ModelNotFound,
    UsageError,
)
from ondevice.gguf import runnable
from ondevice.holding import kernels
from ondevice.holding.machine import Machine
from ondevice.holding.speeds import processor
from ondevice.planning import fit
from ondevice.planning.choice import choose
from ondevice.planning.planner import why
from ondevice.ram import available
from ondevice.system import children, cores
from ondevice.text import printable, reason, size

_MARKS = {"fine": "✓", "note": "!", "broken": "✗"}
_LITTLE_RAM = 500_000_000  # bytes; the smallest models need about 300 MB
_LITTLE_DISK = 2_000_000_000  # bytes
_WORTH_READING = 64_000_000  # bytes; reading a smaller file says little about the disk
_LOAD_LLAMA_S = 60.0
_LOAD_LLAMA = (
    "import ondevice.llama, llama_cpp; print(llama_cpp.llama_print_system_info().decode())"
)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the report."""

    topic: str
    text: str
    level: Literal["fine", "note", "broken"] = "fine"
    mend: str = ""  # what to do about it
    figures: dict[str, float] = {}  # what ``text`` says, as numbers for ``--json``


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def command(as_json: bool) -> int:
    """Check this machine: RAM, disk, versions and problems.

    The exit code is 1 if something is broken.
    """
    findings = []
    for finding in _examine():
        findings.append(finding)
        if not as_json:
            click.echo(printable(f"{_MARKS[finding.level]} {finding.topic:<10} {finding.text}"))
            if finding.mend:
                click.echo(printable(f"{'':12} → {finding.mend}"))
    fine = all(finding.level != "broken" for finding in findings)
    if as_json:
        print_json({"fine": fine, "findings": findings})
    return 0 if fine else 1


def _examine() -> Iterator[Finding]:
    yield _machine()
    settings = yield from _settings()
    yield from _folders()
    yield _ram(settings)
    yield _if_permitted("model", lambda: _model(settings))
    yield from _versions()
    yield _llama()
    yield _kernels()
    yield _if_permitted("disk", _disk_space)
    yield _if_permitted("chats", lambda: _states(settings))
    yield _if_permitted("disk speed", _disk_speed)  # the slowest last: the others are there at once


def _if_permitted(topic: str, look: Callable[[], Finding]) -> Finding:
    try:
        return look()
    except PermissionError as error:
        return Finding(
            topic=topic,
            text=f"{error.filename}: {reason(error)}",
            level="broken",
            mend="Fix its permissions, or set ONDEVICE_HOME to a folder of your own.",
        )


def _machine() -> Finding:
    cpus = os.cpu_count() or 1
    usable = cores.usable_cpus()
    physical = psutil.cpu_count(logical=False) or cpus
    computing = cores.default_threads()
    quota = cores.quota()
    limited = f" (a quota grants the time of {quota:.1f})" if quota else ""
    return Finding(
        topic="machine",
        text=f"{processor()}, {physical} cores, {usable} of {cpus} threads may be used{limited}, "
        f"{computing} compute; {platform.system()} {platform.release()}",
        figures={
            "cores": physical,
            "threads": cpus,
            "threads_usable": usable,
            "threads_computing": computing,
            **({"quota_cores": quota} if quota else {}),
        },
    )


def _settings() -> Generator[Finding, None, Settings]:
    file = paths.config_file()
    try:
        settings = config.load()
    except (ConfigError, UsageError) as error:
        yield Finding(
            topic="settings",
            text=str(error),
            level="broken",
            mend=f"Fix what is named here, or move {file} out of the way to use the defaults.",
        )
        return Settings()
    yield Finding(topic="settings", text=f"{file}{'' if file.exists() else ' (none: defaults)'}")
    for name, meant in config.misspelt().items():
        yield Finding(
            topic="settings",
            text=f"the environment variable {name} is not a setting and has no effect",
            level="note",
            mend=f"Did you mean {meant}? Rename it.",
        )
    return settings


def _folders() -> Iterator[Finding]:
    for name, folder in (
        ("data", paths.data_dir()),
        ("models", paths.models_dir()),
        ("cache", paths.cache_dir()),
        ("log", paths.log_dir()),
    ):
        existing = _existing(folder)
        if _takes_files(existing):
            yield Finding(topic=name, text=str(folder))
        else:
            yield Finding(
                topic=name,
                text=f"{folder} cannot be used: {existing} is not a folder you may write to",
                level="broken",
                mend="Fix its permissions, or set ONDEVICE_HOME to a folder of your own.",
            )
    for path in (paths.data_dir(), paths.store_file()):
        if os.name == "posix" and _existing(path) == path and path.stat().st_mode & 0o077:
            yield Finding(
                topic="privacy",
                text=f"other users of this machine can read {path}",
                level="note",
                mend=f"chmod go-rwx '{path}'"
                if _keeps_permissions(path.parent)
                else "Its disk keeps no permissions. Set ONDEVICE_HOME to a folder on another.",
            )


def _keeps_permissions(folder: Path) -> bool:
    """Whether a file that only its user should read is such there: FAT and exFAT have no modes."""
    with tempfile.TemporaryFile(dir=folder) as file:
        return not os.fstat(file.fileno()).st_mode & 0o077


def _takes_files(folder: Path) -> bool:
    """Whether files can be made there: tried, for to an administrator all looks permitted."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _existing(path: Path) -> Path:
    """``path``, or the nearest of its parents that exists."""
    for each in (path, *path.parents):
        with contextlib.suppress(OSError):  # of a folder that may not be entered
            if each.exists():
                return each
    return Path(path.anchor)


def _ram(settings: Settings) -> Finding:
    ram = available.look(settings.ram_limit)
    little = ram.available < _LITTLE_RAM
    return Finding(
        topic="RAM",
        text=f"{size(ram.available)} available of {size(ram.total)} ({ram.source})",
        level="note" if little else "fine",
        mend="Close other programs or raise the limit: even small models need 300 MB or more."
        if little
        else "",
        figures={"total_bytes": ram.total, "available_bytes": ram.available},
    )


def _model(settings: Settings) -> Finding:
    """Whether the model of the settings is there, sound, and fits."""
    try:
        choice = choose(settings)
        if choice.model.place == "server":
            return Finding(topic="model", text=f"on a server: {choice.model.name}")
        machine = Machine.now(settings.ram_limit)
        chosen = fit.plan_of(runnable.read(choice.model.path), choice.request, machine)
        file = chosen.file
    except ModelNotFound as error:
        return Finding(topic="model", text=str(error), level="note")
    except (ModelFileError, MemoryShortError) as error:
        return Finding(topic="model", text=str(error), level="broken")
    return Finding(
        topic="model",
        text=f"{file.name} {file.quantization}, {size(chosen.peak_bytes)} with a context of "
        f"{chosen.n_ctx} tokens. {why(chosen, machine.ram, settings.ctx)}",
        level="note" if chosen.streamed_bytes else "fine",
        mend="A smaller model may be faster: ondevice fit" if chosen.streamed_bytes else "",
        figures={"peak_bytes": chosen.peak_bytes, "streamed_bytes": chosen.streamed_bytes},
    )


def _versions() -> Iterator[Finding]:
    yield Finding(
        topic="versions",
        text=f"ondevice {__version__}, Python {platform.python_version()}, "
        f"llama-cpp-python {_version('llama-cpp-python')}, Textual {_version('textual')}",
    )
    try:
        from ondevice.store._sqlite import connect  # noqa: PLC0415 - may be what is broken

        with connect(":memory:") as connection:
            (sqlite,) = connection.execute("SELECT sqlite_version()").fetchone()
    except Exception as error:
        yield Finding(
            topic="SQLite",
            text=f"cannot be used: {reason(error)}",
            level="broken",
            mend=_reinstall("sqlcipher3"),
        )
    else:
        yield Finding(topic="SQLite", text=f"{sqlite}, from sqlcipher3 {_version('sqlcipher3')}")


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def _reinstall(package: str) -> str:
    return f"{sys.executable} -m pip install --force-reinstall --no-deps '{package}'"


def _llama() -> Finding:
    """Load the library in another process, as the engine does: it may crash."""
    needed = next(
        (each for each in _requirements() if each.startswith("llama-cpp-python")),
        "llama-cpp-python",
    )
    try:
        done = subprocess.run(
            [sys.executable, "-c", _LOAD_LLAMA],
            env=children.environment(),
            capture_output=True,
            text=True,
            timeout=_LOAD_LLAMA_S,
            check=True,
        )
    except subprocess.CalledProcessError as error:
        why = (error.stderr.strip() or f"it crashed ({error.returncode})").splitlines()[-1]
    except (OSError, subprocess.TimeoutExpired) as error:
        why = reason(error)
    else:
        pairs = (pair.split("=") for pair in done.stdout.rpartition(":")[2].split("|"))
        features = [name.strip() for name, *value in pairs if value and value[0].strip() == "1"]
        return Finding(topic="llama.cpp", text=f"loads; built for {', '.join(features)}")
    return Finding(
        topic="llama.cpp", text=f"does not load: {why}", level="broken", mend=_reinstall(needed)
    )


def _kernels() -> Finding:
    """Without what is written in C, the engine computes with llama.cpp's own."""
    problem = "" if kernels.are_compiled() else compile_now()
    return Finding(
        topic="kernels",
        text=problem or "compiled for this processor",
        level="note" if problem else "fine",
    )


def _requirements() -> list[str]:
    try:
        return importlib.metadata.requires("ondevice") or []
    except importlib.metadata.PackageNotFoundError:  # run from a folder, not installed
        return []


def _disk_space() -> Finding:
    folder = paths.models_dir()
    free = shutil.disk_usage(_existing(folder)).free
    little = free < _LITTLE_DISK
    return Finding(
        topic="disk",
        text=f"{size(free)} free for models in {folder}",
        level="note" if little else "fine",
        mend="Free some space: most models need 1 to 5 GB. A file on another disk can be used "
        "where it is: ondevice models import FILE --link"
        if little
        else "",
        figures={"free_bytes": free},
    )


def _states(settings: Settings) -> Finding:
    store = paths.store_file()
    most = settings.state_bytes(_existing(store.parent))
    there = states.usage(paths.states_dir(store))
    text = "nothing of what models have read is kept: keep_state is off"
    if most:
        text = (
            f"{size(there.n_bytes)} of at most {size(most)} for chats that go on at once, "
            f"{size(there.written_today)} of it written today"
        )
    return Finding(
        topic="chats",
        text=text,
        figures={
            "state_bytes": there.n_bytes,
            "state_most_bytes": most,
            "state_written_today_bytes": there.written_today,
        },
    )


def _disk_speed() -> Finding:
    files = (file for file in paths.models_dir().rglob("*") if file.is_file())
    largest = max(files, key=lambda file: file.stat().st_size, default=None)
    worth = largest is not None and largest.stat().st_size >= _WORTH_READING
    place = largest if largest and worth else _existing(paths.models_dir())
    try:
        speed = disk_speed.measure(place)
    except OSError as error:
        return Finding(
            topic="disk speed",
            text=f"could not be measured: {reason(error)}",
            level="note",
            mend="Nothing, if the lines above are fine: models that fit in RAM do not need it.",
        )
    return Finding(
        topic="disk speed",
        text=f"{size(speed.bytes_per_second)}/s, reading {size(speed.n_bytes)} of {place}"
        + ("" if speed.direct else "; the page cache could not be bypassed, so it may be less"),
        figures={"bytes_per_second": round(speed.bytes_per_second), "direct": speed.direct},
    )
