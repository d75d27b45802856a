"""What is written in C."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from source_tree import ROOT

from ondevice import paths
from ondevice.errors import NativeError
from ondevice.holding.stack import _encoding, _planes
from ondevice.llama import _attention, _eval_hook
from ondevice.products import _kernels
from ondevice.system import compiled

SOURCES = [module.SOURCE for module in (_attention, _encoding, _eval_hook, _kernels, _planes)]


def test_a_digest_tells_all_c_of_a_package_apart_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    found = {}
    for name, source, header, other in (
        ("first", "1", "1", "1"),
        ("same", "1", "1", "2"),
        ("source", "2", "1", "1"),
        ("header", "1", "2", "1"),
    ):
        (folder := tmp_path / f"package_{name}").mkdir()
        for file, text in (("__init__.py", other), ("_a.c", source), ("_b.h", header)):
            (folder / file).write_text(text)
        found[name] = compiled.digest(folder.name)
    assert found["first"] == found["same"]
    assert len(set(found.values())) == 3


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> compiled.CSource:
    """Something that is compiled at once, kept in a folder of its own."""
    if compiled.find_compiler() is None:
        pytest.skip("needs a C compiler")
    package = f"small_{tmp_path.name}"
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
    (tmp_path / package / "_a.c").write_text("int answer(void) { return 42; }")
    monkeypatch.syspath_prepend(str(tmp_path))
    return compiled.CSource("small", package, ("_a.c",))


def kept(source: compiled.CSource) -> Path:
    (file,) = paths.cache_dir().glob(f"{source.name}-*.so")
    return file


def test_a_damaged_library_is_compiled_again(small: compiled.CSource) -> None:
    """The power may fail while it is written."""
    assert compiled.library(small).answer() == 42
    for damage in (b"", b"\x7fELF, and no more"):
        (file := kept(small)).unlink()  # what is loaded must not change
        file.write_bytes(damage)
        assert compiled.library(small).answer() == 42


def test_of_several_processes_one_compiles_and_the_others_wait(
    small: compiled.CSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when several windows are opened at the first start."""
    log, begun = tmp_path / "log", tmp_path / "begun"
    begun.mkdir()
    slow = tmp_path / "slow"  # it goes on when all have begun
    slow.write_text(
        f"#!/bin/sh\necho compiled >> {log}\n"
        f"while [ $(ls {begun} | wc -l) -lt 3 ]; do sleep 0.05; done\nsleep 0.3\n"
        f'exec {compiled.find_compiler()} "$@"\n'
    )
    slow.chmod(0o755)
    monkeypatch.setenv("CC", str(slow))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(tmp_path)]))
    code = (
        "import sys, pathlib\nfrom ondevice.system import compiled\n"
        "pathlib.Path(sys.argv[2]).touch()\n"
        "source = compiled.CSource('small', sys.argv[1], ('_a.c',))\n"
        "print(compiled.library(source).answer())"
    )
    command = [sys.executable, "-c", code, small.package]
    processes = [
        subprocess.Popen([*command, str(begun / str(each))], stdout=subprocess.PIPE, text=True)
        for each in range(3)
    ]
    assert [process.communicate()[0] for process in processes] == ["42\n"] * 3
    assert log.read_text() == "compiled\n"


def test_where_nothing_may_be_run_from_the_cache_a_copy_is_loaded(
    small: compiled.CSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, loaded = ctypes.CDLL, []

    def no_exec(path: str) -> ctypes.CDLL:
        loaded.append(path)
        if Path(path).is_relative_to(paths.cache_dir()):
            raise OSError(f"{path}: failed to map segment from shared object")
        return load(path)

    monkeypatch.setattr(ctypes, "CDLL", no_exec)
    for _ in range(2):
        assert compiled.library(small).answer() == 42
        monkeypatch.setattr(compiled, "_compile", lambda *_: pytest.fail("compiled again"))
    monkeypatch.setattr(compiled, "_compile", lambda _source, _texts, path: path.touch())
    kept(small).unlink()
    with pytest.raises(NativeError, match=r"this system does not load it.* TMPDIR"):
        compiled.library(small)


def test_where_nothing_can_be_kept_it_is_used_all_the_same(
    small: compiled.CSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(compiled, "replacing", full)
    assert compiled.library(small).answer() == 42
    assert not list(paths.cache_dir().glob("*.so"))
    monkeypatch.setattr(tempfile, "mkdtemp", full)
    with pytest.raises(NativeError, match=r"No space left on device\. Set TMPDIR"):
        compiled.library(small)


@pytest.mark.parametrize(
    ("compiler", "processor"),
    [
        ("gcc", "x86-64-v2"),
        ("gcc", "x86-64-v3"),
        ("gcc", "icelake-server"),  # AVX-512 and VNNI
        ("aarch64-linux-gnu-gcc", "armv8-a"),
        ("aarch64-linux-gnu-gcc", "armv8.2-a+dotprod"),
    ],
)
def test_it_compiles_with_no_vector_wider_than_those_of_the_processor(
    tmp_path: Path, compiler: str, processor: str
) -> None:
    """Such a one would lie in memory, and what computes with it take ten times as long."""
    if not shutil.which(compiler):
        pytest.skip(f"needs {compiler}")
    if compiler == "gcc" and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("needs a gcc for x86")
    warn = ("-Wvector-operation-performance", "-Werror=vector-operation-performance")
    for source in SOURCES:
        for name, text in source.texts().items():
            (tmp_path / name).write_bytes(text)
        flags = [flag for flag in source.flags if flag != "-w"]
        command = [compiler, f"-march={processor}", "-std=gnu11", *flags, *warn, source.files[0]]
        done = subprocess.run(
            [*command, "-S", "-o", "unread.s"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
