"""Files are written whole or not at all, and whoever is killed meanwhile leaves nothing else."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from source_tree import ROOT

from ondevice import paths
from ondevice.engine import _registry
from ondevice.messages import Sizing
from ondevice.system.compiled import find_compiler
from ondevice.system.whole_file import replacing

NUMBER = re.compile(r"\d+(?=\.json)")

#: Name → what writes a file below the working directory, twice: the second time it is there.
WRITERS = {
    "an export": """
        from ondevice.system.whole_file import written
        for replace in (False, True):
            with written(Path("export.json"), replace=replace) as file:
                file.write(b"1")""",
    "a setting": """
        from ondevice import config
        for value in "12":
            config.change(config.Settings(), "threads", value)""",
    "the cache": """
        from ondevice.system.cached import write_cache
        for value in (b"1", b"2"):
            write_cache("name.json", value)""",
    "a state": """
        from ondevice.engine._state_files import Head, StateFolder
        from ondevice.disk.states import wrote
        from ondevice.messages import StateKey
        folder = StateFolder(Path(), StateKey("own", b"k" * 32))
        Path("own").mkdir(exist_ok=True)
        for value in (b"1", b"2"):
            folder.write(Head("ab" * 16, "", (1, 2)), value)
            wrote(Path(), 1)""",
    "where a model is from": """
        from ondevice.models._own_folder import write_provenance
        from ondevice.models._records import Provenance
        for value in "12":
            write_provenance(Path(), Provenance(origin=value, sha256=()))""",
    "what an engine holds": """
        from ondevice.engine import _registry
        from ondevice.messages import Sizing
        sizing = Sizing(
            budget=None, resident_bytes=0, absent_bytes=0, least_bytes=0, most_bytes=0,
            room_bytes=0, limit_bytes=0, limit_source="",
        )
        for value in "12":
            _registry.tell(value, sizing)""",
    "what is compiled": """
        from ondevice.system import compiled
        compiled.place_to_keep = lambda package: Path()
        compiled.kept = lambda package, name: None
        for value in "12":
            compiled.library(compiled.CSource("small", "small", ("_a.c",)))""",
}

#: Forks for each moment, and kills what writes before the n-th file that it opens or names. Only
#: between a name beside the old file and its place there is no moment in which nothing is left.
KILLED = """
import itertools, json, os, signal, sys
from pathlib import Path

code, top = sys.argv[1], Path(sys.argv[2])
EVENTS = ("open", "os.link", "os.remove", "os.chmod", "os.mkdir", "subprocess.Popen")

def child(moment):
    os.chdir(top / str(moment))
    os.environ["ONDEVICE_HOME"] = os.getcwd()
    asked = 0

    def look(event, arguments):
        nonlocal asked
        if event in EVENTS:
            asked += 1
            if asked == moment:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(look)
    exec(code, {"Path": Path})

(top / "0").mkdir()
os.chdir(top / "0")
os.environ["ONDEVICE_HOME"] = os.getcwd()
exec(code, {"Path": Path})  # whole, and what it imports is there
for moment in itertools.count(1):
    (top / str(moment)).mkdir()
    if (pid := os.fork()) == 0:
        try:
            child(moment)
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    code_of = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code_of in (0, -signal.SIGKILL), code_of
    if code_of == 0:
        break
"""


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="elsewhere a file has a name at once")
@pytest.mark.parametrize("kind", WRITERS)
def test_who_is_killed_leaves_nothing_half_written(tmp_path: Path, kind: str) -> None:
    if kind == "what is compiled" and find_compiler() is None:
        pytest.skip("needs a C compiler")
    package = tmp_path / "packages" / "small"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "_a.c").write_text("int answer(void) { return 42; }")
    top = tmp_path / "moments"
    for folder in (top, tmp_path / "temporary"):
        folder.mkdir()
    code = textwrap.dedent(WRITERS[kind])
    subprocess.run(
        [sys.executable, "-c", KILLED, code, top],
        env={
            **os.environ,
            "TMPDIR": str(tmp_path / "temporary"),
            "PYTHONPATH": os.pathsep.join((str(package.parent), str(ROOT))),
        },
        check=True,
    )

    def names(at: Path) -> set[str]:
        files = (file.relative_to(at) for file in at.rglob("*") if file.is_file())
        return {NUMBER.sub("N", str(file)) for file in files}  # of a process

    whole, *killed = sorted(top.iterdir(), key=lambda folder: int(folder.name))
    assert len(killed) > 3
    for folder in killed:
        assert names(folder) <= names(whole), folder.name
    contents = {file.read_bytes() for folder in killed for file in folder.rglob("*.json")}
    assert b"" not in contents


def make_lack(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """Have the file system be one that lacks it."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if what == "links":
        monkeypatch.setattr(os, "link", refuse)
    elif what != "nothing":
        monkeypatch.delattr(os, "O_TMPFILE", raising=False)


@pytest.mark.parametrize("lacks", ["nothing", "files without a name", "links"])
def test_what_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    make_lack(monkeypatch, lacks)
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), replacing(path) as file:
        file.write(b"new")
        raise ZeroDivisionError
    resource = pytest.importorskip("resource")
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, usual[1]))  # as on a disk that is full
    try:
        with pytest.raises(OSError, match="large"), replacing(path) as file:
            file.write(b"new" * 100)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("lacks", ["nothing", "files without a name", "links"])
def test_a_link_stays_and_its_target_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    make_lack(monkeypatch, lacks)
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    with replacing(link) as file:
        file.write(b"new")
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o600
    assert sorted(tmp_path.iterdir()) == [link, target]


@pytest.mark.parametrize("lacks", ["nothing", "files without a name", "links"])
def test_a_new_file_takes_nobodys_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacks: str
) -> None:
    make_lack(monkeypatch, lacks)
    path = tmp_path / ("f" * 255)  # as long as a name can be
    with replacing(path, new=True) as file:
        file.write(b"first")
    with pytest.raises(FileExistsError), replacing(path, new=True) as file:
        file.write(b"second")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_what_engines_have_left_goes_with_the_next_one() -> None:
    sizing = Sizing(
        budget=None,
        resident_bytes=0,
        absent_bytes=0,
        least_bytes=0,
        most_bytes=0,
        room_bytes=0,
        limit_bytes=0,
        limit_source="",
    )
    _registry.tell("model", sizing)
    (ours,) = (paths.cache_dir() / "engines").iterdir()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    ours.rename(ours.with_stem(str(ended.pid)))
    _registry.tell("model", sizing)
    assert list(ours.parent.iterdir()) == [ours]
